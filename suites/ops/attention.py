"""Interleaved attention: how its shapes are drawn."""

from __future__ import annotations

from .case import Attributes, Draw, Inputs, Spec, Tensor


def _sizes(d: Draw, a: Attributes) -> tuple[int, int, int, int]:
    length, batch, depth = d.sizes(3, 1, 4)
    return length, batch, depth, a["heads"]


def self_scores(d: Draw, a: Attributes) -> Inputs:
    length, batch, depth, heads = _sizes(d, a)
    return {"queries_keys_values": Tensor((length, batch, heads * 3 * depth), dynamic=(0, 1))}


def self_values(d: Draw, a: Attributes) -> Inputs:
    length, batch, depth, heads = _sizes(d, a)
    return {
        "queries_keys_values": Tensor((length, batch, heads * 3 * depth)),
        "attention": Tensor((batch * heads, length, length)),
    }


def cross_scores(d: Draw, a: Attributes) -> Inputs:
    length, batch, depth, heads = _sizes(d, a)
    return {
        "queries": Tensor((d.integer(1, 4), batch, heads * depth)),
        "keys_values": Tensor((length, batch, heads * 2 * depth)),
    }


def cross_values(d: Draw, a: Attributes) -> Inputs:
    length, batch, depth, heads = _sizes(d, a)
    return {
        "keys_values": Tensor((length, batch, heads * 2 * depth)),
        "attention": Tensor((batch * heads, d.integer(1, 4), length)),
    }


SPECS = [
    Spec(
        f"_contrib_interleaved_matmul_{name}",
        {"heads": [1, 2, 3]},
        build,
        terms=lambda a, i: 4,
        reference_dtype="float32",
    )
    for name, build in {
        "selfatt_qk": self_scores,
        "selfatt_valatt": self_values,
        "encdec_qk": cross_scores,
        "encdec_valatt": cross_values,
    }.items()
]
