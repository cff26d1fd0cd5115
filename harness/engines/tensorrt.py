"""TensorRT and TensorRT-RTX."""

from __future__ import annotations

from ..errors import EngineMissing


def create(name: str) -> None:
    """The engine; EngineMissing if the library or a device is not there."""
    raise EngineMissing(f"{name}: not written yet")
