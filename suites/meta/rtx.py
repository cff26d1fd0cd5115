"""TensorRT-RTX's parser and builder as an engine that builds and cannot run: it judges every lowering without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.engines import base
from harness.engines.base import BuildRequest, Session
from harness.engines.tensorrt import check_model, judge
from harness.engines.tensorrt.library import Library
from harness.errors import BuildError

TARGETS = ("SM89",)


class WithoutGpu(Library):
    """RTX makes its own plugins on a GPU only."""

    shipped_plugins = frozenset()  # type: ignore[assignment]


class Judge(judge.Judge):
    """See :class:`harness.engines.base.Engine`. What it builds is run by ONNX Runtime."""

    def __init__(self) -> None:
        super().__init__()
        self.library = WithoutGpu(self.name, self.library.trt)

    def check_options(self, options: Mapping[str, Any]) -> None:
        assert not options

    def build(self, request: BuildRequest) -> Session:
        found = check_model(request.model, request.name, TARGETS, request.profile, (0, 2, 8), {"optimization_level": 0})
        if found:
            raise BuildError("\n".join(map(str, found)))
        return base.get_engine("onnxruntime").build(request)
