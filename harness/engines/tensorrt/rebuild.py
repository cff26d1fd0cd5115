"""A part that takes shapes outside the ranges it was built for: each class of sizes gets a plan of its own, once.

The plan of the ranges that were asked for stays as it is, and runs meanwhile. Further plans are kept in the plan cache
like any other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from ..layers import LayerTime
from .lane import shapes_of
from .pending import Pending
from .profiles import Ranges, describe, holds, widened
from .session import TensorRTSession

Array = npt.NDArray[Any]
_LOG = logging.getLogger("harness.tensorrt")


class RebuildingSession:
    """See :class:`~.session.TensorRTSession`, whose attributes it has. Safe between threads.

    Args:
        base: the session of the plan for the ranges that were asked for.
        build: a session of a plan for other ranges.
    """

    accepts_device_arrays = True
    rebuilds = True

    def __init__(self, base: TensorRTSession, build: Callable[[Ranges], TensorRTSession]) -> None:
        self.base = base
        self.further: dict[tuple[Any, ...], TensorRTSession] = {}
        self._build = build
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["base"], name)

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """As :meth:`.session.TensorRTSession.run`; BuildError if a further plan is needed and cannot be built."""
        return self._for(inputs).run(inputs)

    def enqueue(
        self, inputs: Sequence[Any], outputs: Sequence[Any] | None = None, stream: int | None = None
    ) -> Pending:
        """As :meth:`.session.TensorRTSession.enqueue`; a further plan is built before this returns."""
        return self._for(inputs).enqueue(inputs, outputs, stream)

    def profile(self, inputs: Sequence[Any], runs: int = 10) -> list[LayerTime]:
        """As :meth:`.session.TensorRTSession.profile`."""
        return self._for(inputs).profile(inputs, runs)

    def close(self) -> None:
        """Free the GPU's memory now; runs under way are awaited."""
        with self._lock:
            for session in (self.base, *self.further.values()):
                session.close()

    def _for(self, inputs: Sequence[Any]) -> TensorRTSession:
        base, shapes = self.base, shapes_of(inputs)
        named = dict(zip(base.input_names, shapes))
        if base.loaded is None or holds(base.profiles, named):
            return base
        ranges = widened(base.profiles[0], named)
        if not holds([ranges], named):
            return base  # which says what is wrong
        key = tuple(ranges.values())
        if key not in self.further:
            with self._lock:
                if key not in self.further:
                    self.further[key] = self._further(ranges, named)
        return self.further[key]

    def _further(self, ranges: Ranges, shapes: dict[str, tuple[int, ...]]) -> TensorRTSession:
        outside = {name: shape for name, shape in shapes.items() if not holds(self.base.profiles, {name: shape})}
        texts = ", ".join(
            f"{name!r} has the shape {shape}, outside {describe(self.base.profiles[0][name])}: for {describe(ranges[name])}"
            for name, shape in (outside or shapes).items()
        )
        _LOG.warning("part %s: a further plan is built, since %s", self.base.name, texts)
        return self._build(ranges)
