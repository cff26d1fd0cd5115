"""MXNet's ``.params`` files, read by memory map: arrays are views into the file, never copies.

Layout (``src/ndarray/ndarray.cc``, ``NDArray::Save`` and ``NDArray::Load``): uint64 0x112, uint64 reserved, a counted
list of arrays, a counted list of names. Each array: a magic word that tells the generation, its shape, its context,
its type flag, its bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import ParameterError
from ..graph import MOST_ELEMENTS, MXNET_DTYPES

Array = npt.NDArray[Any]

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA  # int64 shapes; storage types; NumPy shape semantics
_DENSE, _ROW_SPARSE, _CSR = 0, 1, 2
_MAX_RANK = 32
_CPU = 1
_FLAGS = {dtype: flag for flag, dtype in MXNET_DTYPES.items()}


def read_params(path: str | Path) -> dict[str, Array]:
    """Name -> array of a ``.params`` file, without ``arg:`` and ``aux:``; arrays are read-only views of the file.

    A file without names (``mx.nd.save`` of a list) gives "0", "1", ...

    Raises:
        ParameterError: the file cannot be read, is damaged, or holds sparse arrays of an unknown kind.
    """
    try:
        buffer = np.memmap(path, np.uint8, "r") if Path(path).stat().st_size else np.zeros(0, np.uint8)
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path}: the parameter file cannot be read: {error}") from None
    return _Reader(buffer, str(path)).arrays()


def place_in_file(array: Array) -> tuple[Path, int] | None:
    """The file an array is a contiguous view of, and the byte it begins at; None if it is not a view of a file."""
    if not array.flags.c_contiguous:
        return None
    base: Any = array
    while base is not None and not (isinstance(base, np.memmap) and base.dtype == np.uint8 and base.ndim == 1):
        base = getattr(base, "base", None)
    while isinstance(base, np.memmap) and isinstance(base.base, np.memmap):
        base = base.base
    if base is None or base.filename is None:
        return None
    return Path(base.filename), array.ctypes.data - base.ctypes.data + base.offset


def strip_prefix(params: Mapping[str, Any]) -> dict[str, Any]:
    """Names without ``arg:`` and ``aux:``."""
    texts = ((str(name), value) for name, value in params.items())
    return {name[4:] if name[:4] in ("arg:", "aux:") else name: value for name, value in texts}


class _Reader:
    def __init__(self, buffer: npt.NDArray[np.uint8], where: str) -> None:
        self.buffer, self.where, self.at = buffer, where, 0

    def arrays(self) -> dict[str, Array]:
        if len(self.buffer) < 24 or self._unpack("Q") != _LIST_MAGIC:
            raise ParameterError(f"{self.where}: not an MXNet parameter file (it does not begin with 0x112)")
        self._unpack("Q")
        count = self._count("arrays", 8)
        arrays = [self._array(index) for index in range(count)]
        names = [self._text() for _ in range(self._count("names", 8))]
        if not names:
            return {str(index): array for index, array in enumerate(arrays)}
        if len(names) != len(arrays):
            raise ParameterError(f"{self.where}: {len(arrays)} arrays but {len(names)} names")
        named = strip_prefix(dict(zip(names, arrays, strict=True)))
        if len(named) != len(arrays):
            raise ParameterError(f"{self.where}: a name occurs twice")
        return named

    def _array(self, index: int) -> Array:
        magic = self._unpack("I")
        storage = self._unpack("i") if magic in (_V2, _V3) else _DENSE
        if storage == _DENSE:
            shape = self._shape(magic)
            if not shape and magic != _V3:  # an array that was never allocated
                return np.zeros((0,), np.float32)
            if magic == _V3 and self.at >= len(self.buffer):
                self._fail(f"array {index} ends early")
            return self._data(index, shape)
        if storage in (_ROW_SPARSE, _CSR):
            return self._sparse(index, storage, magic)
        raise ParameterError(f"{self.where}: array {index} has the unknown storage type {storage}")

    def _data(self, index: int, shape: tuple[int, ...]) -> Array:
        self._unpack("ii")  # the device it lay on
        return self._elements(index, shape, self._dtype(index))

    def _sparse(self, index: int, storage: int, magic: int) -> Array:
        """A sparse array, made dense (it has no other use in inference)."""
        stored_shape, shape = self._shape(magic), self._shape(magic)
        self._unpack("ii")
        dtype = self._dtype(index)
        count = 1 if storage == _ROW_SPARSE else 2
        auxiliary = [(self._dtype(index), self._shape(magic)) for _ in range(count)]
        data = self._elements(index, stored_shape, dtype)
        indices = [self._elements(index, aux_shape, kind) for kind, aux_shape in auxiliary]
        try:
            dense = np.zeros(shape, dtype)
            if storage == _ROW_SPARSE:
                dense[indices[0]] = data
            else:
                lengths = np.diff(indices[0].astype(np.int64))
                if lengths.min(initial=0) < 0 or lengths.sum() != len(data):
                    raise ValueError("its rows do not have the lengths of its data")
                dense[np.repeat(np.arange(len(lengths)), lengths), indices[1]] = data
        except (IndexError, ValueError, TypeError) as error:
            raise ParameterError(f"{self.where}: array {index}: damaged sparse indices: {error}") from None
        except MemoryError:
            raise ParameterError(f"{self.where}: array {index}: there is no memory for {shape}, made dense") from None
        return dense

    def _elements(self, index: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        count = math.prod(shape)
        end = self.at + count * dtype.itemsize
        if end > len(self.buffer):
            self._fail(f"array {index} of shape {shape} ends after the file's {len(self.buffer)} bytes")
        array = self.buffer[self.at : end].view(dtype).reshape(shape)
        self.at = end
        return array

    def _shape(self, magic: int) -> tuple[int, ...]:
        # Before 1.0 the word that is now a magic number was the rank itself, and sizes were uint32.
        rank = self._unpack("i") if magic in (_V1, _V2, _V3) else magic
        if not 0 <= rank <= _MAX_RANK:
            self._fail(f"an array of {rank} dimensions")
        sizes = self._unpack(f"{rank}{'q' if magic in (_V1, _V2, _V3) else 'I'}") if rank else ()
        shape = sizes if isinstance(sizes, tuple) else (sizes,)
        if any(size < 0 for size in shape) or math.prod(size for size in shape if size) >= MOST_ELEMENTS:
            self._fail(f"an array of shape {shape}")
        return shape

    def _dtype(self, index: int) -> np.dtype[Any]:
        flag = self._unpack("i")
        if flag not in MXNET_DTYPES:
            self._fail(f"array {index} has the unknown type flag {flag}")
        return MXNET_DTYPES[flag]

    def _count(self, what: str, smallest: int) -> int:
        count = self._unpack("Q")
        if count * smallest > len(self.buffer) - self.at:
            self._fail(f"it claims to hold {count} {what}")
        return int(count)

    def _text(self) -> str:
        length = self._count("characters in a name", 1)
        raw = bytes(self.buffer[self.at : self.at + length])
        self.at += length
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._fail("a name is not UTF-8")

    def _unpack(self, form: str) -> Any:
        size = struct.calcsize("<" + form)
        if self.at + size > len(self.buffer):
            self._fail(f"it ends after {len(self.buffer)} bytes, within a header")
        values = struct.unpack_from("<" + form, self.buffer.data, self.at)
        self.at += size
        return values[0] if len(values) == 1 else values

    def _fail(self, what: str) -> NoReturn:
        raise ParameterError(f"{self.where}: damaged or truncated parameter file: {what} (byte {self.at})")


def write_params(path: str | Path, arrays: Mapping[str, Array]) -> None:
    """Write name -> array as MXNet writes it, so that MXNet and :func:`read_params` can read it.

    With a zero-size or zero-dimensional array among them MXNet reads the file under NumPy shape semantics only.

    Raises:
        ParameterError: an array has a type that MXNet does not have.
        OSError: the file cannot be written.
    """
    names = [name.encode() for name in arrays]
    magic = _V2 if all(array.size and array.ndim for array in arrays.values()) else _V3
    with Path(path).open("wb") as file:
        file.write(struct.pack("<QQQ", _LIST_MAGIC, 0, len(names)))
        for name, array in arrays.items():
            flag = _FLAGS.get(array.dtype)
            if flag is None:
                raise ParameterError(f"the parameter {name!r} has the type {array.dtype}, which MXNet does not have")
            file.write(struct.pack(f"<Iii{array.ndim}q", magic, _DENSE, array.ndim, *array.shape))
            file.write(struct.pack("<iii", _CPU, 0, flag))
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.write(struct.pack("<Q", len(names)))
        for text in names:
            file.write(struct.pack("<Q", len(text)) + text)
