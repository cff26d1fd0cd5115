"""The GPU's memory, streams, events and graphs, and arrays that lie there.

Everything here speaks CUDA's *driver* interface, whose library comes with the driver itself, so it is there wherever a
GPU can be used and asks for no CUDA toolkit. It is called through ``cuda.bindings`` (NVIDIA's own) where that is
installed, else through ctypes. The device's primary context is used: the one that PyTorch, CuPy, JAX, MXNet and
``pycuda.autoprimaryctx`` use as well, so their arrays can be read in place.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import EngineMissing, ExecutionError, InputError
from ..graph import BFLOAT16

Array = npt.NDArray[Any]
LEGACY_STREAM = 0  # CUDA's default stream, on which libraries that say nothing about streams work


class CudaError(ExecutionError):
    """A CUDA call failed; ``code`` is CUDA's own name of the failure."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU: everything about it that can change a plan or its numbers."""

    ordinal: int
    name: str
    compute_capability: tuple[int, int]
    memory: int
    driver: int

    @property
    def sm(self) -> str:
        return "SM{}{}".format(*self.compute_capability)


class Cuda(Protocol):
    """What the engine asks of CUDA. Addresses and handles are integers; each call raises CudaError if it fails."""

    device: Device

    def use(self) -> None:
        """Make the device current for the calling thread."""

    def malloc(self, size: int) -> int: ...
    def free(self, address: int) -> None: ...
    def malloc_host(self, size: int) -> int: ...
    def free_host(self, address: int) -> None: ...
    def copy_in(self, device: int, host: int, size: int, stream: int) -> None: ...
    def copy_out(self, host: int, device: int, size: int, stream: int) -> None: ...
    def copy_across(self, to: int, source: int, size: int, stream: int) -> None: ...
    def create_stream(self) -> int: ...
    def destroy_stream(self, stream: int) -> None: ...
    def synchronize(self, stream: int) -> None: ...
    def create_event(self, timing: bool = False) -> int: ...
    def destroy_event(self, event: int) -> None: ...
    def record(self, event: int, stream: int) -> None: ...
    def wait(self, stream: int, event: int) -> None: ...
    def finished(self, event: int) -> bool: ...
    def synchronize_event(self, event: int) -> None: ...
    def elapsed(self, begin: int, end: int) -> float: ...
    def begin_capture(self, stream: int) -> None: ...
    def end_capture(self, stream: int) -> int: ...
    def launch(self, graph: int, stream: int) -> None: ...
    def destroy_graph(self, graph: int) -> None: ...
    def free_memory(self) -> int: ...
    def is_ours(self, address: int) -> bool:
        """Whether a device address belongs to this device and context."""


# --- calling the driver ----------------------------------------------------------------------------------------------

_INT, _SIZE, _HANDLE, _FLOAT = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_float
_UINT, _ADDRESS = ctypes.c_uint, ctypes.c_uint64
_ATTRIBUTE_MAJOR, _ATTRIBUTE_MINOR = 75, 76
_CAPTURE_RELAXED = 2
_STREAM_NON_BLOCKING = 1
_EVENT_TIMING, _EVENT_NO_TIMING = 0, 2
_NOT_READY = "CUDA_ERROR_NOT_READY"

# Function -> (name exported by libcuda, types of its results, types of its arguments, position of the results).
_CALLS: dict[str, tuple[str, tuple[Any, ...], tuple[Any, ...], int]] = {
    "cuInit": ("cuInit", (), (_UINT,), 0),
    "cuDriverGetVersion": ("cuDriverGetVersion", (_INT,), (), 0),
    "cuDeviceGetCount": ("cuDeviceGetCount", (_INT,), (), 0),
    "cuDeviceGet": ("cuDeviceGet", (_INT,), (_INT,), 0),
    "cuDeviceGetAttribute": ("cuDeviceGetAttribute", (_INT,), (_INT, _INT), 0),
    "cuDeviceTotalMem": ("cuDeviceTotalMem_v2", (_SIZE,), (_INT,), 0),
    "cuDevicePrimaryCtxRetain": ("cuDevicePrimaryCtxRetain", (_HANDLE,), (_INT,), 0),
    "cuCtxSetCurrent": ("cuCtxSetCurrent", (), (_HANDLE,), 0),
    "cuMemGetInfo": ("cuMemGetInfo_v2", (_SIZE, _SIZE), (), 0),
    "cuMemAlloc": ("cuMemAlloc_v2", (_ADDRESS,), (_SIZE,), 0),
    "cuMemFree": ("cuMemFree_v2", (), (_ADDRESS,), 0),
    "cuMemAllocHost": ("cuMemAllocHost_v2", (_HANDLE,), (_SIZE,), 0),
    "cuMemFreeHost": ("cuMemFreeHost", (), (_HANDLE,), 0),
    "cuMemcpyHtoDAsync": ("cuMemcpyHtoDAsync_v2", (), (_ADDRESS, _HANDLE, _SIZE, _HANDLE), 0),
    "cuMemcpyDtoHAsync": ("cuMemcpyDtoHAsync_v2", (), (_HANDLE, _ADDRESS, _SIZE, _HANDLE), 0),
    "cuMemcpyDtoDAsync": ("cuMemcpyDtoDAsync_v2", (), (_ADDRESS, _ADDRESS, _SIZE, _HANDLE), 0),
    "cuStreamCreate": ("cuStreamCreate", (_HANDLE,), (_UINT,), 0),
    "cuStreamDestroy": ("cuStreamDestroy_v2", (), (_HANDLE,), 0),
    "cuStreamSynchronize": ("cuStreamSynchronize", (), (_HANDLE,), 0),
    "cuStreamWaitEvent": ("cuStreamWaitEvent", (), (_HANDLE, _HANDLE, _UINT), 0),
    "cuEventCreate": ("cuEventCreate", (_HANDLE,), (_UINT,), 0),
    "cuEventDestroy": ("cuEventDestroy_v2", (), (_HANDLE,), 0),
    "cuEventRecord": ("cuEventRecord", (), (_HANDLE, _HANDLE), 0),
    "cuEventQuery": ("cuEventQuery", (), (_HANDLE,), 0),
    "cuEventSynchronize": ("cuEventSynchronize", (), (_HANDLE,), 0),
    "cuEventElapsedTime": ("cuEventElapsedTime", (_FLOAT,), (_HANDLE, _HANDLE), 0),
    "cuStreamBeginCapture": ("cuStreamBeginCapture_v2", (), (_HANDLE, _INT), 0),
    "cuStreamEndCapture": ("cuStreamEndCapture", (_HANDLE,), (_HANDLE,), 1),
    "cuGraphInstantiate": ("cuGraphInstantiateWithFlags", (_HANDLE,), (_HANDLE, ctypes.c_ulonglong), 0),
    "cuGraphDestroy": ("cuGraphDestroy", (), (_HANDLE,), 0),
    "cuGraphLaunch": ("cuGraphLaunch", (), (_HANDLE, _HANDLE), 0),
    "cuGraphExecDestroy": ("cuGraphExecDestroy", (), (_HANDLE,), 0),
    "cuPointerGetAttribute": ("cuPointerGetAttribute", (_HANDLE,), (_INT, _ADDRESS), 0),
}
_POINTER_CONTEXT = 1  # CU_POINTER_ATTRIBUTE_CONTEXT
_ENUMS = {  # arguments that cuda.bindings wants as its own enumerations: function -> position -> name
    "cuDeviceGetAttribute": {0: "CUdevice_attribute"},
    "cuStreamBeginCapture": {1: "CUstreamCaptureMode"},
    "cuPointerGetAttribute": {0: "CUpointer_attribute"},
}

Call = Callable[..., Any]


class _Ctypes:
    """Functions of libcuda, which the driver installs."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def function(self, name: str) -> Call:
        exported, results, arguments, position = _CALLS[name]
        entry = getattr(self._library, exported)
        pointers = tuple(ctypes.POINTER(kind) for kind in results)
        entry.argtypes = arguments[:position] + pointers + arguments[position:]
        entry.restype = _INT
        if not results:
            return lambda *given: (entry(*given),)

        def call(*given: Any) -> tuple[Any, ...]:
            found = [kind() for kind in results]
            status = entry(*given[:position], *map(ctypes.byref, found), *given[position:])
            return (status, *(item.value or 0 for item in found))

        return call

    def name_of_error(self, status: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(_INT(status), ctypes.byref(text))
        return text.value.decode() if text.value else f"CUDA error {status}"

    def name_of_device(self, device: int) -> str:
        text = ctypes.create_string_buffer(256)
        self._library.cuDeviceGetName(text, _INT(256), _INT(device))
        return text.value.decode()


class _Bindings:
    """The same functions of NVIDIA's cuda.bindings."""

    def __init__(self) -> None:
        self._driver = importlib.import_module("cuda.bindings.driver")
        self._driver.cuInit(0)  # raises here, and not later, where there is no driver

    def function(self, name: str) -> Call:
        entry = getattr(self._driver, name)
        results = _CALLS[name][1]
        enums = {position: getattr(self._driver, kind) for position, kind in _ENUMS.get(name, {}).items()}
        if not results and not enums:
            return entry  # type: ignore[no-any-return]

        def call(*given: Any) -> tuple[Any, ...]:
            status, *found = entry(*(enums[i](value) if i in enums else value for i, value in enumerate(given)))
            return (status, *(item if isinstance(item, (int, float)) else int(item or 0) for item in found))

        return call

    def name_of_error(self, status: Any) -> str:
        return str(getattr(status, "name", status))

    def name_of_device(self, device: int) -> str:
        _, text = self._driver.cuDeviceGetName(256, device)
        return str(text.split(b"\0")[0].decode())


def _backend() -> _Bindings | _Ctypes:
    problems = []
    for kind in (_Bindings, _Ctypes):
        try:
            return kind()
        except Exception as error:  # noqa: BLE001 - ImportError, OSError, RuntimeError: not installed, no driver
            problems.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
    raise EngineMissing(f"no NVIDIA driver is found ({problems[-1]}); a GPU and its driver are needed")


class Driver:
    """:class:`Cuda` on the real driver."""

    def __init__(self, ordinal: int = 0, backend: _Bindings | _Ctypes | None = None) -> None:
        self._backend = backend or _backend()
        self._functions = {name: self._backend.function(name) for name in _CALLS}
        try:
            self._call("cuInit", 0)
            count = self._call("cuDeviceGetCount")
        except CudaError as error:
            raise EngineMissing(f"the NVIDIA driver finds no GPU ({error.code}); check nvidia-smi") from None
        if not 0 <= ordinal < count:
            raise EngineMissing(
                f"device {ordinal} is not there: the NVIDIA driver finds {count} GPU(s); check nvidia-smi"
            )
        handle = self._call("cuDeviceGet", ordinal)
        self.device = self._describe(ordinal, handle)
        self._context = self._call("cuDevicePrimaryCtxRetain", handle)
        self.use()

    def _describe(self, ordinal: int, handle: int) -> Device:
        major = self._call("cuDeviceGetAttribute", _ATTRIBUTE_MAJOR, handle)
        minor = self._call("cuDeviceGetAttribute", _ATTRIBUTE_MINOR, handle)
        memory = self._call("cuDeviceTotalMem", handle)
        name = self._backend.name_of_device(handle)
        return Device(ordinal, name, (major, minor), memory, self._call("cuDriverGetVersion"))

    def _call(self, name: str, *arguments: Any) -> Any:
        found = self._functions[name](*arguments)
        if found[0] != 0:
            code = self._backend.name_of_error(found[0])
            raise CudaError(code, f"{name} failed with {code}{_remedy(code)}")
        return found[1] if len(found) == 2 else found[1:]

    def use(self) -> None:
        self._call("cuCtxSetCurrent", self._context)

    def malloc(self, size: int) -> int:
        try:
            return int(self._call("cuMemAlloc", max(size, 1)))
        except CudaError as error:
            if error.code != "CUDA_ERROR_OUT_OF_MEMORY":
                raise
            text = f"{size} bytes of device memory were asked for and {self.free_memory()} are free"
            raise CudaError(error.code, text + _remedy(error.code)) from None

    def free(self, address: int) -> None:
        self._call("cuMemFree", address)

    def malloc_host(self, size: int) -> int:
        return int(self._call("cuMemAllocHost", max(size, 1)))

    def free_host(self, address: int) -> None:
        self._call("cuMemFreeHost", address)

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync", device, host, size, stream)

    def copy_out(self, host: int, device: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync", host, device, size, stream)

    def copy_across(self, to: int, source: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoDAsync", to, source, size, stream)

    def create_stream(self) -> int:
        return int(self._call("cuStreamCreate", _STREAM_NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def create_event(self, timing: bool = False) -> int:
        return int(self._call("cuEventCreate", _EVENT_TIMING if timing else _EVENT_NO_TIMING))

    def destroy_event(self, event: int) -> None:
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        self._call("cuStreamWaitEvent", stream, event, 0)

    def finished(self, event: int) -> bool:
        try:
            self._call("cuEventQuery", event)
        except CudaError as error:
            if error.code == _NOT_READY:
                return False
            raise
        return True

    def synchronize_event(self, event: int) -> None:
        self._call("cuEventSynchronize", event)

    def elapsed(self, begin: int, end: int) -> float:
        return float(self._call("cuEventElapsedTime", begin, end))

    def begin_capture(self, stream: int) -> None:
        # Relaxed: other threads may allocate memory meanwhile, and Python's garbage collector may free some in this one.
        self._call("cuStreamBeginCapture", stream, _CAPTURE_RELAXED)

    def end_capture(self, stream: int) -> int:
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return int(self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", graph)

    def free_memory(self) -> int:
        return int(self._call("cuMemGetInfo")[0])

    def is_ours(self, address: int) -> bool:
        try:
            owner = self._call("cuPointerGetAttribute", _POINTER_CONTEXT, address)
        except CudaError:
            return False
        return not owner or int(owner) == int(self._context)


def _remedy(code: str) -> str:
    return _REMEDIES.get(code, "; see NVIDIA's list of CUDA errors")


_REMEDIES = {
    "CUDA_ERROR_OUT_OF_MEMORY": "; use a smaller batch or profile, fewer contexts, or free other programs' memory",
    "CUDA_ERROR_NOT_READY": "",
    "CUDA_ERROR_NO_DEVICE": "; check nvidia-smi and CUDA_VISIBLE_DEVICES",
    "CUDA_ERROR_ILLEGAL_ADDRESS": "; the process's GPU state is lost and it must be started again",
    "CUDA_ERROR_LAUNCH_FAILED": "; the process's GPU state is lost and it must be started again",
}


@functools.cache
def open_device(ordinal: int = 0) -> Cuda:
    """The driver's device of this number.

    Raises:
        EngineMissing: there is no driver, or no such device.
    """
    return Driver(ordinal)


# --- buffers ---------------------------------------------------------------------------------------------------------


class Allocator(Protocol):
    """Whoever hands out device memory: a caller may bring one (PyTorch's, RMM's, ...)."""

    def allocate(self, size: int) -> int:
        """The address of ``size`` bytes on the device, 256-byte aligned."""

    def free(self, address: int) -> None: ...


_allocator: Allocator | None = None


def use_allocator(allocator: Allocator | None) -> None:
    """Take all device memory for buffers and shared scratch from here from now on; None: from CUDA itself."""
    global _allocator
    _allocator = allocator


class DeviceBuffer:
    """Device memory that is freed with the object; ``reserve`` makes it larger, and then its content is lost."""

    __slots__ = ("_allocator", "address", "cuda", "size")

    def __init__(self, cuda: Cuda, size: int = 0) -> None:
        self.cuda, self.size, self.address = cuda, 0, 0
        self._allocator = _allocator
        self.reserve(size)

    def reserve(self, size: int) -> bool:
        """Whether the address has changed."""
        if self.address and size <= self.size:
            return False
        self.release()
        if self._allocator is None:
            self.address = self.cuda.malloc(size)
        else:
            self.address = int(self._allocator.allocate(max(size, 1)))
            if not self.address:
                raise CudaError("CUDA_ERROR_OUT_OF_MEMORY", f"the caller's allocator gave no {size} bytes")
        self.size = size
        return True

    def release(self) -> None:
        address, self.address, self.size = self.address, 0, 0
        if not address:
            return
        if self._allocator is None:
            self.cuda.free(address)
        else:
            self._allocator.free(address)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the driver may be gone when the interpreter ends
            self.cuda.use()
            self.release()


class HostBuffer:
    """Pinned host memory, which the GPU reads and writes without the driver copying it once more."""

    __slots__ = ("address", "bytes", "cuda", "size")

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.cuda, self.size = cuda, size
        self.address = 0
        self.address = cuda.malloc_host(size)
        memory = (ctypes.c_uint8 * max(size, 1)).from_address(self.address)
        self.bytes: Array = np.ctypeslib.as_array(memory)[:size]

    def view(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """The first bytes as an array."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self.bytes[:size].view(dtype).reshape(shape)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the driver may be gone when the interpreter ends
            if self.address:
                self.cuda.use()
                self.cuda.free_host(self.address)


class Scratch:
    """Activation memory that many engines of one device share: as much as the hungriest runs at once need.

    A block is one run's. It goes back when the run has been *enqueued*, together with an event; the next run that takes
    it makes its stream wait for that event, so a shared block never makes the host wait.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._free: list[tuple[DeviceBuffer, int]] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lease(self, size: int, stream: int) -> Iterator[DeviceBuffer]:
        """A block of at least ``size`` bytes for what is enqueued on ``stream`` inside the block."""
        buffer, event = self._take(size)
        try:
            if event:
                self._cuda.wait(stream, event)
            if buffer.size < size:
                if event:
                    self._cuda.synchronize_event(event)
                buffer.reserve(size)
            yield buffer
        finally:
            event = event or self._cuda.create_event()
            self._cuda.record(event, stream)
            with self._lock:
                self._free.append((buffer, event))

    def _take(self, size: int) -> tuple[DeviceBuffer, int]:
        with self._lock:
            if not self._free:
                return DeviceBuffer(self._cuda, size), 0
            large = [item for item in self._free if item[0].size >= size]
            best = min(large, key=lambda i: i[0].size) if large else max(self._free, key=lambda i: i[0].size)
            self._free.remove(best)
            return best

    @property
    def size(self) -> int:
        """Bytes held and not in use."""
        with self._lock:
            return sum(buffer.size for buffer, _ in self._free)


_scratches: dict[int, Scratch] = {}


def shared_scratch(cuda: Cuda) -> Scratch:
    """The one scratch memory of a device."""
    return _scratches.setdefault(id(cuda), Scratch(cuda))  # it holds the device, so the id is not used again


# --- arrays on the device --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class DeviceArray:
    """A contiguous array on the GPU.

    Attributes:
        owner: whatever keeps the memory alive.
        stream: the stream on which its content is made, None if it is ready.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any = field(default=None, repr=False)
    stream: int | None = None

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3, as Numba's documentation has it; PyTorch, CuPy, Numba and JAX read it without a copy."""
        if self.dtype == BFLOAT16:
            raise AttributeError("__cuda_array_interface__ has no bfloat16")
        return {
            "version": 3, "shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False),
            "strides": None, "stream": self.stream or None,
        }  # fmt: skip


def is_device_array(value: Any) -> bool:
    """Whether a value lies on a GPU, by what it says of itself."""
    if isinstance(value, (np.ndarray, float, int, list, tuple)):
        return False
    if isinstance(value, DeviceArray):
        return True
    if hasattr(value, "__dlpack_device__"):
        try:
            return int(value.__dlpack_device__()[0]) == _DLPACK_CUDA
        except Exception:  # noqa: BLE001 - a foreign array type's own error, of any kind
            return False
    return _interface(value) is not None


def read_device_array(name: str, value: Any, stream: int) -> DeviceArray:
    """An array on the GPU, in place, ready for work that is enqueued on ``stream``.

    Raises:
        InputError: it is not contiguous, or cannot be read.
    """
    if isinstance(value, DeviceArray):
        return value
    try:
        if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
            return _read_dlpack(value, stream)
        return _read_interface(value)
    except InputError as error:
        raise InputError(f"input {name!r}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a foreign array type's own error, of any kind
        raise InputError(f"input {name!r}: a {type(value).__name__} that cannot be read in place: {error}") from None


def _interface(value: Any) -> Any:
    try:
        return getattr(value, "__cuda_array_interface__", None)
    except Exception:  # noqa: BLE001 - PyTorch raises for tensors that are not on a GPU
        return None


def _read_interface(value: Any) -> DeviceArray:
    described = value.__cuda_array_interface__
    shape, dtype = tuple(map(int, described["shape"])), np.dtype(described["typestr"])
    if described.get("mask") is not None:
        raise InputError("masked arrays are not supported")
    _check_contiguous(shape, described.get("strides"), dtype.itemsize)
    # Without a word about streams, the content is made on the default stream, or is ready already.
    stream = described.get("stream", LEGACY_STREAM)
    return DeviceArray(int(described["data"][0] or 0), shape, dtype, value, stream)


def _check_contiguous(shape: Sequence[int], strides: Sequence[int] | None, step: int) -> None:
    if strides is None or 0 in shape:
        return
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size > 1 and stride != step:
            raise InputError(f"the array of shape {tuple(shape)} is not contiguous; pass .contiguous() of it")
        step *= size


_DLPACK_CUDA = 2
_DLPACK_TYPES = {0: "int", 1: "uint", 2: "float", 6: "bool"}


class _DLTensor(ctypes.Structure):
    """dlpack.h: DLTensor, the first member of DLManagedTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def _read_dlpack(value: Any, stream: int) -> DeviceArray:
    """The producer makes the array ready on ``stream``; the capsule keeps it alive."""
    capsule = value.__dlpack__(stream=stream)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _DLTensor.from_address(pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    dtype = _dlpack_dtype(tensor.code, tensor.bits, tensor.lanes)
    strides = [step * dtype.itemsize for step in tensor.strides[: tensor.ndim]] if tensor.strides else None
    _check_contiguous(shape, strides, dtype.itemsize)
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, dtype, (value, capsule))


def _dlpack_dtype(code: int, bits: int, lanes: int) -> np.dtype[Any]:
    if lanes == 1 and (code, bits) == (4, 16):
        return BFLOAT16
    if lanes != 1 or code not in _DLPACK_TYPES:
        raise InputError(f"DLPack's type code {code} with {bits} bits and {lanes} lanes is not supported")
    return np.dtype(_DLPACK_TYPES[code] + ("" if code == 6 else str(bits)))
