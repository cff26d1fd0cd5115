"""``optimize_for('TensorRT')`` on a stock MXNet 1.9.1: importing this module registers the backends.

    import harness.accelerator
    net.optimize_for(x, backend="TensorRT", static_alloc=True, static_shape=True)
    symbol.optimize_for("TensorRT", args, aux, precision="fp16")

Both names, ``TensorRT`` (as MXNet had it) and ``mxtrt``, do the same: the partitioner, lowering, engines and plan cache
of :func:`harness.compile`, behind MXNet's own interface for graph passes. See docs/drop-in.md.

Raises:
    EngineMissing: MXNet is not installed, or the library cannot be built (no C compiler) or loaded.
"""

from __future__ import annotations

from .options import OPTIONS
from .register import register
from .segment import clear

__all__ = ["BACKENDS", "OPTIONS", "clear", "get_backend_symbol", "init_tensorrt_params"]

BACKENDS = ("TensorRT", "mxtrt")

register()

from .legacy import get_backend_symbol, init_tensorrt_params  # noqa: E402 - they need the backends
