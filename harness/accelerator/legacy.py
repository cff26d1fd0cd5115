"""The spellings of MXNet 1.5 to 1.7 (``mx.contrib.tensorrt``), over the backends of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_use_fp16 = False  # MXNet's own default was True, which surprised its users


def set_use_fp16(status: bool) -> None:
    """Whether ``get_backend_symbol`` asks for float16 from now on."""
    global _use_fp16
    _use_fp16 = bool(status)


def get_use_fp16() -> bool:
    """What ``set_use_fp16`` was last told."""
    return _use_fp16


def get_backend_symbol(
    symbol: Any, backend: str = "TensorRT", args: Mapping[str, Any] | None = None,
    aux: Mapping[str, Any] | None = None, **options: Any,
) -> Any:  # fmt: skip
    """``symbol.get_backend_symbol(backend)`` with the arrays that partitioning needs to know the shapes.

    Args:
        symbol: an MXNet symbol.
        backend: "TensorRT" or "mxtrt".
        args: all arguments by name, an example of each data input included.
        aux: all auxiliary states by name.
        options: the backend's.
    """
    options.setdefault("precision", "fp16" if _use_fp16 else "fp32")
    return symbol.optimize_for(backend, args, aux, **options)


def init_tensorrt_params(
    symbol: Any, arg_params: Mapping[str, Any], aux_params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters for a partitioned symbol: all of them, since a segment takes its weights as inputs.

    Auxiliary states that a segment reads are among the arguments it lists; both are returned sorted accordingly.
    """
    merged = {**arg_params, **aux_params}
    auxiliary = set(symbol.list_auxiliary_states())
    names = [name for name in merged if name not in auxiliary]
    return {name: merged[name] for name in names}, {name: merged[name] for name in merged if name in auxiliary}
