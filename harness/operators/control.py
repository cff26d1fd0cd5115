"""Control flow: _foreach is Scan, _while_loop is Loop, _cond is If. Bodies use outer values and constants as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator
from .schema import Attributes

_FLAG = TensorType(np.dtype(bool), ())
_NUMBER = TensorType(np.dtype(np.int64), ())


@operator("_foreach", ignore=("num_outputs",))
def foreach(cx: Context, a: Attributes, *inputs: Value) -> list[Value]:
    """The body for each slice of the data along axis 0: stacked outputs, then the last states.

    The inputs are the data, the states, and what else the body uses; the attributes tell their places in the body.
    """
    data_places, state_places, stacked = a.in_data_locs, a.in_state_locs, a.num_out_data
    data = inputs[: len(data_places)]
    states = inputs[len(data) : len(data) + len(state_places)]
    rest = inputs[len(data) + len(states) :]
    if not data:
        raise Unsupported("it has no data to walk over")
    length = data[0].shape[0]

    def body(*formal: Value) -> list[Value]:
        current = dict(zip([*state_places, *data_places, *a.remain_locs], [*formal, *rest], strict=True))
        results = cx.inline(0, [current[place] for place in sorted(current)])
        after = results[stacked:]
        _check_same("state", states, after)
        return [*after, *results[:stacked]]

    slices = [TensorType(value.dtype, value.shape[1:]) for value in data]
    graph, types = cx.subgraph("foreach", [*(value.type for value in states), *slices], body)
    last, outs = types[: len(states)], types[len(states) :]
    outs = [TensorType(kind.dtype, (length, *kind.shape)) for kind in outs]
    found = cx.ops(
        "Scan", *states, *data, outputs=len(types), types=[*last, *outs], body=graph, num_scan_inputs=len(data)
    )  # fmt: skip
    return [*found[len(states) :], *found[: len(states)]]


@operator("_while_loop", ignore=("num_outputs",))
def while_loop(cx: Context, a: Attributes, *inputs: Value) -> list[Value]:
    """The body while the condition holds, ``max_iterations`` times at most: outputs stacked to that length, then the
    loop's variables. Steps that were not taken are 0.
    """
    stacked, limit = a.num_out_data, a.max_iterations
    places = [a.func_input_locs[k] for k in a.func_var_locs]
    start = [inputs[place] for place in places]

    def going_on(variables: Sequence[Value]) -> Value:
        current = _replaced(inputs, places, variables)
        return _flag(cx, cx.inline(0, [current[k] for k in a.cond_input_locs])[0])

    shapes: list[TensorType] = []

    def step(variables: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        current = _replaced(inputs, places, variables)
        results = cx.inline(1, [current[k] for k in a.func_input_locs])
        _check_same("loop variable", start, results[stacked:])
        return results[:stacked], results[stacked:]

    def dry(*variables: Value) -> list[Value]:
        shapes.extend(value.type for value in step(variables)[0])
        return []

    cx.subgraph("probe", [value.type for value in start], dry)
    buffers = [TensorType(kind.dtype, (limit, *kind.shape)) for kind in shapes]
    if not all(kind.is_static for kind in buffers):
        raise Unsupported("the sizes of what it stacks must be known at compile time; give them fixed sizes in inputs=")
    empty = [cx.const(np.zeros([static(size, "a size") for size in kind.shape], kind.dtype)) for kind in buffers]

    def body(number: Value, _going: Value, *values: Value) -> list[Value]:
        variables, kept = values[: len(start)], values[len(start) :]
        outs, after = step(variables)
        filled = []
        for value, buffer in zip(outs, kept):
            here = cx.op("Equal", cx.const(np.arange(limit).reshape(-1, *[1] * value.rank)), number)
            filled.append(cx.op("Where", here, cx.unsqueeze(value, 0), buffer, type=buffer.type))
        return [going_on(after), *after, *filled]

    carried = [*(value.type for value in start), *buffers]
    graph, _ = cx.subgraph("while", [_NUMBER, _FLAG, *carried], body)
    found = cx.ops(
        "Loop", cx.const(limit, np.int64), going_on(start), *start, *empty, outputs=len(carried), types=carried, body=graph
    )  # fmt: skip
    return [*found[len(start) :], *found[: len(start)]]


@operator("_cond")
def cond(cx: Context, a: Attributes, *inputs: Value) -> list[Value]:
    """One of two bodies, by a condition of one element."""
    flag = _flag(cx, cx.inline(0, [inputs[k] for k in a.cond_input_locs])[0])
    branches = []
    for number, places in ((1, a.then_input_locs), (2, a.else_input_locs)):
        chosen = [inputs[k] for k in places]
        branches.append(cx.subgraph("branch", [], lambda n=number, v=chosen: cx.inline(n, v)))
    (then, types), (other, other_types) = branches
    if types != other_types or len(types) != a.num_outputs:
        raise Unsupported(f"its branches give {', '.join(map(str, types))} and {', '.join(map(str, other_types))}")
    return cx.ops("If", flag, outputs=len(types), types=types, then_branch=then, else_branch=other)


def _flag(cx: Context, value: Value) -> Value:
    """A condition of one element as a boolean without axes."""
    return cx.reshape(cx.cast(value, bool), ())


def _replaced(inputs: Sequence[Value], places: Sequence[int], values: Sequence[Value]) -> list[Value]:
    current = list(inputs)
    for place, value in zip(places, values, strict=True):
        current[place] = value
    return current


def _check_same(what: str, before: Sequence[Value], after: Sequence[Value]) -> None:
    for old, new in zip(before, after, strict=True):
        if old.type != new.type:
            raise Unsupported(f"a {what} changes its type from {old.type} to {new.type}")
