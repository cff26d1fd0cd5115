"""Graphs of every shape through the accelerator: what goes to segments, what stays in MXNet, and the same answer.

Each case goes through an Executor and, with and without static memory, through a Gluon block, and is called twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from harness.frontend import compat
from suites.meta.accelerated import SEGMENT, STATIC, hold, operators_of, run

pytestmark = pytest.mark.mxnet

Symbol = Any


@pytest.fixture(scope="module")
def mx() -> Any:
    import harness.accelerator  # noqa: F401 - registers the backends

    _register_half()
    return compat.mxnet()


def _register_half() -> None:
    """An operator of the user's, in Python."""
    mx = compat.mxnet()

    class Half(mx.operator.CustomOp):
        def forward(self, is_train: bool, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
            self.assign(out_data[0], req[0], in_data[0] * 0.5)

    class HalfProp(mx.operator.CustomOpProp):
        def list_arguments(self) -> list[str]:
            return ["data"]

        def infer_shape(self, shapes: Any) -> Any:
            return shapes, [shapes[0]], []

        def create_operator(self, context: Any, shapes: Any, dtypes: Any) -> Any:
            return Half()

    mx.operator.register("accelerator_half")(HalfProp)


@dataclass(frozen=True)
class Case:
    """A graph.

    Attributes:
        build: makes the symbol from MXNet's module and the variable "data".
        left: the operators that stay in MXNet, in order; and how many segments there are.
        shape, dtype: of "data".
        others: shapes of arguments that MXNet's inference cannot tell.
        reference: the type that MXNet computes the reference in.
        precision: what the segment computes in.
        gluon: whether it can be a Gluon block too.
    """

    build: Callable[[Any, Symbol], Symbol]
    left: tuple[str, ...] = ()
    segments: int = 1
    shape: tuple[int, ...] = (2, 8)
    dtype: str = "float32"
    others: tuple[tuple[str, tuple[int, ...]], ...] = ()
    reference: str = "float64"
    precision: str = "fp32"
    gluon: bool = True


def _foreach(mx: Any, x: Symbol) -> Symbol:
    out, last = mx.sym.contrib.foreach(lambda row, s: (row + s, mx.sym.tanh(row + s)), x, mx.sym.Variable("state"))
    return mx.sym.Group([mx.sym.relu(out), last])


def _while(mx: Any, x: Symbol) -> Symbol:
    _, last = mx.sym.contrib.while_loop(
        lambda i, a: i < 3, lambda i, a: (mx.sym.relu(a), [i + 1, a * 1.5]),
        [mx.sym.Variable("start"), mx.sym.tanh(x)], max_iterations=4,
    )  # fmt: skip
    return mx.sym.sigmoid(last[1])


def _cond(mx: Any, x: Symbol) -> Symbol:
    return mx.sym.tanh(mx.sym.contrib.cond(mx.sym.sum(x) > 0, lambda: x * 2, lambda: x - 1))


def _shared_states(mx: Any, x: Symbol) -> Symbol:
    names = ("gamma", "beta", "moving_mean", "moving_var")
    shared = {name: mx.sym.Variable(f"bn_{name}") for name in names}
    y = mx.sym.BatchNorm(x, **shared, fix_gamma=False, name="first")
    return mx.sym.BatchNorm(mx.sym.relu(y), **shared, fix_gamma=False, name="second")


def _dense(mx: Any, x: Symbol) -> Symbol:
    y = mx.sym.FullyConnected(x, num_hidden=6, name="hidden")
    y = mx.sym.relu(mx.sym.BatchNorm(y, fix_gamma=False, name="norm"))
    return mx.sym.softmax(mx.sym.FullyConnected(y, num_hidden=3, name="top"))


def _half(mx: Any, x: Symbol) -> Symbol:
    return mx.sym.Custom(x, op_type="accelerator_half", name="half")


CASES: dict[str, Case] = {
    "several inputs and outputs": Case(
        lambda mx, x: mx.sym.Group([mx.sym.relu(x) + mx.sym.Variable("other"), mx.sym.tanh(mx.sym.Variable("third")) * 2]),
        others=(("other", (2, 8)), ("third", (3,)))),
    "one output twice": Case(lambda mx, x: mx.sym.Group([y := mx.sym.tanh(x), y * 2, y])),
    "an input that is an output": Case(lambda mx, x: mx.sym.Group([x, mx.sym.relu(x), x])),
    "a parameter that is an output": Case(
        lambda mx, x: mx.sym.Group([w := mx.sym.Variable("fc_weight"), mx.sym.FullyConnected(x, w, num_hidden=3, name="fc")])),
    "one variable as data and as weight": Case(
        lambda mx, x: mx.sym.broadcast_add(mx.sym.FullyConnected(mx.sym.relu(w := mx.sym.Variable("w")), w, num_hidden=3, no_bias=True), mx.sym.sum(x)),
        others=(("w", (3, 8)),)),
    "no data": Case(lambda mx, x: mx.sym.Group([mx.sym.sum(mx.sym.arange(10)) * 2, x])),
    "parameters alone": Case(
        lambda mx, x: mx.sym.Group([
            mx.sym.FullyConnected(mx.sym.Variable("a"), mx.sym.Variable("b"), num_hidden=3, no_bias=True), x]),
        others=(("a", (2, 8)), ("b", (3, 8)))),
    "one output of a node with several": Case(lambda mx, x: mx.sym.split(x, 2, axis=1)[1] * 2),
    "a node without readers beside it": Case(lambda mx, x: mx.sym.split(mx.sym.relu(x), 4, axis=1)[0]),
    "nothing but variables": Case(lambda mx, x: mx.sym.Group([x, x]), segments=0),
    "states of two layers": Case(_shared_states),
    "a dense network": Case(_dense),
    "a dense network in float64": Case(_dense, dtype="float64", precision="fp64"),
    "a network in float16": Case(
        lambda mx, x: mx.sym.tanh(mx.sym.relu(x) * 0.5 + 1), dtype="float16", reference="float32", precision="fp16"),
    "integers": Case(
        lambda mx, x: mx.sym.tanh(mx.sym.Embedding(x, input_dim=5, output_dim=3, name="e")), shape=(2, 4), dtype="int32"),
    "a custom operator": Case(
        lambda mx, x: mx.sym.tanh(_half(mx, mx.sym.relu(x) + 1)) * 3, left=("Custom",), segments=2),
    "custom operators at both ends": Case(
        lambda mx, x: _half(mx, mx.sym.tanh(_half(mx, x))), left=("Custom", "Custom")),
    "a custom operator beside a segment": Case(
        lambda mx, x: mx.sym.relu(x) + _half(mx, x), left=("Custom",)),
    "foreach": Case(_foreach, shape=(3, 2), others=(("state", (2,)),), reference="float32"),
    "while": Case(_while, left=("_while_loop", "sigmoid"), others=(("start", (1,)),), reference="float32"),
    "cond": Case(_cond, left=("_cond", "tanh"), reference="float32"),
    "a shape that depends on data": Case(
        lambda mx, x: mx.sym.contrib.boolean_mask(mx.sym.tanh(x), mx.sym.Variable("mask")) * 2,
        left=("_contrib_boolean_mask", "_mul_scalar"), others=(("mask", (2,)),), gluon=False),
    "names that are not ASCII": Case(
        lambda mx, x: mx.sym.FullyConnected(mx.sym.relu(x, name="слой/1"), mx.sym.Variable("вес 重み"), num_hidden=3, no_bias=True, name="große Schicht")),
    "one row": Case(_dense, shape=(1, 8)),
    "many axes": Case(lambda mx, x: mx.sym.sum(mx.sym.tanh(x), axis=(1, 4)), shape=(2, 3, 1, 2, 3, 2)),
}  # fmt: skip


def _arrays(mx: Any, symbol: Symbol, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    random = np.random.default_rng(len(case.shape))
    known = {"data": case.shape, **dict(case.others)}
    shapes, _, states = symbol.infer_shape(**known)
    if shapes is None:  # not even MXNet can tell, before it runs
        shapes, states = [known[name] for name in symbol.list_arguments()], []
    kind = "float64" if case.dtype == "float64" else "float32"
    args = {
        name: mx.nd.array(random.uniform(-1, 1, shape), dtype=kind)
        for name, shape in zip(symbol.list_arguments(), shapes)
    }
    if "mask" in args:
        args["mask"] = mx.nd.array([1, 0])
    data = random.uniform(-1, 1, case.shape)
    args["data"] = mx.nd.array(random.integers(0, 5, case.shape) if "int" in case.dtype else data, dtype=case.dtype)
    names = symbol.list_auxiliary_states()
    aux = {name: mx.nd.array(random.uniform(0.5, 1.5, shape), dtype=kind) for name, shape in zip(names, states)}
    return args, aux


@pytest.mark.parametrize("name", CASES)
def test_graph(mx: Any, name: str) -> None:
    case = CASES[name]
    symbol = case.build(mx, mx.sym.Variable("data"))
    args, aux = _arrays(mx, symbol, case)
    partitioned = symbol.optimize_for("TensorRT", args, aux, threads=1)
    found = operators_of(partitioned)
    assert tuple(op for op in found if op != SEGMENT) == case.left
    assert found.count(SEGMENT) == case.segments
    assert partitioned.list_auxiliary_states() == symbol.list_auxiliary_states()
    assert set(partitioned.list_arguments()) == set(symbol.list_arguments())
    again = mx.sym.load_json(partitioned.tojson())
    for one in (partitioned, partitioned, again):
        hold(run(one, args, aux), symbol, args, aux, reference=case.reference, precision=case.precision)


@pytest.mark.parametrize("flags", [{}, STATIC], ids=["dynamic", "static"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.gluon])
def test_block(mx: Any, name: str, flags: dict[str, bool]) -> None:
    case = CASES[name]
    symbol = case.build(mx, mx.sym.Variable("data"))
    args, aux = _arrays(mx, symbol, case)
    inputs = ["data", *(n for n, _ in case.others)]
    inputs = [n for n in symbol.list_arguments() if n in inputs]
    block = mx.gluon.SymbolBlock(symbol, [mx.sym.Variable(n) for n in inputs])
    for parameter in block.collect_params().values():
        value = {**args, **aux}[parameter.name]
        parameter.dtype = value.dtype
        parameter.initialize(ctx=mx.cpu())
        parameter.set_data(value)
    block.optimize_for(*[args[n] for n in inputs], backend="TensorRT", threads=1, **flags)
    for _ in range(2):
        found = block(*[args[n] for n in inputs])
        found = [one.asnumpy() for one in (found if isinstance(found, (list, tuple)) else [found])]
        hold(found, symbol, args, aux, reference=case.reference, precision=case.precision)


# --- names, and graphs that hold segments already --------------------------------------------------------------------


def test_outputs_keep_their_names(mx: Any) -> None:
    """Programs ask for ``softmax_output``; a segment with several outputs has names of its own."""
    softmax = mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc"), name="softmax"
    )
    args = {n: mx.nd.ones(s) for n, s in zip(softmax.list_arguments(), softmax.infer_shape(data=(2, 8))[0])}
    partitioned = softmax.optimize_for("TensorRT", args, {})
    assert partitioned.list_outputs() == softmax.list_outputs() == ["softmax_output"]
    assert partitioned.list_arguments() == softmax.list_arguments()
    both = mx.sym.Group([softmax.get_internals()["fc_output"], softmax]).optimize_for("TensorRT", args, {})
    assert len(set(both.list_outputs())) == 2


def _options(symbol: Symbol) -> list[str]:
    nodes = json.loads(symbol.tojson())["nodes"]
    return [json.loads(node["attrs"]["mxtrt_options"])["precision"] for node in nodes if node["op"] == SEGMENT]


def test_partitioned_twice(mx: Any, caplog: pytest.LogCaptureFixture) -> None:
    symbol = CASES["a dense network"].build(mx, mx.sym.Variable("data"))
    args, aux = _arrays(mx, symbol, CASES["a dense network"])
    once = symbol.optimize_for("TensorRT", args, aux)
    with caplog.at_level(logging.WARNING, "mxtrt"):
        twice = once.optimize_for("mxtrt", args, aux)
    assert not caplog.records  # the same options: nothing to do, and nothing to say
    hold(run(twice, args, aux), symbol, args, aux)
    with pytest.raises(mx.base.MXNetError, match="partitioned.*fp32.*clear=True"):
        once.optimize_for("TensorRT", args, aux, precision="fp16")
    grown = mx.sym.tanh(once) * 2  # what is new is partitioned, what was there stays
    with caplog.at_level(logging.WARNING, "mxtrt"):
        mixed = grown.optimize_for("TensorRT", args, aux, precision="fp16")
    assert _options(mixed) == ["fp32", "fp16"] and "stays as it is" in caplog.text
    names = [node["name"] for node in json.loads(mixed.tojson())["nodes"]]
    assert len(set(names)) == len(names)


def test_a_block_partitioned_again(mx: Any) -> None:
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(16, activation="relu"), mx.gluon.nn.Dense(4))
    net.initialize(mx.init.Xavier())
    x = mx.nd.array(np.random.default_rng(1).uniform(-1, 1, (2, 8)))
    expected = net(x).asnumpy()

    def error() -> float:
        return float(abs(net(x).asnumpy() - expected).max() / abs(expected).max())

    net.optimize_for(x, backend="TensorRT", **STATIC)
    assert error() < 1e-5
    net.optimize_for(x, backend="TensorRT", clear=False, **STATIC)
    assert error() < 1e-5
    with pytest.raises(mx.base.MXNetError, match="clear=True"):
        net.optimize_for(x, backend="TensorRT", clear=False, precision="fp16", **STATIC)
    assert error() < 1e-5  # it still works
    net.optimize_for(x, backend="TensorRT", clear=True, precision="fp16", **STATIC)
    assert 1e-5 < error() < 1e-2
    net.hybridize(**STATIC)  # and plain MXNet again
    assert error() == 0


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["partitioned", "called"])
def test_sparse_inputs_are_refused(mx: Any, when: str) -> None:
    sparse, dense = mx.nd.sparse.csr_matrix(np.eye(4, dtype=np.float32)), mx.nd.ones((4, 4))
    symbol = mx.sym.relu(mx.sym.Variable("data")) * 2
    partitioned = symbol.optimize_for("TensorRT", {"data": sparse if when == "partitioned" else dense}, {})
    with pytest.raises(mx.base.MXNetError, match="tostype"):
        run(partitioned, {"data": sparse}, {})
    np.testing.assert_array_equal(run(partitioned, {"data": sparse.tostype("default")}, {})[0], 2 * np.eye(4))


def test_a_long_message_that_is_not_ascii_arrives(mx: Any) -> None:
    """MXNet decodes messages strictly: one that is cut inside a letter would be another error."""
    x = {"data": mx.nd.ones((2, 8))}
    for letters in range(4):
        with pytest.raises(mx.base.MXNetError, match="backend option"):
            mx.sym.relu(mx.sym.Variable("data")).optimize_for("TensorRT", x, {}, **{"x" * letters + "é重" * 9000: 1})


def test_the_message_names_the_variable_without_a_shape(mx: Any) -> None:
    symbol = mx.sym.relu(mx.sym.Variable("data")) + mx.sym.Variable("other")
    with pytest.raises(mx.base.MXNetError, match="'data'.*args="):
        symbol.optimize_for("TensorRT")
