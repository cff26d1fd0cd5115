"""Sequences of different lengths in one batch: SequenceMask, SequenceLast, SequenceReverse."""

from __future__ import annotations

import numpy as np

from ..graph import TensorType
from .context import Context, Value
from .indexing import chosen, counted, whole
from .registry import Unsupported, operator
from .reshaping import cut, flipped
from .schema import Attributes


def _lengths(a: Attributes, data: Value, lengths: Value | None) -> Value | None:
    """The lengths, where they are used; the data's time is on ``axis`` (0 or 1), the batch on the other."""
    if data.rank < 2 or a.axis not in (0, 1):
        raise Unsupported(f"axis={a.axis} of data with {data.rank} axes; time and batch must be the first two")
    if not a.use_sequence_length:
        return None
    if lengths is None:
        raise Unsupported("use_sequence_length is set, and there are no lengths")
    return lengths


@operator("SequenceMask")
def sequence_mask(cx: Context, a: Attributes, data: Value, sequence_length: Value | None = None) -> Value:
    """The data with ``value`` after the end of each sequence."""
    lengths = _lengths(a, data, sequence_length)
    if lengths is None:
        a.ignore("value")
        return data
    time, batch = data.shape[a.axis], data.shape[1 - a.axis]
    steps = cx.unsqueeze(counted(cx, data, a.axis), 1 - a.axis)
    ends = cx.unsqueeze(whole(cx, lengths), a.axis)
    shape = (time, batch) if a.axis == 0 else (batch, time)
    inside = cx.op("Less", steps, ends, type=TensorType(np.dtype(bool), shape))
    inside = cx.unsqueeze(inside, *range(2, data.rank))
    return chosen(cx, inside, data, cx.const(np.array(a.value).astype(data.dtype)))


@operator("SequenceLast")
def sequence_last(cx: Context, a: Attributes, data: Value, sequence_length: Value | None = None) -> Value:
    """The last step of each sequence."""
    lengths = _lengths(a, data, sequence_length)
    if lengths is None:
        return _last(cx, data, a.axis)
    batch_first = cx.transpose(data, (1, 0, *range(2, data.rank))) if a.axis == 0 else data
    last = cx.op(
        "Sub", whole(cx, lengths), cx.const(np.array(1, np.int64)), type=TensorType(np.dtype(np.int64), lengths.shape)
    )
    kind = TensorType(data.dtype, (batch_first.shape[0], *batch_first.shape[2:]))
    return cx.op("GatherND", batch_first, cx.unsqueeze(last, 1), type=kind, batch_dims=1)


def _last(cx: Context, data: Value, axis: int) -> Value:
    kind = TensorType(data.dtype, (*data.shape[:axis], *data.shape[axis + 1 :]))
    size = data.shape[axis]
    if isinstance(size, int):
        return cx.squeeze(cut(cx, data, axis, size - 1, size), axis)
    return cx.op("Gather", data, cx.const(np.array(-1, np.int64)), type=kind, axis=axis)


@operator("SequenceReverse")
def sequence_reverse(cx: Context, a: Attributes, data: Value, sequence_length: Value | None = None) -> Value:
    """Each sequence backwards, what follows its end unchanged."""
    if a.axis != 0:
        raise Unsupported(f"axis={a.axis}; MXNet takes 0 only")
    lengths = _lengths(a, data, sequence_length)
    if lengths is None:
        return flipped(cx, data, (0,))
    return cx.op("ReverseSequence", data, whole(cx, lengths), type=data.type, time_axis=0, batch_axis=1)
