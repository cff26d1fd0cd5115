"""Kernels from CUDA C, for whoever has no library of his own to launch them with."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EngineMissing, OptionError
from .arrays import is_device_array, read_device_array
from .buffers import follow
from .device import Cuda, CudaError
from .driver import current_device

_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so")


class Kernel:
    """One kernel of a CUDA C text. It is compiled by NVRTC when it is first launched on a device.

    >>> scale = Kernel('extern "C" __global__ void scale(float* x, float by, int n) { ... }', "scale")
    >>> scale((n + 255) // 256, 256, stream, x, np.float32(2), np.int32(n))        # doctest: +SKIP

    Args:
        source: CUDA C; the kernel is ``extern "C"``.
        name: the kernel.
        options: further options of NVRTC.
    """

    def __init__(self, source: str, name: str, options: Sequence[str] = ()) -> None:
        self.source, self.name, self.options = source, name, tuple(options)
        self._functions: dict[int, int] = {}
        self._lock = threading.Lock()

    def __call__(
        self,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        stream: int,
        *arguments: Any,
        shared: int = 0,
    ) -> None:
        """Enqueue the kernel on a stream of the current device, and return.

        Args:
            grid, block: up to three sizes each.
            stream: the stream's handle; it waits for what is under way on an array's own.
            arguments: arrays on the GPU, and NumPy scalars of the kernel's own types (``np.int32(n)``).
            shared: bytes of dynamic shared memory.

        Raises:
            OptionError: an argument is of another kind.
            EngineMissing: NVRTC is not there.
            CudaError: the kernel does not compile, or cannot be launched; the message has the compiler's words.
        """
        cuda = current_device()
        values = [_argument(argument, stream, cuda) for argument in arguments]
        pointers = (ctypes.c_void_p * max(len(values), 1))(*(ctypes.addressof(value) for value in values))
        function = self._function(cuda)
        cuda.launch_kernel(function, _sizes(grid), _sizes(block), shared, stream, ctypes.addressof(pointers))

    def _function(self, cuda: Cuda) -> int:
        with self._lock:
            if id(cuda) not in self._functions:
                image = compile_kernel(self.source, self.name, cuda.device.sm, self.options)
                self._functions[id(cuda)] = cuda.load_kernel(image, self.name)
            return self._functions[id(cuda)]


def _sizes(sizes: int | tuple[int, ...]) -> tuple[int, int, int]:
    given = (sizes,) if isinstance(sizes, int) else tuple(map(int, sizes))
    if not 1 <= len(given) <= 3:
        raise OptionError(f"a grid or block has one to three sizes, not {sizes!r}")
    x, y, z = (*given, 1, 1)[:3]
    return x, y, z


def _argument(value: Any, stream: int, cuda: Cuda) -> Any:
    """What the kernel reads, as a C object."""
    if is_device_array(value):
        array = read_device_array("argument", value, stream)
        follow(cuda, stream, array)
        return ctypes.c_uint64(array.address)
    if isinstance(value, np.generic):
        return (ctypes.c_char * value.dtype.itemsize).from_buffer_copy(value.tobytes())
    raise OptionError(
        f"a kernel's argument is an array on the GPU or a NumPy scalar of the kernel's type, as np.int32(3), not a "
        f"{type(value).__name__}"
    )


# --- NVRTC -----------------------------------------------------------------------------------------------------------


def compile_kernel(source: str, name: str, sm: str, options: Sequence[str] = ()) -> bytes:
    """Machine code of a CUDA C text for one architecture ("SM90").

    Raises:
        EngineMissing: NVRTC is not there.
        CudaError: it does not compile; the message has the compiler's words.
    """
    library = _nvrtc()
    program = ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), f"{name}.cu".encode(), 0, None, None
    ), "")  # fmt: skip
    try:
        texts = [f"--gpu-architecture=sm_{sm.removeprefix('SM')}".encode(), *(option.encode() for option in options)]
        status = library.nvrtcCompileProgram(program, len(texts), (ctypes.c_char_p * len(texts))(*texts))
        _check(library, status, _text(library, program, "ProgramLog") if status else "")
        return _content(library, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _content(library: Any, program: Any, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), "")
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer), "")
    return buffer.raw


def _text(library: Any, program: Any, what: str) -> str:
    return " ".join(_content(library, program, what).rstrip(b"\0").decode(errors="replace").split())[:2000]


def _check(library: Any, status: int, words: str) -> None:
    if status:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        code = library.nvrtcGetErrorString(status).decode()
        raise CudaError(code, f"NVRTC: {code}{': ' + words if words else ''}")


def _nvrtc() -> Any:
    for place in _places():
        with contextlib.suppress(OSError):
            return ctypes.CDLL(place)
    raise EngineMissing(
        "NVRTC (libnvrtc) is not found, which compiles CUDA C: pip install nvidia-cuda-nvrtc-cu12 (or the one for your "
        "CUDA), or launch the kernel with a library of your own"
    )


def _places() -> Iterator[str]:
    yield from _NAMES
    spec = importlib.util.find_spec("nvidia")  # NVIDIA's wheels lie side by side in this namespace
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for pattern in ("cuda_nvrtc/lib/libnvrtc.so.*", "cu*/lib/libnvrtc.so.*"):
            yield from map(str, sorted(Path(folder).glob(pattern)))
