"""Precision lives in the graph: a float32 model becomes one whose types say what is computed in which precision.

``convert`` is the arrow of the design: typed ONNX in, typed ONNX out. Inputs and outputs keep MXNet's types.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..engines.layers import owner_of
from ..errors import CalibrationError, HarnessError, OptionError
from .request import OPTIONS, PRECISIONS, Request, Sample, Samples

__all__ = [
    "OPTIONS",
    "PRECISIONS",
    "Request",
    "Sample",
    "Samples",
    "check_excluded",
    "convert",
    "read_samples",
    "split_options",
]


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the conversion's options, the others).

    Raises:
        OptionError: one of the conversion's has an impossible value.
    """
    ours = {name: value for name, value in options.items() if name in OPTIONS}
    _check(ours)
    return ours, {name: value for name, value in options.items() if name not in OPTIONS}


def convert(model: ir.Model, request: Request) -> ir.Model:
    """The model in another precision; the model itself for fp32 and tf32 (which is the engine's setting).

    Raises:
        CalibrationError: int8 or fp8 without usable samples or table.
    """
    if request.precision in ("fp32", "tf32"):
        return model
    from .fold import fold_batch_norm
    from .narrow import narrow

    fold_batch_norm(model)
    base = request.precision
    if base in ("int8", "fp8"):
        base = request.options.get("base_precision", "fp32")
        _quantize(model, request, base)
    return model if base == "fp32" else narrow(model, base, base in request.narrow_types)


def _quantize(model: ir.Model, request: Request, base: str) -> None:
    """Q/DQ pairs for int8 or fp8, in place: at all sites, or at those that keep ``min_sqnr``."""
    from .quantize import find_ranges, find_sites, insert
    from .sensitivity import layers_to_exclude

    sites = find_sites(model, request.options)
    ranges = find_ranges(model, sites, request)
    if "min_sqnr" in request.options:
        left_out = layers_to_exclude(model, sites, ranges, request)
        excluded = [*request.options.get("exclude", ()), *left_out]
        fewer = set(find_sites(model, {**request.options, "exclude": excluded}))  # others may stay wide with them
        sites = [site for site in sites if site in fewer]
    insert(model, sites, ranges, request.precision, base)


def _check(options: Mapping[str, Any]) -> None:
    from .calibration import CALIBRATORS

    choices: dict[str, Sequence[str]] = {"calibrator": CALIBRATORS, "base_precision": ("fp32", "fp16", "bf16")}
    for name, allowed in choices.items():
        if name in options and options[name] not in allowed:
            raise OptionError(f"{name}: {options[name]!r} is none of {', '.join(allowed)}")
    for name in ("percentile", "min_sqnr"):
        _check_number(name, options.get(name, 99.99))
    percentile = options.get("percentile", 99.99)
    if not 50 < percentile <= 100:
        raise OptionError(f"percentile: {percentile!r} is not a share between 50 and 100")
    table = options.get("calibration_table", "")
    if not isinstance(table, (str, os.PathLike)):
        raise OptionError(f"calibration_table: {table!r} is not the path of a table")
    least = options.get("min_channels", 1)
    if not isinstance(least, int) or isinstance(least, bool) or least < 1:
        raise OptionError(f"min_channels: {least!r} is not a positive integer")
    exclude = options.get("exclude", ())
    if not isinstance(exclude, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in exclude):
        raise OptionError(f"exclude: {exclude!r} is not a list of node names")


def check_excluded(options: Mapping[str, Any], nodes: Collection[str]) -> None:
    """OptionError for a name in ``exclude`` that is neither one of the MXNet nodes nor an ONNX node of one."""
    known = set(nodes)
    for name in options.get("exclude", ()):
        if name not in known and owner_of(name) not in known:
            near = difflib.get_close_matches(name, known, 3)
            raise OptionError(
                f"exclude: the model has no node {name!r}" + (f"; near it are {', '.join(near)}" if near else "")
            )


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise OptionError(f"{name}: {value!r} is not a number")


def read_samples(calibration: Any, names: Sequence[str]) -> Samples:
    """Checks the ``calibration=`` argument of ``harness.compile``: an iterable of {input: array}.

    Raises:
        CalibrationError: it is none, or a sample lacks an input.
    """
    if isinstance(calibration, (str, bytes)) or not isinstance(calibration, Iterable):
        raise CalibrationError(f"calibration: {type(calibration).__name__} is not an iterable of {{input: array}}")

    def checked() -> Iterable[Sample]:
        count = 0
        for count, sample in enumerate(_told(calibration), 1):
            if not isinstance(sample, Mapping) or not set(names) <= set(sample):
                found = sorted(sample) if isinstance(sample, Mapping) else type(sample).__name__
                raise CalibrationError(f"calibration: sample {count} has {found}, the model's inputs are {list(names)}")
            yield {name: np.asarray(sample[name]) for name in names}
        if not count:
            raise CalibrationError("calibration: there are no samples (an iterator can be read only once: give a list)")

    return checked


def _told(calibration: Iterable[Any]) -> Iterable[Any]:
    """The samples; CalibrationError with the sample's number where the caller's own code fails to give one."""
    source, count = iter(calibration), 1
    while True:
        try:
            sample = next(source)
        except StopIteration:
            return
        except HarnessError:
            raise
        except Exception as error:
            raise CalibrationError(
                f"calibration: sample {count} cannot be read: {type(error).__name__}: {error}"
            ) from error
        yield sample
        count += 1
