"""A TEST DOUBLE of TensorRT and CUDA: no GPU, no TensorRT, no measurement of either.

It lets the whole TensorRT engine run in CI. What is real: TensorRT-RTX's own parser and builder, which judge and build
every network. What is not: the device (host memory behind addresses that only the double may dereference, streams that
do nothing until somebody waits for them) and the execution (ONNX Runtime). Speeds and numbers mean nothing here.
"""

from __future__ import annotations

from typing import Any

from harness.engines.memory import Device
from harness.engines.tensorrt import TensorRTEngine
from harness.engines.tensorrt.library import Library

from .cuda import DoubleCuda
from .trt import DoubleTensorRT

__all__ = ["DoubleCuda", "DoubleTensorRT", "make_engine"]


def make_engine(cuda: DoubleCuda | None = None, **about: Any) -> TensorRTEngine:
    """The engine on the double. ``about`` replaces what the double says of itself: version, rtx."""
    cuda = cuda or DoubleCuda(Device(0, "double of a GPU", (8, 9), 8 << 30, 12080))
    return TensorRTEngine(
        Library("tensorrt_rtx" if about.get("rtx") else "tensorrt", DoubleTensorRT(cuda, **about)), cuda
    )
