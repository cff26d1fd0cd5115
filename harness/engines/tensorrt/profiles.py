"""Optimization profiles: the ranges of an engine's dynamic axes, and which of them a shape belongs to."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from ...errors import BuildError, InputError, OptionError
from ..base import Range

Shape = tuple[int, ...]
Ranges = dict[str, tuple[Range, ...]]  # input -> (min, opt, max) of every axis, fixed ones included


def make_profiles(
    model: ir.Model,
    profile: Mapping[str, Mapping[int, Range]],
    extra: Sequence[Mapping[str, Mapping[int, Any]]] = (),
    unknown: Range | None = None,
) -> list[Ranges]:
    """The profiles of a model: that of the whole range first, then the further ones. Empty if nothing is dynamic.

    Raises:
        BuildError: a dynamic axis has no range.
        OptionError: a further profile names an input or axis that is not dynamic, or leaves the whole range.
    """
    inputs = {str(value.name): list(value.shape or ()) for value in model.graph.inputs}
    whole = {name: _ranges(name, shape, profile, unknown) for name, shape in inputs.items()}
    if all(low == high for ranges in whole.values() for low, _, high in ranges):
        return []
    for further in extra:
        _check(further, whole, inputs)
    return [whole, *(_narrowed(whole, further) for further in extra if any(name in whole for name in further))]


def _ranges(
    name: str, shape: Sequence[Any], profile: Mapping[str, Mapping[int, Range]], unknown: Range | None
) -> tuple[Range, ...]:
    given = profile.get(name, {})
    known = {f"{source}_{axis}": sizes for source, axes in profile.items() for axis, sizes in axes.items()}
    result: list[Range] = []
    for axis, size in enumerate(shape):
        if isinstance(size, int):
            result.append((size, size, size))
        elif axis in given:
            low, best, high = given[axis]
            result.append((low, best, high))
        elif (derived := _derived(str(size), known)) is not None:
            result.append(derived)
        elif unknown is not None:
            result.append((unknown[0], unknown[1], unknown[2]))
        else:
            raise BuildError(
                f"axis {axis} of {name!r} has a size ({size}) that only the run tells, and TensorRT builds for a range: "
                f"give unknown_sizes=(min, opt, max)"
            )
    return tuple(result)


def _derived(text: str, known: Mapping[str, Range]) -> Range | None:
    """The range of a size that follows from the inputs': their names stand in its text, as ``INPUT_AXIS``."""
    found = []
    for which in range(3):
        formula = text
        for name in sorted(known, key=len, reverse=True):
            formula = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", f"({known[name][which]})", formula)
        try:
            found.append(_calculate(ast.parse(formula, mode="eval").body))
        except (SyntaxError, ValueError, ZeroDivisionError):
            return None
    low, best, high = found
    return (low, best, high) if 0 <= low <= best <= high else None


_ARITHMETIC: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
}  # fmt: skip


def _calculate(node: ast.AST) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_calculate(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return _ARITHMETIC[type(node.op)](_calculate(node.left), _calculate(node.right))
    raise ValueError("not arithmetic")


def _check(further: Mapping[str, Mapping[int, Any]], whole: Ranges, inputs: Mapping[str, Sequence[Any]]) -> None:
    for name, axes in further.items():
        for axis, (low, _, high) in axes.items():
            if name not in whole:
                continue  # another part's input
            if not 0 <= axis < len(whole[name]) or isinstance(inputs[name][axis], int):
                raise OptionError(
                    f"profiles: axis {axis} of {name!r} does not vary; give it as (min, opt, max) in inputs="
                )
            if low < whole[name][axis][0] or high > whole[name][axis][2]:
                raise OptionError(
                    f"profiles: axis {axis} of {name!r}: {low}..{high} is not within {whole[name][axis][0]}.."
                    f"{whole[name][axis][2]}, the range in inputs="
                )


def _narrowed(whole: Ranges, further: Mapping[str, Mapping[int, Any]]) -> Ranges:
    return {
        name: tuple(
            tuple(further[name][axis]) if axis in further.get(name, {}) else size for axis, size in enumerate(ranges)
        )
        for name, ranges in whole.items()
    }


def choose(profiles: Sequence[Ranges], shapes: Mapping[str, Shape]) -> int:
    """The number of the narrowest profile that holds these shapes.

    Raises:
        InputError: none does; the message names the ranges.
    """
    fitting = [i for i, ranges in enumerate(profiles) if all(_holds(ranges[n], s) for n, s in shapes.items())]
    if not fitting:
        for name, shape in shapes.items():
            if not any(_holds(ranges[name], shape) for ranges in profiles):
                texts = " or ".join(dict.fromkeys(describe(ranges[name]) for ranges in profiles))
                raise InputError(
                    f"input {name!r}: the shape {shape} is outside what was built: {texts}; compile again, or with outside='rebuild'"
                )
        raise InputError(f"no single profile holds the shapes {dict(shapes)} together; compile with one that does")
    return min(fitting, key=lambda i: (_width(profiles[i]), i))


def _holds(ranges: Sequence[Range], shape: Shape) -> bool:
    return len(ranges) == len(shape) and all(low <= size <= high for size, (low, _, high) in zip(shape, ranges))


def widened(whole: Ranges, shapes: Mapping[str, Shape]) -> Ranges:
    """The ranges of a further plan, which holds these shapes: an axis that leaves its range gets that of its size class.

    A doubling of a size has four classes, so a size that wanders costs few builds, and no plan reserves memory for more
    than a quarter above what was asked for. Axes that do not vary stay as they are.
    """
    return {
        name: tuple(_widened(range_, size) for range_, size in zip(ranges, shapes[name], strict=True))
        for name, ranges in whole.items()
    }


def _widened(known: Range, size: int) -> Range:
    low, _, high = known
    if low == high or low <= size <= high:
        return known
    first, last = _size_class(size)
    return (max(first, high + 1), last, last) if size > high else (first, min(last, low - 1), min(last, low - 1))


def _size_class(size: int) -> tuple[int, int]:
    """The smallest and largest size of a class: 0, 1, 2, ..., 8, 9-10, 11-12, ..., 15-16, 17-20, 21-24, ..."""
    step = 1 << max((size - 1).bit_length() - 3, 0)
    last = -(-size // step) * step
    return max(last - step + 1, 0), last


def holds(profiles: Sequence[Ranges], shapes: Mapping[str, Shape]) -> bool:
    """Whether a profile holds these shapes."""
    return any(all(_holds(ranges[name], shape) for name, shape in shapes.items()) for ranges in profiles)


def _width(ranges: Ranges) -> int:
    return math.prod(high - low + 1 for sizes in ranges.values() for low, _, high in sizes)


def describe(ranges: Sequence[Range]) -> str:
    """The ranges of one input as text: ``[1..8, 3, 224]``."""
    return "[" + ", ".join(str(low) if low == high else f"{low}..{high}" for low, _, high in ranges) + "]"
