"""Calibration as a job of its own: ranges for a table, and what each layer loses (``mxtrt calibrate``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..engines.layers import owners_of
from ..errors import OptionError
from ..numerics import sqnr
from . import OPTIONS, Request, Sample, check_excluded, read_samples, split_options
from .calibration import DEFAULT_CALIBRATOR, onnxruntime_session, run_named, save_table
from .fold import fold_batch_norm
from .quantize import Site, find_possible_sites, find_ranges, find_sites, insert
from .sensitivity import Sensitivity, sensitivities


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration found.

    Attributes:
        ranges: activation tensor -> amax.
        calibrator: how they were found.
        layers: what each layer loses alone, the most sensitive first; empty if that was not asked for.
        sqnr: output -> signal-to-noise ratio in dB with all layers quantized, over the first samples.
    """

    ranges: dict[str, float]
    calibrator: str
    layers: list[Sensitivity]
    sqnr: dict[str, float]

    def save(self, path: str | Path) -> None:
        """Write the table that ``calibration_table=`` reads. CalibrationError if it cannot be written."""
        save_table(path, self.ranges, self.calibrator)


def calibrate(
    source: Any,
    params: Any = None,
    inputs: Mapping[str, Any] | None = None,
    calibration: Iterable[Mapping[str, Any]] = (),
    precision: str = "int8",
    sensitivity: bool = False,
    progress: Callable[[int], None] = lambda count: None,
    **options: Any,
) -> Calibration:
    """Run samples through a model in float32 and find the ranges of what would be quantized.

    Args:
        source, params, inputs: as ``harness.compile``; the whole model must lower to one part.
        calibration: samples {input: array}; read once (twice with ``sensitivity``, then it must be a list).
        precision: "int8" or "fp8".
        sensitivity: whether to quantize each layer alone too.
        progress: told the number of samples so far.
        options: calibrator, percentile and exclude of :data:`harness.precision.OPTIONS`.

    Raises:
        CalibrationError: a sample cannot be used.
        OptionError: an option is unknown, or the model is in several parts.
    """
    from ..compiler import compile

    if precision not in ("int8", "fp8"):
        raise OptionError(f"precision: {precision!r} needs no calibration; int8 and fp8 do")
    conversion, unknown = split_options(options)
    if unknown:
        raise OptionError(f"{', '.join(unknown)}: not an option of calibration. Options: {', '.join(OPTIONS)}")
    compiled = compile(source, params, inputs, engine="onnxruntime", fallback="error")
    if len(compiled.plan.models) != 1 or compiled.plan.models[0] is None:
        raise OptionError(
            f"the model has {len(compiled.plan.models)} parts; only a model of one part can be calibrated"
        )
    model = compiled.plan.models[0]
    fold_batch_norm(model)
    check_excluded(conversion, [node for nodes in owners_of(model).values() for node in nodes])
    samples = _counted(read_samples(calibration, compiled.input_names), progress)
    request = Request(precision, samples, options=conversion)
    sites = find_sites(model, conversion)
    ranges = find_ranges(model, find_possible_sites(model, conversion), request)
    layers = sensitivities(model, sites, ranges, request) if sensitivity else []
    calibrator = conversion.get("calibrator", DEFAULT_CALIBRATOR[precision])
    loss = _loss(model, sites, ranges, request) if sensitivity else {}
    return Calibration(ranges, calibrator, layers, loss)


def _counted(
    samples: Callable[[], Iterable[Sample]], progress: Callable[[int], None]
) -> Callable[[], Iterable[Sample]]:
    def run() -> Iterable[Sample]:
        for count, sample in enumerate(samples(), 1):
            yield sample
            progress(count)

    return run


def _loss(model: ir.Model, sites: list[Site], ranges: Mapping[str, float], request: Request) -> dict[str, float]:
    assert request.samples is not None
    sample = next(iter(request.samples()))
    exact = run_named(onnxruntime_session(model), sample)
    copy = ir.Model(model.graph.clone(), ir_version=model.ir_version)
    insert(copy, sites, ranges, request.precision)
    found = run_named(onnxruntime_session(copy), sample)
    return {name: sqnr(found[name], exact[name]) for name in exact if exact[name].dtype.kind == "f"}
