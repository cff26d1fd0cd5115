"""Arrays that lie on the GPU, whoever made them: read in place, by DLPack or ``__cuda_array_interface__``."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import InputError
from ...graph import BFLOAT16

LEGACY_STREAM = 0  # CUDA's default stream, on which libraries that say nothing about streams work
_DLPACK_LEGACY_STREAM = 1  # DLPack's number for it: there 0 is ambiguous and refused


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
        return math.prod(self.shape) * self.dtype.itemsize

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
    torch = _torch_of(value)
    if torch is not None:
        return bool(value.is_cuda)
    if hasattr(value, "__dlpack_device__"):
        try:
            return int(value.__dlpack_device__()[0]) == _DLPACK_CUDA
        except Exception:  # noqa: BLE001 - a foreign array type's own error, of any kind
            return False
    return _interface(value) is not None


def read_device_array(name: str, value: Any, stream: int) -> DeviceArray:
    """An array on the GPU, in place. Work on ``stream`` must wait for the array's own, if it has one and that is another.

    Raises:
        InputError: it is not contiguous, or cannot be read.
    """
    if isinstance(value, DeviceArray):
        return value
    torch = _torch_of(value)
    try:
        if torch is not None and _is_plain(torch, value):
            return _read_torch(torch, value)
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


# --- PyTorch's, whose DLPack takes longer at every call than many a plan runs -----------------------------------------


def _torch_of(value: Any) -> Any:
    """The module, if this is a tensor of it and not of a subclass; None otherwise."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and type(value) is getattr(torch, "Tensor", None) else None


def _is_plain(torch: Any, value: Any) -> bool:
    """Whether a tensor's memory holds what the tensor says; of the others DLPack tells what is wrong."""
    readable = value.is_cuda and value.layout is torch.strided and value.dtype in _torch_types(torch)
    return bool(readable and not value.requires_grad and not value.is_neg() and not value.is_conj())


@functools.cache
def _torch_types(torch: Any) -> dict[Any, np.dtype[Any]]:
    names = ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
    return {torch.bfloat16: BFLOAT16, **{getattr(torch, name): np.dtype(name) for name in names}}


def _read_torch(torch: Any, value: Any) -> DeviceArray:
    """By its address; its content is made on PyTorch's current stream, as DLPack has it."""
    shape = tuple(value.shape)
    if not value.is_contiguous():
        raise InputError(f"the array of shape {shape} is not contiguous; pass .contiguous() of it")
    stream = int(torch.cuda.current_stream(value.device).cuda_stream)
    return DeviceArray(int(value.data_ptr()), shape, _torch_types(torch)[value.dtype], value, stream)


# --- DLPack ----------------------------------------------------------------------------------------------------------


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


_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _read_dlpack(value: Any, stream: int) -> DeviceArray:
    """The producer makes the array ready on ``stream``; the capsule keeps it alive."""
    capsule = value.__dlpack__(stream=stream or _DLPACK_LEGACY_STREAM)
    tensor = _DLTensor.from_address(_capsule_pointer(capsule, b"dltensor"))
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
