"""Which MXNet operators are lowered, by what, and why the others are not.

One operator is one decorated function::

    @operator("Convolution", ignore=("workspace", "cudnn_tune", "cudnn_off"))
    def convolution(cx: Context, a: Attributes, data: Value, weight: Value, bias: Value | None = None) -> Value: ...

It reads its attributes from ``a``, emits ONNX through ``cx``, and returns one value per output of MXNet's operator
(hidden ones included, as far as anybody can refer to them). If it cannot express what is asked, it raises
``Unsupported`` with a reason that a user can act on. It never approximates.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from .schema import canonical_names, schemas


class Unsupported(Exception):
    """A lowering says why it cannot express this node. Never leaves the package: it becomes a fallback's reason."""


@dataclass(frozen=True, slots=True)
class Definition:
    """How one operator is lowered, in which family, and which attributes cannot change its answer."""

    name: str
    family: str
    lower: Callable[..., Any]
    ignore: tuple[str, ...] = ()


class OperatorInfo(NamedTuple):
    """What ``harness.operators()`` tells of one operator; ``reason`` says why it is not lowered, if it is not."""

    name: str
    native: bool
    reason: str | None
    family: str
    aliases: tuple[str, ...]
    engines: tuple[str, ...]


_definitions: dict[str, Definition] = {}
_refusals: dict[str, tuple[str, str]] = {}
Lowering = TypeVar("Lowering", bound=Callable[..., Any])


def operator(*names: str, ignore: Iterable[str] = ()) -> Callable[[Lowering], Lowering]:
    """Register a lowering for canonical operator names; ``ignore`` names attributes that cannot change the answer."""

    def register(lower: Lowering) -> Lowering:
        for name in names:
            _claim(name)
            family = lower.__module__.rpartition(".")[2]
            _definitions[name] = Definition(name, family, lower, tuple(ignore))
        return lower

    return register


def refuse(reason: str, *names: str) -> None:
    """Register why operators cannot be lowered."""
    for name in names:
        _claim(name)
        _refusals[name] = (reason, "refused")


def _claim(name: str) -> None:
    if name not in schemas():
        raise KeyError(f"{name} is not the canonical name of an operator of MXNet 1.9.1")
    if name in _definitions or name in _refusals:
        raise KeyError(f"{name} is registered twice")


@functools.cache
def _load() -> None:
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")


def find(name: str) -> Definition | None:
    """The definition of an operator by its canonical name, or None if it is not lowered."""
    _load()
    return _definitions.get(name)


def definitions() -> dict[str, Definition]:
    """All lowered operators by canonical name."""
    _load()
    return dict(_definitions)


def reason(name: str) -> str:
    """Why an operator is not lowered."""
    _load()
    if name in _refusals:
        return _refusals[name][0]
    if name not in canonical_names():
        return (
            f"is not an operator of MXNet 1.9.1; a custom operator library can only run in MXNet, or "
            f"@harness.plugin({name!r}) registers an implementation"
        )
    return "has no lowering yet"


def operators() -> dict[str, OperatorInfo]:
    """Canonical name -> what is known of the operator, for all forward operators of MXNet 1.9.1."""
    _load()
    table = {}
    for name, schema in schemas().items():
        definition = _definitions.get(name)
        table[name] = OperatorInfo(
            name,
            definition is not None,
            None if definition else reason(name),
            definition.family if definition else "",
            schema.aliases,
            ("onnxruntime", "tensorrt", "tensorrt_rtx") if definition else (),
        )
    return table
