"""A compiled model: what ``harness.compile`` and ``harness.load`` return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .engines.memory import is_device_array
from .errors import InputError
from .executor import Program
from .inputs import Input, check_array, check_shape
from .plan import Plan

Array = npt.NDArray[Any]


class Model:
    """A compiled model. Calling it is safe from several threads; answers are fresh arrays, inputs stay untouched."""

    def __init__(self, program: Program, plan: Plan) -> None:
        self.inputs, self.outputs = dict(plan.inputs), dict(plan.outputs)
        self.input_names, self.output_names = list(plan.inputs), list(plan.outputs)
        self.segments, self.fallbacks = list(plan.segments), list(plan.fallbacks)
        self.plan = plan
        self._program = program
        self._any_size = program.rebuilds
        self._in_place = {self.input_names[slot] for slot in program.device_inputs()}
        self._expected = [(name, spec, spec.dtype, spec.shape) for name, spec in self.inputs.items()]

    def __call__(self, **inputs: Any) -> list[Array]:
        """The outputs, in the order of the symbol's.

        Args:
            inputs: one array per input, by name: NumPy, or anything with ``__dlpack__`` or
                ``__cuda_array_interface__``, of the type and shape the model was compiled for.

        Raises:
            InputError: an input is missing, unknown, or has another type or shape.
            ExecutionError: an engine failed.
        """
        arrays = []
        for name, spec, dtype, shape in self._expected:
            value = inputs.get(name)
            if type(value) is not np.ndarray or value.dtype != dtype or value.shape != shape:
                if name not in inputs:
                    raise InputError(f"input {name!r} is missing; the model takes {self._signature()}")
                value = self._check(name, value, spec)
            arrays.append(value)
        if len(inputs) != len(arrays):
            unknown = ", ".join(repr(name) for name in inputs if name not in self.inputs)
            raise InputError(f"{unknown} is not an input; the model takes {self._signature()}")
        return self._program.run(arrays)

    def _check(self, name: str, value: Any, spec: Input) -> Any:
        """The value as NumPy array; or itself, where it lies on a GPU and everything that reads it takes it there."""
        if name in self._in_place and is_device_array(value):
            check_shape(name, value.shape, spec, self._any_size)
            return value
        return check_array(name, value, spec, self._any_size)

    def _signature(self) -> str:
        return ", ".join(f"{name}: {spec}" for name, spec in self.inputs.items()) or "no inputs"

    def explain(self) -> str:
        """Which engine runs which part, and why MXNet runs the rest, as text."""
        from .explain import explain

        return explain(self.plan)

    def save(self, folder: str | Path) -> None:
        """Write the model as a folder that ``harness.load`` reads.

        Raises:
            ArtifactError: the folder cannot be written.
        """
        from .saving import save

        save(self._program, self.plan, folder)
