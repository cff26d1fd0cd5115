"""TensorRT-RTX as an engine that says what it cannot run, and runs nothing: for machines without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import EngineMissing
from ...operators.context import Fragment
from .. import capability
from ..base import BuildRequest, Session
from . import library as libraries
from . import options as opts


class Judge:
    """See :class:`~harness.engines.base.Engine`.

    Raises:
        EngineMissing: TensorRT-RTX is not installed.
    """

    narrow_types: tuple[str, ...] = ("fp16", "bf16")

    def __init__(self) -> None:
        self.library = libraries.find("tensorrt_rtx")
        self.name = self.library.name

    def check_options(self, options: Mapping[str, Any]) -> None:
        opts.check(options, self.name)

    def refuse(self, fragment: Fragment) -> str | None:
        return capability.refuse(fragment, self.library)

    def build(self, request: BuildRequest) -> Session:
        raise EngineMissing(f"{self.library.label} only judges here; see harness.engines.tensorrt.check_model")
