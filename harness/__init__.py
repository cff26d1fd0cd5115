"""mxtrt: MXNet models on TensorRT, with proof. This module is the whole public API.

>>> model = harness.compile("path/resnet50", inputs={"data": (1, 3, 224, 224)})   # doctest: +SKIP
>>> scores, = model(data=image)                                                    # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifact import load
    from .compiler import compile, to_onnx
    from .errors import (
        ArtifactError,
        BuildError,
        CacheError,
        CalibrationError,
        EngineError,
        EngineMissing,
        ExecutionError,
        HarnessError,
        InputError,
        ModelError,
        OptionError,
        ParameterError,
        UnsupportedOperator,
    )
    from .inputs import Input
    from .model import Model
    from .operators.registry import operators
    from .plugins import plugin

_HOMES = {
    "compile": "compiler",
    "to_onnx": "compiler",
    "load": "artifact",
    "operators": "operators.registry",
    "Model": "model",
    "Input": "inputs",
    "plugin": "plugins",
    **dict.fromkeys(
        (
            "ArtifactError", "BuildError", "CacheError", "CalibrationError", "EngineError", "EngineMissing",
            "ExecutionError", "HarnessError", "InputError", "ModelError", "OptionError", "ParameterError",
            "UnsupportedOperator",
        ),
        "errors",
    ),
}  # fmt: skip

__all__ = [
    "ArtifactError",
    "BuildError",
    "CacheError",
    "CalibrationError",
    "EngineError",
    "EngineMissing",
    "ExecutionError",
    "HarnessError",
    "Input",
    "InputError",
    "Model",
    "ModelError",
    "OptionError",
    "ParameterError",
    "UnsupportedOperator",
    "compile",
    "load",
    "operators",
    "plugin",
    "to_onnx",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import harness`` costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # importlib returns the submodule; `harness.operators` the name must win over `harness.operators` the package.
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
