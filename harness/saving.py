"""A compiled model written as a folder, whole or not at all; :mod:`harness.artifact` says what is in it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx_ir as ir

from .errors import ArtifactError
from .executor import Program, Step
from .frontend.params import write_params
from .inputs import Input
from .manifest import CONSTANTS, FORMAT, MANIFEST, Document, folder_path, write_manifest
from .plan import Plan, Segment
from .plugins import in_model, read_node

_EXTERNAL_ABOVE = 1 << 20  # bytes of constants in one ONNX file; more goes beside it, where it can be memory-mapped
_PACKAGES = (
    "mxtrt",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "mxnet",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-rtx-cu13",
)


def save(program: Program, plan: Plan, folder: str | Path, extra: Callable[[Path], Document] | None = None) -> None:
    """Write a model as a folder.

    The folder is written beside its place and renamed into it, so a failure leaves what was there.

    Args:
        program, plan: of a compiled or loaded model.
        folder: a new or empty folder, or one that holds an artifact, which is replaced.
        extra: writes more files into the folder and returns what the manifest shall say of them.

    Raises:
        ArtifactError: the folder holds something else, or cannot be written.
    """
    target = folder_path(folder).absolute()
    _check_target(target)
    with _building(target) as place:
        document = _write_parts(program, plan, place)
        if extra:
            document.update(extra(place))
        write_manifest(place, document)


def _check_target(target: Path) -> None:
    try:
        if not target.exists() or (target / MANIFEST).is_file() or (target.is_dir() and not any(target.iterdir())):
            return
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error}") from None
    raise ArtifactError(f"{target}: exists and is not a saved model; give a new folder, or empty this one")


@contextmanager
def _building(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when the block ends without an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name[:64]}-", dir=target.parent) as scratch:
            place = Path(scratch) / "new"
            place.mkdir()
            yield place
            _swap(place, target, Path(scratch) / "old")
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error}") from None


def _swap(place: Path, target: Path, old: Path) -> None:
    if target.exists():
        target.rename(old)
    try:
        place.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def _write_parts(program: Program, plan: Plan, place: Path) -> Document:
    if program.constants:
        write_params(place / CONSTANTS, {str(slot): array for slot, array in program.constants.items()})
    return {
        "format": FORMAT,
        "versions": _versions(),
        "engine": plan.engine,
        "precision": plan.precision,
        "options": _as_json(plan.options),
        "inputs": [_describe(name, spec) for name, spec in plan.inputs.items()],
        "outputs": [_describe(name, spec) for name, spec in plan.outputs.items()],
        "segments": [
            _write_part(place, number, part, step, onnx_model)
            for number, (part, step, onnx_model) in enumerate(zip(plan.segments, program.steps, plan.models))
        ],
        "plugins": _plugins(plan),
        "fallbacks": [list(blocked) for blocked in plan.fallbacks],
        "notices": list(plan.notices),
        "removed": [list(pair) for pair in plan.removed],
        "program": {"slots": program.slots, "outputs": list(program.outputs)},
    }


def _plugins(plan: Plan) -> dict[str, str]:
    """The user's plugins that the model needs, with their versions."""
    calls = [read_node(node) for part in plan.models if part is not None for node in in_model(part)]
    return {call.plugin.name: call.plugin.version for call in calls}


def _write_part(place: Path, number: int, part: Segment, step: Step, model: ir.Model | None) -> Document:
    entry: Document = {
        "engine": part.engine,
        "operators": list(part.operators),
        "nodes": list(part.nodes),
        "reads": list(step.reads),
        "writes": list(step.writes),
        "last_use": list(step.last_use),
    }
    session: Any = step.session
    if model is None:
        entry["model"] = f"segment{number}.json"
        (place / entry["model"]).write_text(session.text)
        return {**entry, "input_names": list(session.input_names), "np_shape": session.np_shape, "name": session.name}
    entry["model"] = f"segment{number}.onnx"
    _write_onnx(model, place / entry["model"], f"segment{number}.data")
    plan = session.plan_bytes() if hasattr(session, "plan_bytes") else None
    if plan is not None:
        entry["plan"] = f"segment{number}.plan"
        (place / entry["plan"]).write_bytes(plan)
    return entry


def _write_onnx(model: ir.Model, path: Path, data: str) -> None:
    """Constants that lie in foreign files come along."""
    tensors = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    foreign = any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    large = sum(tensor.nbytes for tensor in tensors) > _EXTERNAL_ABOVE
    ir.save(model, str(path), external_data=data if foreign or large else None)


def _describe(name: str, spec: Input) -> Document:
    return {
        "name": name,
        "shape": [list(s) if isinstance(s, tuple) else s for s in spec.shape],
        "dtype": spec.dtype.name,
    }


def _as_json(options: Mapping[str, Any]) -> Document:
    values = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in options.items()}
    try:
        return dict(json.loads(json.dumps(values)))
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the engine's options cannot be saved: {error}") from None


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
