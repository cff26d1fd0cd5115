"""What a model takes and gives: shapes, types, and the ranges of sizes that may vary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .dims import Dim, Shape
from .engines.base import Profile, Range
from .errors import InputError, OptionError
from .graph import BFLOAT16, MOST_AXES, MOST_ELEMENTS, MXNET_DTYPES

ShapeSpec = tuple[int | Range | str, ...]


@dataclass(frozen=True)
class Input:
    """Shape and type of an input or output.

    Args:
        shape: sizes; a size that may vary is ``(smallest, best, largest)``; a size that only the run tells is a name.
        dtype: NumPy's type or its name, as MXNet has it (``"float32"`` if left out).

    Raises:
        OptionError: a size or the type is none.
    """

    shape: ShapeSpec
    dtype: Any = field(default="float32")

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _shape(self.shape))
        object.__setattr__(self, "dtype", _dtype(self.dtype))

    @property
    def ranges(self) -> dict[int, Range]:
        """Axis -> range, of the sizes that may vary."""
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, tuple)}

    def symbolic(self, name: str) -> Shape:
        """The shape with a named dimension for each size that may vary."""
        sizes = []
        for axis, size in enumerate(self.shape):
            sizes.append(Dim.symbol(f"{name}_{axis}") if isinstance(size, tuple) else size)
        return tuple(sizes)  # type: ignore[arg-type]

    def __str__(self) -> str:
        sizes = (f"{size[0]}..{size[2]}" if isinstance(size, tuple) else str(size) for size in self.shape)
        return f"{self.dtype.name}[{', '.join(sizes)}]"


def read_inputs(inputs: Any) -> dict[str, Input]:
    """The ``inputs=`` argument of ``harness.compile``: name -> :class:`Input`.

    Raises:
        OptionError: it is not a mapping of names to shapes or ``Input``.
    """
    if inputs is None:
        return {}
    if not isinstance(inputs, Mapping):
        raise OptionError(f"inputs: {type(inputs).__name__} is not a mapping of names to shapes")
    result = {}
    for name, value in inputs.items():
        try:
            result[str(name)] = value if isinstance(value, Input) else Input(value)
        except OptionError as error:
            raise OptionError(f"inputs[{name!r}]: {error}") from None
    return result


def profile_of(inputs: Mapping[str, Input]) -> Profile:
    """Input -> axis -> range, of the sizes that may vary."""
    return {name: spec.ranges for name, spec in inputs.items() if spec.ranges}


def check_array(name: str, value: Any, spec: Input, any_size: bool = False) -> npt.NDArray[Any]:
    """``value`` as a NumPy array, if it has the type and a shape the model was compiled for; see ``check_shape``.

    Raises:
        InputError: it has not, or is not an array.
    """
    array = to_numpy(name, value)
    if array.dtype != spec.dtype:
        raise InputError(
            f"input {name!r}: the type is {array.dtype}, compiled for {spec.dtype.name}; "
            f"convert it with .astype({spec.dtype.name!r}), or compile with harness.Input(shape, {array.dtype.name!r})"
        )
    check_shape(name, array.shape, spec, any_size)
    return array


def check_shape(name: str, shape: Sequence[int], spec: Input, any_size: bool = False) -> None:
    """InputError unless the model was compiled for this shape.

    ``any_size``: a size that varies may leave its range, since the engine then builds a further plan.
    """
    shape = tuple(shape)
    if len(shape) != len(spec.shape):
        raise InputError(f"input {name!r}: the shape is {shape}, compiled for {spec}")
    for axis, (size, wanted) in enumerate(zip(shape, spec.shape)):
        if isinstance(wanted, tuple):
            if not any_size and not wanted[0] <= size <= wanted[2]:
                raise InputError(
                    f"input {name!r}: axis {axis} has size {size}, compiled for {wanted[0]} to {wanted[2]}; "
                    f"compile again with a wider range, or for TensorRT with outside='rebuild'"
                )
        elif size != wanted:
            raise InputError(
                f"input {name!r}: the shape is {shape}, compiled for {spec}; axis {axis} has size {size}, "
                f"not {wanted}: compile with (min, opt, max) for a size that varies"
            )


def to_numpy(name: str, value: Any) -> npt.NDArray[Any]:
    """A NumPy array of an array-like with ``__dlpack__``, ``__array__`` or ``asnumpy``; without a copy where it can."""
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "asnumpy"):
            return np.asarray(value.asnumpy())
        if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
            device = int(value.__dlpack_device__()[0])
            if device == 1:
                return np.from_dlpack(value)
            return np.asarray(value.cpu()) if hasattr(value, "cpu") else np.asarray(value.get())
        if hasattr(value, "__array__") or isinstance(value, (int, float, list, tuple)):
            array = np.asarray(value)
            if not array.dtype.hasobject:
                return array
    except Exception as error:  # noqa: BLE001 - a foreign array type's own error, of any kind
        raise InputError(f"input {name!r}: a {type(value).__name__} that cannot be read as an array: {error}") from None
    raise InputError(f"input {name!r}: a {type(value).__name__} is not an array")


def _shape(shape: Any) -> ShapeSpec:
    if isinstance(shape, str) or not isinstance(shape, (Sequence, Iterable)):
        raise OptionError(f"{shape!r} is not a shape")
    sizes = tuple(_size(size, shape) for size in shape)
    known = [size for size in sizes if not isinstance(size, str)]
    least = math.prod(size[0] if isinstance(size, tuple) else size for size in known)
    most = max((size[2] if isinstance(size, tuple) else size for size in known), default=0)
    if max(least, most) >= MOST_ELEMENTS or len(sizes) > MOST_AXES:
        raise OptionError(
            f"{str(sizes)[:80]} is the shape of no tensor of MXNet: these have up to {MOST_AXES} axes and fewer than "
            f"2^31 elements"
        )
    return sizes


def _size(size: Any, shape: Any) -> int | Range | str:
    if isinstance(size, str):
        return size
    if isinstance(size, (tuple, list)):
        if len(size) != 3 or not all(_is_integer(part) for part in size):
            raise OptionError(f"{size!r} in {shape!r} is not (min, opt, max)")
        low, best, high = (int(part) for part in size)
        if not 0 <= low <= best <= high:
            raise OptionError(f"{size!r} in {shape!r} is not 0 <= min <= opt <= max")
        return (low, best, high) if low != high else low
    if not _is_integer(size) or size < 0:
        raise OptionError(f"{size!r} in {shape!r} is neither a size nor (min, opt, max)")
    return int(size)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _dtype(dtype: Any) -> np.dtype[Any]:
    try:
        named = not isinstance(dtype, str) or dtype.isprintable()  # NumPy takes a character 0 for bool
        found = BFLOAT16 if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype) if named else None
    except (TypeError, ValueError):
        found = None
    if found is None or found not in MXNET_DTYPES.values():
        known = ", ".join(str(kind.name) for kind in MXNET_DTYPES.values())
        raise OptionError(f"dtype: {dtype!r} is none of {known}")
    return found
