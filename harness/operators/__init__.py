"""MXNet's operators, one file per family; called as ``harness.operators()`` it gives the table of all of them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .registry import OperatorInfo


class _Operators(ModuleType):
    """The public API has a function with this package's name: the package is that function."""

    def __call__(self) -> dict[str, OperatorInfo]:
        """Canonical name -> what is known of the operator, for all forward operators of MXNet 1.9.1."""
        from . import registry

        return registry.operators()


sys.modules[__name__].__class__ = _Operators
