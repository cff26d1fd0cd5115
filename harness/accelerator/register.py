"""The Python side of the library's calls. Nothing raised here may reach C: a failure is a message and a 0."""

from __future__ import annotations

import atexit
import ctypes
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from ..errors import EngineError
from ..frontend.compat import mxnet
from ..graph import MXNET_DTYPES
from . import library, segment
from .binding import Block
from .graph_pass import rewrite
from .options import read_options
from .pushes import take_turns

Array = npt.NDArray[Any]

_log = logging.getLogger("mxtrt")
_LONGEST = 16000  # bytes of a message; shim.c has room for 16384
_INT, _PTR, _TEXT = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
_CREATE = ctypes.CFUNCTYPE(ctypes.c_int64, _PTR, _PTR, _INT, _TEXT, _INT, _INT, _PTR)
_DESTROY = ctypes.CFUNCTYPE(None, ctypes.c_int64)
_FORWARD = ctypes.CFUNCTYPE(
    _INT, ctypes.c_int64, _INT, _PTR, _INT, ctypes.c_uint64, ctypes.c_uint64, _PTR, _PTR, _PTR, _PTR, _PTR, _PTR
)
_PASS = ctypes.CFUNCTYPE(
    _INT, _TEXT, _PTR, _PTR, _INT, _PTR, _INT, _PTR, _PTR, _PTR, _PTR, _PTR, _PTR, _INT, _PTR, _PTR, _PTR, _PTR
)


@functools.cache
def register() -> None:
    """Load the library and connect it; once."""
    shim = library.load()
    callbacks = (_CREATE(_create), _DESTROY(_destroy), _FORWARD(_forward), _PASS(_pass))
    shim.mxtrt_connect(*callbacks)
    _keep.append(callbacks)
    take_turns()
    atexit.register(_disconnect, shim)


_keep: list[Any] = []


def _disconnect(shim: ctypes.CDLL) -> None:
    """Let pending work end before the interpreter does; what comes later gets an error from C."""
    try:
        mxnet().nd.waitall()
    except mxnet().base.MXNetError as error:
        _log.error("at exit: %s", error)
    finally:
        shim.mxtrt_connect(None, None, None, None)


def _guarded(call: Callable[..., int]) -> Callable[..., int]:
    """Every exception becomes MXNet's: the message is handed over, and 0 returned."""

    @functools.wraps(call)
    def guarded(*arguments: Any) -> int:
        try:
            return call(*arguments)
        except BaseException as error:  # noqa: BLE001 - nothing may be raised into C
            text = str(error) if type(error).__module__.startswith("harness") else f"{type(error).__name__}: {error}"
            _log.debug("mxtrt: %s", text, exc_info=True)
            message = f"mxtrt: {text}".encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")
            library.load().mxtrt_fail(ctypes.c_char_p(message.encode()))
            return 0

    return guarded


_thread = threading.local()


def _keep_thread() -> None:
    """Keep Python's record of one of MXNet's threads from call to call: to make one takes longer than a small segment.

    Each callback from C into Python begins and ends a thread state, unless there is one; this takes one more reference
    of it (PEP 311). What is kept in a ``threading.local`` is gone together with the state.
    """
    if not hasattr(_thread, "is_kept"):
        _thread.is_kept = True
        ctypes.pythonapi.PyGILState_Ensure()


@_guarded
def _create(keys: int, values: int, count: int, device: bytes, device_id: int, inputs: int, roles: int) -> int:
    number, found = segment.create(_texts(keys, values, count), device.decode(), device_id, inputs)
    ctypes.memmove(roles, found, inputs)
    return number


def _destroy(number: int) -> None:
    segment.destroy(number)


@_guarded
def _forward(
    number: int, is_forward: int, call: int, words: int, place: int, content: int,
    in_shapes: int, in_dims: int, in_data: int, in_types: int, in_versions: int, stream: int | None,
) -> int:  # fmt: skip
    _keep_thread()
    if not is_forward:
        raise EngineError("a model partitioned for TensorRT has no backward pass; train the original network")
    memory = segment.Memory(in_shapes, in_dims, in_data, in_types, in_versions, stream or 0)
    segment.forward(number, ctypes.string_at(call, 8 * words), (place, content), memory)
    return 1


@_guarded
def _pass(
    graph: bytes, keys: int, values: int, options: int, arg_names: int, args: int, arg_data: int, arg_shapes: int,
    arg_dims: int, arg_types: int, arg_devices: int, aux_names: int, auxs: int, aux_data: int, aux_shapes: int,
    aux_dims: int, aux_types: int,
) -> int:  # fmt: skip
    chosen = read_options(_texts(keys, values, options))
    device = ctypes.cast(arg_devices, ctypes.POINTER(_TEXT))[0].decode() if args else "cpu"
    arrays: dict[str, Array] = {}
    if device == "cpu":
        arrays |= _arrays(arg_names, args, arg_data, arg_shapes, arg_dims, arg_types)
        arrays |= _arrays(aux_names, auxs, aux_data, aux_shapes, aux_dims, aux_types)
    text = rewrite(graph.decode(), chosen, device, arrays)
    library.load().mxtrt_result(ctypes.c_char_p(text.encode()))
    return 1


def _texts(keys: int, values: int, count: int) -> dict[str, str]:
    if not count:
        return {}
    names, texts = (ctypes.cast(pointer, ctypes.POINTER(_TEXT)) for pointer in (keys, values))
    return {(names[i] or b"").decode(): (texts[i] or b"").decode() for i in range(count)}


def _arrays(names: int, count: int, data: int, shapes: int, dims: int, types: int) -> dict[str, Array]:
    """Views of MXNet's arrays by name."""
    if not count:
        return {}
    texts = ctypes.cast(names, ctypes.POINTER(_TEXT))
    pointers = ctypes.cast(data, ctypes.POINTER(_PTR))
    sizes = ctypes.cast(shapes, ctypes.POINTER(ctypes.POINTER(ctypes.c_int64)))
    ranks, flags = (ctypes.cast(pointer, ctypes.POINTER(_INT)) for pointer in (dims, types))
    found = {}
    for i in range(count):
        pointer = pointers[i]
        if pointer and flags[i] in MXNET_DTYPES:
            shape = tuple(sizes[i][axis] for axis in range(ranks[i]))
            found[(texts[i] or b"").decode()] = Block(pointer, MXNET_DTYPES[flags[i]], shape).view()
    return found
