"""The GPU's memory, streams, events and graphs, and arrays that lie there.

Everything here speaks CUDA's *driver* interface, whose library comes with the driver itself, so it is there wherever a
GPU can be used and asks for no CUDA toolkit. The device's primary context is used: the one that PyTorch, CuPy, JAX,
MXNet and ``pycuda.autoprimaryctx`` use as well, so their arrays can be read in place.
"""

from __future__ import annotations

from .arrays import DeviceArray, is_device_array, read_device_array
from .buffers import Allocator, DeviceBuffer, Event, HostBuffer, Scratch, follow, shared_scratch, use_allocator
from .device import Cuda, CudaError, Device
from .driver import Driver, open_device
from .kernels import Kernel

__all__ = [
    "Allocator", "Cuda", "CudaError", "Device", "DeviceArray", "DeviceBuffer", "Driver", "Event", "HostBuffer", "Kernel",
    "Scratch", "follow", "is_device_array", "open_device", "read_device_array", "shared_scratch", "use_allocator",
]  # fmt: skip
