"""TensorRT 10 and 11, and TensorRT-RTX: one engine, whose differences are found by introspection.

``check_model`` is for machines without a GPU: RTX's own parser and builder judge a model, ahead of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import BuildError, EngineMissing, OptionError
from ...operators.context import Fragment
from ...plugins import in_model, read_node
from .. import capability, memory, plan_cache, shared_cache
from ..base import BuildRequest, Session
from ..layers import owners_of
from . import build as building
from . import library as libraries
from . import options as opts
from . import plugins
from .build import Recipe
from .check import check_model
from .integers import with_wide_integers
from .library import Library
from .loaded import load
from .pending import Pending
from .profiles import Ranges, make_profiles
from .rebuild import RebuildingSession
from .refit import refit, split_weights
from .refusals import Refusal
from .rewrite import rewritten
from .session import TensorRTSession

__all__ = ["Pending", "Refusal", "TensorRTEngine", "TensorRTSession", "check_model", "create"]

_MAGIC = b"mxtrt-plan-1 "
LITTLE_MEMORY = 32 << 20  # bytes without which CUDA's kernels have no room
BUILDERS_MEMORY = 512 << 20  # and the builder's


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
        return self._rebuilding(order, self._build(order))

    def _build(self, order: Order) -> TensorRTSession:
        found = self._plan(order)
        session = self._open(order, found)
        if session is None:
            _check_memory(order, memoryview(found.plan).nbytes + LITTLE_MEMORY)
            if found.outcome == "hit":  # whole, and yet of no use: it is built anew
                order.cache.remove(order.key)
                session = self._open(order, self._plan(order))
        if session is None:
            device = order.cuda.device
            raise BuildError(
                f"{self.library.label} built part {order.recipe.name} and cannot load its own plan on {device.name}; check "
                f"that the driver (CUDA {device.driver}) is new enough, or use engine='onnxruntime'"
            )
        return session

    def load_plan(self, request: BuildRequest, data: bytes) -> Session | None:
        """A session of what ``plan_bytes`` gave, or None if it is not the plan of this request on this GPU."""
        order = self._order(request)
        head = _MAGIC + order.key.encode()
        if not data.startswith(head):
            return None
        session = self._open(order, plan_cache.Found(memoryview(data)[len(head) :], {}, "hit"))
        return None if session is None else self._rebuilding(order, session)

    def _rebuilding(self, order: Order, session: TensorRTSession) -> Session:
        """The session; with ``outside="rebuild"`` one that builds further plans when shapes ask for them."""
        recipe = order.recipe
        if opts.value_of(recipe.options, "outside") != "rebuild" or not recipe.profiles:
            return session

        def build(ranges: Ranges) -> TensorRTSession:
            other = replace(recipe, profiles=[ranges])
            fields = self.key_fields(other, order.cuda.device, order.refittable)
            return self._build(replace(order, recipe=other, fields=fields))

        return RebuildingSession(session, build)

    # --- what is built -----------------------------------------------------------------------------------------------

    def _order(self, request: BuildRequest) -> Order:
        ordinal = opts.value_of(request.options, "device")
        cuda = self.cuda if ordinal == self.cuda.device.ordinal else libraries.open_device(ordinal)
        cuda.use()
        model = with_wide_integers(rewritten(request.model))
        plugins.register(self.library, model)
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
        files = opts.value_of(recipe.options, "plugins")
        own = {call.plugin for call in map(read_node, in_model(recipe.model))}
        return {
            **self._platform(device),
            "structure": plan_cache.structure_digest(recipe.model),
            "weights": plan_cache.weights_digest(recipe.model, fixed),
            "profiles": [{name: [list(r) for r in ranges] for name, ranges in p.items()} for p in recipe.profiles],
            "options": opts.build_fields(recipe.options),
            "flags": building.flag_names(recipe.options, recipe.precision),
            "precision": recipe.precision,
            "plugins": sorted(
                [*map(plan_cache.file_digest, files), *(f"{plugin.name}:{plugin.version}" for plugin in own)]
            ),
        }

    def _plan(self, order: Order) -> plan_cache.Found:
        def build() -> tuple[Any, dict[str, Any]]:
            order.cuda.use()
            try:
                plan, notes = building.build(self.library, order.recipe)
            except BuildError as error:
                _check_memory(order, BUILDERS_MEMORY, error)
                raise
            if order.refittable:
                notes["weights"] = plan_cache.weights_digest(order.recipe.model)
            return plan, notes

        if not opts.value_of(order.recipe.options, "plan_cache"):
            plan, notes = build()
            return plan_cache.Found(plan, {"notes": notes}, "built, not kept: plan_cache=False")
        return order.cache.find_or_build(order.fields, build)

    def _open(self, order: Order, found: plan_cache.Found) -> TensorRTSession | None:
        """A session of a plan; None if the library refuses the plan, or the parameters that a found one lacks."""
        recipe, options, graph = order.recipe, order.recipe.options, order.recipe.model.graph
        names = [str(value.name) for value in graph.inputs], [str(value.name) for value in graph.outputs]
        loaded = load(
            self.library,
            order.cuda,
            found.plan,
            recipe.name,
            names,
            recipe.profiles,
            options,
            bool(in_model(recipe.model)),
        )
        if loaded is None:
            return None
        hit = found.outcome == "hit"
        if opts.value_of(options, "strip") or (hit and order.refittable and _has_other_weights(recipe, found)):
            try:
                refit(self.library, loaded.engine, recipe.model, loaded.log, recipe.name)
            except BuildError:
                if not hit:
                    raise
                return None
        return TensorRTSession(
            loaded,
            opts.value_of(options, "contexts"),
            opts.value_of(options, "scratch") == "shared",
            found.outcome,
            owners_of(recipe.model),
            _MAGIC + order.key.encode(),
        )


def _check_memory(order: Order, needed: int, error: BuildError | None = None) -> None:
    """Raise CudaError where so little memory is free that the library, which gives no reason, failed for want of it."""
    free = order.cuda.free_memory()
    if free < needed:
        text = f"{order.recipe.name}: {free} bytes of memory are free on {order.cuda.device.name}, and its plan was not"
        text += " loaded" if error is None else f" built: {error}"
        remedy = "free other programs' memory, or choose another GPU with device=NUMBER; the plan cache is as it was"
        raise memory.CudaError(
            "CUDA_ERROR_OUT_OF_MEMORY", f"out of device memory in part {text}\n  ({remedy})"
        ) from error


def _has_other_weights(recipe: Recipe, found: plan_cache.Found) -> bool:
    return bool(found.manifest.get("notes", {}).get("weights") != plan_cache.weights_digest(recipe.model))
