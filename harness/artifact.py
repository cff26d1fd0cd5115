"""A compiled model as a folder: written whole or not at all, and read only if nothing in it has changed.

    manifest.json        what is here, how the parts are joined, and the SHA-256 of every file (its own included)
    segment0.onnx        one typed ONNX model per part that an engine runs; large constants in segment0.data
    segment0.plan        the engine's own plan, where it has one
    segment1.json        MXNet's JSON of a part that MXNet runs
    constants.params     arrays that are outputs themselves, or that a part MXNet runs reads
    proof/               the test vectors of ``mxtrt migrate``, if it wrote the folder

See docs/artifact.md for the manifest's fields.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .engines.base import BuildRequest, Engine, Session, get_engine
from .engines.python import PluginSession
from .errors import ArtifactError, Blocked, EngineMissing, HarnessError, OptionError
from .executor import Program, Step
from .frontend.params import read_params, write_params
from .inputs import Input
from .model import Model, Plan, Segment
from .plugins import in_model, read_node

Array = npt.NDArray[Any]
Document = dict[str, Any]

FORMAT = 1
MANIFEST = "manifest.json"
CONSTANTS = "constants.params"
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


def save(model: Model, folder: str | Path, extra: Callable[[Path], Document] | None = None) -> None:
    """Write ``model`` as a folder.

    The folder is written beside its place and renamed into it, so a failure leaves what was there.

    Args:
        model: a compiled or loaded model.
        folder: a new or empty folder, or one that holds an artifact, which is replaced.
        extra: writes more files into the folder and returns what the manifest shall say of them.

    Raises:
        ArtifactError: the folder holds something else, or cannot be written.
    """
    target = _path(folder).absolute()
    _check_target(target)
    with _building(target) as place:
        document = _write_parts(model, place)
        if extra:
            document.update(extra(place))
        document["files"] = {name: _seal(place / name) for name in _files(place)}
        document["digest"] = _digest(document)
        (place / MANIFEST).write_text(json.dumps(document, indent=1) + "\n")


def load(
    folder: str | Path, engine: str | None = None, precision: str | None = None, verify: bool = True, **options: Any
) -> Model:
    """Read a folder that ``Model.save`` wrote; MXNet is needed only where it runs a part.

    Args:
        folder: the artifact.
        engine: rebuild on another engine than it was compiled for ("auto" included).
        precision: rebuild in another precision; only from "fp32" or "tf32".
        verify: compare every file with its digest first (a second for a gigabyte).
        options: the engine's own, in place of those it was compiled with.

    Raises:
        ArtifactError: a file is missing, truncated or altered, or the format is newer than this version reads.
        EngineMissing: the engine, or MXNet for a part that needs it, is not there.
    """
    place = _path(folder)
    document = read_manifest(place, verify)
    try:
        return _link(document, place, engine, precision, options)
    except HarnessError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
        raise ArtifactError(f"{place / MANIFEST}: cannot be used: {type(error).__name__}: {error}") from None


def read_manifest(folder: str | Path, verify: bool = True) -> Document:
    """The manifest of an artifact, after checking it and (with ``verify``) every file it names.

    Raises:
        ArtifactError: as :func:`load`.
    """
    place = _path(folder)
    path = place / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except (OSError, RecursionError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); {place} is not a saved model") from None
    except ValueError as error:
        raise ArtifactError(f"{path}: truncated or altered: not JSON: {error}") from None
    _check_manifest(document, path)
    if verify:
        for name, seal in document["files"].items():
            _check_file(place, name, seal)
    return dict(document)


# --- writing ---------------------------------------------------------------------------------------------------------


def _path(folder: str | Path) -> Path:
    if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder) or "\0" in str(folder):
        raise ArtifactError(f"folder: {folder!r} is not the path of a folder")
    return Path(folder)


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


def _write_parts(model: Model, place: Path) -> Document:
    program, plan = model._program, model.plan
    if program.constants:
        write_params(place / CONSTANTS, {str(slot): array for slot, array in program.constants.items()})
    return {
        "format": FORMAT,
        "versions": _versions(),
        "engine": plan.engine,
        "precision": plan.precision,
        "options": _as_json(plan.options),
        "inputs": [_describe(name, spec) for name, spec in model.inputs.items()],
        "outputs": [_describe(name, model.outputs[name]) for name in model.output_names],
        "segments": [
            _write_part(place, number, part, step, onnx_model)
            for number, (part, step, onnx_model) in enumerate(zip(model.segments, program.steps, plan.models))
        ],
        "plugins": _plugins(plan),
        "fallbacks": [list(blocked) for blocked in model.fallbacks],
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


# --- seals -----------------------------------------------------------------------------------------------------------


def _files(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


def _seal(path: Path) -> Document:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _digest(document: Document) -> str:
    body = {key: value for key, value in document.items() if key != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _check_manifest(document: Any, path: Path) -> None:
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise ArtifactError(f"{path}: not the manifest of a saved model: it has no 'format'")
    if document["format"] > FORMAT:
        raise ArtifactError(
            f"{path}: format {document['format']}, and this version of mxtrt reads up to {FORMAT}; "
            f"update mxtrt (it was written by {document.get('versions')})"
        )
    if document.get("digest") != _digest(document):
        raise ArtifactError(f"{path}: altered since it was written: its digest does not match")
    names = document.get("files")
    if not isinstance(names, dict) or any(Path(n).is_absolute() or ".." in Path(n).parts for n in names):
        raise ArtifactError(f"{path}: its list of files is not valid")


def _check_file(place: Path, name: str, seal: Document) -> None:
    path = place / name
    try:
        found = _seal(path)
    except OSError as error:
        raise ArtifactError(f"{path}: missing or unreadable: {error}") from None
    if found["bytes"] != seal["bytes"]:
        raise ArtifactError(
            f"{path}: has {found['bytes']} bytes, had {seal['bytes']} when it was saved; truncated or altered"
        )
    if found["sha256"] != seal["sha256"]:
        raise ArtifactError(f"{path}: altered since it was saved: its SHA-256 does not match the manifest's")


# --- reading ---------------------------------------------------------------------------------------------------------


def _link(
    document: Document, place: Path, engine: str | None, precision: str | None, options: Mapping[str, Any]
) -> Model:
    from .compiler import choose_engine

    chosen = choose_engine(engine) if engine is not None else document["engine"]
    library = get_engine(chosen)
    wanted = _precision(document["precision"], precision)
    settings = dict(options) if options or chosen != document["engine"] else document["options"]
    same = (chosen, wanted, settings) == (document["engine"], document["precision"], document["options"])
    specs = {entry["name"]: _input(entry) for entry in document["inputs"]}
    profile = {name: spec.ranges for name, spec in specs.items() if spec.ranges}
    constants = _constants(document, place)
    steps, segments, models = [], [], []
    for number, entry in enumerate(document["segments"]):
        if entry["engine"] == "mxnet":
            session, model = _mxnet_session(entry, place, constants), None
        elif entry["engine"] == "python":
            model = _onnx_model(place / entry["model"], document["files"])
            session = PluginSession(model, f"segment{number}")
        else:
            model = _onnx_model(place / entry["model"], document["files"])
            model = _converted(model, document["precision"], wanted, library.narrow_types)
            request = BuildRequest(f"segment{number}", model, profile, settings, None, wanted)
            session = _session(request, library, place / entry["plan"] if same and "plan" in entry else None)
        steps.append(Step(session, *(tuple(entry[key]) for key in ("reads", "writes", "last_use"))))
        models.append(model)
        runs_on = entry["engine"] if entry["engine"] in ("mxnet", "python") else chosen
        segments.append(Segment(runs_on, tuple(entry["operators"]), tuple(entry["nodes"])))
    wiring = document["program"]
    program = Program(len(specs), wiring["slots"], constants, tuple(steps), tuple(wiring["outputs"]))
    plan = Plan(
        tuple(models), profile, chosen, wanted, settings,
        tuple(document["notices"]), tuple((node, operator) for node, operator in document["removed"]),
    )  # fmt: skip
    outputs = [(entry["name"], _input(entry)) for entry in document["outputs"]]
    return Model(program, specs, outputs, segments, [Blocked(*entry) for entry in document["fallbacks"]], plan)


def _input(entry: Document) -> Input:
    return Input(tuple(tuple(s) if isinstance(s, list) else s for s in entry["shape"]), entry["dtype"])


def _constants(document: Document, place: Path) -> dict[int, Array]:
    if CONSTANTS not in document["files"]:
        return {}
    return {int(slot): array for slot, array in read_params(place / CONSTANTS).items()}


def _precision(saved: str, wanted: str | None) -> str:
    from .compiler import PRECISIONS

    if wanted is None or wanted == saved:
        return saved
    if wanted not in PRECISIONS:
        raise OptionError(f"precision: {wanted!r} is none of {', '.join(PRECISIONS)}")
    if saved not in ("fp32", "tf32"):
        raise OptionError(
            f"precision: the saved model holds {saved} types already; {wanted} can only be made from fp32"
        )
    if wanted in ("int8", "fp8"):
        raise OptionError(f"precision: {wanted} needs calibration data; compile the model again from its source")
    return wanted


def _converted(model: ir.Model, saved: str, wanted: str, narrow_types: tuple[str, ...]) -> ir.Model:
    if wanted == saved:
        return model
    from .precision import Request, convert

    return convert(model, Request(wanted, narrow_types=narrow_types))


def _onnx_model(path: Path, files: Mapping[str, Document]) -> ir.Model:
    try:
        model = ir.load(str(path))
    except Exception as error:  # noqa: BLE001 - protobuf and onnx-ir raise many kinds
        raise ArtifactError(f"{path}: not an ONNX model: {error}") from None
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and str(tensor.location) not in files:
            raise ArtifactError(f"{path}: refers to {tensor.location}, which is not part of the saved model")
    return model


def _session(request: BuildRequest, engine: Engine, plan: Path | None) -> Session:
    """A session from a saved plan where the engine still takes it (the same GPU and library), else a new build."""
    engine.check_options(request.options)
    load_plan = getattr(engine, "load_plan", None)
    if plan is not None and load_plan is not None:
        session: Session | None = load_plan(request, plan.read_bytes())
        if session is not None:
            return session
    return engine.build(request)


def _mxnet_session(entry: Document, place: Path, constants: Mapping[int, Array]) -> Session:
    from .frontend import compat

    if not compat.available():
        raise EngineMissing(
            f"{place / entry['model']}: MXNet runs the {len(entry['nodes'])} nodes of this part ({entry['name']}), and it "
            f"is not installed: pip install 'mxtrt[mxnet]', or compile the model with fallback='error' to see what blocks it"
        )
    from .engines.mxnet import MXNetSession

    names: Sequence[str] = entry["input_names"]
    own = {name: np.asarray(constants[slot]) for name, slot in zip(names, entry["reads"]) if slot in constants}
    return MXNetSession.from_json((place / entry["model"]).read_text(), names, own, entry["np_shape"], entry["name"])
