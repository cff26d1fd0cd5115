"""What can be said of a model before anything of it is built: how it was cut, and who runs what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from .engines.base import Profile
from .errors import Blocked
from .inputs import Input, profile_of

MXNET, HOST = "mxnet", "python"  # who runs a part that no engine does: MXNet, or a plugin's NumPy function


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the network that one engine runs: its engine, and the operators and names of its nodes, in order."""

    engine: str
    operators: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model was cut: everything that saving and explaining need beside the program.

    Attributes:
        inputs, outputs: name -> shape and type, in order.
        segments: the parts, in the order in which they run.
        fallbacks: the nodes that MXNet runs, and why.
        models: the typed ONNX model of each segment, None for those that MXNet runs.
        engine: the engine asked for.
        precision: the precision asked for.
        options: the engine's options.
        notices: choices made for the caller.
        removed: (node, operator) of nodes that need no computation.
    """

    inputs: dict[str, Input]
    outputs: dict[str, Input]
    segments: tuple[Segment, ...]
    fallbacks: tuple[Blocked, ...]
    models: tuple[ir.Model | None, ...]
    engine: str
    precision: str
    options: dict[str, Any]
    notices: tuple[str, ...] = ()
    removed: tuple[tuple[str, str], ...] = ()

    @property
    def profile(self) -> Profile:
        """The ranges of the inputs' dynamic axes."""
        return profile_of(self.inputs)
