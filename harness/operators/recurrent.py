"""RNN: vanilla, LSTM and GRU, stacked and bidirectional, from MXNet's one vector of parameters.

Layout of the vector (``src/operator/rnn-inl.h``): for each layer, for each direction, the weights of the input, of
the state and (LSTM with projection) of the projection; then in the same order the two biases. Gates: LSTM i f g o,
GRU r z n, where the reset applies to the product with the state's bias (ONNX: ``linear_before_reset``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dims import Shape, is_static
from ..graph import TensorType
from .context import Context, Value, static
from .indexing import counted
from .registry import Unsupported, operator
from .schema import Attributes

_ONNX_TYPE = {"rnn_relu": "RNN", "rnn_tanh": "RNN", "lstm": "LSTM", "gru": "GRU"}
_GATES = {"rnn_relu": (0,), "rnn_tanh": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}  # MXNet's gates in ONNX's order


@dataclass(frozen=True, slots=True)
class _Cell:
    """One direction of one layer: its weights in MXNet's gate order."""

    input_weight: Value
    state_weight: Value
    projection: Value | None
    input_bias: Value
    state_bias: Value


@operator("RNN", ignore=("p",))
def rnn(cx: Context, a: Attributes, data: Value, parameters: Value, state: Value, *more: Value) -> list[Value]:
    """Outputs (length, batch, directions * size) and, with ``state_outputs``, the last states (layers * directions, ...)."""
    lstm, rest = a.mode == "lstm", list(more)
    cell = rest.pop(0) if lstm and rest else None
    lengths = _lengths(cx, rest.pop(0)) if a.use_sequence_length and rest else None
    if rest or (a.use_sequence_length and lengths is None) or (lstm and cell is None):
        raise Unsupported(f"it has {3 + len(more)} inputs, which do not fit mode={a.mode} with its attributes")
    if a.projection_size is not None and not lstm:
        raise Unsupported(f"projection_size with mode={a.mode}; only lstm has projections")
    limits = _limits(a)
    if data.rank != 3:
        raise Unsupported(f"its data have {data.rank} axes; 3 are needed: length, batch, features")
    directions = 2 if a.bidirectional else 1
    cells = _unpack(cx, a, parameters, static(data.shape[2], "the number of features"), directions)
    x, last_states, last_cells = data, [], []
    for layer in range(a.num_layers):
        here = slice(layer * directions, (layer + 1) * directions)
        rows = (a.num_layers * directions, data.shape[1])
        hidden = _initial(cx, state, here, (*rows, a.projection_size or a.state_size))
        memory = _initial(cx, cell, here, (*rows, a.state_size)) if cell is not None else None
        if a.projection_size is None and limits is None:
            x, end, end_cell = _layer(cx, a, x, cells[here], hidden, memory, lengths)
        else:
            x, end, end_cell = _scanned_layer(cx, a, x, cells[here], hidden, memory, lengths, limits)
        last_states.append(end)
        last_cells.append(end_cell)
    if not a.state_outputs:
        return [x]
    ends = [cx.concat(last_states, 0)]
    return [x, *ends, cx.concat([c for c in last_cells if c is not None], 0)] if lstm else [x, *ends]


def _lengths(cx: Context, lengths: Value) -> Value:
    """The length of each sequence of the batch; outputs behind it are 0, and last states are those at it."""
    return cx.cast(lengths, np.int32)


def _limits(a: Attributes) -> tuple[float, float] | None:
    """The range in which the cell state of an LSTM is kept."""
    limits = (a.lstm_state_clip_min, a.lstm_state_clip_max)
    a.ignore("lstm_state_clip_nan")  # whether NaN becomes a limit, and which, is cuDNN's choice
    if limits == (None, None):
        return None
    if None in limits or a.mode != "lstm":
        raise Unsupported(f"lstm_state_clip_min and _max = {limits} with mode={a.mode}; lstm takes both")
    return limits


def _unpack(cx: Context, a: Attributes, parameters: Value, features: int, directions: int) -> list[_Cell]:
    """The cells, layer by layer, direction by direction."""
    gates, size = len(_GATES[a.mode]), a.state_size
    width = a.projection_size or size
    shapes: list[tuple[int, ...]] = []
    for layer in range(a.num_layers):
        inputs = features if layer == 0 else width * directions
        projection = [(a.projection_size, size)] if a.projection_size else []
        shapes += [(gates * size, inputs), (gates * size, width), *projection] * directions
    count = len(shapes)
    shapes += [(gates * size,)] * (2 * a.num_layers * directions)
    total = sum(int(np.prod(shape)) for shape in shapes)
    if parameters.shape != (total,):
        raise Unsupported(f"its parameters have the shape {parameters.shape}, its attributes ask for ({total},)")
    parts, place = [], 0
    for shape in shapes:
        end = place + int(np.prod(shape))
        parts.append(cx.reshape(_cut(cx, parameters, place, end), shape))
        place = end
    weights, biases = parts[:count], parts[count:]
    per_cell = count // (a.num_layers * directions)
    return [
        _Cell(
            weights[i * per_cell],
            weights[i * per_cell + 1],
            weights[i * per_cell + 2] if per_cell == 3 else None,
            biases[2 * i],
            biases[2 * i + 1],
        )
        for i in range(a.num_layers * directions)
    ]


def _cut(cx: Context, x: Value, begin: int, end: int) -> Value:
    return cx.const(x.const[begin:end]) if x.const is not None else cx.slice(x, [begin], [end], [0])


def _initial(cx: Context, state: Value, here: slice, expected: Shape) -> Value | None:
    """The states at the start of one layer, or None where they are zeros for certain."""
    if state.const is not None and not state.const.any():
        return None
    known = [(is_, asked) for is_, asked in zip(state.shape, expected) if is_static((is_, asked))]
    if state.rank != 3 or any(is_ != asked for is_, asked in known):
        wanted = f"({', '.join(map(str, expected))})"
        raise Unsupported(
            f"a state of shape {state.shape}; {wanted} is asked for: layers times directions, batch, size"
        )
    return cx.slice(state, [here.start], [here.stop], [0]) if expected[0] != here.stop - here.start else state


def _layer(
    cx: Context,
    a: Attributes,
    x: Value,
    cells: Sequence[_Cell],
    hidden: Value | None,
    memory: Value | None,
    lengths: Value | None,
) -> tuple[Value, Value, Value | None]:
    """One layer: its output, last states and last cell states."""
    directions, size = len(cells), a.state_size
    order = _GATES[a.mode]
    weight = _stacked(cx, [_ordered(cx, cell.input_weight, order) for cell in cells])
    recurrence = _stacked(cx, [_ordered(cx, cell.state_weight, order) for cell in cells])
    biases = [[_ordered(cx, bias, order) for bias in (cell.input_bias, cell.state_bias)] for cell in cells]
    bias = _stacked(cx, [_joined(cx, pair) for pair in biases])
    length, batch = x.shape[:2]
    ends = TensorType(x.dtype, (directions, batch, size))
    types = [TensorType(x.dtype, (length, directions, batch, size)), ends, *([ends] if a.mode == "lstm" else [])]
    y, *last = cx.ops(
        _ONNX_TYPE[a.mode],
        *(x, weight, recurrence, bias, lengths, hidden, *([memory] if a.mode == "lstm" else [])),
        outputs=len(types),
        types=types,
        hidden_size=size,
        direction="bidirectional" if directions == 2 else "forward",
        linear_before_reset=1 if a.mode == "gru" else None,
        activations=["Relu"] * directions if a.mode == "rnn_relu" else None,
    )
    return _side_by_side(cx, y), last[0], last[1] if len(last) > 1 else None


def _side_by_side(cx: Context, y: Value) -> Value:
    """(length, directions, batch, size) as (length, batch, directions * size)."""
    length, directions, batch, size = y.shape
    if directions == 1:
        return cx.squeeze(y, 1)
    return cx.reshape(cx.transpose(y, [0, 2, 1, 3]), (length, batch, static(directions, "") * static(size, "")), y)


def _ordered(cx: Context, x: Value, order: Sequence[int]) -> Value:
    """The gates, stacked along axis 0, in another order."""
    size = static(x.shape[0], "the gates") // len(order)
    if list(order) == sorted(order):
        return x
    if x.const is not None:
        return cx.const(np.concatenate([x.const[gate * size : (gate + 1) * size] for gate in order]))
    return cx.concat([cx.slice(x, [gate * size], [(gate + 1) * size], [0]) for gate in order], 0)


def _joined(cx: Context, values: Sequence[Value]) -> Value:
    constants = [value.const for value in values if value.const is not None]
    if len(constants) == len(values):
        return cx.const(np.concatenate(constants))
    return cx.concat(values, 0)


def _stacked(cx: Context, values: Sequence[Value]) -> Value:
    return _joined(cx, [cx.unsqueeze(value, 0) for value in values])


# --- LSTM with projection or limits ----------------------------------------------------------------------------------


def _scanned_layer(
    cx: Context,
    a: Attributes,
    x: Value,
    cells: Sequence[_Cell],
    hidden: Value | None,
    memory: Value | None,
    lengths: Value | None,
    limits: tuple[float, float] | None,
) -> tuple[Value, Value, Value]:
    """One LSTM layer written out as a Scan: ONNX's has neither a projection nor limits of the cell state."""
    outputs, states, memories = [], [], []
    width = a.projection_size or a.state_size
    inside = _inside(cx, x, lengths) if lengths is not None else None
    for number, cell in enumerate(cells):
        start = [_start(cx, value, number, x, size) for value, size in ((hidden, width), (memory, a.state_size))]
        y, end, end_cell = _scan(cx, x, cell, start, inside, limits, backwards=number == 1)
        outputs.append(y)
        states.append(cx.unsqueeze(end, 0))
        memories.append(cx.unsqueeze(end_cell, 0))
    return cx.concat(outputs, 2), cx.concat(states, 0), cx.concat(memories, 0)


def _inside(cx: Context, x: Value, lengths: Value) -> Value:
    """1 where a step of a sequence counts, else 0, as (length, batch, 1) in the data's type: TensorRT scans no bool."""
    places = cx.cast(cx.unsqueeze(counted(cx, x, 0), 1), np.int32)
    kind = TensorType(np.dtype(bool), x.shape[:2])
    return cx.cast(cx.unsqueeze(cx.op("Less", places, cx.unsqueeze(lengths, 0), type=kind), 2), x.dtype)


def _start(cx: Context, states: Value | None, number: int, x: Value, size: int) -> Value:
    if states is None:
        return cx.expand(cx.const(np.zeros((1, 1), x.dtype)), (x.shape[1], size), x)
    return cx.op("Gather", states, cx.const(np.array(number, np.int64)), axis=0)


def _scan(
    cx: Context,
    x: Value,
    cell: _Cell,
    start: Sequence[Value],
    inside: Value | None,
    limits: tuple[float, float] | None,
    backwards: bool,
) -> tuple[Value, Value, Value]:
    bias = cx.op("Add", cell.input_bias, cell.state_bias)
    rows = cx.op("MatMul", x, cx.transpose(cell.input_weight, [1, 0]))
    gates = cx.op("Add", rows, bias, type=rows.type)  # the inputs' share of all steps at once
    scanned = [gates, *([inside] if inside is not None else [])]

    def step(hidden: Value, memory: Value, given: Value, counts: Value | None = None) -> list[Value]:
        """The state, the cell state and the output after one step; all stay where the step does not count."""
        state, cell_state = _step(cx, hidden, memory, given, cell, limits)
        if counts is None:
            return [state, cell_state, state]
        valid = cx.cast(counts, bool)
        output = cx.op("Where", valid, state, cx.const(np.zeros((), x.dtype)), type=state.type)
        kept = zip((state, cell_state), (hidden, memory), strict=True)
        return [*(cx.op("Where", valid, new, old, type=old.type) for new, old in kept), output]

    states = [value.type for value in start]
    body, _ = cx.subgraph("step", [*states, *(TensorType(v.dtype, v.shape[1:]) for v in scanned)], step)
    end, memory, y = cx.ops(
        "Scan",
        *start,
        *scanned,
        outputs=3,
        types=[*states, TensorType(x.dtype, (x.shape[0], *states[0].shape))],
        body=body,
        num_scan_inputs=len(scanned),
        scan_input_directions=[int(backwards)] * len(scanned),
        scan_output_directions=[int(backwards)],
    )
    return y, end, memory


def _step(
    cx: Context, hidden: Value, memory: Value, given: Value, cell: _Cell, limits: tuple[float, float] | None
) -> tuple[Value, Value]:
    """c = f c + i g, limited; r = o tanh(c), projected."""
    kind = memory.type
    gates = cx.op("Gemm", hidden, cell.state_weight, given, type=given.type, transB=1)
    i, f, g, o = cx.ops("Split", gates, outputs=4, types=[kind] * 4, axis=1, num_outputs=4)
    kept = cx.op("Mul", cx.op("Sigmoid", f, type=kind), memory, type=kind)
    added = cx.op("Mul", cx.op("Sigmoid", i, type=kind), cx.op("Tanh", g, type=kind), type=kind)
    cell_state = cx.op("Add", kept, added, type=kind)
    if limits is not None:
        low, high = (cx.const(np.array(limit, kind.dtype)) for limit in limits)
        cell_state = cx.op("Clip", cell_state, low, high, type=kind)
    wide = cx.op("Mul", cx.op("Sigmoid", o, type=kind), cx.op("Tanh", cell_state, type=kind), type=kind)
    if cell.projection is None:
        return wide, cell_state
    return cx.op("Gemm", wide, cell.projection, type=hidden.type, transB=1), cell_state
