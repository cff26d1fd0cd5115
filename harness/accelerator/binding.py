"""Engines on memory that MXNet owns: read where it lies, written where it is wanted."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines import memory
from ..engines.base import Session
from ..errors import EngineError, ExecutionError
from ..graph import BFLOAT16
from ..model import Model

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Block:
    """An array in memory that is MXNet's."""

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def start(self, size: int) -> Block:
        """Its first bytes, up to ``size`` of them."""
        return Block(self.address, np.dtype(np.uint8), (min(size, prod(self.shape) * self.dtype.itemsize),))

    def view(self) -> Array:
        """It as a NumPy array, without a copy; for memory of the host."""
        size = prod(self.shape) * self.dtype.itemsize
        if not size:
            return np.zeros(self.shape, self.dtype)
        buffer: Any = (ctypes.c_char * size).from_address(self.address)
        array: Array = np.frombuffer(buffer, self.dtype).reshape(self.shape)
        return array


def check_result(result: Array, kind: Block) -> None:
    """ExecutionError unless the engine's answer is what MXNet made room for."""
    if result.shape != kind.shape or result.dtype != kind.dtype:
        raise ExecutionError(
            f"the engine's answer is {result.dtype}{list(result.shape)}, MXNet expects {kind.dtype}{list(kind.shape)}"
        )


def only_session(model: Model) -> Session | None:
    """The session that is the whole model, with its inputs and outputs in order; None if there is more to it."""
    program = model._program
    if len(program.steps) != 1:
        return None
    (step,) = program.steps
    whole = step.reads == tuple(range(program.inputs)) and step.writes == program.outputs
    return step.session if whole and len(set(step.writes)) == len(step.writes) else None


def on_cpu(model: Model, inputs: Sequence[Block], outputs: Sequence[Block]) -> Callable[[], None] | None:
    """A call of ONNX Runtime that is bound to these addresses; None where that cannot be done."""
    session = only_session(model)
    native = getattr(session, "session", None)
    places = [*inputs, *outputs]
    if len(inputs) != len(model.inputs) or len(outputs) != len(model.outputs):
        raise ExecutionError(f"MXNet gives {len(inputs)} inputs and {len(outputs)} outputs, not those of the segment")
    if native is None or any(kind.dtype == BFLOAT16 or 0 in kind.shape for kind in places):
        return None
    from onnxruntime.capi.onnxruntime_pybind11_state import OrtDevice

    binding = native.io_binding()._iobinding
    cpu = OrtDevice(OrtDevice.cpu(), OrtDevice.default_memory(), 0)
    for item, block in zip(native.get_inputs(), inputs):
        binding.bind_input(item.name, cpu, block.dtype.type, block.shape, block.address)
    for item, block in zip(native.get_outputs(), outputs):
        binding.bind_output(item.name, cpu, block.dtype.type, block.shape, block.address)
    run = native._sess.run_with_iobinding

    def call() -> None:
        try:
            run(binding, None)
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base
            raise ExecutionError(f"onnxruntime failed: {str(error).strip().splitlines()[0]}") from None

    return call


def on_gpu(model: Model, inputs: Sequence[Block], outputs: Sequence[Block], stream: int) -> Callable[[], None]:
    """A run of TensorRT on MXNet's stream and memory. Nothing waits: MXNet itself waits for its stream.

    Raises:
        EngineError: the engine cannot run on the caller's stream.
    """
    session = only_session(model)
    enqueue = getattr(session, "enqueue", None)
    if enqueue is None:
        raise EngineError("on a GPU context segments run on TensorRT only; use engine='auto', or a CPU context")
    sources = [memory.DeviceArray(b.address, b.shape, b.dtype) for b in inputs]
    targets = [memory.DeviceArray(b.address, b.shape, b.dtype) for b in outputs]

    def call() -> None:
        _under_way[:] = [run for run in _under_way if not run.done()]  # one that is dropped earlier would wait
        _under_way.append(enqueue(sources, targets, stream))

    return call


_under_way: list[Any] = []


def read_gpu(block: Block, stream: int, device_id: int) -> Array:
    """A copy of an array that lies on the GPU, after what is under way on the stream.

    Raises:
        EngineError: it is not the first GPU, the only one that the TensorRT engine runs on.
    """
    if device_id:
        raise EngineError(
            f"segments run on the first GPU that is visible, not on gpu({device_id}); set CUDA_VISIBLE_DEVICES"
        )
    array = np.empty(block.shape, block.dtype)
    if array.size:
        cuda = memory.open_device(0)
        cuda.use()
        cuda.copy_out(array.ctypes.data, block.address, array.nbytes, stream)
        cuda.synchronize(stream)
    return array
