"""NVIDIA's own parser and builder as a judge of models, on machines without a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ...errors import BuildError, OptionError
from ..base import Profile, Range
from . import library as libraries
from .build import Recipe, Refusal, builder_refusals, parser_refusals, run_builder, start
from .integers import with_wide_integers
from .profiles import make_profiles

DEFAULT_TARGETS = ("SM89", "SM120")


def check_model(
    model: ir.Model,
    name: str,
    compute_capabilities: Sequence[str] = DEFAULT_TARGETS,
    profile: Profile | None = None,
    unknown_sizes: Range | None = None,
    options: Mapping[str, object] | None = None,
) -> list[Refusal]:
    """What TensorRT-RTX's parser and builder refuse of a model, per ONNX node; empty if it builds.

    Nothing is run, and no GPU is needed.

    Args:
        model: typed ONNX.
        name: its name, for messages.
        compute_capabilities: the GPUs to build for: SM75, SM80, SM86, SM89, SM120, SM121.
        profile: the ranges of the inputs' dynamic axes.
        unknown_sizes: the range of dynamic axes that are not in ``profile``.
        options: the engine's options.

    Raises:
        EngineMissing: TensorRT-RTX is not installed.
        OptionError: a compute capability that it does not know.
        BuildError: a dynamic axis has no range.
    """
    library = libraries.find("tensorrt_rtx")
    known = [text for text in library.trt.ComputeCapability.__members__ if text.startswith("SM")]
    for target in compute_capabilities:
        if target not in known:
            raise OptionError(f"compute_capabilities: {target!r} is none of {', '.join(known)}")
    model = with_wide_integers(model)
    profiles = make_profiles(model, profile or {}, (), unknown_sizes)
    recipe = Recipe(name, model, profiles, dict(options or {}), targets=tuple(compute_capabilities))
    job = start(library, recipe)
    if not job.accepted:
        return parser_refusals(model, job.parser, job.log)
    try:
        plan = run_builder(job)
    except BuildError as error:
        return [Refusal("", "", "", "", str(error), "builder")]
    return [] if plan is not None else builder_refusals(model, job.log.take_errors())
