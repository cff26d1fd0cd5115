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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .engines.base import BuildRequest, Engine, Session, choose_engine, get_engine
from .engines.python import PluginSession
from .errors import ArtifactError, Blocked, EngineMissing, HarnessError, OptionError
from .executor import Program, Step
from .frontend.params import read_params
from .inputs import Input
from .manifest import CONSTANTS, MANIFEST, Document, folder_path, read_manifest
from .model import Model
from .plan import HOST, MXNET, Plan, Segment
from .precision import PRECISIONS, Request, convert

Array = npt.NDArray[Any]


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
    place = folder_path(folder)
    document = read_manifest(place, verify)
    with _reading(place):
        plan = _plan(document, place, engine, precision, options)
        library = get_engine(plan.engine)
        library.check_options(plan.options)
        same = all(document[name] == getattr(plan, name) for name in ("engine", "precision", "options"))
        constants = _constants(document, place)
        steps = []
        for number, (entry, model) in enumerate(zip(document["segments"], plan.models)):
            if model is None:
                session = _mxnet_session(entry, _file(document, place, entry["model"]), constants)
            elif entry["engine"] == HOST:
                session = PluginSession(model, f"segment{number}")
            else:
                built = _file(document, place, entry["plan"]) if same and "plan" in entry else None
                name, precision = f"segment{number}", plan.precision
                request = BuildRequest(name, model, plan.profile, plan.options, None, precision)
                session = _session(request, library, built)
            steps.append(_step(entry, session, model))
        return Model(_program(document, len(plan.inputs), constants, steps), plan)


def read_plan(
    folder: str | Path, engine: str | None = None, precision: str | None = None, verify: bool = True, **options: Any
) -> Plan:
    """What :func:`load` would build with the same arguments; nothing is built, and MXNet is not needed.

    Raises:
        ArtifactError: as :func:`load`.
    """
    place = folder_path(folder)
    document = read_manifest(place, verify)
    with _reading(place):
        return _plan(document, place, engine, precision, options)


@contextmanager
def _reading(place: Path) -> Iterator[None]:
    """What a manifest without sense breaks, in the caller's words."""
    try:
        yield
    except HarnessError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError, OverflowError) as error:
        raise ArtifactError(f"{place / MANIFEST}: cannot be used: {type(error).__name__}: {error}") from None


# --- the plan --------------------------------------------------------------------------------------------------------


def _plan(
    document: Document, place: Path, engine: str | None, precision: str | None, options: Mapping[str, Any]
) -> Plan:
    chosen = choose_engine(engine) if engine is not None else document["engine"]
    wanted = _precision(document["precision"], precision)
    settings = dict(options) if options or chosen != document["engine"] else document["options"]
    inputs, outputs = (_inputs(document[key], key) for key in ("inputs", "outputs"))
    models, segments = [], []
    for entry in document["segments"]:
        own = entry["engine"] not in (MXNET, HOST)
        model = None
        if entry["engine"] != MXNET:
            model = _onnx_model(_file(document, place, entry["model"]), document["files"])
        if own and model is not None and wanted != document["precision"]:
            model = convert(model, Request(wanted, narrow_types=get_engine(chosen).narrow_types))
        models.append(model)
        operators, nodes = (_texts(entry[key], key) for key in ("operators", "nodes"))
        segments.append(Segment(chosen if own else entry["engine"], operators, nodes))
    blocked, removed = ([_texts(item, key) for item in document[key]] for key in ("fallbacks", "removed"))
    return Plan(
        inputs, outputs, tuple(segments), tuple(Blocked(*item) for item in blocked), tuple(models), chosen, wanted,
        settings, _texts(document["notices"], "notices"), tuple((node, operator) for node, operator in removed),
    )  # fmt: skip


def _inputs(entries: Any, what: str) -> dict[str, Input]:
    found: dict[str, Input] = {}
    for name in _texts([entry["name"] for entry in entries], what):
        entry = entries[len(found)]
        found[name] = Input(tuple(tuple(s) if isinstance(s, list) else s for s in entry["shape"]), entry["dtype"])
    if len(found) != len(entries):
        raise ValueError(f"{what}: a name occurs twice")
    return found


def _texts(values: Any, what: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{what} are not texts: {str(values)[:80]}")
    return tuple(values)


def _precision(saved: str, wanted: str | None) -> str:
    if saved not in PRECISIONS:
        raise ValueError(f"precision {saved!r}")
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


def _file(document: Document, place: Path, name: Any) -> Path:
    """A file that the manifest seals."""
    if name not in document["files"]:
        raise ValueError(f"{name!r} is not in its list of files")
    return place / str(name)


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


# --- the program -----------------------------------------------------------------------------------------------------


def _constants(document: Document, place: Path) -> dict[int, Array]:
    if CONSTANTS not in document["files"]:
        return {}
    return {int(slot): array for slot, array in read_params(place / CONSTANTS).items()}


def _slots(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"{what} are not numbers of slots: {str(values)[:80]}")
    return tuple(values)


def _step(entry: Document, session: Session, model: ir.Model | None) -> Step:
    reads, writes, last_use = (_slots(entry[key], key) for key in ("reads", "writes", "last_use"))
    if model is not None and (len(reads), len(writes)) != (len(model.graph.inputs), len(model.graph.outputs)):
        raise ValueError(f"{entry['model']} does not have {len(reads)} inputs and {len(writes)} outputs")
    return Step(session, reads, writes, last_use)


def _program(document: Document, inputs: int, constants: dict[int, Array], steps: Sequence[Step]) -> Program:
    """The program, once it is known that each slot has one meaning, and a value whenever it is read."""
    outputs = _slots(document["program"]["outputs"], "outputs")
    if len(outputs) != len(document["outputs"]):
        raise ValueError(f"{len(outputs)} slots for {len(document['outputs'])} outputs")
    written = [slot for step in steps for slot in step.writes]
    known = [*range(inputs), *constants, *written]
    if sorted(known) != list(range(len(known))):
        raise ValueError("its slots are not numbered from 0, each with one meaning")
    full = {*range(inputs), *constants}
    for number, step in enumerate(steps):
        if not full.issuperset(step.reads):
            raise ValueError(f"segment {number} reads slots that have no value: {sorted({*step.reads} - full)}")
        full = (full | {*step.writes}) - {*step.last_use}
    if not full.issuperset(outputs):
        raise ValueError(f"outputs that have no value: {sorted({*outputs} - full)}")
    return Program(inputs, len(known), constants, tuple(steps), outputs)


def _session(request: BuildRequest, engine: Engine, plan: Path | None) -> Session:
    """A session from a saved plan where the engine still takes it (the same GPU and library), else a new build."""
    load_plan = getattr(engine, "load_plan", None)
    if plan is not None and load_plan is not None:
        session: Session | None = load_plan(request, plan.read_bytes())
        if session is not None:
            return session
    return engine.build(request)


def _mxnet_session(entry: Document, path: Path, constants: Mapping[int, Array]) -> Session:
    from .frontend import compat

    if not compat.available():
        raise EngineMissing(
            f"{path}: MXNet runs the {len(entry['nodes'])} nodes of this part ({entry['name']}), and it "
            f"is not installed: pip install 'mxtrt[mxnet]', or compile the model with fallback='error' to see what blocks it"
        )
    from .engines.mxnet import MXNetSession

    names: Sequence[str] = entry["input_names"]
    own = {name: np.asarray(constants[slot]) for name, slot in zip(names, entry["reads"]) if slot in constants}
    return MXNetSession.from_json(path.read_text(), names, own, entry["np_shape"], entry["name"])
