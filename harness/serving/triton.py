"""A saved artifact as an entry of a Triton model repository.

    DIR/NAME/config.pbtxt           tensors, batching and instances, held to Triton's own protobuf schema
    DIR/NAME/1/model.onnx           or model.plan; further artifacts are further versions
    DIR/NAME/warmup/VECTOR-INPUT    one row of each test vector of the artifact's proof, as raw bytes
    DIR/NAME/README.md              how to start the server, and what to measure

Triton's rules are those of its model configuration guide and of ``model_config.proto`` (package tritonclient).
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..errors import ArtifactError, EngineMissing, OptionError
from ..frontend.params import read_params
from ..inputs import Input
from ..manifest import MANIFEST, read_manifest

Document = dict[str, Any]
Specs = dict[str, Input]

_TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "int8": "TYPE_INT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
    "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "bfloat16": "TYPE_BF16",
}  # fmt: skip
_PLAN, _ONNX = "tensorrt_plan", "onnxruntime_onnx"
_FILES = {_PLAN: "model.plan", _ONNX: "model.onnx"}
_HEAD = re.compile(rb"mxtrt-plan-1 [0-9a-f]{64}")  # what the engine puts before a plan to know it again


@dataclass(frozen=True, slots=True)
class _Version:
    """One artifact: its manifest, its only part, and the names of that part's tensors in the artifact's terms."""

    folder: Path
    document: Document
    part: Document
    platform: str
    inputs: Specs
    outputs: Specs


def export(
    artifacts: str | Path | Sequence[str | Path],
    repository: str | Path,
    name: str | None = None,
    instances: int = 1,
    queue_delay: int = 100,
    prefer_onnx: bool = False,
) -> Path:
    """Write an entry of a Triton model repository.

    Args:
        artifacts: the saved model, or several with the same inputs and outputs (precisions, say): versions 1, 2, ...
        repository: the folder of the repository; made if it is not there.
        name: the model's name there (default: the first artifact's folder).
        instances: how many executions may be under way at once on each GPU (or on the CPU).
        queue_delay: microseconds that a request may wait for others, where the model takes batches.
        prefer_onnx: export ONNX where there is a TensorRT plan.

    Returns:
        The folder of the entry.

    Raises:
        ArtifactError: an artifact is damaged, or the entry is there already.
        OptionError: Triton cannot serve it, and why.
        EngineMissing: the package with Triton's schema is not installed.
    """
    folders = [Path(a) for a in ([artifacts] if isinstance(artifacts, (str, Path)) else artifacts)]
    if not folders:
        raise OptionError("artifacts: none is given")
    for what, number, least in (("instances", instances, 1), ("queue_delay", queue_delay, 0)):
        if not isinstance(number, int) or number < least:
            raise OptionError(f"{what}: {number!r} is not a number of at least {least}")
    schema = _schema()
    versions = [_read(folder, prefer_onnx) for folder in folders]
    _check_same(versions)
    title = _name(name or folders[0].resolve().name)
    target = Path(repository) / title
    if target.exists():
        raise ArtifactError(f"{target}: exists; give another --name, or remove it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{title}-", dir=target.parent) as scratch:
            place = Path(scratch) / "new"
            place.mkdir()
            _write(place, schema, versions, title, instances, queue_delay)
            place.rename(target)  # whole or not at all: Triton may be polling
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error}") from None
    return target


# --- reading the artifact --------------------------------------------------------------------------------------------


def _read(folder: Path, prefer_onnx: bool) -> _Version:
    document = read_manifest(folder)
    place = folder / MANIFEST
    try:
        parts = document["segments"]
        if document.get("plugins"):
            raise OptionError(
                f"{folder}: {', '.join(document['plugins'])} run in Python plugins, which Triton cannot load"
            )
        if len(parts) != 1 or parts[0]["engine"] == "mxnet":
            engines = ", ".join(part["engine"] for part in parts) or "none"
            raise OptionError(
                f"{folder}: Triton serves a model that one engine runs whole; this one has {len(parts)} part(s) "
                f"({engines}). `mxtrt explain` says which operators cut it"
            )
        part = parts[0]
        names = {"inputs": [e["name"] for e in document["inputs"]], "outputs": [e["name"] for e in document["outputs"]]}
        if part["reads"] != list(range(len(names["inputs"]))) or part["writes"] != document["program"]["outputs"]:
            raise OptionError(
                f"{folder}: an input is not read, or an output is an input, a constant or another output; Triton needs "
                f"one tensor for each of {names['inputs'] + names['outputs']}"
            )
        tensorrt = part["engine"] == "tensorrt" and "plan" in part and not prefer_onnx
        return _Version(
            folder,
            document,
            part,
            _PLAN if tensorrt else _ONNX,
            _specs(document["inputs"]),
            _specs(document["outputs"]),
        )
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{place}: cannot be used: {type(error).__name__}: {error}") from None


def _specs(entries: Sequence[Document]) -> Specs:
    return {
        e["name"]: Input(tuple(tuple(s) if isinstance(s, list) else s for s in e["shape"]), e["dtype"]) for e in entries
    }


def _check_same(versions: Sequence[_Version]) -> None:
    first = versions[0]
    for other in versions[1:]:
        for what in ("inputs", "outputs", "platform"):
            mine, theirs = getattr(first, what), getattr(other, what)
            if _plain(mine) != _plain(theirs):
                raise OptionError(
                    f"{other.folder}: its {what} are {_plain(theirs)}, those of {first.folder} {_plain(mine)}; "
                    f"versions of one model share them: export it under a --name of its own"
                )


def _plain(value: Any) -> Any:
    return {k: (v.shape, v.dtype.name) for k, v in value.items()} if isinstance(value, dict) else value


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise OptionError(
            f"name: {name!r} is not a name for a folder of letters, digits, '_', '.' and '-'; give --name"
        )
    return name


# --- writing the entry -----------------------------------------------------------------------------------------------


def _schema() -> Any:
    try:
        from google.protobuf import text_format  # noqa: F401 - comes with it
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise EngineMissing(f"Triton's schema cannot be imported ({error}); pip install 'mxtrt[serve]'") from None
    return model_config_pb2


def _write(place: Path, schema: Any, versions: Sequence[_Version], name: str, instances: int, queue_delay: int) -> None:
    from google.protobuf import text_format

    first = versions[0]
    for number, version in enumerate(versions, 1):
        (place / str(number)).mkdir()
        _write_model(version, place / str(number))
    batch = max_batch_size(first.inputs, first.outputs)
    config = schema.ModelConfig(name=name, platform=first.platform, max_batch_size=batch)
    for field, specs in ((config.input, first.inputs), (config.output, first.outputs)):
        for title, spec in specs.items():
            _describe(field.add(), title, spec, bool(batch), schema)
    gpu = first.platform == _PLAN
    group = schema.ModelInstanceGroup
    config.instance_group.add(count=instances, kind=group.KIND_GPU if gpu else group.KIND_CPU)
    config.version_policy.specific.versions.extend(range(1, len(versions) + 1))
    if batch:
        best = _ranges(first.inputs)[1]
        config.dynamic_batching.preferred_batch_size.append(best)
        config.dynamic_batching.max_queue_delay_microseconds = queue_delay
    _add_warmup(place, config, schema, first, batch)
    text = text_format.MessageToString(config)
    if text_format.Parse(text, schema.ModelConfig()) != config:
        raise ArtifactError(f"{name}: the configuration does not survive being written; please report it: {text}")
    (place / "config.pbtxt").write_text(text, "utf-8")
    (place / "README.md").write_text(_readme(config, versions), "utf-8")


def _write_model(version: _Version, place: Path) -> None:
    source = version.folder / version.part["model"]
    model = ir.load(str(source))
    pairs = [*zip(model.graph.inputs, version.inputs), *zip(model.graph.outputs, version.outputs)]
    renamed = [(value, name) for value, name in pairs if value.name != name]
    if version.platform == _PLAN:
        if renamed:
            raise OptionError(f"{version.folder}: the plan calls {renamed[0][1]!r} {renamed[0][0].name!r}; use --onnx")
        data = (version.folder / version.part["plan"]).read_bytes()
        head = _HEAD.match(data)
        (place / _FILES[_PLAN]).write_bytes(data[head.end() :] if head else data)
        return
    if renamed:
        _rename(model, renamed)
        ir.save(model, str(place / _FILES[_ONNX]), external_data="model.data")
        return
    shutil.copyfile(source, place / _FILES[_ONNX])
    for name in version.document["files"]:
        if name.endswith(".data"):  # the ONNX file refers to it by this name
            shutil.copyfile(version.folder / name, place / name)


def _rename(model: ir.Model, renamed: Sequence[tuple[ir.Value, str]]) -> None:
    """Give values these names; a value that has one of them already gives way."""
    wanted = {name for _, name in renamed}
    chosen = {id(value) for value, _ in renamed}
    for node in model.graph:
        for value in node.outputs:
            if value.name in wanted and id(value) not in chosen:
                value.name = f"{value.name}__inner"
    for value, name in renamed:
        value.name = name


def max_batch_size(inputs: Specs, outputs: Specs) -> int:
    """The largest batch that Triton may put together, or 0 where it may not.

    It may if the first size of every input and output varies from 1 to the same number: then requests of one row can
    be joined. Rows must not know of each other; a model's shapes do not tell, so a model for which that is not so is
    compiled with a fixed size.
    """
    found = _ranges(inputs)
    if found[0] != 1 or any(not spec.shape or _first(spec) != found for spec in inputs.values()):
        return 0
    batched = all(spec.shape and not isinstance(spec.shape[0], int) for spec in outputs.values())
    return found[2] if batched else 0


def _ranges(inputs: Specs) -> tuple[int, int, int]:
    return next((_first(spec) for spec in inputs.values()), (0, 0, 0))


def _first(spec: Input) -> tuple[int, int, int]:
    size = spec.shape[0] if spec.shape else 0
    return size if isinstance(size, tuple) else (0, 0, 0)


def _describe(entry: Any, name: str, spec: Input, batched: bool, schema: Any) -> None:
    kind = _TYPES.get(spec.dtype.name)
    if kind is None:
        raise OptionError(f"{name!r} has the type {spec.dtype.name}, for which Triton has none")
    sizes = [size if isinstance(size, int) else -1 for size in spec.shape[1 if batched else 0 :]]
    if 0 in sizes:
        raise OptionError(f"{name!r} has the shape {spec}; Triton serves no tensors without elements")
    entry.name, entry.data_type = name, schema.DataType.Value(kind)
    entry.dims.extend(sizes or [1])
    if not sizes:  # Triton wants at least one size; the model sees none
        entry.reshape.SetInParent()


def _add_warmup(place: Path, config: Any, schema: Any, version: _Version, batch: int) -> None:
    """A run for each test vector: of the row that each request has, as often as the vector has rows."""
    vectors = version.document.get("proof", {}).get("vectors", [])
    for number, vector in enumerate(vectors):
        arrays = read_params(version.folder / vector["file"])
        given = {name: np.asarray(arrays[f"input/{name}"]) for name in version.inputs}
        rows = {array.shape[0] for array in given.values()} if batch else {1}
        sample = config.model_warmup.add(name=f"vector{number}", batch_size=rows.pop())
        for index, (name, array) in enumerate(given.items()):
            row = array[:1] if batch else array
            file = f"vector{number}-input{index}"
            (place / "warmup").mkdir(exist_ok=True)
            (place / "warmup" / file).write_bytes(np.ascontiguousarray(row).tobytes())
            entry = sample.inputs[name]
            entry.data_type = schema.DataType.Value(_TYPES[version.inputs[name].dtype.name])
            entry.dims.extend(array.shape[1:] if batch else array.shape or (1,))
            entry.input_data_file = file


def _readme(config: Any, versions: Sequence[_Version]) -> str:
    rows = [
        f"| {number} | {v.document['precision']} | {v.document['engine']} | {v.document['digest'][:16]} |"
        for number, v in enumerate(versions, 1)
    ]
    library = next((f"{n} {v}" for n, v in versions[0].document["versions"].items() if n.startswith("tensorrt")), "")
    plan = (
        f"The plan runs on the kind of GPU it was built on, with the TensorRT it was built by ({library}): take the "
        f"server's release with that version from NVIDIA's support matrix, or export again with `--onnx`."
        if versions[0].platform == _PLAN
        else "Any release of the server with the ONNX Runtime backend serves it."
    )
    shapes = " ".join(_shape_argument(name, spec, config.max_batch_size) for name, spec in versions[0].inputs.items())
    most = config.max_batch_size or 1
    return f"""# {config.name}

| version | precision | engine | artifact |
|---|---|---|---|
{chr(10).join(rows)}

{plan}

Start the server (RELEASE is its version, 25.06 for one; without a GPU leave `--gpus=all` out), in the repository:

    docker run --rm --gpus=all -p 8000:8000 -p 8001:8001 -v "$PWD":/models nvcr.io/nvidia/tritonserver:RELEASE-py3 \\
        tritonserver --model-repository=/models --model-control-mode=explicit --load-model={config.name}

Measure it, with 1 to 16 requests under way:

    perf_analyzer -m {config.name} -i grpc -u localhost:8001 -b 1 {shapes} \\
        --concurrency-range 1:16:4 --percentile=99
    perf_analyzer -m {config.name} -i grpc -u localhost:8001 -b {most} {shapes} --concurrency-range 1:4

`-x VERSION` measures one version. Requests without a version go to the last.
"""


def _shape_argument(name: str, spec: Input, batch: int) -> str:
    """perf_analyzer wants the sizes of what varies."""
    sizes = spec.shape[1 if batch else 0 :]
    if all(isinstance(size, int) for size in sizes):
        return ""
    best = [size if isinstance(size, int) else size[1] if isinstance(size, tuple) else 1 for size in sizes]
    return f"--shape {name}:{','.join(map(str, best))}"
