"""Which layers lose most when quantized, and how many must be left out for a stated accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..engines.layers import owner_of
from ..errors import CalibrationError
from ..numerics import sqnr
from .calibration import onnxruntime_session, run_named
from .quantize import Site, insert
from .request import Request, Sample

Array = npt.NDArray[Any]

_MAX_SAMPLES = 16


class Sensitivity(NamedTuple):
    """One layer: the signal-to-noise ratio of the outputs, in dB, when only it is quantized (the worst output's)."""

    layer: str
    sqnr: float


def sensitivities(
    model: ir.Model, sites: Sequence[Site], ranges: Mapping[str, float], request: Request
) -> list[Sensitivity]:
    """All layers, the most sensitive first."""
    samples = _samples(request)
    exact = _answers(model, samples)
    layers = dict.fromkeys(owner_of(site.node) for site in sites)
    found = []
    for layer in layers:
        own = [site for site in sites if owner_of(site.node) == layer]
        found.append(Sensitivity(layer, _sqnr(_quantized(model, own, ranges, request.precision), samples, exact)))
    return sorted(found, key=lambda item: item.sqnr)


def layers_to_exclude(
    model: ir.Model,
    sites: Sequence[Site],
    ranges: Mapping[str, float],
    request: Request,
    layers: Sequence[Sensitivity] | None = None,
) -> set[str]:
    """The fewest of the most sensitive layers (``layers``, if they are known) without which every output keeps ``min_sqnr``.

    Raises:
        CalibrationError: not even one quantized layer keeps it.
    """
    wanted = float(request.options["min_sqnr"])
    order = [item.layer for item in layers or sensitivities(model, sites, ranges, request)]
    samples = _samples(request)
    exact = _answers(model, samples)

    def reached(count: int) -> bool:
        kept = [site for site in sites if owner_of(site.node) not in order[:count]]
        return _sqnr(_quantized(model, kept, ranges, request.precision), samples, exact) >= wanted

    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if reached(middle):
            high = middle
        else:
            low = middle + 1
    if low == len(order) and order:
        raise CalibrationError(f"min_sqnr: no quantized layer keeps {wanted} dB; ask for less, or use fp16")
    return set(order[:low])


def _quantized(model: ir.Model, sites: Sequence[Site], ranges: Mapping[str, float], precision: str) -> ir.Model:
    copy = ir.Model(model.graph.clone(), ir_version=model.ir_version)
    insert(copy, sites, ranges, precision)
    return copy


def _samples(request: Request) -> list[Sample]:
    if request.samples is None:
        raise CalibrationError("min_sqnr needs calibration= samples, not only a table")
    taken = []
    for sample in request.samples():
        taken.append(sample)
        if len(taken) == _MAX_SAMPLES:
            break
    return taken


def _answers(model: ir.Model, samples: Iterable[Sample]) -> list[dict[str, Array]]:
    session = onnxruntime_session(model)
    return [run_named(session, sample) for sample in samples]


def _sqnr(model: ir.Model, samples: Sequence[Sample], exact: Sequence[Mapping[str, Array]]) -> float:
    found = _answers(model, samples)
    names = [name for name in exact[0] if exact[0][name].dtype.kind == "f"]
    return min(
        (
            sqnr(np.concatenate([f[n].ravel() for f in found]), np.concatenate([e[n].ravel() for e in exact]))
            for n in names
        ),
        default=float("inf"),
    )
