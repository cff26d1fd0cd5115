"""The options of the TensorRT engines: what each does, what it may be, and whether it decides what is built.

An option that is given goes into the plan's key if ``BUILD`` says so; the others can change without a new build.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import OptionError
from ..base import check_known

BUILD, RUN = True, False
PROFILING = {"names": "LAYER_NAMES_ONLY", "detailed": "DETAILED", "none": "NONE"}
HARDWARE = {
    "none": "NONE", "ampere_plus": "AMPERE_PLUS", "same_compute_capability": "SAME_COMPUTE_CAPABILITY",
}  # fmt: skip


class Option(NamedTuple):
    """``kind``: the type, or the values allowed; ``build``: whether a plan built without it is another plan."""

    text: str
    kind: Any
    default: Any
    build: bool


OPTIONS: dict[str, Option] = {
    "workspace": Option("bytes of GPU memory a layer may use while running (default: all)", int, None, BUILD),
    "optimization_level": Option("0 (fast build) to 5 (fast engine); default 3", range(6), None, BUILD),
    "max_aux_streams": Option("streams on which TensorRT may run layers side by side (default: its choice)", int, None, BUILD),
    "avg_timing_iterations": Option("how often each tactic is timed (default 1)", int, None, BUILD),
    "hardware": Option("GPUs the plan runs on besides this one: " + ", ".join(HARDWARE), tuple(HARDWARE), "none", BUILD),
    "version_compatible": Option("True: later versions of TensorRT can run the plan", bool, False, BUILD),
    "refit": Option("True: a plan of the same graph takes new parameters without a build; it may be slower", bool, False, BUILD),
    "strip": Option("True: the plan is kept without parameters, which are put in when it is loaded", bool, False, BUILD),
    "sparse_weights": Option("True: use 2:4 sparse kernels where parameters allow", bool, False, BUILD),
    "strict_nans": Option("True: no layer may assume that its input has no NaN", bool, False, BUILD),
    "weight_streaming": Option("True: parameters may stay in host memory", bool, False, BUILD),
    "editable_timing_cache": Option("True: tactics come from the timing cache, for builds that repeat", bool, False, BUILD),
    "fail_on_timing_miss": Option("True: refuse to time a tactic that the timing cache lacks", bool, False, BUILD),
    "profiling": Option("what the engine inspector tells: " + ", ".join(PROFILING), tuple(PROFILING), "names", BUILD),
    "profiles": Option("further ranges, the narrowest that fits is used: [{input: {axis: (min, opt, max)}}]", list, (), BUILD),
    "unknown_sizes": Option("(min, opt, max) of a part's sizes that only the run tells", tuple, None, BUILD),
    "plugins": Option("paths of plugin libraries to load", list, (), BUILD),
    "timing_cache": Option("False: time every tactic afresh; a path: the file to use", (bool, str), True, RUN),
    "plan_cache": Option("False: build, and keep nothing", bool, True, RUN),
    "device": Option("number of the GPU", int, 0, RUN),
    "contexts": Option("how many runs may be under way at once; each needs its own memory (default 2)", int, 2, RUN),
    "cuda_graphs": Option("False: enqueue every run layer by layer", bool, True, RUN),
    "scratch": Option("'own', or 'shared': one activation memory for all engines", ("own", "shared"), "own", RUN),
    "outside": Option("'error', or 'rebuild': a shape outside the ranges builds a further plan", ("error", "rebuild"), "error", RUN),
    "weight_streaming_budget": Option("bytes of parameters on the GPU, with weight_streaming", int, None, RUN),
}  # fmt: skip


def check(options: Mapping[str, Any], engine: str) -> None:
    """OptionError, naming the option and what it may be, for one that is unknown or has an impossible value."""
    check_known(options, {name: option.text for name, option in OPTIONS.items()}, engine)
    for name, value in options.items():
        if value is not None and not _fits(value, OPTIONS[name].kind):
            raise OptionError(f"{name}: {value!r} is not allowed; {name}: {OPTIONS[name].text}")
    if options.get("contexts", 1) < 1:
        raise OptionError(f"contexts: {options['contexts']} is not a positive integer")
    if options.get("strip") and options.get("version_compatible"):
        raise OptionError("strip and version_compatible exclude each other; choose one")
    if options.get("weight_streaming_budget") is not None and not options.get("weight_streaming"):
        raise OptionError("weight_streaming_budget needs weight_streaming=True")
    for profile in options.get("profiles") or ():
        _check_profile(profile)
    if options.get("unknown_sizes") is not None:
        _check_range("unknown_sizes", options["unknown_sizes"])


def _fits(value: Any, kind: Any) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind in (list, tuple):
        return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if kind == (bool, str):
        return isinstance(value, (bool, str))
    if kind is bool:
        return isinstance(value, bool)
    return not isinstance(value, bool) and value in kind


def _check_profile(profile: Any) -> None:
    if not isinstance(profile, Mapping) or not all(isinstance(axes, Mapping) for axes in profile.values()):
        raise OptionError(f"profiles: {profile!r} is not {{input: {{axis: (min, opt, max)}}}}")
    for name, axes in profile.items():
        for axis, sizes in axes.items():
            _check_range(f"profiles: axis {axis} of {name!r}", sizes)


def _check_range(what: str, sizes: Any) -> None:
    whole = isinstance(sizes, Sequence) and all(isinstance(s, int) and not isinstance(s, bool) for s in sizes)
    if not whole or len(sizes) != 3 or not 0 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise OptionError(f"{what}: {sizes!r} is not (min, opt, max) with 0 <= min <= opt <= max")


def value_of(options: Mapping[str, Any], name: str) -> Any:
    """The option's value, or its default."""
    value = options.get(name)
    return OPTIONS[name].default if value is None else value


def build_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option that decides what is built, by name, defaults included; profiles and plugins are fields of their own."""
    return {
        name: value_of(options, name)
        for name, option in OPTIONS.items()
        if option.build and name not in ("profiles", "unknown_sizes", "plugins")
    }
