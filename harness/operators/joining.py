"""Joining and splitting: Concat, stacks, splits, Khatri-Rao products."""

from __future__ import annotations

from .context import Context, Value
from .registry import operator
from .schema import Attributes


@operator("Concat")
def concat(cx: Context, a: Attributes, *data: Value) -> Value:
    """Tensors joined along ``dim``."""
    return cx.concat(list(data), a.dim % data[0].rank)
