"""Runs a compiled program: segments in order, values in slots, memory owned by the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .engines.base import Session

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One segment: reads some slots, writes others; ``last_use`` may be freed after it."""

    session: Session
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    last_use: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """Slots: first the inputs, then constants, then what the steps write.

    Attributes:
        inputs: how many inputs there are.
        constants: slot -> array for outputs and fallback inputs that are parameters.
        steps: in order.
        outputs: the slots of the outputs.
        fresh: whether each output is nobody else's memory; the others are copied.
    """

    inputs: int
    slots: int
    constants: dict[int, Array]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def device_inputs(self) -> set[int]:
        """The inputs that everything which reads them can read on a GPU."""
        on_host = set(self.outputs)
        for step in self.steps:
            if not getattr(step.session, "accepts_device_arrays", False):
                on_host.update(step.reads)
        return set(range(self.inputs)) - on_host

    @property
    def rebuilds(self) -> bool:
        """Whether a size outside the ranges of the inputs is for the engine to decide about."""
        return any(getattr(step.session, "rebuilds", False) for step in self.steps)

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """Fresh arrays, one per output."""
        if (
            len(self.steps) == 1
            and self.outputs == self.steps[0].writes
            and self.steps[0].reads == tuple(range(self.inputs))
        ):
            return self.steps[0].session.run(inputs)
        values: list[Any] = [*inputs, *[None] * (self.slots - self.inputs)]
        for slot, array in self.constants.items():
            values[slot] = array
        for step in self.steps:
            for slot, value in zip(step.writes, step.session.run([values[slot] for slot in step.reads])):
                values[slot] = value
            for slot in step.last_use:
                values[slot] = None
        written = {slot for step in self.steps for slot in step.writes}
        seen: set[int] = set()
        results = []
        for slot in self.outputs:
            owned = slot in written and slot not in seen
            results.append(values[slot] if owned else np.array(values[slot]))
            seen.add(slot)
        return results
