"""Segments on a GPU context. This file plays MXNet's part: it calls the library as MXNet does, on its own GPU memory.

No MXNet for today's GPUs exists, so this is as near as a test comes (docs/drop-in.md). It runs on the double of CUDA and
TensorRT (suites/meta/double: no GPU, no measurement of either), and with ``-m gpu`` on a real one.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import harness
from harness.engines import base, memory
from harness.engines.tensorrt import library as libraries
from harness.frontend import compat
from suites.meta.accelerated import SEGMENT, hold, run

from .double import make_engine

pytestmark = pytest.mark.mxnet

_P, _I = ctypes.c_void_p, ctypes.c_int


def _array(kind: Any, values: Any) -> Any:
    return (kind * max(len(values), 1))(*values)


class OnGpu:
    """A float32 array in a GPU's memory, as MXNet would have it; and what it holds."""

    def __init__(self, cuda: memory.Cuda, stream: int, values: np.ndarray) -> None:
        self.cuda, self.stream, self.shape = cuda, stream, values.shape
        self.address = cuda.malloc(max(values.nbytes, 1))
        self.write(values)

    def write(self, values: Any) -> None:
        self.values = np.ascontiguousarray(np.broadcast_to(values, self.shape), np.float32)
        self.cuda.copy_in(self.address, self.values.ctypes.data, self.values.nbytes, self.stream)
        self.cuda.synchronize(self.stream)

    def read(self) -> np.ndarray:
        found = np.empty(self.shape, np.float32)
        self.cuda.copy_out(found.ctypes.data, self.address, found.nbytes, self.stream)
        self.cuda.synchronize(self.stream)
        return found


class Segment:
    """A segment's node, called through the library's C functions; ``state`` lives as long as MXNet would keep it."""

    def __init__(self, attributes: dict[str, str], inputs: int, device: bytes = b"gpu", device_id: int = 0) -> None:
        from harness.accelerator import library

        self.lib, self.device, self.device_id = library.load(), device, device_id
        self.attributes, self.inputs = attributes, inputs
        self.state = self.create()

    def create(self) -> ctypes.c_void_p:
        keys = _array(ctypes.c_char_p, [key.encode() for key in self.attributes])
        values = _array(ctypes.c_char_p, [value.encode() for value in self.attributes.values()])
        made = _P()
        done = self.lib._opCallCreateOpState(
            None, keys, values, len(self.attributes), self.device, self.device_id, None, None, self.inputs, None,
            ctypes.byref(made),
        )  # fmt: skip
        assert done, self.message()
        return made

    def message(self) -> str:
        text = ctypes.c_char_p()
        assert self.lib._msgSize() == 1
        self.lib._msgGet(0, ctypes.byref(text))
        return (text.value or b"").decode()

    def __call__(self, arrays: list[OnGpu], versions: list[int], output: OnGpu, stream: int) -> bool:
        """Whether the call succeeds. (MXNet counts a write of each STATE afterwards; here the caller does.)"""
        place = self._place(arrays, versions) + self._place([output], [0])
        no_allocators, dense = [None] * 4, [None] * 4
        return bool(self.lib._opCallFStatefulCompute(1, self.state, *place, *no_allocators, _P(stream), *dense))

    def _place(self, arrays: list[OnGpu], versions: list[int]) -> list[Any]:
        pointer = ctypes.POINTER(ctypes.c_int64)
        return [
            _array(pointer, [ctypes.cast(_array(ctypes.c_int64, array.shape), pointer) for array in arrays]),
            _array(_I, [len(array.shape) for array in arrays]),
            _array(_P, [array.address for array in arrays]),
            _array(_I, [0] * len(arrays)),
            _array(ctypes.c_size_t, versions),
            _array(ctypes.c_char_p, [self.device] * len(arrays)),
            _array(_I, [self.device_id] * len(arrays)),
            len(arrays),
        ]


class Network:
    """Dense and BatchNorm on a GPU, with MXNet's counts of writes."""

    def __init__(self, cuda: memory.Cuda, **options: Any) -> None:
        import harness.accelerator  # noqa: F401 - registers the backends

        mx = compat.mxnet()
        dense = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="fc")
        symbol = mx.sym.BatchNorm(dense, fix_gamma=False, eps=1e-3, name="bn")
        random = np.random.default_rng(5)
        arguments, _, auxiliary = symbol.infer_shape(data=(2, 3))
        shapes = dict(zip([*symbol.list_arguments(), *symbol.list_auxiliary_states()], [*arguments, *auxiliary]))
        self.states = symbol.list_auxiliary_states()
        values = {name: random.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
        given = {name: mx.nd.array(value) for name, value in values.items()}
        aux = {name: given.pop(name) for name in self.states}
        text = symbol.optimize_for("TensorRT", given, aux, **options).tojson()
        (node,) = [node for node in json.loads(text)["nodes"] if node["op"] == SEGMENT]
        self.attributes = {**node["attrs"], "subgraph_sym_json": json.dumps(node["subgraphs"][0])}
        self.names = json.loads(node["attrs"]["mxtrt_inputs"])
        self.stream = cuda.create_stream()  # MXNet's own
        self.arrays = {name: OnGpu(cuda, self.stream, values[name]) for name in self.names}
        self.output = OnGpu(cuda, self.stream, np.zeros((2, 4), np.float32))
        self.versions = dict.fromkeys(self.names, 1)

    def segment(self, **more: Any) -> Segment:
        return Segment(self.attributes, len(self.names), **more)

    def write(self, name: str, change: Callable[[np.ndarray], Any]) -> None:
        self.arrays[name].write(change(self.arrays[name].values))
        self.versions[name] += 1

    def call(self, segment: Segment) -> bool:
        arrays, versions = [self.arrays[n] for n in self.names], [self.versions[n] for n in self.names]
        done = segment(arrays, versions, self.output, self.stream)
        for name in self.states:
            self.versions[name] += 1  # MXNet counts the call as a write
        return done

    def check(self, segment: Segment, **more: Any) -> None:
        """Call, and hold the answer to the definition of the layers."""
        assert self.call(segment), segment.message()
        a = {name: array.values.astype(np.float64) for name, array in self.arrays.items()}
        hidden = a["data"] @ a["fc_weight"].T + a["fc_bias"] - a["bn_moving_mean"]
        expected = hidden / np.sqrt(a["bn_moving_var"] + 1e-3) * a["bn_gamma"] + a["bn_beta"]
        np.testing.assert_allclose(self.output.read(), expected, rtol=1e-4, **more)


@pytest.fixture(params=["double", pytest.param("real", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[memory.Cuda]:
    """A GPU, or the double of one in the place of CUDA and TensorRT."""
    if request.param == "double":
        engine = make_engine()
        monkeypatch.setattr(libraries, "open_device", lambda ordinal: engine.cuda)
        monkeypatch.setattr(libraries, "find", lambda name: engine.library)
        monkeypatch.setattr(memory, "open_device", lambda ordinal=0: engine.cuda)
        base.get_engine.cache_clear()
    try:
        base.get_engine("tensorrt")
    except harness.EngineMissing as missing:
        pytest.skip(str(missing))
    yield memory.open_device(0)
    from harness.accelerator import clear

    clear()
    base.get_engine.cache_clear()


CHANGES: dict[str, Callable[[Network], Any]] = {
    "a weight": lambda net: net.write("fc_weight", lambda w: w * 1.5),
    "a state": lambda net: net.write("bn_moving_mean", lambda _: 0.25),
    "a state, twice": lambda net: [net.write("bn_moving_var", lambda _, v=v: v) for v in (2.0, 0.7)],
    "both": lambda net: [net.write(name, lambda _: -1.0) for name in ("bn_gamma", "bn_moving_mean")],
    "the data": lambda net: net.write("data", lambda x: x + 1),
}


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(cuda: memory.Cuda, change: str, static: bool) -> None:
    net = Network(cuda)
    segment = net.segment()
    for step in range(4):
        if not static:
            segment.state = segment.create()
        net.check(segment, err_msg=str(step))
        if step == 1:
            CHANGES[change](net)


def test_nothing_is_read_while_nothing_changes(cuda: memory.Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read waits for the stream."""
    from harness.accelerator import binding

    read, sizes = binding.read_gpu, []
    monkeypatch.setattr(binding, "read_gpu", lambda block, *more: sizes.append(block.shape) or read(block, *more))
    net = Network(cuda)
    segment = net.segment()
    net.check(segment)
    assert sizes
    sizes.clear()
    for _ in range(5):
        net.check(segment)
    assert not sizes


@pytest.mark.parametrize("calls", [0, 1])
def test_another_network_in_the_same_memory(cuda: memory.Cuda, calls: int) -> None:
    """The first is freed, the second gets its addresses and has been written as often: only the bytes tell.

    With one call before in plain MXNet its states even have the counts that a next call of the first would find.
    """
    net = Network(cuda)
    net.check(net.segment())
    for array in net.arrays.values():
        array.write(array.values * 0.5 + 0.1)
    net.versions = {name: 1 + calls * (name in net.states) for name in net.names}
    net.check(net.segment())


def test_one_engine_for_all_of_it(cuda: memory.Cuda) -> None:
    """Whatever is written without a change, or moved to another place, needs no engine of its own."""
    from harness.accelerator import segment as segments

    net = Network(cuda)
    segment = net.segment()
    net.check(segment)
    net.write("fc_weight", lambda w: w)
    net.check(segment)
    moved = net.arrays["fc_weight"]
    net.arrays["fc_weight"] = OnGpu(cuda, net.stream, moved.values)
    net.check(segment)
    assert sum(len(node.engines) for node in segments._nodes.values()) == 1


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "the second GPU": ({}, {"device_id": 1}, ("gpu(1)", "CUDA_VISIBLE_DEVICES")),
    "an engine of the CPU": ({"engine": "onnxruntime"}, {}, ("TensorRT only", "engine='auto'")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(cuda: memory.Cuda, kind: str) -> None:
    options, where, words = REFUSED[kind]
    net = Network(cuda, **options)
    segment = net.segment(**where)
    assert not net.call(segment)
    message = segment.message()
    assert all(word in message for word in words), message


def test_tensorrt_under_a_cpu_context(cuda: memory.Cuda) -> None:
    """MXNet's arrays lie on the host; the engine copies in and out."""
    import harness.accelerator  # noqa: F401

    mx = compat.mxnet()
    symbol = mx.sym.relu(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="fc"))
    random = np.random.default_rng(2)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(2, 3))[0]))
    args = {name: mx.nd.array(random.uniform(-1, 1, shape)) for name, shape in shapes.items()}
    partitioned = symbol.optimize_for("TensorRT", args, {}, engine="tensorrt")
    for _ in range(2):
        hold(run(partitioned, args, {}), symbol, args, {})
