"""MXNet's accelerator interface: every way in, what is refused, what survives a failure, and that nothing grows."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.frontend import compat
from suites.meta.accelerated import SEGMENT, STATIC, in_process

pytestmark = pytest.mark.mxnet


@pytest.fixture(scope="module")
def mx() -> Any:
    import harness.accelerator  # noqa: F401 - registers the backends

    return compat.mxnet()


@pytest.fixture(autouse=True)
def _no_engines_left() -> Iterator[None]:
    yield
    from harness.accelerator import clear

    clear()


def _network(mx: Any, seed: int = 1) -> Any:
    mx.random.seed(seed)
    net = mx.gluon.nn.HybridSequential()
    net.add(
        mx.gluon.nn.Conv2D(16, 3), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Activation("relu"),
        mx.gluon.nn.Conv2D(16, 3), mx.gluon.nn.Dropout(0.5), mx.gluon.nn.Dense(3),
    )  # fmt: skip
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 8, 8)))  # makes the parameters now, from this seed
    return net


def _image(mx: Any, batch: int = 2, seed: int = 3) -> Any:
    return mx.nd.array(np.random.default_rng(seed).uniform(-1, 1, (batch, 3, 8, 8)))


def _close(actual: Any, expected: Any) -> None:
    expected = expected.asnumpy()
    np.testing.assert_allclose(actual.asnumpy(), expected, rtol=1e-5, atol=1e-6 * abs(expected).max())


def _symbol(mx: Any, net: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A Gluon network as symbol, arguments and auxiliary states."""
    symbol = net(mx.sym.Variable("data"))
    values = {name: parameter.data() for name, parameter in net.collect_params().items()}
    aux = {name: values[name] for name in symbol.list_auxiliary_states()}
    return symbol, {name: value for name, value in values.items() if name not in aux}, aux


def _operators(text: str) -> list[str]:
    return [node["op"] for node in json.loads(text)["nodes"] if node["op"] != "null"]


def _engines() -> int:
    from harness.accelerator import segment

    return sum(len(node.engines) for node in segment._nodes.values())


# --- the ways in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["TensorRT", "mxtrt"])
@pytest.mark.parametrize("flags", [{}, {"static_alloc": True}, STATIC], ids=["dynamic", "alloc", "static"])
def test_optimize_for_of_a_block(mx: Any, backend: str, flags: dict[str, bool]) -> None:
    net, x = _network(mx), _image(mx)
    expected = net(x)
    net.optimize_for(x, backend=backend, **flags)
    for _ in range(3):
        _close(net(x), expected)
    assert _engines() == 1


def test_hybridize_with_a_backend(mx: Any) -> None:
    net, x = _network(mx), _image(mx)
    expected = net(x)
    net.hybridize(backend="TensorRT", **STATIC)
    _close(net(x), expected)
    assert _engines() == 1


def test_executor(mx: Any) -> None:
    net, x = _network(mx), _image(mx)
    expected = net(x)
    symbol, args, aux = _symbol(mx, net)
    partitioned = symbol.optimize_for("TensorRT", {**args, "data": x}, aux)
    assert _operators(partitioned.tojson()) == [SEGMENT]
    assert partitioned.list_auxiliary_states() == symbol.list_auxiliary_states()
    bound = partitioned.bind(mx.cpu(), {**args, "data": x}, aux_states=aux, grad_req="null")
    _close(bound.forward(is_train=False)[0], expected)


def test_module(mx: Any) -> None:
    net, x = _network(mx), _image(mx)
    expected = net(x)
    symbol, args, aux = _symbol(mx, net)
    partitioned = symbol.optimize_for("TensorRT", {**args, "data": x}, aux)
    module = mx.mod.Module(partitioned, data_names=["data"], label_names=None)
    module.bind([("data", x.shape)], for_training=False)
    module.set_params(args, aux)
    module.forward(mx.io.DataBatch([x]), is_train=False)
    _close(module.get_outputs()[0], expected)


def test_module_with_labels_other_batches_and_two_contexts(mx: Any) -> None:
    """As scoring scripts have it: a loss layer, several contexts, a last batch that is filled up, and reshape."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    symbol = mx.sym.SoftmaxOutput(net, name="softmax")
    random = np.random.default_rng(4)
    args = {"fc_weight": mx.nd.array(random.uniform(-1, 1, (3, 8))), "fc_bias": mx.nd.array(random.uniform(-1, 1, 3))}
    shapes = {"data": mx.nd.zeros((4, 8)), "softmax_label": mx.nd.zeros(4)}
    partitioned = symbol.optimize_for("TensorRT", {**args, **shapes}, {})
    images, labels = random.uniform(-1, 1, (10, 8)).astype(np.float32), np.arange(10) % 3
    found = {}
    for name, one in (("plain", symbol), ("fast", partitioned)):
        module = mx.mod.Module(one, context=[mx.cpu(0), mx.cpu(1)])
        module.bind([("data", (4, 8))], [("softmax_label", (4,))], for_training=False)
        module.set_params(args, {})
        batches = mx.io.NDArrayIter(images, labels, 4)
        metric = mx.metric.CrossEntropy(output_names=["softmax_output"], label_names=["softmax_label"])
        score = module.score(batches, metric)[0][1]
        answers = module.predict(batches).asnumpy()
        module.reshape([("data", (2, 8))], [("softmax_label", (2,))])
        module.forward(mx.io.DataBatch([mx.nd.array(images[:2])], [mx.nd.array(labels[:2])]), is_train=False)
        found[name] = (score, answers, module.get_outputs()[0].asnumpy())
    for plain, fast in zip(found["plain"], found["fast"]):
        np.testing.assert_allclose(fast, plain, rtol=1e-5, atol=1e-6)
    assert found["fast"][1].shape == (10, 3)


def test_export_and_imports(mx: Any, tmp_path: Path) -> None:
    net, x = _network(mx), _image(mx)
    expected = net(x)
    net.optimize_for(x, backend="TensorRT")
    net.export(str(tmp_path / "net"), epoch=0)
    text = (tmp_path / "net-symbol.json").read_text()
    assert _operators(text) == [SEGMENT]
    again = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    _close(again(x), expected)
    del net  # a process that has never seen the network
    np.savez(tmp_path / "io.npz", x=x.asnumpy(), y=expected.asnumpy())
    code = """
import sys, numpy as np
from harness.frontend.compat import mxnet
mx = mxnet()
if sys.argv[2] == "with": import harness.accelerator
folder = sys.argv[1]
io = np.load(folder + "/io.npz")
net = mx.gluon.SymbolBlock.imports(folder + "/net-symbol.json", ["data"], folder + "/net-0000.params")
np.testing.assert_allclose(net(mx.nd.array(io["x"])).asnumpy(), io["y"], rtol=1e-5, atol=1e-6)
"""
    assert in_process(code, str(tmp_path), "with").returncode == 0
    without = in_process(code, str(tmp_path), "without")
    assert without.returncode == 1 and SEGMENT in without.stderr  # MXNet names the operator; docs/drop-in.md the import


def test_imported_block_is_partitioned(mx: Any, tmp_path: Path) -> None:
    net, x = _network(mx), _image(mx)
    net.hybridize()
    expected = net(x)
    net.export(str(tmp_path / "net"))
    again = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    again.optimize_for(x, backend="TensorRT", **STATIC)
    _close(again(x), expected)
    assert _engines() == 1


def test_older_spellings(mx: Any) -> None:
    from harness import accelerator

    net, x = _network(mx), _image(mx)
    expected = net(x)
    symbol, args, aux = _symbol(mx, net)
    partitioned = accelerator.get_backend_symbol(symbol, "TensorRT", {**args, "data": x}, aux)
    args, aux = accelerator.init_tensorrt_params(partitioned, args, aux)
    bound = partitioned.simple_bind(mx.cpu(), data=x.shape, grad_req="null")
    bound.copy_params_from(args, aux)
    _close(bound.forward(is_train=False, data=x)[0], expected)


def test_numpy_semantics(mx: Any) -> None:
    mx.npx.set_np()
    try:

        class Net(mx.gluon.HybridBlock):
            def hybrid_forward(self, F: Any, x: Any) -> Any:
                return F.np.tanh(x) * 2 + F.np.mean(x)

        net, x = Net(), mx.np.array([[0.5, -1.0], [2.0, 0.0]])
        expected = net(x).asnumpy()
        net.optimize_for(x, backend="TensorRT")
        np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-6)
        assert _engines() >= 1
    finally:
        mx.npx.reset_np()


def test_a_node_with_subgraphs(mx: Any) -> None:
    def step(x: Any, state: Any) -> tuple[Any, Any]:
        return x + state, mx.sym.tanh(x + state)

    out, last = mx.sym.contrib.foreach(step, mx.sym.Variable("data"), mx.sym.Variable("state"))
    symbol = mx.sym.Group([mx.sym.relu(out), last])
    args = {"data": mx.nd.array(np.linspace(-1, 1, 6).reshape(3, 2)), "state": mx.nd.array([0.5, -0.5])}
    expected = symbol.bind(mx.cpu(), args, grad_req="null").forward()
    actual = symbol.optimize_for("TensorRT", args, {}).bind(mx.cpu(), args, grad_req="null").forward()
    for got, wanted in zip(actual, expected):
        _close(got, wanted)


# --- options ---------------------------------------------------------------------------------------------------------


def test_an_unknown_option_is_refused_with_the_list(mx: Any) -> None:
    from harness.accelerator import OPTIONS

    with pytest.raises(mx.base.MXNetError, match="precison") as caught:
        _network(mx).optimize_for(_image(mx), backend="TensorRT", precison="fp16")
    assert all(option in str(caught.value) for option in OPTIONS)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": "fp12"}, "fp12"),
        ({"precision": "int8"}, "calibration_iters"),
        ({"calibration_iters": "many"}, "calibration_iters"),
        ({"min_segment_size": 0}, "min_segment_size"),
        ({"threads": 0}, "threads"),
        ({"engine": "tensorrt7"}, "tensorrt7"),
    ],
)
def test_an_impossible_value_is_refused(mx: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(mx.base.MXNetError, match=text):
        _network(mx).optimize_for(_image(mx), backend="TensorRT", **options)


def test_parts_below_the_smallest_size_stay_in_mxnet(mx: Any) -> None:
    symbol = mx.sym.relu(mx.sym.Variable("data"))
    partitioned = symbol.optimize_for("TensorRT", {"data": mx.nd.ones(2)}, {}, min_segment_size=2)
    assert _operators(partitioned.tojson()) == ["relu"]


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 1e-2), ("int8", 1e-1)])
def test_precisions(mx: Any, precision: str, limit: float) -> None:
    net, x = _network(mx), _image(mx, batch=8)
    expected = net(x).asnumpy()
    options = {"calibration_iters": 2} if precision == "int8" else {}
    net.optimize_for(x, backend="TensorRT", precision=precision, **options, **STATIC)
    answers = [net(x).asnumpy() for _ in range(4)]
    error = [float(np.linalg.norm(answer - expected) / np.linalg.norm(expected)) for answer in answers]
    assert error[-1] < limit
    assert error[-1] > 1e-6, "this is float32"
    if precision == "int8":
        assert max(error[:2]) < 1e-5  # the calls that it learns from are exact


# --- refusals and failures -------------------------------------------------------------------------------------------


def test_nothing_supported_leaves_the_graph_and_warns(mx: Any, caplog: pytest.LogCaptureFixture) -> None:
    x = mx.nd.ones((2,))
    symbol = mx.sym.sample_uniform(mx.sym.Variable("low"), mx.sym.Variable("high"))
    with caplog.at_level(logging.WARNING, "mxtrt"):
        partitioned = symbol.optimize_for("TensorRT", {"low": x, "high": x}, {})
    assert _operators(partitioned.tojson()) == ["_sample_uniform"]
    assert "nothing" in caplog.text and "_sample_uniform" in caplog.text


def test_shapes_that_are_not_known(mx: Any) -> None:
    with pytest.raises(mx.base.MXNetError, match="args="):
        mx.sym.relu(mx.sym.Variable("data")).optimize_for("TensorRT")


def test_training_and_backward_are_refused(mx: Any) -> None:
    net, x = _network(mx), _image(mx)
    expected = net(x)
    net.optimize_for(x, backend="TensorRT")
    with pytest.raises(mx.base.MXNetError, match="only infers"), mx.autograd.record():
        net(x).wait_to_read()
    x.attach_grad()
    with pytest.raises(mx.base.MXNetError, match="no backward pass"):
        with mx.autograd.record(train_mode=False):
            y = net(x)
        y.backward()
        x.grad.asnumpy()
    _close(net(x), expected)


def test_other_shapes(mx: Any) -> None:
    net = _network(mx)
    expected = {batch: net(_image(mx, batch)) for batch in (1, 2, 5)}
    net.optimize_for(_image(mx), backend="TensorRT")
    for batch in (1, 5, 2, 1):
        _close(net(_image(mx, batch)), expected[batch])


def test_a_shape_that_does_not_fit_is_mxnets_error(mx: Any) -> None:
    net, x = _network(mx), _image(mx)
    expected = net(x)
    net.optimize_for(x, backend="TensorRT")
    net(x).wait_to_read()
    with pytest.raises(mx.base.MXNetError):
        net(mx.nd.ones((2, 4, 8, 8))).wait_to_read()
    _close(net(x), expected)


@pytest.mark.parametrize("flags", [{}, STATIC], ids=["dynamic", "static"])
@pytest.mark.parametrize(
    "error", [ValueError("planted"), KeyboardInterrupt("planted"), SystemExit("planted")], ids=repr
)
def test_a_failure_inside_is_mxnets_error(
    mx: Any, flags: dict[str, bool], error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.accelerator import segment

    net, x = _network(mx), _image(mx)
    expected = net(x)
    net.optimize_for(x, backend="TensorRT", **flags)

    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(segment, "_compile", fail)
        with pytest.raises(mx.base.MXNetError, match="planted"):
            net(x).wait_to_read()
    _close(net(x), expected)


@pytest.mark.parametrize("step", ["_identified", "_compile", "_bind"])
def test_a_failure_after_new_weights_does_not_bring_back_the_old(
    mx: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.accelerator import segment

    symbol, args, aux = _symbol(mx, _network(mx))
    args["data"] = _image(mx)
    plain = symbol.bind(mx.cpu(), args, aux_states=aux, grad_req="null")  # on the same arrays
    fast = symbol.optimize_for("TensorRT", args, aux).bind(mx.cpu(), args, aux_states=aux, grad_req="null")
    for _ in range(3):
        _close(fast.forward()[0], plain.forward()[0])
    args[next(name for name in args if name.endswith("weight"))][:] *= 2

    def fail(*_: Any) -> None:
        raise ValueError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(segment, step, fail)
        for _ in range(2):
            with pytest.raises(mx.base.MXNetError, match="planted"):
                fast.forward()[0].asnumpy()
    for _ in range(3):
        _close(fast.forward()[0], plain.forward()[0])


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{}, STATIC], ids=["dynamic", "static"])
@pytest.mark.parametrize("parameter", ["conv", "running_mean", "running_var", "gamma", "bias"])
def test_new_weights_are_noticed(mx: Any, flags: dict[str, bool], parameter: str) -> None:
    net, twin, x = _network(mx), _network(mx), _image(mx)
    twin(x), net(x)
    net.optimize_for(x, backend="TensorRT", **flags)
    _close(net(x), twin(x))
    for step in range(3):
        for one, other in zip(net.collect_params().values(), twin.collect_params().values()):
            if parameter in one.name:
                value = other.data() * 0.5 + 0.1 * step
                one.set_data(value)
                other.set_data(value)
        _close(net(x), twin(x))
    assert _engines() == 1  # one that replaced the others


def test_unchanged_weights_build_once(mx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.accelerator import segment

    built = []
    compile_segment = segment._compile
    monkeypatch.setattr(segment, "_compile", lambda *args: built.append(1) or compile_segment(*args))
    net, x = _network(mx), _image(mx)
    net.optimize_for(x, backend="TensorRT")
    for seed in range(4):
        net(_image(mx, seed=seed)).wait_to_read()
    assert len(built) == 1


def test_networks_of_one_form_have_their_own_weights(mx: Any) -> None:
    x = _image(mx)
    nets = [_network(mx, seed) for seed in range(3)]
    expected = [net(x) for net in nets]
    assert abs(expected[0] - expected[1]).max().asscalar() > 1e-3
    for net in nets:
        net.optimize_for(x, backend="TensorRT", **STATIC)
    for _ in range(2):
        for net, wanted in zip(nets, expected):
            _close(net(x), wanted)


def test_writes_that_mxnet_does_not_count(mx: Any) -> None:
    """``clear`` is for them: docs/drop-in.md."""
    from harness.accelerator import clear

    values = np.ones((3, 8), np.float32)
    weight = mx.nd.from_numpy(values[:], zero_copy=True)
    symbol = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, no_bias=True, name="fc")
    args = {"data": mx.nd.ones((2, 8)), "fc_weight": weight}
    bound = symbol.optimize_for("TensorRT", args, {}).bind(mx.cpu(), args, grad_req="null")
    assert bound.forward()[0].asnumpy().tolist() == [[8.0] * 3] * 2
    values[...] = 2
    clear()
    assert bound.forward()[0].asnumpy().tolist() == [[16.0] * 3] * 2


def test_clear_forgets_what_nobody_has(mx: Any) -> None:
    import gc

    from harness.accelerator import clear, segment

    net, x = _network(mx), _image(mx)
    net.optimize_for(x, backend="TensorRT", **STATIC)
    expected = net(x)
    clear()
    assert segment._nodes and not _engines()  # the network is still there
    _close(net(x), expected)
    mx.nd.waitall()
    del net
    gc.collect()
    mx.nd.waitall()
    clear()
    assert not segment._nodes and not segment._states


def test_answers_are_not_overwritten(mx: Any) -> None:
    net, x, other = _network(mx), _image(mx), _image(mx, seed=9)
    expected = net(x)
    net.optimize_for(x, backend="TensorRT")
    first = net(x)
    net(other).wait_to_read()
    _close(first, expected)


def test_engines_are_bounded(mx: Any) -> None:
    from harness.accelerator import segment

    net = _network(mx)
    net(_image(mx))
    net.optimize_for(_image(mx), backend="TensorRT")
    for batch in range(1, segment._KEPT + 4):
        net(_image(mx, batch)).wait_to_read()
    assert _engines() == segment._KEPT
    segment.clear()
    assert _engines() == 0
    assert net(_image(mx)).shape == (2, 3)


# --- threads ---------------------------------------------------------------------------------------------------------


def test_calls_take_turns(mx: Any) -> None:
    """Two threads that hand over at once can leave MXNet's engine waiting forever (harness/accelerator/pushes.py)."""
    from harness.accelerator import pushes

    inside, most = [], []

    def hand_over(number: int) -> int:
        inside.append(number)
        most.append(len(inside))
        time.sleep(0.002)
        inside.remove(number)
        return number

    wrapped = pushes._in_turn(hand_over)
    found: list[int] = []
    workers = [threading.Thread(target=lambda k=k: found.extend(wrapped(k) for _ in range(5))) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert max(most) == 1 and sorted(found) == sorted([*range(8)] * 5)
    for name in pushes._FUNCTIONS:
        assert getattr(mx.base._LIB, name).__module__ == pushes.__name__


def test_a_turn_that_waits_for_another_thread_goes_on(mx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where handing over waits for what another thread hands over (a custom operator that calls a network)."""
    from harness.accelerator import pushes

    monkeypatch.setattr(pushes, "_PATIENCE", 0.05)
    inner = pushes._in_turn(lambda: 1)
    found: list[int] = []

    def outer() -> int:
        helper = threading.Thread(target=lambda: found.append(inner()))
        helper.start()
        helper.join(30)
        return inner()  # in the same thread it does not wait at all

    assert pushes._in_turn(outer)() == 1 and found == [1]

    def fail() -> int:
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        pushes._in_turn(fail)()
    assert pushes._in_turn(outer)() == 1  # and the turn was given back
