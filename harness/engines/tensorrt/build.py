"""From typed ONNX to a plan: parse, configure, build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...errors import BuildError, OptionError
from .. import plan_cache
from . import options as opts
from .library import Library, Log, hand_over, load_plugins, new_network
from .plugins import watched
from .profiles import Ranges, describe
from .refusals import builder_refusals, parser_refusals, refusal_message


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a build needs; what of it decides the plan is in the plan's key.

    Attributes:
        model: typed ONNX.
        profiles: the ranges of the dynamic axes; none if there are no dynamic axes.
        options: the engine's options.
        precision: "tf32" lets float32 run in TF32; everything else is in the model's types.
        timing_cache: the file of measured tactics, None for none.
        targets: compute capabilities, for RTX; none for the GPU that is there.
    """

    name: str
    model: ir.Model
    profiles: Sequence[Ranges] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    timing_cache: Path | None = None
    targets: Sequence[str] = ()


@dataclass(slots=True)
class Job:
    """A build under way: everything that TensorRT needs alive until it is done."""

    library: Library
    recipe: Recipe
    log: Log
    builder: Any
    network: Any
    parser: Any
    payload: Any
    accepted: bool


def build(library: Library, recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The plan, and notes for its manifest.

    Raises:
        BuildError: the parser or the builder refused the model; the message names the MXNet nodes.
        OptionError: this library lacks what an option asks for.
    """
    with watched(recipe.model):
        job = start(library, recipe)
        plan = run_builder(job) if job.accepted else None
    if not job.accepted:
        raise BuildError(refusal_message(library, recipe.name, parser_refusals(recipe.model, job.parser, job.log)))
    if plan is None:
        raise BuildError(refusal_message(library, recipe.name, builder_refusals(recipe.model, job.log.take_errors())))
    return plan, {"warnings": [" ".join(text.split()) for text in job.log.warnings[-5:]], "part": recipe.name}


def start(library: Library, recipe: Recipe) -> Job:
    """Parse the model into a new network."""
    log = Log(library)
    builder = library.new_builder(log)
    load_plugins(builder.get_plugin_registry(), opts.value_of(recipe.options, "plugins"), log)
    network = new_network(library, builder)
    parser = library.trt.OnnxParser(network, log.logger)
    accepted, payload = hand_over(
        recipe.model, lambda data, path: parser.parse(data, path), lambda path: parser.parse_from_file(path)
    )
    if accepted:
        _set_sampling(library, network, recipe.model)
    return Job(library, recipe, log, builder, network, parser, payload, accepted)


def _set_sampling(library: Library, network: Any, model: ir.Model) -> None:
    """GridSample's mode, which the parser of 10.6 knows by its older name only: it takes "linear" for "nearest"."""
    linear = {node.name for node in model.graph if node.op_type == "GridSample" and _mode(node) == "linear"}
    for layer in [network.get_layer(i) for i in range(network.num_layers)] if linear else ():
        if layer.type == library.trt.LayerType.GRID_SAMPLE and layer.name in linear:
            layer.__class__ = library.trt.IGridSampleLayer  # the network gives out the base class
            layer.interpolation_mode = library.trt.InterpolationMode.LINEAR


def _mode(node: ir.Node) -> str:
    return node.attributes["mode"].as_string() if "mode" in node.attributes else "linear"


def run_builder(job: Job) -> memoryview | None:
    """The plan of a parsed network, or None, and then the log says why."""
    config = _configure(job.library, job.builder, job.recipe)
    _add_profiles(job.builder, config, job.recipe.profiles)
    timing = _read_timing(config, job.recipe.timing_cache)
    job.log.take_errors()
    plan = job.builder.build_serialized_network(job.network, config)
    if plan is None:
        return None
    if timing:
        _write_timing(config, job.recipe.timing_cache)
    return memoryview(plan)


# --- configuring -----------------------------------------------------------------------------------------------------


_FLAGS = {  # option -> flag that it sets
    "version_compatible": "VERSION_COMPATIBLE",
    "refit": "REFIT",
    "sparse_weights": "SPARSE_WEIGHTS",
    "strict_nans": "STRICT_NANS",
    "weight_streaming": "WEIGHT_STREAMING",
    "editable_timing_cache": "EDITABLE_TIMING_CACHE",
    "fail_on_timing_miss": "ERROR_ON_TIMING_CACHE_MISS",
}


def flag_names(options: Mapping[str, Any], precision: str) -> list[str]:
    """The builder flags of a build, by name: their numbers differ between versions."""
    names = {flag for option, flag in _FLAGS.items() if opts.value_of(options, option)}
    if opts.value_of(options, "strip"):
        names |= {"STRIP_PLAN", "REFIT" if opts.value_of(options, "refit") else "REFIT_IDENTICAL"}
    if precision == "tf32":
        names.add("TF32")
    return sorted(names)


def _configure(library: Library, builder: Any, recipe: Recipe) -> Any:
    config = builder.create_builder_config()
    wanted = flag_names(recipe.options, recipe.precision)
    if "TF32" not in wanted and library.flag("TF32") is not None:
        config.clear_flag(library.trt.BuilderFlag.TF32)  # on by default, and not float32
    for name in wanted:
        flag = library.flag(name)
        if flag is None:
            raise OptionError(f"{library.label} has no builder flag {name}; leave out the option that asks for it")
        config.set_flag(flag)
    _set_numbers(library, config, recipe.options)
    _set_levels(library, config, recipe.options)
    if recipe.targets:
        config.num_compute_capabilities = len(recipe.targets)
        for index, name in enumerate(recipe.targets):
            config.set_compute_capability(getattr(library.trt.ComputeCapability, name), index)
    return config


def _set_numbers(library: Library, config: Any, options: Mapping[str, Any]) -> None:
    workspace = opts.value_of(options, "workspace")
    if workspace is not None:
        config.set_memory_pool_limit(library.trt.MemoryPoolType.WORKSPACE, workspace)
    level = opts.value_of(options, "optimization_level")
    if level is not None:
        config.builder_optimization_level = level
    streams = opts.value_of(options, "max_aux_streams")
    if streams is not None:
        config.max_aux_streams = streams
    iterations = opts.value_of(options, "avg_timing_iterations")
    if iterations is not None:
        config.avg_timing_iterations = iterations


def _set_levels(library: Library, config: Any, options: Mapping[str, Any]) -> None:
    verbosity = opts.PROFILING[opts.value_of(options, "profiling")]
    config.profiling_verbosity = getattr(library.trt.ProfilingVerbosity, verbosity)
    hardware = opts.HARDWARE[opts.value_of(options, "hardware")]
    if hardware != "NONE":
        level = getattr(library.trt.HardwareCompatibilityLevel, hardware, None)
        if level is None:
            raise OptionError(f"hardware: {library.label} has no level {hardware.lower()}")
        config.hardware_compatibility_level = level


def _add_profiles(builder: Any, config: Any, profiles: Sequence[Ranges]) -> None:
    for ranges in profiles:
        profile = builder.create_optimization_profile()
        try:
            for name, sizes in ranges.items():
                low, best, high = (tuple(size[k] for size in sizes) for k in range(3))
                profile.set_shape(name, low, best, high)
            refused = config.add_optimization_profile(profile) < 0
        except (ValueError, RuntimeError):
            refused = True
        if refused:
            texts = ", ".join(f"{name}{describe(sizes)}" for name, sizes in ranges.items())
            raise BuildError(f"TensorRT refuses the profile {texts}; make its ranges consistent")


# --- timing cache ----------------------------------------------------------------------------------------------------


def _read_timing(config: Any, path: Path | None) -> bool:
    """Give the builder the measurements of earlier builds; whether it takes them."""
    if path is None:
        return False
    try:
        known = path.read_bytes()
    except OSError:
        known = b""
    for content in dict.fromkeys((known, b"")):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return True
    return False


def _write_timing(config: Any, path: Path | None) -> None:
    """Keep the measurements; those that another process wrote meanwhile are joined with ours."""
    ours = config.get_timing_cache()
    if ours is None or path is None:
        return
    import filelock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            theirs = config.create_timing_cache(path.read_bytes()) if path.exists() else None
            if theirs is not None:
                ours.combine(theirs, True)
            plan_cache.write_whole(path, memoryview(ours.serialize()))
    except OSError as error:
        plan_cache.note_unkept("the timing cache", path, error)
