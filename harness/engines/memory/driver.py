"""CUDA's driver interface, through NVIDIA's ``cuda.bindings`` where that is installed, else through ctypes."""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable
from typing import Any

from ...errors import EngineMissing
from .device import Cuda, CudaError, Device

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
    "cuCtxGetDevice": ("cuCtxGetDevice", (_INT,), (), 0),
    "cuModuleLoadData": ("cuModuleLoadData", (_HANDLE,), (_HANDLE,), 0),
    "cuModuleGetFunction": ("cuModuleGetFunction", (_HANDLE,), (_HANDLE, ctypes.c_char_p), 0),
    "cuLaunchKernel": ("cuLaunchKernel", (), (_HANDLE, *(_UINT,) * 7, _HANDLE, _HANDLE, _HANDLE), 0),
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

    def current_ordinal(self) -> int:
        """The number of the device that is current in this thread, this one's where none is."""
        try:
            return int(self._call("cuCtxGetDevice"))
        except CudaError:
            self.use()
            return self.device.ordinal

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

    def load_kernel(self, image: bytes, name: str) -> int:
        buffer = ctypes.create_string_buffer(image, len(image))
        module = self._call("cuModuleLoadData", ctypes.addressof(buffer))
        return int(self._call("cuModuleGetFunction", module, name.encode()))

    def launch_kernel(
        self, function: int, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int, stream: int,
        arguments: int,
    ) -> None:  # fmt: skip
        self._call("cuLaunchKernel", function, *grid, *block, shared, stream, arguments, 0)

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


def current_device() -> Cuda:
    """The device whose context is current in this thread; the first one where none is.

    Raises:
        EngineMissing: there is no driver, or no device.
    """
    first = open_device(0)
    assert isinstance(first, Driver)
    return open_device(first.current_ordinal())
