"""RNN: vanilla, LSTM and GRU, stacked and bidirectional, from MXNet's one vector of parameters.

Layout of the vector (``src/operator/rnn-inl.h``): for each layer, for each direction, the weights of the input, of
the state and (LSTM with projection) of the projection; then in the same order the two biases. Gates: LSTM i f g o,
GRU r z n, where the reset applies to the product with the state's bias (ONNX: ``linear_before_reset``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import TensorType
from .context import Context, Value, static
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
    lengths = _lengths(cx, a, rest.pop(0)) if a.use_sequence_length and rest else None
    if rest or (a.use_sequence_length and lengths is None) or (lstm and cell is None):
        raise Unsupported(f"it has {3 + len(more)} inputs, which do not fit mode={a.mode} with its attributes")
    if a.projection_size is not None and not lstm:
        raise Unsupported(f"projection_size with mode={a.mode}; only lstm has projections")
    if a.lstm_state_clip_min is not None or a.lstm_state_clip_max is not None:
        raise Unsupported("lstm_state_clip_min and _max: ONNX's LSTM does not limit the cell state")
    a.ignore("lstm_state_clip_nan")
    if data.rank != 3:
        raise Unsupported(f"its data have {data.rank} axes; 3 are needed: length, batch, features")
    directions = 2 if a.bidirectional else 1
    cells = _unpack(cx, a, parameters, static(data.shape[2], "the number of features"), directions)
    x, last_states, last_cells = data, [], []
    for layer in range(a.num_layers):
        here = slice(layer * directions, (layer + 1) * directions)
        hidden = _initial(cx, state, here, a.num_layers * directions)
        memory = _initial(cx, cell, here, a.num_layers * directions) if cell is not None else None
        if a.projection_size is None:
            x, end, end_cell = _layer(cx, a, x, cells[here], hidden, memory, lengths)
        else:
            x, end, end_cell = _projected_layer(cx, a, x, cells[here], hidden, memory)
        last_states.append(end)
        last_cells.append(end_cell)
    if not a.state_outputs:
        return [x]
    ends = [cx.concat(last_states, 0)]
    return [x, *ends, cx.concat([c for c in last_cells if c is not None], 0)] if lstm else [x, *ends]


def _lengths(cx: Context, a: Attributes, lengths: Value) -> Value:
    """The length of each sequence of the batch; outputs behind it are 0, and last states are those at it."""
    if a.projection_size is not None:
        raise Unsupported(
            "use_sequence_length together with projection_size; mask the output with SequenceMask instead"
        )
    return cx.cast(lengths, np.int32)


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


def _initial(cx: Context, state: Value, here: slice, count: int) -> Value | None:
    """The states at the start of one layer, or None where they are zeros for certain."""
    if state.const is not None and not state.const.any():
        return None
    if state.shape[0] != count:
        raise Unsupported(f"a state of shape {state.shape}; its first axis must be {count}, layers times directions")
    return cx.slice(state, [here.start], [here.stop], [0]) if count > here.stop - here.start else state


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


# --- LSTM with projection --------------------------------------------------------------------------------------------


def _projected_layer(
    cx: Context,
    a: Attributes,
    x: Value,
    cells: Sequence[_Cell],
    hidden: Value | None,
    memory: Value | None,
) -> tuple[Value, Value, Value | None]:
    """One LSTM layer whose state is projected to ``projection_size``: a Scan, since ONNX's LSTM has no projection."""
    outputs, states, memories = [], [], []
    for number, cell in enumerate(cells):
        start = [
            _start(cx, value, number, x, size) for value, size in ((hidden, a.projection_size), (memory, a.state_size))
        ]
        y, end, end_cell = _scan(cx, x, cell, start, a.state_size, a.projection_size, backwards=number == 1)
        outputs.append(y)
        states.append(cx.unsqueeze(end, 0))
        memories.append(cx.unsqueeze(end_cell, 0))
    return cx.concat(outputs, 2), cx.concat(states, 0), cx.concat(memories, 0)


def _start(cx: Context, states: Value | None, number: int, x: Value, size: int) -> Value:
    if states is None:
        return cx.expand(cx.const(np.zeros((1, 1), x.dtype)), (x.shape[1], size), x)
    return cx.op("Gather", states, cx.const(np.array(number, np.int64)), axis=0)


def _scan(
    cx: Context, x: Value, cell: _Cell, start: Sequence[Value], size: int, width: int, backwards: bool
) -> tuple[Value, Value, Value]:
    length, batch = x.shape[:2]
    bias = cx.op("Add", cell.input_bias, cell.state_bias)
    rows = cx.op("MatMul", x, cx.transpose(cell.input_weight, [1, 0]))
    gates = cx.op("Add", rows, bias, type=rows.type)  # the inputs' share of all steps at once
    direction = [1 if backwards else 0]

    def step(hidden: Value, memory: Value, given: Value) -> list[Value]:
        """c = f c + i g; r = (o tanh(c)) P'."""
        return _step(cx, hidden, memory, given, cell, size)

    states = [TensorType(x.dtype, (batch, width)), TensorType(x.dtype, (batch, size))]
    body, _ = cx.subgraph("step", [*states, TensorType(x.dtype, (batch, 4 * size))], step)
    end, memory, y = cx.ops(
        "Scan",
        *start,
        gates,
        outputs=3,
        types=[*states, TensorType(x.dtype, (length, batch, width))],
        body=body,
        num_scan_inputs=1,
        scan_input_directions=direction,
        scan_output_directions=direction,
    )
    return y, end, memory


def _step(cx: Context, hidden: Value, memory: Value, given: Value, cell: _Cell, size: int) -> list[Value]:
    """The state, the cell and the output after one step."""
    kind = TensorType(memory.dtype, memory.shape)
    gates = cx.op("Gemm", hidden, cell.state_weight, given, type=given.type, transB=1)
    i, f, g, o = cx.ops("Split", gates, outputs=4, types=[kind] * 4, axis=1, num_outputs=4)
    kept = cx.op("Mul", cx.op("Sigmoid", f, type=kind), memory, type=kind)
    added = cx.op("Mul", cx.op("Sigmoid", i, type=kind), cx.op("Tanh", g, type=kind), type=kind)
    cell_state = cx.op("Add", kept, added, type=kind)
    wide = cx.op("Mul", cx.op("Sigmoid", o, type=kind), cx.op("Tanh", cell_state, type=kind), type=kind)
    projected = cx.op("Gemm", wide, cell.projection, type=hidden.type, transB=1)
    return [projected, cell_state, projected]
