"""TensorRT 10 and 11, and TensorRT-RTX: one engine, whose differences are found by introspection.

``check_model`` is for machines without a GPU: RTX's own parser and builder judge a model, ahead of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BuildError, EngineMissing, OptionError
from ...operators.context import Fragment
from .. import capability, memory, plan_cache, shared_cache
from ..base import BuildRequest, Session
from . import build as building
from . import library as libraries
from . import options as opts
from .build import Recipe, Refusal
from .check import check_model
from .integers import with_wide_integers
from .lane import Pending
from .library import Library, Log
from .profiles import make_profiles
from .refit import refit, split_weights
from .session import TensorRTSession, open_plan

__all__ = ["Pending", "Refusal", "TensorRTEngine", "TensorRTSession", "check_model", "create"]

_MAGIC = b"mxtrt-plan-1 "


def create(name: str) -> TensorRTEngine:
    """The engine of this name, for the first GPU.

    Raises:
        EngineMissing: the library cannot be imported, there is no GPU, or the library does not support it.
    """
    cuda = libraries.open_device(0)  # before the library: TensorRT 10.6 ends the process if it finds no device
    return TensorRTEngine(libraries.find(name), cuda)


@dataclass(frozen=True, slots=True)
class Order:
    """One build: the recipe, where, and the key under which its plan is kept.

    Attributes:
        refittable: the plan takes other parameters, so they are not in its key.
    """

    recipe: Recipe
    cuda: memory.Cuda
    cache: plan_cache.PlanCache
    fields: Mapping[str, Any]
    refittable: bool

    @property
    def key(self) -> str:
        return plan_cache.key_of(self.fields)


class TensorRTEngine:
    """See :class:`~harness.engines.base.Engine`."""

    narrow_types = ("fp16", "bf16")

    def __init__(self, library: Library, cuda: memory.Cuda) -> None:
        reason = capability.refuse_device(library.is_rtx, cuda.device.compute_capability)
        if reason:
            raise EngineMissing(f"{library.label} does not run on {cuda.device.name}: {reason}")
        self.name = library.name
        self.library, self.cuda = library, cuda

    def check_options(self, options: Mapping[str, Any]) -> None:
        opts.check(options, self.name)
        for name, reason in capability.RTX_LACKS.items() if self.library.is_rtx else ():
            if opts.value_of(options, name) != opts.OPTIONS[name].default:
                raise OptionError(f"{name}: {self.library.label} does not do it: {reason}")

    def refuse(self, fragment: Fragment) -> str | None:
        return capability.refuse(fragment, self.library)

    def build(self, request: BuildRequest) -> Session:
        order = self._order(request)
        found = self._plan(order)
        session = self._open(order, found)
        if session is None and found.outcome == "hit":  # whole, and yet of no use: it is built anew
            order.cache.remove(order.key)
            session = self._open(order, self._plan(order))
        if session is None:
            device = order.cuda.device
            raise BuildError(
                f"{self.library.label} built part {request.name} and cannot load its own plan on {device.name}; check "
                f"that the driver (CUDA {device.driver}) is new enough, or use engine='onnxruntime'"
            )
        return session

    def load_plan(self, request: BuildRequest, data: bytes) -> Session | None:
        """A session of what ``plan_bytes`` gave, or None if it is not the plan of this request on this GPU."""
        order = self._order(request)
        head = _MAGIC + order.key.encode()
        if not data.startswith(head):
            return None
        return self._open(order, plan_cache.Found(memoryview(data)[len(head) :], {}, "hit"))

    # --- what is built -----------------------------------------------------------------------------------------------

    def _order(self, request: BuildRequest) -> Order:
        ordinal = opts.value_of(request.options, "device")
        cuda = self.cuda if ordinal == self.cuda.device.ordinal else libraries.open_device(ordinal)
        cuda.use()
        self.library.register_plugins(request.model)
        model = with_wide_integers(request.model)
        cache = shared_cache.open_cache(request.cache_dir)
        further, unknown = (opts.value_of(request.options, name) for name in ("profiles", "unknown_sizes"))
        profiles = make_profiles(model, request.profile, further, unknown)
        timing = self._timing_path(request.options, cuda, cache)
        recipe = Recipe(request.name, model, profiles, request.options, request.precision, timing)
        refittable = bool(opts.value_of(request.options, "refit") or opts.value_of(request.options, "strip"))
        return Order(recipe, cuda, cache, self.key_fields(recipe, cuda.device, refittable), refittable)

    def _timing_path(self, options: Mapping[str, Any], cuda: memory.Cuda, cache: plan_cache.PlanCache) -> Path | None:
        choice = opts.value_of(options, "timing_cache")
        if not choice or self.library.is_rtx:  # RTX ignores it
            return None
        return cache.timing_path(self._platform(cuda.device)) if choice is True else Path(choice)

    def _platform(self, device: memory.Device) -> dict[str, Any]:
        return {
            "flavour": "rtx" if self.library.is_rtx else "standard",
            "version": self.library.version,
            "parser": self.library.parser_version,
            "gpu": device.name,
            "compute_capability": list(device.compute_capability),
            "gpu_memory": device.memory,
            "driver": device.driver,
        }

    def key_fields(self, recipe: Recipe, device: memory.Device, refittable: bool = False) -> dict[str, Any]:
        """Everything that could change the plan, by name. A refittable plan does not depend on its parameters."""
        fixed = split_weights(recipe.model)[0] if refittable else None
        plugins = opts.value_of(recipe.options, "plugins")
        return {
            **self._platform(device),
            "structure": plan_cache.structure_digest(recipe.model),
            "weights": plan_cache.weights_digest(recipe.model, fixed),
            "profiles": [{name: [list(r) for r in ranges] for name, ranges in p.items()} for p in recipe.profiles],
            "options": opts.build_fields(recipe.options),
            "flags": building.flag_names(recipe.options, recipe.precision),
            "precision": recipe.precision,
            "plugins": sorted(plan_cache.file_digest(path) for path in plugins),
        }

    def _plan(self, order: Order) -> plan_cache.Found:
        def build() -> tuple[Any, dict[str, Any]]:
            order.cuda.use()
            plan, notes = building.build(self.library, order.recipe)
            if order.refittable:
                notes["weights"] = plan_cache.weights_digest(order.recipe.model)
            return plan, notes

        if not opts.value_of(order.recipe.options, "plan_cache"):
            plan, notes = build()
            return plan_cache.Found(plan, {"notes": notes}, "built, not kept: plan_cache=False")
        return order.cache.find_or_build(order.fields, build)

    def _open(self, order: Order, found: plan_cache.Found) -> TensorRTSession | None:
        """A session of a plan; None if the library refuses the plan, or the parameters that a found one lacks."""
        recipe, log = order.recipe, Log(self.library)
        runtime, engine = open_plan(self.library, order.cuda, found.plan, log, recipe.options)
        if engine is None:
            return None
        hit = found.outcome == "hit"
        if opts.value_of(recipe.options, "strip") or (hit and order.refittable and _has_other_weights(recipe, found)):
            try:
                refit(self.library, engine, recipe.model, log, recipe.name)
            except BuildError:
                if not hit:
                    raise
                return None
        graph = recipe.model.graph
        return TensorRTSession(
            self.library,
            order.cuda,
            engine,
            recipe.name,
            ([str(value.name) for value in graph.inputs], [str(value.name) for value in graph.outputs]),
            recipe.profiles,
            recipe.options,
            log,
            found.outcome,
            [str(node.name) for node in graph],
            (runtime, found.plan, _MAGIC + order.key.encode()),
        )


def _has_other_weights(recipe: Recipe, found: plan_cache.Found) -> bool:
    return bool(found.manifest.get("notes", {}).get("weights") != plan_cache.weights_digest(recipe.model))
