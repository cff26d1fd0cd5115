"""Python's cyclic garbage collector set aside while a graph is built."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def without_collection(function: Callable[P, R]) -> Callable[P, R]:
    """The function run without the cyclic collector.

    A graph of 20,000 nodes is a million objects that all stay; each collection walks them again, which doubled the time
    and made it grow faster than the graph. Reference counting goes on; the collector is back when the function ends.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not gc.isenabled():
            return function(*args, **kwargs)
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            gc.enable()

    return run
