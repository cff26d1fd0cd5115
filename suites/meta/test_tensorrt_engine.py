"""The TensorRT engine from end to end on a test double (see suites/meta/double): plans, profiles, memory, failures.

Nothing here measures TensorRT or a GPU. Numbers are compared with ONNX Runtime, which is what the double executes, so a
difference is a fault of the engine's handling of memory, shapes, streams or plans.
"""

from __future__ import annotations

import ctypes
import json
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

import harness
from harness.engines import base, memory, plan_cache
from harness.engines.base import BuildRequest
from harness.engines.memory import CudaError, Device, DeviceArray, DeviceBuffer
from harness.engines.tensorrt import TensorRTEngine, check_model, create, staging
from harness.engines.tensorrt import library as libraries
from harness.engines.tensorrt import options as opts

from .double import DoubleCuda, make_engine

SHAPE = (2, 3, 8, 8)
GPU = Device(0, "double of a GPU", (8, 9), 8 << 30, 12080)
F32 = np.dtype(np.float32)


def network(scale: float = 1.0, channels: int = 4, dtype: Any = np.float32, batch: Any = SHAPE[0]) -> ir.Model:
    """Convolution, ReLU, global pooling, addition: with names as lowerings give them."""
    draw = np.random.default_rng(0).standard_normal
    onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weight = (draw((channels, 3, 3, 3)) * scale).astype(dtype)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["data", "w"], ["c"], name="conv0/Conv", kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Relu", ["c"], ["r"], name="relu0/Relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool0/GlobalAveragePool"),
            helper.make_node("Add", ["p", "b"], ["out"], name="add0/Add"),
        ],
        "part",
        [helper.make_tensor_value_info("data", onnx_type, [batch, *SHAPE[1:]])],
        [helper.make_tensor_value_info("out", onnx_type, [batch, channels, 1, 1])],
        [
            helper.make_tensor("w", onnx_type, weight.shape, weight.tobytes(), raw=True),
            helper.make_tensor("b", onnx_type, (1,), np.ones(1, dtype).tobytes(), raw=True),
        ],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10))


def single(
    op: str, inputs: dict[str, tuple[int, ...]], constants: dict[str, np.ndarray], outputs: int = 1, **attrs: Any
) -> ir.Model:
    """One node, named as a lowering names it."""
    names = [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, [*inputs, *constants], names, name=f"node0/{op}", **attrs)],
        "one",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, t, None) for name, t in zip(names, (1, 7))],
        [
            helper.make_tensor(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape, a.tobytes(), raw=True)
            for n, a in constants.items()
        ],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10))


@pytest.fixture
def engine() -> TensorRTEngine:
    return make_engine()


def request(
    folder: Path, model: ir.Model | None = None, profile: Any = None, precision: str = "fp32", **options: Any
) -> BuildRequest:
    return BuildRequest("part0", model or network(), profile or {}, options, str(folder), precision)


def image(batch: int = SHAPE[0], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE[1:])).astype(np.float32)


def expected(x: np.ndarray, model: ir.Model | None = None) -> np.ndarray:
    session = base.get_engine("onnxruntime").build(BuildRequest("reference", model or network(batch="n")))
    return session.run([x])[0]


def builds(engine: TensorRTEngine) -> int:
    return int(engine.library.trt.builds)


# --- without a GPU ---------------------------------------------------------------------------------------------------


def test_a_device_is_looked_for_before_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT 10.6 ends the process when it is used without a GPU."""

    def missing(ordinal: int) -> Any:
        raise harness.EngineMissing("no NVIDIA driver is found; a GPU and its driver are needed")

    monkeypatch.setattr(libraries, "open_device", missing)
    monkeypatch.setattr(libraries, "find", lambda name: pytest.fail("the library came first"))
    with pytest.raises(harness.EngineMissing, match="a GPU and its driver are needed"):
        create("tensorrt")


def test_a_missing_library_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(libraries._MODULES, "tensorrt", ("no_such_tensorrt",))
    libraries.find.cache_clear()
    with pytest.raises(harness.EngineMissing, match="no_such_tensorrt.*pip install tensorrt.*onnxruntime"):
        libraries.find("tensorrt")


@pytest.mark.parametrize(
    ("rtx", "capability", "runs"),
    [(True, (9, 0), False), (True, (8, 7), False), (True, (8, 9), True), (True, (12, 1), True), (True, (10, 0), False),
     (False, (9, 0), True), (False, (7, 0), False), (False, (7, 5), True)],
)  # fmt: skip
def test_the_capability_record_knows_the_gpu(rtx: bool, capability: tuple[int, int], runs: bool) -> None:
    cuda = DoubleCuda(Device(0, "some GPU", capability, 1 << 30, 12080))
    if runs:
        assert make_engine(cuda, rtx=rtx).cuda is cuda
    else:
        with pytest.raises(
            harness.EngineMissing, match=f"compute capability is {capability[0]}.{capability[1]}.*use engine="
        ):
            make_engine(cuda, rtx=rtx)


# --- building and the plan cache -------------------------------------------------------------------------------------


def test_built_once_and_right(engine: TensorRTEngine, tmp_path: Path) -> None:
    first, second = (engine.build(request(tmp_path)) for _ in range(2))
    assert (first.outcome, second.outcome, builds(engine)) == ("built", "hit", 1)  # type: ignore[attr-defined]
    for session in (first, second):
        for seed in range(3):
            np.testing.assert_array_equal(session.run([image(seed=seed)])[0], expected(image(seed=seed)))


def test_answers_are_fresh_and_inputs_untouched(engine: TensorRTEngine, tmp_path: Path) -> None:
    session, x = engine.build(request(tmp_path)), image()
    before = x.copy()
    first = session.run([x])[0]
    kept = first.copy()
    session.run([image(seed=9)])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(x, before)
    first += 1  # ours to write to


OTHER: dict[str, Any] = {
    "workspace": 1 << 20, "optimization_level": 2, "max_aux_streams": 1, "avg_timing_iterations": 2,
    "hardware": "ampere_plus", "version_compatible": True, "refit": True, "strip": True, "sparse_weights": True,
    "strict_nans": True, "weight_streaming": True, "editable_timing_cache": True, "fail_on_timing_miss": True,
    "profiling": "detailed", "timing_cache": False, "plan_cache": False, "device": 0, "contexts": 3,
    "cuda_graphs": False, "scratch": "shared", "outside": "rebuild",
}  # fmt: skip


def key(engine: TensorRTEngine, tmp_path: Path, **changes: Any) -> str:
    return engine._order(request(tmp_path, **changes)).key


@pytest.mark.parametrize("option", sorted(OTHER))
def test_an_option_is_in_the_key_if_and_only_if_its_table_says_so(
    option: str, tmp_path: Path, engine: TensorRTEngine
) -> None:
    changed = key(engine, tmp_path, **{option: OTHER[option]}) != key(engine, tmp_path)
    assert changed == opts.OPTIONS[option].build


def test_every_option_has_been_tried() -> None:
    of_their_own = {"profiles", "unknown_sizes", "plugins", "weight_streaming_budget"}
    assert set(OTHER) | of_their_own == set(opts.OPTIONS)


@pytest.mark.parametrize("field", ["name", "compute_capability", "memory", "driver"])
def test_every_property_of_the_gpu_is_in_the_key(field: str, tmp_path: Path) -> None:
    other = {"name": "another", "compute_capability": (9, 0), "memory": 1 << 30, "driver": 13000}
    cuda = DoubleCuda(Device(**{**{f: getattr(GPU, f) for f in GPU.__slots__}, field: other[field]}))
    assert key(make_engine(cuda), tmp_path) != key(make_engine(DoubleCuda(GPU)), tmp_path)


CHANGES: dict[str, dict[str, Any]] = {
    "weights": {"model": network(scale=2.0)},
    "structure": {"model": network(channels=5)},
    "types": {"model": network(dtype=np.float16)},
    "precision": {"precision": "tf32"},
    "profile": {"model": network(batch="n"), "profile": {"data": {0: (1, 2, 4)}}},
    "wider profile": {"model": network(batch="n"), "profile": {"data": {0: (1, 2, 8)}}},
    "two profiles": {
        "model": network(batch="n"),
        "profile": {"data": {0: (1, 2, 4)}},
        "profiles": [{"data": {0: (1, 1, 1)}}],
    },
}


def test_every_part_of_a_request_is_in_the_key(engine: TensorRTEngine, tmp_path: Path) -> None:
    keys = {name: key(engine, tmp_path, **change) for name, change in CHANGES.items()}
    assert len({key(engine, tmp_path), *keys.values()}) == len(CHANGES) + 1


def test_the_version_and_flavour_are_in_the_key(tmp_path: Path) -> None:
    engines = [make_engine(), make_engine(version="10.6.1"), make_engine(rtx=True)]
    assert len({key(engine, tmp_path) for engine in engines}) == 3


def test_a_plugin_is_in_the_key_by_its_content(engine: TensorRTEngine, tmp_path: Path) -> None:
    library = tmp_path / "plugin.so"
    keys = []
    for content in (b"one", b"two"):
        library.write_bytes(content)
        keys.append(key(engine, tmp_path, plugins=[str(library)]))
    assert len({*keys, key(engine, tmp_path)}) == 3
    assert engine.build(request(tmp_path, plugins=[str(library)])).run([image()])
    with pytest.raises(harness.CacheError, match="gone.so cannot be read"):
        engine.build(request(tmp_path, plugins=[str(tmp_path / "gone.so")]))


def test_a_part_s_number_is_not_in_the_key(engine: TensorRTEngine, tmp_path: Path) -> None:
    order = engine._order(BuildRequest("segment7", network(), {}, {}, str(tmp_path)))
    assert order.key == key(engine, tmp_path)


@pytest.mark.parametrize("message", ["Version tag does not match", ""])
def test_a_plan_that_the_library_refuses_is_built_again(message: str, engine: TensorRTEngine, tmp_path: Path) -> None:
    engine.build(request(tmp_path))
    engine.library.trt.failures["deserialize"] = message
    assert engine.build(request(tmp_path)).outcome == "built"  # type: ignore[attr-defined]
    assert builds(engine) == 2
    assert [checked.problem for checked in plan_cache.verify(tmp_path)] == [""]


@pytest.mark.parametrize("what", ["deserialize", "build"])
def test_a_full_gpu_is_told_apart_from_a_plan_of_no_use(what: str, tmp_path: Path) -> None:
    """TensorRT 10.6 says "invalid resource handle", or nothing; a whole plan must not be thrown away for it."""
    cuda = DoubleCuda(GPU)
    engine = make_engine(cuda)
    if what == "deserialize":
        engine.build(request(tmp_path)).close()
    engine.library.trt.failures[what] = "Cask (no further information)"
    held = cuda.malloc(cuda.free_memory() - (8 << 20))
    with pytest.raises(CudaError, match="out of device memory in part part0: 8388608 bytes of memory are free"):
        engine.build(request(tmp_path))
    cuda.free(held)
    session: Any = engine.build(request(tmp_path))
    assert session.outcome == ("hit" if what == "deserialize" else "built")
    np.testing.assert_array_equal(session.run([image()])[0], expected(image()))


def test_a_plan_of_garbage_with_a_true_checksum_is_built_again(engine: TensorRTEngine, tmp_path: Path) -> None:
    engine.build(request(tmp_path))
    cache = plan_cache.PlanCache(tmp_path)
    order = engine._order(request(tmp_path))
    cache.remove(order.key)
    cache.find_or_build(order.fields, lambda: (b"not a plan at all", {}))
    session = engine.build(request(tmp_path))
    np.testing.assert_array_equal(session.run([image()])[0], expected(image()))


def test_new_parameters_go_into_a_refittable_plan(engine: TensorRTEngine, tmp_path: Path) -> None:
    engine.build(request(tmp_path, refit=True))
    session = engine.build(request(tmp_path, network(scale=3.0), refit=True))
    assert (session.outcome, builds(engine)) == ("hit", 1)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(session.run([image()])[0], expected(image(), network(scale=3.0)))


def test_a_plan_that_cannot_be_refitted_is_built_again(engine: TensorRTEngine, tmp_path: Path) -> None:
    engine.build(request(tmp_path, refit=True))
    engine.library.trt.failures["refit"] = "weights do not match"
    session = engine.build(request(tmp_path, network(scale=3.0), refit=True))
    assert builds(engine) == 2
    np.testing.assert_array_equal(session.run([image()])[0], expected(image(), network(scale=3.0)))


def test_a_stripped_plan_gets_its_parameters(engine: TensorRTEngine, tmp_path: Path) -> None:
    for _ in range(2):
        session = engine.build(request(tmp_path, strip=True))
        np.testing.assert_array_equal(session.run([image()])[0], expected(image()))
    assert builds(engine) == 1
    engine.library.trt.failures["refit"] = "weights do not match"
    with pytest.raises(harness.BuildError, match="cannot put new parameters into the plan of part part0"):
        engine.build(request(tmp_path, strip=True, profiling="detailed"))


def test_measured_tactics_are_kept_and_joined(engine: TensorRTEngine, tmp_path: Path) -> None:
    engine.build(request(tmp_path))
    engine.build(request(tmp_path, network(channels=5)))
    (timing,) = (tmp_path / "timing").glob("*.timing")
    assert len(json.loads(timing.read_bytes())) == 2
    timing.write_bytes(b"\xff damaged")
    assert engine.build(request(tmp_path, network(channels=6))).run([image()])
    own = tmp_path / "own.timing"
    engine.build(request(tmp_path, network(channels=7), timing_cache=str(own)))
    assert own.exists()


def test_tf32_is_cleared_unless_asked_for(engine: TensorRTEngine, tmp_path: Path) -> None:
    for precision in ("fp32", "tf32", "fp16"):
        session = engine.build(request(tmp_path, precision=precision))
        assert ("TF32" in session.engine.about["flags"]) == (precision == "tf32")  # type: ignore[attr-defined]


def test_parameters_that_lie_in_a_file_stay_there(engine: TensorRTEngine, tmp_path: Path) -> None:
    ir.save(network(), tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    session = engine.build(request(tmp_path, ir.load(tmp_path / "m.onnx")))
    np.testing.assert_array_equal(session.run([image()])[0], expected(image()))


# --- refusals --------------------------------------------------------------------------------------------------------


def test_the_parser_s_refusal_names_the_node(engine: TensorRTEngine, tmp_path: Path) -> None:
    model = single("AveragePool", {"data": (1, 2, 9, 9)}, {}, kernel_shape=[2, 2], dilations=[2, 2])
    with pytest.raises(
        harness.BuildError,
        match=r"(?s)TensorRT 10.6.0 refuses part part0.*'node0' \(AveragePool of float\[1, 2, 9, 9\]\)",
    ):
        engine.build(request(tmp_path, model))
    assert not plan_cache.list_entries(tmp_path)


def test_the_builder_s_refusal_names_the_node(engine: TensorRTEngine, tmp_path: Path) -> None:
    model = single("TopK", {"data": (1, 5000)}, {"k": np.array([4000])}, 2, axis=1)
    with pytest.raises(
        harness.BuildError, match=r"(?s)refuses part part0.*'node0' \(TopK of float\[1, 5000\], int64\[1\]\)"
    ):
        engine.build(request(tmp_path, model))


@pytest.mark.parametrize(
    "message", ["[optimizer.cpp::computeCosts] Could not find any implementation for node conv0/Conv + relu0/Relu.", ""]
)
def test_a_builder_that_returns_nothing(message: str, engine: TensorRTEngine, tmp_path: Path) -> None:
    engine.library.trt.failures["build"] = message
    named = r"'conv0' \(Conv of .*(?s:.*)'relu0' \(Relu of" if message else "no engine and no reason"
    with pytest.raises(harness.BuildError, match=named):
        engine.build(request(tmp_path))
    assert engine.build(request(tmp_path)).outcome == "built"  # type: ignore[attr-defined]


def test_a_plan_that_cannot_be_loaded_at_all(
    engine: TensorRTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.library.trt, "fails", lambda what, logger: what == "deserialize")
    with pytest.raises(harness.BuildError, match="cannot load its own plan on double of a GPU; check that the driver"):
        engine.build(request(tmp_path))


def test_operators_from_plugins_are_registered_first(engine: TensorRTEngine, tmp_path: Path) -> None:
    scale = {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)}
    model = single("InstanceNormalization", {"data": SHAPE}, scale)
    np.testing.assert_array_equal(engine.build(request(tmp_path, model)).run([image()])[0], expected(image(), model))


def test_rtx_judges_models_without_a_gpu() -> None:
    assert check_model(network(), "part") == []
    assert check_model(network(batch="n"), "part", ("SM120",), {"data": {0: (1, 2, 4)}}) == []
    (refusal,) = check_model(
        single("AveragePool", {"data": (1, 2, 9, 9)}, {}, kernel_shape=[2, 2], dilations=[2, 2]), "part"
    )
    assert (refusal.owner, refusal.operator, refusal.stage) == ("node0", "AveragePool", "parser") and refusal.reason
    (refusal, *_) = check_model(single("TopK", {"data": (1, 5000)}, {"k": np.array([4000])}, 2, axis=1), "part")
    assert (refusal.owner, refusal.stage) == ("node0", "builder")
    with pytest.raises(harness.OptionError, match="'SM90' is none of SM75"):
        check_model(network(), "part", ("SM90",))
    with pytest.raises(harness.BuildError, match="axis 0 of 'data'.*unknown_sizes"):
        check_model(network(batch="n"), "part")


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"workspce": 1}, "not an option of the engine tensorrt.*workspace"),
    ({"workspace": -1}, "workspace"), ({"workspace": 1.5}, "workspace"), ({"workspace": True}, "workspace"),
    ({"optimization_level": 6}, "optimization_level"), ({"optimization_level": "5"}, "optimization_level"),
    ({"contexts": 0}, "contexts"), ({"hardware": "turing"}, "hardware"), ({"profiling": "all"}, "profiling"),
    ({"refit": 1}, "refit"), ({"scratch": "none"}, "scratch"), ({"outside": "grow"}, "outside"), ({"plugins": "x.so"}, "plugins"),
    ({"strip": True, "version_compatible": True}, "exclude each other"),
    ({"weight_streaming_budget": 1}, "needs weight_streaming"),
    ({"profiles": [{"data": (1, 2, 3)}]}, "profiles"), ({"profiles": [{"data": {0: (3, 2, 1)}}]}, "axis 0 of 'data'"),
    ({"unknown_sizes": (1, 2)}, "unknown_sizes"), ({"timing_cache": 3}, "timing_cache"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "named"), BAD_OPTIONS, ids=lambda value: str(value))
def test_an_impossible_option_is_named(options: dict[str, Any], named: str, engine: TensorRTEngine) -> None:
    with pytest.raises(harness.OptionError, match=named):
        engine.check_options(options)


def test_what_a_library_lacks_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(harness.OptionError, match="hardware: TensorRT 10.6.0 has no level same_compute_capability"):
        engine = make_engine()
        level = type("Levels", (), {"AMPERE_PLUS": 1})
        engine.library.trt.HardwareCompatibilityLevel = level
        engine.build(request(tmp_path, hardware="same_compute_capability"))
    with pytest.raises(harness.OptionError, match="version_compatible: TensorRT-RTX .* lean runtime"):
        make_engine(rtx=True).check_options({"version_compatible": True})


# --- profiles --------------------------------------------------------------------------------------------------------

BATCHES = {"data": {0: (1, 2, 4)}}


def dynamic(engine: TensorRTEngine, folder: Path, **options: Any) -> Any:
    return engine.build(request(folder, network(batch="n"), BATCHES, **options))


def test_any_shape_of_the_profile(engine: TensorRTEngine, tmp_path: Path) -> None:
    session = dynamic(engine, tmp_path)
    for batch in (1, 4, 2, 2, 2, 3, 1, 4):
        np.testing.assert_array_equal(session.run([image(batch, batch)])[0], expected(image(batch, batch)))


def test_the_narrowest_profile_is_used(engine: TensorRTEngine, tmp_path: Path) -> None:
    session = dynamic(engine, tmp_path, profiles=[{"data": {0: (1, 1, 1)}}, {"data": {0: (1, 2, 3)}}], contexts=1)
    used = []
    for batch in (1, 4, 3, 1):
        np.testing.assert_array_equal(session.run([image(batch)])[0], expected(image(batch)))
        used.append(session._lanes[0].profile)
    assert used == [1, 0, 2, 1]


def test_a_shape_outside_names_the_range(engine: TensorRTEngine, tmp_path: Path) -> None:
    session = dynamic(engine, tmp_path)
    with pytest.raises(
        harness.InputError, match=r"part part0: input 'data': the shape \(5, 3, 8, 8\).*\[1..4, 3, 8, 8\]"
    ):
        session.run([image(5)])
    assert session.run([image(4)])
    static = engine.build(request(tmp_path, cuda_graphs=False))
    with pytest.raises(harness.OptionError, match=r"axis 0 of 'data': 1..9 is not within 1..4"):
        dynamic(engine, tmp_path, profiles=[{"data": {0: (1, 2, 9)}}])
    with pytest.raises(harness.OptionError, match="axis 2 of 'data' does not vary"):
        dynamic(engine, tmp_path, profiles=[{"data": {2: (1, 2, 9)}}])
    del static


def test_sizes_that_follow_from_the_inputs(engine: TensorRTEngine, tmp_path: Path) -> None:
    """A part in the middle of a network reads sizes such as ``(data_0 + 1)//2``."""
    model = network(batch="2*(image_0 + 1)//2 + 1")
    session = engine.build(request(tmp_path, model, {"image": {0: (1, 3, 5)}}))
    assert session.profiles[0]["data"][0] == (3, 5, 7)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(session.run([image(7)])[0], expected(image(7)))


def test_sizes_that_only_the_run_tells(engine: TensorRTEngine, tmp_path: Path) -> None:
    model = network(batch="nms0_found")
    with pytest.raises(harness.BuildError, match=r"axis 0 of 'data' has a size \(nms0_found\).*unknown_sizes"):
        engine.build(request(tmp_path, model))
    session = engine.build(request(tmp_path, model, unknown_sizes=(1, 2, 6)))
    np.testing.assert_array_equal(session.run([image(6)])[0], expected(image(6)))


# --- graphs, threads, memory -----------------------------------------------------------------------------------------


def calls(engine: TensorRTEngine, name: str) -> int:
    return engine.cuda.calls.get(name, 0)  # type: ignore[attr-defined]


def test_a_graph_is_captured_the_second_time_and_launched_from_then_on(engine: TensorRTEngine, tmp_path: Path) -> None:
    session = engine.build(request(tmp_path))
    launches = []
    for seed in range(4):
        np.testing.assert_array_equal(session.run([image(seed=seed)])[0], expected(image(seed=seed)))
        launches.append(calls(engine, "launch"))
    assert launches == [0, 1, 2, 3]
    assert calls(engine, "begin_capture") == 1


@pytest.mark.parametrize("where", ["trt", "cuda"])
def test_a_plan_that_cannot_be_captured_is_enqueued(where: str, engine: TensorRTEngine, tmp_path: Path) -> None:
    session = engine.build(request(tmp_path))
    if where == "trt":
        engine.library.trt.failures["capture"] = "not supported while capturing"
    else:
        engine.cuda.failures["end_capture"] = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"  # type: ignore[attr-defined]
    for seed in range(4):
        np.testing.assert_array_equal(session.run([image(seed=seed)])[0], expected(image(seed=seed)))
    assert calls(engine, "begin_capture") == 1 and calls(engine, "launch") == 0
    assert session._lanes[0].graph_problem  # type: ignore[attr-defined]


def test_graphs_can_be_switched_off(engine: TensorRTEngine, tmp_path: Path) -> None:
    session = engine.build(request(tmp_path, cuda_graphs=False))
    for _ in range(3):
        np.testing.assert_array_equal(session.run([image()])[0], expected(image()))
    assert calls(engine, "begin_capture") == 0


@pytest.mark.parametrize(
    "options", [{}, {"contexts": 1}, {"contexts": 3, "scratch": "shared"}, {"cuda_graphs": False}], ids=str
)
def test_many_threads(options: dict[str, Any], engine: TensorRTEngine, tmp_path: Path) -> None:
    session = dynamic(engine, tmp_path, **options)
    images = [image(seed % 4 + 1, seed) for seed in range(8)]
    wanted = [expected(x) for x in images]

    def work(first: int) -> None:
        for turn in range(12):
            which = (first + turn // 3) % len(images)
            np.testing.assert_array_equal(session.run([images[which]])[0], wanted[which])

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5), timeout=60))
    assert len(session._lanes) <= options.get("contexts", 2)


def test_memory_for_one_context_is_enough_for_many_threads(tmp_path: Path) -> None:
    cuda = DoubleCuda(GPU, memory=5000)  # two contexts' buffers do not fit
    engine = make_engine(cuda)
    session: Any = dynamic(engine, tmp_path)
    for batch in (4, 1, 4, 1):
        try:
            np.testing.assert_array_equal(session.run([image(batch)])[0], expected(image(batch)))
        except harness.ExecutionError as error:
            assert "5000" in str(error) or "free" in str(error)
    cuda.memory = 1 << 20
    np.testing.assert_array_equal(session.run([image(4)])[0], expected(image(4)))


def test_scratch_is_shared_between_engines(engine: TensorRTEngine, tmp_path: Path) -> None:
    sessions = [engine.build(request(tmp_path, network(channels=n), scratch="shared")) for n in (4, 5, 6)]
    for _ in range(3):
        for channels, session in zip((4, 5, 6), sessions):
            np.testing.assert_array_equal(session.run([image()])[0], expected(image(), network(channels=channels)))
    assert len(memory.shared_scratch(engine.cuda)._free) == 1  # one block served them all


def test_memory_comes_from_the_caller_s_allocator(engine: TensorRTEngine, tmp_path: Path) -> None:
    class Allocator:
        def __init__(self) -> None:
            self.held: dict[int, int] = {}

        def allocate(self, size: int) -> int:
            address = engine.cuda.malloc(size)
            self.held[address] = size
            return address

        def free(self, address: int) -> None:
            del self.held[address]
            engine.cuda.free(address)

    allocator = Allocator()
    memory.use_allocator(allocator)
    try:
        session = engine.build(request(tmp_path))
        np.testing.assert_array_equal(session.run([image()])[0], expected(image()))
        assert sum(allocator.held.values()) >= image().nbytes
    finally:
        memory.use_allocator(None)
    session.close()  # type: ignore[attr-defined]
    assert not allocator.held


def test_closing_frees_everything(engine: TensorRTEngine, tmp_path: Path) -> None:
    before = engine.cuda.used  # type: ignore[attr-defined]
    session: Any = engine.build(request(tmp_path))
    for _ in range(3):
        session.run([image()])
    session.close()
    assert engine.cuda.used == before and not engine.cuda._graphs  # type: ignore[attr-defined]
    assert list(engine.cuda._streams) == [0]  # type: ignore[attr-defined]
    with pytest.raises(harness.ExecutionError, match="has been closed"):
        session.run([image()])


# --- arrays on the GPU -----------------------------------------------------------------------------------------------


class Interface:
    """An array of some library: __cuda_array_interface__ alone."""

    def __init__(self, cuda: Any, array: np.ndarray, stream: int | None = None, **changes: Any) -> None:
        self.buffer = DeviceBuffer(cuda, array.nbytes)
        self.source = array
        self.shape, self.dtype = array.shape, array.dtype
        cuda.copy_in(self.buffer.address, self.source.ctypes.data, array.nbytes, stream or 0)
        self.__cuda_array_interface__ = {
            "version": 3, "shape": array.shape, "typestr": array.dtype.str, "data": (self.buffer.address, False),
            "strides": None, **({} if stream is None else {"stream": stream}), **changes,
        }  # fmt: skip


class Capsule:
    """An array of some library: DLPack alone. The producer notes the stream on which it was asked to be ready."""

    def __init__(self, cuda: Any, array: np.ndarray, code: int = 2, strides: list[int] | None = None) -> None:
        self.inner, self.shape, self.code = Interface(cuda, array), array.shape, code
        self.cuda, self.asked = cuda, None
        self.strides = strides

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.asked = stream
        self.cuda.synchronize(0)
        tensor = memory.arrays._DLTensor()
        tensor.data, tensor.device_type, tensor.ndim = self.inner.buffer.address, 2, len(self.shape)
        tensor.code, tensor.bits, tensor.lanes = self.code, 8 * self.inner.dtype.itemsize, 1
        tensor.shape = (ctypes.c_int64 * len(self.shape))(*self.shape)
        if self.strides:
            tensor.strides = (ctypes.c_int64 * len(self.shape))(*self.strides)
        self.keep = tensor
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(tensor), b"dltensor", None)


def on_device(cuda: Any, array: np.ndarray) -> DeviceArray:
    buffer = DeviceBuffer(cuda, array.nbytes)
    cuda.copy_in(buffer.address, array.ctypes.data, array.nbytes, 0)
    cuda.synchronize(0)
    return DeviceArray(buffer.address, array.shape, array.dtype, buffer)


class Tensor:
    """A tensor of a stand-in for PyTorch: on ``current``, the stand-in's stream, its content is being made."""

    current = 0

    def __init__(self, cuda: Any, array: np.ndarray, **changes: Any) -> None:
        self.buffer = DeviceBuffer(cuda, array.nbytes)
        self.source = array  # the copy is under way
        cuda.copy_in(self.buffer.address, array.ctypes.data, array.nbytes, Tensor.current)
        self.shape, self.dtype, self.device = array.shape, array.dtype.name, "cuda:0"
        self.is_cuda, self.layout, self.requires_grad = True, "strided", False
        self.negative = self.conjugate = False
        self.contiguous = True
        self.__dict__.update(changes)

    def is_neg(self) -> bool:
        return self.negative

    def is_conj(self) -> bool:
        return self.conjugate

    def is_contiguous(self) -> bool:
        return self.contiguous

    def data_ptr(self) -> int:
        return self.buffer.address

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: int | None = None) -> Any:
        raise BufferError("asked by DLPack")


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = types.ModuleType("torch")
    module.Tensor, module.strided = Tensor, "strided"
    for name in ("bool", "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"):
        setattr(module, name, name)
    module.cuda = types.SimpleNamespace(current_stream=lambda device: types.SimpleNamespace(cuda_stream=Tensor.current))
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setattr(Tensor, "current", 0)
    return module


@pytest.mark.parametrize("own_stream", [False, True])
def test_tensors_of_pytorch_are_read_in_place_when_they_are_ready(
    own_stream: bool, torch: Any, engine: TensorRTEngine, tmp_path: Path
) -> None:
    session: Any = engine.build(request(tmp_path))
    cuda: Any = engine.cuda
    if own_stream:
        Tensor.current = cuda.create_stream()
    out = Tensor(cuda, np.zeros((2, 4, 1, 1), np.float32))
    for seed in range(4):
        x = image(seed=seed)
        tensor = Tensor(cuda, x)
        copies = calls(engine, "copy_in")
        np.testing.assert_array_equal(session.run([tensor])[0], expected(x))
        found = session.enqueue([Tensor(cuda, x)], [out], Tensor.current)
        np.testing.assert_array_equal(found.numpy()[0], expected(x))
        found = session.enqueue(
            [Tensor(cuda, x)], [out]
        )  # on the session's stream, behind what reads ``out`` on theirs
        np.testing.assert_array_equal(found.numpy()[0], expected(x))
        assert calls(engine, "copy_in") == copies + 2, "those of the stand-in"


def test_an_output_is_not_written_while_its_owner_reads_it(torch: Any, engine: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = engine.build(request(tmp_path))
    cuda: Any = engine.cuda
    session.run([image()])  # so that nothing is allocated later, which would wait for everything
    Tensor.current = cuda.create_stream()
    before = np.full((2, 4, 1, 1), 7, np.float32)
    out, seen = Tensor(cuda, before), np.zeros_like(before)
    cuda.synchronize(Tensor.current)
    cuda.copy_out(seen.ctypes.data, out.data_ptr(), seen.nbytes, Tensor.current)
    session.enqueue([image()], [out]).wait()
    cuda.synchronize(Tensor.current)
    np.testing.assert_array_equal(seen, before)


ODD_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "gradient": ({"requires_grad": True}, "asked by DLPack"),
    "negative": ({"negative": True}, "asked by DLPack"),
    "conjugate": ({"conjugate": True}, "asked by DLPack"),
    "sparse": ({"layout": "sparse"}, "asked by DLPack"),
    "type": ({"dtype": "complex64"}, "asked by DLPack"),
    "other type": ({"dtype": "float64"}, "the type is float64, built for float32"),
    "strides": ({"contiguous": False}, r"shape \(2, 3, 8, 8\) is not contiguous; pass .contiguous"),
}


@pytest.mark.parametrize("how", ODD_TENSORS)
def test_tensors_that_are_not_plain_are_refused(how: str, torch: Any, engine: TensorRTEngine, tmp_path: Path) -> None:
    changes, named = ODD_TENSORS[how]
    session = engine.build(request(tmp_path))
    with pytest.raises(harness.InputError, match=f"(?s)part part0: input 'data'.*{named}"):
        session.run([Tensor(engine.cuda, image(), **changes)])


KINDS: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "interface": Interface,
    "interface with a stream": lambda cuda, array: Interface(cuda, array, cuda.create_stream()),
    "dlpack": Capsule,
    "our own": on_device,
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_on_the_gpu_are_read_in_place(kind: str, engine: TensorRTEngine, tmp_path: Path) -> None:
    session = engine.build(request(tmp_path))
    for seed in range(3):
        x = image(seed=seed)
        value = KINDS[kind](engine.cuda, x)
        copies = calls(engine, "copy_in")
        np.testing.assert_array_equal(session.run([value])[0], expected(x))
        assert calls(engine, "copy_in") == copies


@pytest.mark.parametrize("whole", [False, True])
def test_a_large_array_goes_in_pieces(
    whole: bool, engine: TensorRTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By some threads; one that is not contiguous goes at once."""
    monkeypatch.setattr(staging, "PIECE", 1 << 8)
    session = engine.build(request(tmp_path))
    for seed in range(3):
        x = image(seed=seed)
        given = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if whole else x
        copies = calls(engine, "copy_in")
        np.testing.assert_array_equal(session.run([given])[0], expected(x))
        assert calls(engine, "copy_in") - copies == (1 if whole else -(-x.nbytes // 256)) and x.nbytes > 512


def test_a_dlpack_producer_is_told_our_stream(engine: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = engine.build(request(tmp_path))
    value = Capsule(engine.cuda, image())
    session.run([value])
    assert value.asked == session._lanes[0].stream
    session.enqueue([value], stream=0).wait()
    assert value.asked == 1, "DLPack's number for the default stream"


BAD_ARRAYS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "type": (
        lambda cuda: Interface(cuda, image().astype(np.float64)),
        "input 'data': the type is float64, built for float32",
    ),
    "strides": (lambda cuda: Interface(cuda, image(), strides=(768, 256, 4, 32)), "not contiguous"),
    "mask": (lambda cuda: Interface(cuda, image(), mask=1), "masked"),
    "elsewhere": (lambda cuda: DeviceArray(1 << 40, SHAPE, F32), "lies on another GPU.*autoprimaryctx"),
    "dlpack strides": (lambda cuda: Capsule(cuda, image(), strides=[192, 64, 1, 8]), "not contiguous"),
    "dlpack type": (lambda cuda: Capsule(cuda, image(), code=5), "type code 5 with 32 bits"),
}


@pytest.mark.parametrize("how", BAD_ARRAYS)
def test_arrays_that_do_not_fit_are_refused(how: str, engine: TensorRTEngine, tmp_path: Path) -> None:
    make, named = BAD_ARRAYS[how]
    session = engine.build(request(tmp_path))
    with pytest.raises(harness.InputError, match=f"(?s)part part0: .*{named}"):
        session.run([make(engine.cuda)])
    np.testing.assert_array_equal(session.run([image()])[0], expected(image()))


def test_dlpack_knows_bfloat16() -> None:
    assert memory.arrays._dlpack_dtype(4, 16, 1) == np.dtype(ml_dtypes.bfloat16)
    assert [memory.arrays._dlpack_dtype(*c).name for c in ((0, 64, 1), (1, 8, 1), (2, 16, 1), (6, 8, 1))] == [
        "int64",
        "uint8",
        "float16",
        "bool",
    ]


# --- asynchronous runs -----------------------------------------------------------------------------------------------


def test_many_runs_at_once(engine: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = dynamic(engine, tmp_path)
    images = [image(seed % 4 + 1, seed) for seed in range(7)]
    pending = [session.enqueue([x]) for x in images]
    for x, run in zip(images, pending):
        np.testing.assert_array_equal(run.numpy()[0], expected(x))
    assert all(run.done() for run in pending)


def test_a_host_array_may_be_overwritten_after_enqueue(engine: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = engine.build(request(tmp_path))
    x = image()
    wanted = expected(x)
    run = session.enqueue([x])
    x[:] = 0
    np.testing.assert_array_equal(run.numpy()[0], wanted)


def test_done_never_waits(engine: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = engine.build(request(tmp_path))
    run = session.enqueue([image()])
    polls = 0
    while not run.done():
        polls += 1
    assert 0 < polls < 20
    np.testing.assert_array_equal(run.numpy()[0], expected(image()))


def test_results_go_into_the_caller_s_arrays_on_the_caller_s_stream(engine: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = engine.build(request(tmp_path))
    stream = engine.cuda.create_stream()
    x, out = on_device(engine.cuda, image()), on_device(engine.cuda, np.zeros((2, 4, 1, 1), np.float32))
    for _ in range(4):
        run = session.enqueue([x], [out], stream)
        assert run.outputs[0].address == out.address and run.outputs[0].stream == stream
        np.testing.assert_array_equal(run.numpy()[0], expected(image()))
    assert calls(engine, "launch") == 3  # the same addresses again: a graph
    for bad, named in [
        ([], "0 output arrays are given"),
        ([np.zeros((2, 4, 1, 1), np.float32)], "a ndarray does not lie on the GPU"),
        (
            [on_device(engine.cuda, np.zeros((2, 4), np.float32))],
            r"the shape is \(2, 4\), the run gives \(2, 4, 1, 1\)",
        ),
        ([on_device(engine.cuda, np.zeros((2, 4, 1, 1)))], "output 'out': the type is float64"),
    ]:
        with pytest.raises(harness.InputError, match=named):
            session.enqueue([x], bad)


def test_results_are_read_by_other_libraries(engine: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = engine.build(request(tmp_path))
    (out,) = session.enqueue([image()]).wait()
    described = out.__cuda_array_interface__
    assert (described["shape"], described["typestr"], described["version"]) == ((2, 4, 1, 1), "<f4", 3)
    again = engine.build(request(tmp_path, single("Relu", {"data": (2, 4, 1, 1)}, {})))
    np.testing.assert_array_equal(again.run([out])[0], np.maximum(expected(image()), 0))


def test_an_output_whose_shape_the_run_tells(engine: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = engine.build(request(tmp_path))
    session.engine.depends_on_data = True
    for seed in range(3):
        np.testing.assert_array_equal(session.run([image(seed=seed)])[0], expected(image(seed=seed)))
    with pytest.raises(harness.InputError, match="shape of out depends on data"):
        session.enqueue([image()])


# --- failures while running ------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[str, str, str]] = {  # name -> (whose, what, message)
    "TensorRT refuses the run": ("trt", "enqueue", "could not be enqueued .*no space in the sky"),
    "copying in fails": ("cuda", "copy_in", "CUDA_ERROR_ILLEGAL_ADDRESS"),
    "copying out fails": ("cuda", "copy_out", "CUDA_ERROR_ILLEGAL_ADDRESS"),
    "waiting fails": ("cuda", "synchronize", "CUDA_ERROR_ILLEGAL_ADDRESS"),
    "launching fails": ("cuda", "launch", "CUDA_ERROR_ILLEGAL_ADDRESS"),
}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_failed_run_says_so_and_the_next_one_works(
    how: str, after: int, engine: TensorRTEngine, tmp_path: Path
) -> None:
    whose, what, message = FAILURES[how]
    session = engine.build(request(tmp_path))
    for seed in range(after):
        session.run([image(seed=seed)])
    if (whose == "trt" and after == 3) or (what == "launch" and after == 0):
        return  # a graph needs no enqueue; the first run no graph
    (engine.library.trt if whose == "trt" else engine.cuda).failures[what] = (  # type: ignore[attr-defined]
        "no space in the sky" if whose == "trt" else "CUDA_ERROR_ILLEGAL_ADDRESS"
    )
    if whose == "trt" and after == 1:
        engine.library.trt.failures["capture"] = "not while capturing"
    with pytest.raises(harness.ExecutionError, match=f"TensorRT 10.6.0 failed in part part0: .*{message}"):
        session.run([image()])
    for seed in range(3):
        np.testing.assert_array_equal(session.run([image(seed=seed)])[0], expected(image(seed=seed)))


def test_no_memory_for_a_context(engine: TensorRTEngine, tmp_path: Path) -> None:
    engine.library.trt.failures["context"] = "Requested amount of GPU memory could not be allocated"
    with pytest.raises(CudaError, match="no execution context for part part0: Requested.*scratch='shared'"):
        engine.build(request(tmp_path))
    assert engine.build(request(tmp_path)).run([image()])


def test_no_memory_for_the_buffers(tmp_path: Path) -> None:
    cuda = DoubleCuda(GPU, memory=600)
    session = make_engine(cuda).build(request(tmp_path))
    with pytest.raises(harness.ExecutionError, match="part part0: 1536 bytes were asked for, .* are free"):
        session.run([image()])
    cuda.memory = 1 << 20
    np.testing.assert_array_equal(session.run([image()])[0], expected(image()))


# --- looking in ------------------------------------------------------------------------------------------------------


def test_layers_and_their_times_are_traced_to_mxnet_s_nodes(engine: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = engine.build(request(tmp_path))
    assert [layer.nodes for layer in session.layers()] == [("conv0", "relu0"), ("pool0", "add0")]
    times = session.profile([image()], runs=4)
    assert [(time.nodes, time.milliseconds) for time in times] == [
        ((n,), 0.5) for n in ("conv0", "relu0", "pool0", "add0")
    ]
    np.testing.assert_array_equal(session.run([image()])[0], expected(image()))


@pytest.mark.parametrize(
    ("item", "nodes"),
    [
        ("conv0/Conv + relu0/Relu", ("conv0", "relu0")),
        ("{ForeignNode[conv0/Conv...pool0/GlobalAveragePool]}", ("conv0", "pool0")),
        ("Reformatting CopyNode for Input Tensor 0 to conv0/Conv", ()),
        (
            {"Name": "fused_1", "LayerType": "kgen", "Metadata": "[ONNX Layer: relu0/Relu]\x1e[ONNX Layer: add0/Add]"},
            ("relu0", "add0"),
        ),
        ({"Name": "conv0/Conv", "LayerType": "CaskConvolution", "Metadata": ""}, ("conv0",)),
    ],
)
def test_both_schemas_of_the_inspector(item: Any, nodes: tuple[str, ...]) -> None:
    from harness.engines.tensorrt.inspection import _layer

    names = ("conv0/Conv", "relu0/Relu", "pool0/GlobalAveragePool", "add0/Add")
    layer = _layer(item, {name: (name.partition("/")[0],) for name in names})
    assert layer.nodes == nodes and layer.kind == (item["LayerType"] if isinstance(item, dict) else "")


# --- through the front door ------------------------------------------------------------------------------------------

mxnet = pytest.importorskip("harness.frontend.compat")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorRTEngine]:
    """The double in the place of TensorRT for everything that asks for the engine by name."""
    engine = make_engine()
    monkeypatch.setattr(libraries, "open_device", lambda ordinal: engine.cuda)
    monkeypatch.setattr(libraries, "find", lambda name: engine.library)
    base.get_engine.cache_clear()
    yield base.get_engine("tensorrt")  # type: ignore[misc]
    base.get_engine.cache_clear()


def symbol() -> tuple[Any, dict[str, np.ndarray]]:
    mx = mxnet.mxnet()
    data = mx.sym.var("data")
    net = mx.sym.Convolution(data, kernel=(3, 3), num_filter=4, pad=(1, 1), no_bias=True, name="conv0")
    net = mx.sym.Activation(net, act_type="relu", name="relu0")
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    return net, {"conv0_weight": weight}


@pytest.mark.mxnet
def test_compile_save_and_load(installed: TensorRTEngine, tmp_path: Path) -> None:
    net, params = symbol()
    shape = {"data": ((1, 2, 4), 3, 8, 8)}
    model = harness.compile(net, params, shape, engine="auto", cache_dir=tmp_path / "cache")
    assert [segment.engine for segment in model.segments] == ["tensorrt"]
    wanted = harness.compile(net, params, shape, engine="onnxruntime")(data=image(3))[0]
    np.testing.assert_array_equal(model(data=image(3))[0], wanted)
    np.testing.assert_array_equal(model(data=on_device(installed.cuda, image(3)))[0], wanted)
    with pytest.raises(harness.InputError, match="axis 0 has size 5, compiled for 1 to 4"):
        model(data=on_device(installed.cuda, image(5)))
    model.save(tmp_path / "saved")
    before = builds(installed)
    loaded = harness.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded(data=image(3))[0], wanted)
    assert builds(installed) == before  # the saved plan was taken


def test_a_saved_plan_of_another_gpu_is_not_taken(installed: TensorRTEngine, tmp_path: Path) -> None:
    session: Any = installed.build(request(tmp_path))
    data = session.plan_bytes()
    again = installed.load_plan(request(tmp_path), data)
    assert again is not None
    np.testing.assert_array_equal(again.run([image()])[0], expected(image()))
    other = make_engine(DoubleCuda(Device(0, "another GPU", (8, 6), 8 << 30, 12080)))
    assert other.load_plan(request(tmp_path), data) is None
    assert installed.load_plan(request(tmp_path, network(scale=2.0)), data) is None
    assert installed.load_plan(request(tmp_path), data[:50]) is None


@pytest.mark.mxnet
def test_what_the_library_lacks_falls_back_with_its_reason(installed: TensorRTEngine, tmp_path: Path) -> None:
    mx = mxnet.mxnet()
    net = mx.sym.Activation(mx.sym.var("data"), act_type="relu", name="relu0")
    inputs = {"data": harness.Input((2, 3), "float64")}
    model = harness.compile(net, {}, inputs, engine="tensorrt", cache_dir=tmp_path)
    assert [segment.engine for segment in model.segments] == ["mxnet"]
    assert "TensorRT has no float64" in model.fallbacks[0].reason
