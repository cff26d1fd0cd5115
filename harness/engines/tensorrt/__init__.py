"""TensorRT 10 and 11, and TensorRT-RTX: one engine, whose differences are found by introspection.

``check_model`` is for machines without a GPU: RTX's own parser and builder judge a model, ahead of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import BuildError, EngineMissing, OptionError
from ...operators.context import Fragment
from .. import capability, memory, plan_cache
from ..base import BuildRequest, Session
from . import build as building
from . import library as libraries
from . import options as opts
from .build import Recipe, Refusal
from .check import check_model
from .library import Library, Log
from .profiles import Ranges, make_profiles
from .refit import refit, split_weights
from .session import TensorRTSession, open_plan

__all__ = ["Refusal", "TensorRTEngine", "TensorRTSession", "check_model", "create"]


def create(name: str) -> TensorRTEngine:
    """The engine of this name, for the first GPU.

    Raises:
        EngineMissing: the library cannot be imported, there is no GPU, or the library does not support it.
    """
    cuda = libraries.open_device(0)  # before the library: TensorRT 10.6 ends the process if it finds no device
    return TensorRTEngine(libraries.find(name), cuda)


class TensorRTEngine:
    """See :class:`~harness.engines.base.Engine`."""

    def __init__(self, library: Library, cuda: memory.Cuda) -> None:
        reason = capability.refuse_device(library.is_rtx, cuda.device.compute_capability)
        if reason:
            raise EngineMissing(f"{library.label} does not run on {cuda.device.name}: {reason}")
        self.name = library.name
        self.library, self.cuda = library, cuda

    def check_options(self, options: Mapping[str, Any]) -> None:
        opts.check(options, self.name)
        if self.library.is_rtx:
            for name in capability.RTX_LACKS:
                if options.get(name):
                    raise OptionError(f"{name}: {self.library.label} does not do it ({capability.RTX_LACKS[name]})")

    def refuse(self, fragment: Fragment) -> str | None:
        return capability.refuse(fragment, self.library)

    def build(self, request: BuildRequest) -> Session:
        cuda = self._device(request.options)
        cuda.use()
        profiles = make_profiles(
            request.model,
            request.profile,
            opts.value_of(request.options, "profiles"),
            opts.value_of(request.options, "unknown_sizes"),
        )
        cache = plan_cache.PlanCache(request.cache_dir)
        recipe = self._recipe(request, profiles, cuda, cache)
        refittable = opts.value_of(request.options, "refit") or opts.value_of(request.options, "strip")
        found = self._plan(recipe, cuda, cache, refittable)
        session = self._open(recipe, cuda, found, refittable)
        if session is None and found.outcome == "hit":  # whole, and yet of no use: it is built anew
            cache.remove(plan_cache.key_of(self.key_fields(recipe, cuda, refittable)))
            session = self._open(recipe, cuda, self._plan(recipe, cuda, cache, refittable), refittable)
        if session is None:
            raise BuildError(
                f"{self.library.label} built part {request.name} and cannot load its own plan on {cuda.device.name}; "
                f"check that the driver ({cuda.device.driver}) is new enough, or use engine='onnxruntime'"
            )
        return session

    def _device(self, options: Mapping[str, Any]) -> memory.Cuda:
        ordinal = opts.value_of(options, "device")
        return self.cuda if ordinal == self.cuda.device.ordinal else libraries.open_device(ordinal)

    def _recipe(
        self, request: BuildRequest, profiles: Sequence[Ranges], cuda: memory.Cuda, cache: plan_cache.PlanCache
    ) -> Recipe:
        choice = opts.value_of(request.options, "timing_cache")
        timing = None
        if choice and not self.library.is_rtx:  # RTX ignores it
            timing = cache.timing_path(self._platform(cuda)) if choice is True else Path(choice)
        return Recipe(request.name, request.model, profiles, request.options, request.precision, timing)

    def _platform(self, cuda: memory.Cuda) -> dict[str, Any]:
        device = cuda.device
        return {
            "flavour": "rtx" if self.library.is_rtx else "standard",
            "version": self.library.version,
            "parser": self.library.parser_version,
            "gpu": device.name,
            "compute_capability": list(device.compute_capability),
            "gpu_memory": device.memory,
            "driver": device.driver,
        }

    def key_fields(self, recipe: Recipe, cuda: memory.Cuda, refittable: bool = False) -> dict[str, Any]:
        """Everything that could change the plan, by name. A refittable plan does not depend on its parameters."""
        fixed = split_weights(recipe.model)[0] if refittable else None
        plugins = opts.value_of(recipe.options, "plugins")
        return {
            **self._platform(cuda),
            "structure": plan_cache.structure_digest(recipe.model),
            "weights": plan_cache.weights_digest(recipe.model, fixed),
            "profiles": [{name: [list(r) for r in ranges] for name, ranges in p.items()} for p in recipe.profiles],
            "options": opts.build_fields(recipe.options),
            "flags": building.flag_names(recipe.options, recipe.precision),
            "precision": recipe.precision,
            "plugins": sorted(plan_cache.file_digest(path) for path in plugins),
        }

    def _plan(
        self, recipe: Recipe, cuda: memory.Cuda, cache: plan_cache.PlanCache, refittable: bool
    ) -> plan_cache.Found:
        def build() -> tuple[Any, dict[str, Any]]:
            cuda.use()
            plan, notes = building.build(self.library, recipe)
            return plan, {**notes, "weights": plan_cache.weights_digest(recipe.model)}

        if not opts.value_of(recipe.options, "plan_cache"):
            plan, notes = build()
            return plan_cache.Found(plan, {"notes": notes}, "built, not kept: plan_cache=False")
        return cache.find_or_build(self.key_fields(recipe, cuda, refittable), build)

    def _open(
        self, recipe: Recipe, cuda: memory.Cuda, found: plan_cache.Found, refittable: bool
    ) -> TensorRTSession | None:
        """A session of a plan; None if the library refuses the plan, or the parameters that a found one lacks."""
        log = Log(self.library)
        runtime, engine = open_plan(self.library, cuda, found.plan, log, recipe.options)
        if engine is None:
            return None
        hit = found.outcome == "hit"
        if opts.value_of(recipe.options, "strip") or (refittable and hit and self._has_other_weights(recipe, found)):
            try:
                refit(self.library, engine, recipe.model, log, recipe.name)
            except BuildError:
                if not hit:
                    raise
                return None
        graph = recipe.model.graph
        names = [str(v.name) for v in graph.inputs], [str(v.name) for v in graph.outputs]
        nodes = [str(node.name) for node in graph]
        return TensorRTSession(
            self.library, cuda, engine, recipe.name, names, recipe.profiles, recipe.options, log,
            found.outcome, nodes, (runtime, found.plan),
        )  # fmt: skip

    def _has_other_weights(self, recipe: Recipe, found: plan_cache.Found) -> bool:
        return bool(found.manifest.get("notes", {}).get("weights") != plan_cache.weights_digest(recipe.model))

