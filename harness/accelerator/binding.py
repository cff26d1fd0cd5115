"""Engines on memory that MXNet owns: read where it lies, written where it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines import memory
from ..engines.base import Session
from ..errors import EngineError, ExecutionError
from ..graph import BFLOAT16, TensorType
from ..model import Model

Array = npt.NDArray[Any]
Place = tuple[int, TensorType]  # address and type


def check_result(result: Array, kind: TensorType) -> None:
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


def on_cpu(model: Model, inputs: Sequence[Place], outputs: Sequence[Place]) -> Callable[[], None] | None:
    """A call of ONNX Runtime that is bound to these addresses; None where that cannot be done."""
    session = only_session(model)
    native = getattr(session, "session", None)
    places = [*inputs, *outputs]
    if native is None or any(kind.dtype == BFLOAT16 or 0 in kind.shape for _, kind in places):
        return None
    from onnxruntime.capi.onnxruntime_pybind11_state import OrtDevice

    binding = native.io_binding()._iobinding
    cpu = OrtDevice(OrtDevice.cpu(), OrtDevice.default_memory(), 0)
    for item, (address, kind) in zip(native.get_inputs(), inputs):
        binding.bind_input(item.name, cpu, kind.dtype.type, kind.shape, address)
    for item, (address, kind) in zip(native.get_outputs(), outputs):
        binding.bind_output(item.name, cpu, kind.dtype.type, kind.shape, address)
    run = native._sess.run_with_iobinding

    def call() -> None:
        try:
            run(binding, None)
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base
            raise ExecutionError(f"onnxruntime failed: {str(error).strip().splitlines()[0]}") from None

    return call


def on_gpu(model: Model, inputs: Sequence[Place], outputs: Sequence[Place], stream: int) -> Callable[[], None]:
    """A run of TensorRT on MXNet's stream and memory. Nothing waits: MXNet itself waits for its stream.

    Raises:
        EngineError: the engine cannot run on the caller's stream.
    """
    session = only_session(model)
    enqueue = getattr(session, "enqueue", None)
    if enqueue is None:
        raise EngineError("on a GPU context segments run on TensorRT only; use engine='auto', or a CPU context")
    sources = [memory.DeviceArray(address, kind.shape, kind.dtype) for address, kind in inputs]
    targets = [memory.DeviceArray(address, kind.shape, kind.dtype) for address, kind in outputs]

    def call() -> None:
        _under_way[:] = [run for run in _under_way if not run.done()]  # one that is dropped earlier would wait
        _under_way.append(enqueue(sources, targets, stream))

    return call


_under_way: list[Any] = []


def read_gpu(address: int, kind: TensorType, stream: int, device_id: int) -> Array:
    """A copy of an array that lies on the GPU, after what is under way on the stream.

    Raises:
        EngineError: it is not the first GPU, the only one that the TensorRT engine runs on.
    """
    if device_id:
        raise EngineError(f"segments run on the first GPU that is visible, not on gpu({device_id}); set CUDA_VISIBLE_DEVICES")
    array = np.empty(kind.shape, kind.dtype)
    if array.size:
        cuda = memory.open_device(0)
        cuda.use()
        cuda.copy_out(array.ctypes.data, address, array.nbytes, stream)
        cuda.synchronize(stream)
    return array
