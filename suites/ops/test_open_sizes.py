"""Sizes that a model leaves open: the first states of recurrent cells, and ranges as long as their partner."""

from __future__ import annotations

import numpy as np
import pytest

import harness
from harness import numerics
from harness.errors import UnsupportedOperator
from harness.frontend.compat import mxnet

mx = mxnet()
rnn = mx.gluon.rnn


def _unrolled(cell):
    outputs, states = cell.unroll(3, mx.sym.var("data"), layout="NTC", merge_outputs=True)
    return mx.sym.Group([outputs, *states])


def _stacked():
    stack = rnn.HybridSequentialRNNCell()
    for cell in (rnn.LSTMCell(5), rnn.ResidualCell(rnn.GRUCell(5))):
        stack.add(cell)
    return _unrolled(stack)


def _legacy(cell):
    outputs, _ = cell.unroll(3, mx.sym.var("data"), layout="NTC", merge_outputs=True)
    return outputs


def _in_a_loop():
    """A loop over time whose first state is as open as that of a cell."""
    weights = [mx.sym.var(f"w{i}") for i in range(2)]

    def step(x, state):
        left, right = (mx.sym.FullyConnected(v, w, num_hidden=5, no_bias=True) for v, w in zip((x, state), weights))
        new = mx.sym.tanh(left + right)
        return new, new

    data = mx.sym.swapaxes(mx.sym.var("data"), dim1=0, dim2=1)
    outputs, last = mx.sym.contrib.foreach(step, data, mx.sym.zeros((0, 5)))
    return mx.sym.Group([outputs, last])


NETWORKS = {
    "rnn": lambda: _unrolled(rnn.RNNCell(5)),
    "lstm": lambda: _unrolled(rnn.LSTMCell(5)),
    "gru": lambda: _unrolled(rnn.GRUCell(5)),
    "stack": _stacked,
    "both ways": lambda: _unrolled(rnn.BidirectionalCell(rnn.LSTMCell(5), rnn.GRUCell(3))),
    "convolutions": lambda: _unrolled(mx.gluon.contrib.rnn.Conv1DLSTMCell((2, 4), 3, 3, 3, i2h_pad=1)),
    "projection": lambda: _unrolled(mx.gluon.contrib.rnn.LSTMPCell(5, 3)),
    "legacy": lambda: _legacy(mx.rnn.LSTMCell(5)),
    "loop": _in_a_loop,
}


def _answer(symbol, arrays):
    return [y.asnumpy() for y in symbol.bind(mx.cpu(), {n: mx.nd.array(v) for n, v in arrays.items()}).forward()]


def _parameters(symbol, features):
    rng = np.random.default_rng(3)
    shapes, _, _ = symbol.infer_shape(data=(2, 3, *features))
    named = zip(symbol.list_arguments(), shapes, strict=True)
    return {name: rng.uniform(-0.5, 0.5, shape).astype(np.float32) for name, shape in named if name != "data"}


@pytest.mark.parametrize("batch", [1, 2, (1, 2, 4)], ids=["one", "two", "varies"])
@pytest.mark.parametrize("name", NETWORKS)
def test_states_begin_as_zeros_of_an_open_batch(name, batch):
    symbol, features = NETWORKS[name](), (2, 4) if name == "convolutions" else (4,)
    parameters = _parameters(symbol, features)
    model = harness.compile(
        symbol, parameters, {"data": (batch, 3, *features)}, engine="onnxruntime", fallback="error", threads=1
    )
    for size in (batch,) if isinstance(batch, int) else (1, 3):
        arrays = {"data": np.random.default_rng(size).uniform(-1, 1, (size, 3, *features)).astype(np.float32)}
        expected = _answer(symbol, arrays | parameters)
        bounds = numerics.response(lambda a: _answer(symbol, a | parameters), arrays, expected, "fp32", seed=size)
        outputs = model(**arrays)
        for found, wanted, bound in zip(outputs, expected, bounds, strict=True):
            result = numerics.compare(found, wanted, bound, "fp32", terms=32)
            assert result, result.message


LAYERS = {"rnn": (rnn.RNN, 2, False), "lstm": (rnn.LSTM, 1, True), "gru": (rnn.GRU, 2, True)}


@pytest.mark.parametrize("batch", [1, 2, (1, 2, 4)], ids=["one", "two", "varies"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_makes_its_own_states(name, batch):
    """The reference has its states as inputs, and is in float64: MXNet's float32 kernel needs oneDNN."""
    kind, layers, bidirectional = LAYERS[name]
    layer = kind(5, layers, bidirectional=bidirectional)
    states = [mx.sym.var(f"state{i}") for i in range(1 + (name == "lstm"))]
    reference = layer(mx.sym.var("data"), states)[0]
    symbol = layer(mx.sym.var("data"))
    parameters = _parameters(symbol, (4,))
    model = harness.compile(
        symbol, parameters, {"data": (3, batch, 4)}, engine="onnxruntime", fallback="error", threads=1
    )
    for size in (batch,) if isinstance(batch, int) else (1, 3):
        x = np.random.default_rng(size).uniform(-1, 1, (3, size, 4)).astype(np.float32)
        zeros = {state.name: np.zeros((layers * (1 + bidirectional), size, 5)) for state in states}
        wide = {n: mx.nd.array(v, dtype="float64") for n, v in {"data": x, **parameters, **zeros}.items()}
        expected = reference.bind(mx.cpu(), wide).forward()[0].asnumpy()
        np.testing.assert_allclose(model(data=x)[0], expected, rtol=1e-5, atol=1e-6)


RANGES = [
    {},
    {"start": 2, "step": 0.5, "repeat": 3},
    {"start": 2, "step": 3, "dtype": "int32"},
    {"start": 1, "step": 1.5, "dtype": "float16"},
]


@pytest.mark.parametrize("length", [7, (1, 7, 9)], ids=["fixed", "varies"])
@pytest.mark.parametrize("attributes", RANGES, ids=str)
def test_a_range_is_as_long_as_its_partner(attributes, length):
    dtype = attributes.get("dtype", "float32")
    symbol = mx.sym.var("data") + mx.sym.arange(**{"start": 0, **attributes}, infer_range=True)
    inputs = {"data": harness.Input((length,), dtype)}
    model = harness.compile(symbol, {}, inputs, engine="onnxruntime", fallback="error", threads=1)
    x = np.arange(7).astype(dtype)
    expected = symbol.bind(mx.cpu(), {"data": mx.nd.array(x, dtype=dtype)}).forward()[0].asnumpy()
    np.testing.assert_array_equal(model(data=x)[0], expected)


def test_a_size_that_nothing_tells_is_named():
    symbol = mx.sym.dot(mx.sym.zeros((0, 5)), mx.sym.var("data"))
    with pytest.raises(
        UnsupportedOperator, match=r"shape=\(0, 5\) leaves sizes open that nothing it is used with tells"
    ):
        harness.compile(symbol, {}, {"data": (5, 2)}, engine="onnxruntime", fallback="error")
