"""Plugins as layers of TensorRT's networks, on the test double (suites/meta/double/plugins.py says what is real).

The kernel's text is compiled by nobody here: a Python function stands for it, and works on the double's memory in the
order of its streams.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import harness
from harness import numerics, plugins
from harness.compiler import compile_graph
from harness.dims import Dim
from harness.engines import base, plan_cache
from harness.engines.memory import Kernel, kernels
from harness.engines.tensorrt import TensorRTEngine, check_model
from harness.engines.tensorrt import library as libraries
from harness.engines.tensorrt.library import Library
from harness.graph import Entry, Graph, Node, TensorType
from harness.operators.context import Fragment, Value

from .double import DoubleCuda, make_engine
from .double.runtime import read, write
from .test_plugins import example, nothing_stays_registered  # noqa: F401 - the fixture is used by its name
from .test_tensorrt_engine import GPU, Interface, builds, calls, on_device

F32 = np.dtype(np.float32)
SWISH = example().CappedSwish


def swish_kernel(cuda: DoubleCuda, source: int, target: int, beta: float, cap: float, count: int) -> None:
    x = read(cuda, source, (count,), F32)
    write(cuda, target, SWISH().numpy({"beta": beta, "cap": cap}, x))


def affine_kernel(cuda: DoubleCuda, source: int, weight: int, target: int, rows: int, space: int) -> None:
    """The rows twice over, each times the weight; by way of the workspace."""
    x, w = read(cuda, source, (rows, 3), F32), read(cuda, weight, (1, 3), F32)
    write(cuda, space, x * w)
    y = read(cuda, space, (rows, 3), F32)
    write(cuda, target, np.concatenate([y, y]))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorRTEngine]:
    """The double in the place of TensorRT, and of what compiles and launches kernels."""
    made = make_engine(DoubleCuda(GPU))
    made.cuda.kernels = {"capped_swish": ("QQffi", swish_kernel), "affine": ("QQQiQ", affine_kernel)}  # type: ignore[attr-defined]
    monkeypatch.setattr(kernels, "current_device", lambda: made.cuda)
    monkeypatch.setattr(kernels, "compile_kernel", lambda source, name, sm, options: b"")
    monkeypatch.setattr(libraries, "open_device", lambda ordinal: made.cuda)
    monkeypatch.setattr(libraries, "find", lambda name: made.library)
    base.get_engine.cache_clear()
    harness.plugin("Custom", op_type="mine", attributes={"beta": 1.0, "cap": float}, version="1")(SWISH)
    harness.plugin("Custom", op_type="affine", version="1")(Affine)
    yield made
    base.get_engine.cache_clear()


class Affine:
    """Twice as many rows, each times w; with an infer of symbolic sizes and a workspace."""

    kernel = Kernel('extern "C" __global__ void affine(...) {}', "affine")

    def infer(self, a: Any, x: Any, w: Any) -> Any:
        return x.dtype, (x.shape[0] * 4 // 2, x.shape[1])

    def numpy(self, a: Any, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.concatenate([x * w, x * w])

    def workspace(self, a: Any, x: Any, w: Any) -> int:
        return int(np.prod(x.shape)) * 4

    def cuda(self, a: Any, inputs: Any, outputs: Any, stream: int, workspace: int) -> None:
        rows = inputs[0].shape[0]
        assert outputs[0].shape == (rows * 2, 3) and workspace
        self.kernel(1, 1, stream, inputs[0], inputs[1], outputs[0], np.int32(rows), np.uint64(workspace))


def network(op_type: str = "mine", ends: bool = False, starts: bool = False, **attributes: str) -> Graph:
    """relu -> the plugin -> minus; the plugin may be the first or the last node."""
    attributes = {"op_type": op_type, **({"cap": "0.75"} if op_type == "mine" else {}), **attributes}
    nodes = [Node("data", "null"), Node("w", "null"), Node("relu0", "Activation", (Entry(0),), {"act_type": "relu"})]
    inputs = (Entry(0 if starts else 2), *((Entry(1),) if op_type == "affine" else ()))
    nodes += [Node("mine0", "Custom", inputs, attributes), Node("minus0", "negative", (Entry(3),))]
    return Graph(tuple(nodes), (Entry(3 if ends else 4),), ("y",))


W = np.array([[1, 2, 3]], np.float32)


def compiled(net: Graph, shape: Any, tmp_path: Path, engine: str = "tensorrt", **options: Any) -> harness.Model:
    cache = {} if engine == "onnxruntime" else {"cache_dir": tmp_path / "cache"}
    return compile_graph(net, {"w": W}, {"data": shape}, engine, fallback="error", **cache, **options)


def image(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 3)).astype(np.float32)


NETWORKS: dict[str, Graph] = {
    "in the middle": network(),
    "at the end": network(ends=True),
    "at the start": network(starts=True),
    "alone": network(starts=True, ends=True),
    "another size": network("affine"),
    "another size, alone": network("affine", starts=True, ends=True),
}


# --- built and run -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3), ((1, 2, 8), 3)], ids=["static", "dynamic"])
@pytest.mark.parametrize("where", NETWORKS)
def test_a_plugin_is_a_layer_of_the_network(where: str, shape: Any, engine: TensorRTEngine, tmp_path: Path) -> None:
    model = compiled(NETWORKS[where], shape, tmp_path)
    assert [segment.engine for segment in model.segments] == ["tensorrt"] and not model.plan.notices
    wanted = compiled(NETWORKS[where], shape, tmp_path, "onnxruntime")
    for rows in (4,) * 4 if shape == (4, 3) else (1, 4, 8, 8, 8, 2):
        x = image(rows, rows)
        np.testing.assert_array_equal(model(data=x)[0], wanted(data=x)[0])
        np.testing.assert_array_equal(model(data=on_device(engine.cuda, x))[0], wanted(data=x)[0])
    assert calls(engine, "launch_kernel") > 0


def test_a_captured_graph_launches_the_kernel_without_python(engine: TensorRTEngine, tmp_path: Path) -> None:
    model = compiled(network(), (4, 3), tmp_path)
    launched = []
    for seed in range(5):
        x = image(4, seed)
        np.testing.assert_array_equal(model(data=x)[0], -SWISH().numpy({"beta": 1, "cap": 0.75}, np.maximum(x, 0)))
        launched.append(calls(engine, "launch_kernel"))
    assert launched[1] == launched[4] and calls(engine, "launch") == 4


@pytest.mark.parametrize("options", [{"contexts": 3}, {"scratch": "shared"}, {"cuda_graphs": False}], ids=str)
def test_many_threads(options: dict[str, Any], engine: TensorRTEngine, tmp_path: Path) -> None:
    model = compiled(network("affine"), ((1, 2, 8), 3), tmp_path, **options)

    def work(first: int) -> None:
        for turn in range(10):
            x = image((first + turn // 3) % 8 + 1, turn)
            y = np.maximum(x, 0) * W
            np.testing.assert_array_equal(model(data=x)[0], -np.concatenate([y, y]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4), timeout=60))


def test_int8_calibrates_through_a_plugin(engine: TensorRTEngine, tmp_path: Path) -> None:
    """Calibration runs on ONNX Runtime, and the plugin inside the part by NumPy."""
    weight = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    nodes = (
        Node("data", "null"), Node("w1", "null"), Node("w2", "null"),
        Node("fc1", "FullyConnected", (Entry(0), Entry(1)), {"num_hidden": "16", "no_bias": "True"}),
        Node("mine0", "Custom", (Entry(3),), {"op_type": "mine", "cap": "0.75"}),
        Node("fc2", "FullyConnected", (Entry(4), Entry(2)), {"num_hidden": "16", "no_bias": "True"}),
    )  # fmt: skip
    net, params = Graph(nodes, (Entry(5),), ("y",)), {"w1": weight, "w2": weight}
    samples = [{"data": np.random.default_rng(n).standard_normal((4, 16)).astype(np.float32)} for n in range(3)]
    found = {
        precision: compile_graph(net, params, {"data": (4, 16)}, "tensorrt", precision, "error", samples, tmp_path)
        for precision in ("fp32", "int8")
    }
    assert [segment.engine for segment in found["int8"].segments] == ["tensorrt"]
    model = found["int8"].plan.models[0]
    assert sum(node.op_type == "DequantizeLinear" for node in model.graph) == 4  # type: ignore[union-attr]
    answers = [model(**samples[0])[0] for model in found.values()]
    assert numerics.sqnr(answers[1], answers[0]) > 25


def test_half_precision_leaves_a_plugin_its_types(engine: TensorRTEngine, tmp_path: Path) -> None:
    model = compiled(network(), (4, 3), tmp_path, precision="fp16")
    (node,) = plugins.in_model(model.plan.models[0])  # type: ignore[arg-type]
    assert {value.dtype for value in (*node.inputs, *node.outputs)} == {ir.DataType.FLOAT}  # type: ignore[union-attr]
    x = (np.arange(12, dtype=np.float32) / 4 - 1).reshape(4, 3)
    assert model(data=x)[0].dtype == np.float32


# --- plans ---------------------------------------------------------------------------------------------------------------


def test_a_plan_is_its_plugin_s_version_s(engine: TensorRTEngine, tmp_path: Path) -> None:
    for version, count in (("1", 1), ("1", 1), ("2", 2), ("1", 2)):
        harness.plugin("Custom", op_type="mine", attributes={"beta": 1.0, "cap": float}, version=version)(SWISH)
        compiled(network(), (4, 3), tmp_path)(data=image(4))
        assert builds(engine) == count
    for entry in plan_cache.list_entries(tmp_path / "cache"):
        assert entry.manifest["fields"]["plugins"] in (["MXNet_Custom_mine:1"], ["MXNet_Custom_mine:2"])


def test_a_class_registered_again_under_one_version_takes_over(engine: TensorRTEngine, tmp_path: Path) -> None:
    """As in a notebook: the version is the caller's word, and the last class that was given it is run."""
    compiled(network(), (4, 3), tmp_path)

    class Later(SWISH):  # type: ignore[misc, valid-type]
        used = 0

        def cuda(self, *given: Any) -> None:
            Later.used += 1
            super().cuda(*given)

    harness.plugin("Custom", op_type="mine", attributes={"beta": 1.0, "cap": float}, version="1")(Later)
    compiled(network(), (4, 3), tmp_path)(data=image(4))
    assert Later.used and builds(engine) == 1


def test_a_saved_plan_needs_the_plugin_again(engine: TensorRTEngine, tmp_path: Path) -> None:
    model = compiled(network(), (4, 3), tmp_path)
    model.save(tmp_path / "saved")
    before = builds(engine)
    another = make_engine(engine.cuda)  # type: ignore[arg-type] - another process: nothing is known to the library
    libraries.find = lambda name: another.library  # type: ignore[assignment] - the fixture restores it
    base.get_engine.cache_clear()
    loaded = harness.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded(data=image(4))[0], model(data=image(4))[0])
    assert builds(engine) == before and builds(another) == 0
    on_cpu = harness.load(tmp_path / "saved", engine="onnxruntime")
    np.testing.assert_array_equal(on_cpu(data=image(4))[0], model(data=image(4))[0])
    plugins.unregister("Custom", "mine")
    with pytest.raises(harness.EngineMissing, match="mine0.*is run by a plugin, which is not registered here"):
        harness.load(tmp_path / "saved")


# --- who may not run it --------------------------------------------------------------------------------------------------


class NoKernel:
    def infer(self, a: Any, x: Any) -> Any:
        return x

    def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
        return x


class OtherTypes(NoKernel):
    def infer(self, a: Any, x: Any) -> Any:
        return "uint8", x.shape

    def cuda(self, *_: Any) -> None: ...


@pytest.mark.parametrize(
    ("cls", "rtx", "reason"),
    [
        (NoKernel, False, r"the plugin of Custom \(other\) has no method cuda"),
        (OtherTypes, False, "TensorRT's plugins take no uint8"),
        (SWISH, True, "TensorRT-RTX 10.6.0 takes no plugins written in Python"),
    ],
)
def test_what_the_library_cannot_run_is_a_part_of_its_own(
    cls: type, rtx: bool, reason: str, engine: TensorRTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rtx:
        made = make_engine(engine.cuda, rtx=True)  # type: ignore[arg-type]
        monkeypatch.setattr(libraries, "find", lambda name: made.library)
        base.get_engine.cache_clear()
    attributes = {"cap": 0.75, "beta": 1.0} if cls is SWISH else {}
    harness.plugin("Custom", op_type="other", attributes=attributes)(cls)
    model = compiled(network("other"), (4, 3), tmp_path)
    own = "tensorrt_rtx" if rtx else "tensorrt"
    assert [segment.engine for segment in model.segments] == [own, "python", own]
    assert re.search(f"mine0 .Custom. is run by its plugin's NumPy function: {reason}", model.plan.notices[0])


def test_sizes_that_vary_need_infer(engine: TensorRTEngine) -> None:
    """Without it MXNet tells the types to the compiler, and nobody to TensorRT."""

    class NoInfer:
        def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
            return x

        def cuda(self, *_: Any) -> None: ...

    harness.plugin("Custom", op_type="other")(NoInfer)
    found = plugins.find("Custom", {"op_type": "other"})
    for size, refused in ((4, False), (Dim.symbol("data_0"), True)):
        kind = TensorType(F32, (size, 3))
        x, y = Value("x", kind), Value("y", kind)
        call = plugins.call(found, "mine0", {"op_type": "other"}, [kind], [kind])  # type: ignore[arg-type]
        fragment = Fragment([plugins.node_of(call, [x], ["y"], "mine0/node")], {"x": x, "y": y})
        reason = engine.refuse(fragment)
        assert (reason is not None) == refused, reason
        assert not refused or "has no method infer, and its outputs' sizes vary" in str(reason)


def test_rtx_never_meets_a_plugin(engine: TensorRTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parser would find the creator, and end the process."""
    part = compiled(network(), (4, 3), tmp_path).plan.models[0]
    monkeypatch.undo()
    libraries.find.cache_clear()
    (refusal,) = check_model(part, "part")  # type: ignore[arg-type]
    assert (refusal.owner, refusal.operator) == ("mine0", "MXNet_Custom_mine")
    assert "takes no plugins written in Python" in str(refusal)


# --- failures ------------------------------------------------------------------------------------------------------------


class Fails(NoKernel):
    """Fails where it is told to."""

    where = ""
    error: BaseException = ZeroDivisionError("by nothing")

    def _may_fail(self, where: str) -> None:
        if Fails.where != where:
            return
        try:
            {}["what went wrong before"]
        except KeyError:
            raise Fails.error  # noqa: B904 - both errors have frames

    def infer(self, a: Any, x: Any) -> Any:
        if str(x.shape[0]) == "i0_0":  # TensorRT asks, not the compiler
            self._may_fail("infer")
        return x

    def workspace(self, a: Any, x: Any) -> int:
        self._may_fail("workspace")
        return 16

    def cuda(self, a: Any, inputs: Any, outputs: Any, stream: int, workspace: int) -> None:
        self._may_fail("cuda")
        SWISH().cuda({"beta": 1.0, "cap": 9.0}, inputs, outputs, stream, workspace)


def causes(error: BaseException) -> Iterator[BaseException]:
    for one in (error.__cause__, error.__context__):
        if one is not None:
            yield one
            yield from causes(one)


def layers_held_by(error: BaseException, trt: Any) -> list[str]:
    """The frames that an error and its causes keep, callers among them, in which a plugin's object is alive."""
    found = []
    kinds = (trt.IPluginV3, trt.IPluginCreatorV3One, trt.IExprBuilder, trt.DimsExprs)
    for one in (error, *causes(error)):
        for inner, _ in traceback.walk_tb(one.__traceback__):
            for frame, line in traceback.walk_stack(inner):  # a frame keeps the one that called it
                if any(isinstance(value, kinds) for value in frame.f_locals.values()):
                    found.append(f"{frame.f_code.co_name}:{line}")
    return found


@pytest.mark.parametrize("questions", [0, 1, 3])
def test_what_tensorrt_deletes_is_not_deleted_again(questions: int) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    command = [sys.executable, "-m", "suites.meta.plugin_lifetime", "20", str(questions)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "MALLOC_CHECK_": "3"}, check=False
    )
    assert (done.returncode, done.stdout) == (0, "deleted 20\n"), done.stderr[-2000:]


@pytest.mark.parametrize("raised", [ZeroDivisionError, KeyboardInterrupt], ids=["error", "Ctrl-C"])
@pytest.mark.parametrize("where", ["infer", "workspace", "cuda"])
def test_a_plugin_that_fails_in_the_builder_is_named(
    where: str, raised: type[BaseException], engine: TensorRTEngine, tmp_path: Path
) -> None:
    harness.plugin("Custom", op_type="fails")(Fails)
    Fails.where, Fails.error = where, raised("by nothing")
    interrupted = raised is KeyboardInterrupt
    text = None if interrupted else f"Custom .fails. failed at node 'mine0': {where}.*: ZeroDivisionError"
    with pytest.raises(raised if interrupted else harness.BuildError, match=text) as caught:
        compiled(network("fails"), ((1, 2, 8), 3), tmp_path)
    assert not layers_held_by(caught.value, engine.library.trt)
    Fails.where = ""
    assert compiled(network("fails"), ((1, 2, 8), 3), tmp_path)(data=image(4))


def test_a_kernel_waits_for_what_is_under_way_on_its_arrays_own_streams(engine: TensorRTEngine) -> None:
    cuda: Any = engine.cuda
    x, w = np.arange(6, dtype=F32).reshape(2, 3), np.full((1, 3), 2, F32)
    theirs, ours = cuda.create_stream(), cuda.create_stream()
    source, weight = Interface(cuda, x, theirs), Interface(cuda, w, ours)
    space, target = on_device(cuda, np.zeros((2, 3), F32)), on_device(cuda, np.zeros((4, 3), F32))
    Affine.kernel(1, 1, ours, source, weight, target, np.int32(2), np.uint64(space.address))
    cuda.synchronize(ours)
    np.testing.assert_array_equal(read(cuda, target.address, (4, 3), F32), np.concatenate([x, x]) * 2)


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("raised", [ZeroDivisionError, KeyboardInterrupt], ids=["error", "Ctrl-C"])
def test_a_plugin_that_fails_in_a_run_is_named_and_the_next_run_works(
    raised: type[BaseException], after: int, engine: TensorRTEngine, tmp_path: Path
) -> None:
    harness.plugin("Custom", op_type="fails")(Fails)
    Fails.where = ""
    model = compiled(network("fails"), ((1, 2, 8), 3), tmp_path, contexts=1)
    for seed in range(after):
        model(data=image(4, seed))
    Fails.where, Fails.error = "cuda", raised("by nothing")
    interrupted = raised is KeyboardInterrupt
    text = None if interrupted else "TensorRT 10.6.0 failed in part segment0: .*'mine0': cuda: ZeroDiv"
    with pytest.raises(raised if interrupted else harness.ExecutionError, match=text) as caught:
        model(data=image(5))
    assert not layers_held_by(caught.value, engine.library.trt)
    Fails.where = ""
    for rows in (5, 4, 5):
        assert model(data=image(rows))[0].shape == (rows, 3)


def test_another_part_s_failure_is_not_ours(engine: TensorRTEngine, tmp_path: Path) -> None:
    """An error noted by one thread is not raised in another."""
    from harness.engines.tensorrt import plugins as adapters

    model = compiled(network(), (4, 3), tmp_path)
    call = plugins.read_node(plugins.in_model(model.plan.models[0])[0])  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: adapters.PROBLEMS.note(call, "cuda", ValueError("elsewhere")))
    thread.start()
    thread.join()
    assert model(data=image(4))
    assert adapters.PROBLEMS.take({"mine0"})


# --- plugins that the library ships ----------------------------------------------------------------------------------


def test_shipped_plugins_are_looked_for_by_name(engine: TensorRTEngine) -> None:
    assert "ROIAlign_TRT" in engine.library.shipped_plugins
    assert engine.library.lacks_plugin("RoiAlign") is None and engine.library.lacks_plugin("Relu") is None
    rtx = make_engine(engine.cuda, rtx=True).library  # type: ignore[arg-type]
    assert rtx.lacks_plugin("RoiAlign") is None  # read from RTX's real registry
    registry = SimpleNamespace(all_creators=[SimpleNamespace(name="EfficientNMS_TRT")])
    without = Library(
        "tensorrt", SimpleNamespace(__version__="10.6.0", IBuilderConfig=object, get_plugin_registry=lambda: registry)
    )
    assert without.lacks_plugin("RoiAlign") == (
        "TensorRT 10.6.0 builds RoiAlign from its plugin ROIAlign_TRT, which is not there"
    )
