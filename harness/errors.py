"""Every exception a caller of mxtrt can provoke.

HarnessError
├── OptionError            an argument or option has a value that is not supported
├── ModelError             the model's JSON, or the graph it describes, is not a valid MXNet model
│   └── ParameterError     a .params file or a parameter is damaged, missing or of the wrong shape
├── InputError             an input is missing, unknown, or has another shape or type than was compiled for
├── UnsupportedOperator    some nodes cannot be lowered and no fallback was allowed
├── EngineError            an engine failed
│   ├── EngineMissing      the engine's library or device is not there
│   ├── BuildError         the engine refused the network
│   └── ExecutionError     the engine failed while running
├── CalibrationError       calibration data are missing or unusable
├── CacheError             the plan cache cannot be used as asked
└── ArtifactError          a saved model is truncated, altered, or of a newer format
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class HarnessError(Exception):
    """Base of all errors of this package; the message says what was found, where, and what to do next."""


class OptionError(HarnessError, ValueError):
    """An argument or option has a value that is not supported."""


class ModelError(HarnessError):
    """The model's JSON, or the graph it describes, is not a valid MXNet model."""


class ParameterError(ModelError):
    """A parameter file is damaged, or a parameter is missing or has the wrong shape."""


class InputError(HarnessError, ValueError):
    """An input is missing, unknown, or has another shape or type than was compiled for."""


class Blocked(NamedTuple):
    """A node that no engine can run, and why."""

    node: str
    operator: str
    reason: str


class UnsupportedOperator(HarnessError):
    """Some nodes cannot be lowered; ``blocked`` lists each with its reason."""

    def __init__(self, blocked: Sequence[Blocked], advice: str = "") -> None:
        self.blocked = tuple(blocked)
        lines = [f"{len(self.blocked)} node(s) cannot be lowered:"]
        lines += [f"  {node} ({operator}): {reason}" for node, operator, reason in self.blocked]
        super().__init__("\n".join(lines + ([advice] if advice else [])))


class EngineError(HarnessError):
    """An engine failed."""


class EngineMissing(EngineError):
    """The engine's library or device is not there."""


class BuildError(EngineError):
    """The engine refused the network."""


class ExecutionError(EngineError):
    """The engine failed while running."""


class CalibrationError(HarnessError):
    """Calibration data are missing or unusable."""


class CacheError(HarnessError):
    """The plan cache cannot be used as asked."""


class ArtifactError(HarnessError):
    """A saved model is truncated, altered, or of a newer format."""
