"""Reading a checkpoint of PyTorch's first file format without PyTorch, and without letting the file run code.

The file is five pickles (magic number, protocol, machine, the tensors' descriptions, the storages' names) and then each
storage: its number of elements as int64 and its bytes. The pickles may name three classes; anything else is refused.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class CheckpointError(Exception):
    """The file is no such checkpoint, or holds something other than tensors."""


class _Reader(pickle.Unpickler):
    """Builds (storage, offset, shape, strides) instead of tensors, and refuses every other class."""

    storages: dict[str, np.dtype[Any]]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise CheckpointError(f"the checkpoint names {module}.{name}, which is no tensor")

    def persistent_load(self, identity: Any) -> str:
        kind, dtype, key, *_ = identity
        if kind != "storage":
            raise CheckpointError(f"the checkpoint refers to a {kind!r}, not to a storage")
        self.storages[key] = dtype
        return str(key)


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """Name -> array of every tensor of the checkpoint.

    Raises:
        CheckpointError: the file is damaged, or holds something else.
    """
    try:
        with Path(path).open("rb") as file:
            tensors, storages = _read(file)
        return {str(name): _tensor(storages[key], *place) for name, (key, *place) in tensors.items()}
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint is damaged ({type(error).__name__}: {error})") from None


def _read(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    if _pickle(file)[0] != _MAGIC:
        raise CheckpointError("it is no checkpoint of PyTorch's first format")
    _pickle(file), _pickle(file)
    tensors, dtypes = _pickle(file)
    keys, _ = _pickle(file)
    storages = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        data = file.read(count * dtypes[key].itemsize)
        storages[key] = np.frombuffer(data, dtypes[key])
        if storages[key].size != count:
            raise CheckpointError(f"the checkpoint ends within storage {key}")
    return tensors, storages


def _pickle(file: BinaryIO) -> tuple[Any, dict[str, np.dtype[Any]]]:
    reader = _Reader(file)
    reader.storages = {}
    return reader.load(), reader.storages


def _tensor(storage: np.ndarray[Any, Any], offset: int, shape: Any, strides: Any) -> np.ndarray[Any, Any]:
    size = storage.itemsize
    last = offset + sum((count - 1) * stride for count, stride in zip(shape, strides))
    if offset < 0 or min((0, *shape, *strides)) < 0 or (0 not in shape and last >= storage.size):
        raise CheckpointError(f"a tensor of shape {shape} reaches beyond its storage of {storage.size} elements")
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, [stride * size for stride in strides])
    return np.ascontiguousarray(view).reshape(shape)
