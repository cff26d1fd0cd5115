"""Multi-head attention over interleaved projections: heads lie side by side, each with its query, key and value.

Definitions: MXNet's ``src/operator/contrib/transformer.cc`` (its docstrings give them as reshapes and batch_dot).
"""

from __future__ import annotations

import math

import numpy as np

from .context import Context, Value, static
from .registry import Unsupported, operator
from .schema import Attributes


@operator("_contrib_interleaved_matmul_selfatt_qk")
def self_attention_scores(cx: Context, a: Attributes, queries_keys_values: Value) -> Value:
    """``q @ k.T / sqrt(depth)`` per head: (length, batch, heads * 3 * depth) to (batch * heads, length, length)."""
    return self_scores(cx, a.heads, queries_keys_values)


@operator("_contrib_interleaved_matmul_selfatt_valatt")
def self_attention_values(cx: Context, a: Attributes, queries_keys_values: Value, attention: Value) -> Value:
    """``attention @ v`` per head, heads side by side again: (length, batch, heads * depth)."""
    return self_values(cx, a.heads, queries_keys_values, attention)


@operator("_contrib_interleaved_matmul_encdec_qk")
def cross_attention_scores(cx: Context, a: Attributes, queries: Value, keys_values: Value) -> Value:
    """``q @ k.T / sqrt(depth)`` per head, with keys and values of another sequence."""
    return _scores(cx, _parts(cx, queries, a.heads, 1)[0], _parts(cx, keys_values, a.heads, 2)[0])


@operator("_contrib_interleaved_matmul_encdec_valatt")
def cross_attention_values(cx: Context, a: Attributes, keys_values: Value, attention: Value) -> Value:
    """``attention @ v`` per head, with values of another sequence."""
    return _weighted(cx, _parts(cx, keys_values, a.heads, 2)[1], attention, keys_values, a.heads)


def self_scores(cx: Context, heads: int, queries_keys_values: Value) -> Value:
    """The scores of self-attention."""
    query, key, _ = _parts(cx, queries_keys_values, heads, 3)
    return _scores(cx, query, key)


def self_values(cx: Context, heads: int, queries_keys_values: Value, attention: Value) -> Value:
    """The values that self-attention sums."""
    return _weighted(cx, _parts(cx, queries_keys_values, heads, 3)[2], attention, queries_keys_values, heads)


def _parts(cx: Context, x: Value, heads: int, count: int) -> list[Value]:
    """(length, batch, heads * count * depth) as ``count`` values of (length, batch * heads, depth)."""
    if x.rank != 3:
        raise Unsupported(f"its input {x.type} has {x.rank} axes; 3 are needed: length, batch, projections")
    width = static(x.shape[2], "the size of the projections")
    if heads < 1 or width % (heads * count):
        raise Unsupported(f"{width} projections do not divide among {heads} heads of {count} part(s)")
    depth, rows = width // heads // count, x.shape[1] * heads
    if count == 1:
        return [cx.reshape(x, (x.shape[0], rows, depth))]
    split = cx.reshape(x, (x.shape[0], rows, count, depth))
    return [cx.op("Gather", split, cx.const(np.array(i, np.int64)), axis=2) for i in range(count)]


def _scores(cx: Context, query: Value, key: Value) -> Value:
    scale = cx.const(np.array(1 / math.sqrt(static(query.shape[2], "the depth")), query.dtype))
    scaled = cx.op("Mul", query, scale, type=query.type)
    return cx.op("MatMul", cx.transpose(scaled, [1, 0, 2]), cx.transpose(key, [1, 2, 0]))


def _weighted(cx: Context, value: Value, attention: Value, source: Value, heads: int) -> Value:
    summed = cx.op("MatMul", attention, cx.transpose(value, [1, 0, 2]))
    rows = cx.transpose(summed, [1, 0, 2])
    width = static(value.shape[2], "the depth") * heads
    return cx.reshape(rows, (rows.shape[0], source.shape[1], width), source)
