"""An artifact that carries its own proof: inputs, MXNet's answers, and how far those may move.

``migrate`` needs MXNet and writes; ``verify`` needs neither MXNet nor the original model, and says on any machine,
engine and precision whether the numbers are still MXNet's. The rule is the error model's (:mod:`harness.numerics`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import numerics
from .errors import ArtifactError, InputError, OptionError
from .frontend import compat
from .frontend.params import read_params, write_params
from .inputs import Input, check_array
from .model import Model
from .reference import Reference

Array = npt.NDArray[Any]
Sample = Mapping[str, Array]
Progress = Callable[[int, int], None]

PRECISIONS = ("fp32", "fp16", "bf16")  # those whose response is stored; tf32 rounds as fp16 does
QUANTIZED = ("int8", "fp8")
SQNR_FLOOR = 20.0  # dB; below it a quantized answer has lost a tenth of its signal
TOP_K_FLOOR = 0.9
_RESPONSE_OF = {"fp32": "fp32", "tf32": "fp16", "fp16": "fp16", "bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One output of one test vector: whether it is MXNet's answer, and how much of the allowed error it used."""

    vector: str
    output: str
    ok: bool
    headroom: float
    max_error: float
    message: str = ""


# --- making the proof ------------------------------------------------------------------------------------------------


def migrate(
    source: Any,
    folder: str | Path,
    params: Any = None,
    inputs: Mapping[str, Any] | None = None,
    samples: str | Path | None = None,
    vectors: int = 3,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    **compile_options: Any,
) -> tuple[Model, list[Verdict]]:
    """Compile a model, save it with test vectors, and verify it.

    Args:
        source, params, inputs, compile_options: as for :func:`harness.compile`.
        folder: where the artifact goes.
        samples: a folder of ``.npz`` files (one array per input) or ``.npy`` files (models of one input); without it
            the vectors are random.
        vectors: how many vectors (of random ones), or at most how many (of samples).
        seed: of the random vectors.
        progress: called with (vectors done, vectors in all and one step more: which parameters they reach).

    Raises:
        EngineMissing: MXNet, which gives the reference, is not installed.
        HarnessError: as compile and save.
    """
    from .compiler import compile_graph
    from .frontend.mxnet import read_model
    from .saving import save

    if not isinstance(vectors, int) or vectors < 1:
        raise OptionError(f"vectors: {vectors!r} is not a positive integer")
    compat.mxnet()
    notices: list[str] = []
    graph, arrays = read_model(source, params, notices)
    model = compile_graph(graph, arrays, inputs, notices=notices, **compile_options)
    drawn = list(
        _read_samples(Path(samples), model.inputs, vectors) if samples else random_samples(model.inputs, vectors, seed)
    )
    reference = Reference(graph, arrays, drawn[0][1])

    def write(place: Path) -> dict[str, Any]:
        (place / "proof").mkdir()
        names = []
        for number, (origin, sample) in enumerate(drawn):
            name = f"proof/vector{number}.params"
            write_params(place / name, _vector(reference, sample))
            names.append({"file": name, "origin": origin})
            progress(number + 1, len(drawn) + 1)
        unreached = reference.unreached([sample for _, sample in drawn])
        progress(len(drawn) + 1, len(drawn) + 1)
        return {"proof": {"vectors": names, "seed": seed, **reference.describe(), "unreached": unreached}}

    save(model._program, model.plan, folder, write)
    return model, verify(folder, model=model)


def unreached(folder: str | Path) -> list[str]:
    """The parameters on which no answer to an artifact's test vectors depends: a change of one would not be found.

    Raises:
        ArtifactError: the folder has no proof, or has changed.
    """
    return list(_proof_of(Path(folder)).get("unreached", ()))


def _proof_of(place: Path) -> dict[str, Any]:
    from .manifest import read_manifest

    proof: dict[str, Any] | None = read_manifest(place).get("proof")
    if not proof:
        raise ArtifactError(
            f"{place}: holds no proof; `mxtrt migrate MODEL --out DIR` writes a model with test vectors"
        )
    return proof


def _vector(reference: Reference, sample: Sample) -> dict[str, Array]:
    """A sample, MXNet's answers to it, and how far roundings of each precision move them."""
    answers = reference(sample)
    arrays = {f"input/{name}": np.ascontiguousarray(array) for name, array in sample.items()}
    arrays |= {f"reference/{i}": np.ascontiguousarray(array) for i, array in enumerate(answers)}
    for precision in PRECISIONS:
        moved = reference.response(sample, answers, precision)
        arrays |= {f"response/{precision}/{i}": np.ascontiguousarray(array) for i, array in enumerate(moved)}
    return arrays


def _read_samples(folder: Path, specs: Mapping[str, Input], limit: int) -> Iterator[tuple[str, dict[str, Array]]]:
    files = sorted(folder.glob("*.np[yz]")) if folder.is_dir() else []
    if not files:
        raise InputError(f"samples: {folder} has no .npy or .npz files")
    for path in files[:limit]:
        try:
            found = np.load(path, allow_pickle=False)
            arrays = dict(found) if path.suffix == ".npz" else dict.fromkeys(list(specs)[:1], found)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"samples: {path} cannot be read: {error}") from None
        if set(arrays) != set(specs):
            raise InputError(f"samples: {path} holds {sorted(arrays)}, the model takes {sorted(specs)}")
        yield path.name, {name: check_array(name, arrays[name], spec) for name, spec in specs.items()}


class SampleFolder:
    """The samples of a folder (.npy or .npz files), read anew at each pass: a thousand need the memory of one."""

    def __init__(self, folder: Path, specs: Mapping[str, Any]) -> None:
        self._folder, self._specs = folder, specs
        self._files = sorted(folder.glob("*.np[yz]")) if folder.is_dir() else []
        if not self._files:
            raise InputError(f"samples: {folder} has no .npy or .npz files")

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        from .inputs import read_inputs

        for _, sample in _read_samples(self._folder, read_inputs(self._specs), len(self._files)):
            yield sample


def random_samples(specs: Mapping[str, Input], count: int, seed: int) -> Iterator[tuple[str, dict[str, Array]]]:
    """Normal floats, integers 0 and 1; sizes that vary take their best, smallest and largest value in turn."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        which = (1, 0, 2)[number % 3]
        sample = {}
        for name, spec in specs.items():
            shape = tuple(s[which] if isinstance(s, tuple) else int(s) for s in spec.shape)
            drawn = rng.standard_normal(shape) if spec.dtype.kind in "fV" else rng.integers(0, 2, shape)
            sample[name] = np.asarray(drawn).astype(spec.dtype)
        yield f"random {number}, seed {seed}", sample


# --- judging ---------------------------------------------------------------------------------------------------------


def verify(
    folder: str | Path,
    engine: str | None = None,
    precision: str | None = None,
    model: Model | None = None,
    progress: Progress = lambda done, total: None,
    **options: Any,
) -> list[Verdict]:
    """Run the test vectors of an artifact and hold the answers to MXNet's.

    Args:
        folder: what ``migrate`` wrote.
        engine, precision, options: as for :func:`harness.load`.
        model: the loaded model, if the caller has it.
        progress: called with (vectors done, vectors in all).

    Raises:
        ArtifactError: the folder has no proof, or has changed.
    """
    from .artifact import load

    place = Path(folder)
    proof = _proof_of(place)
    loaded = model or load(place, engine, precision, verify=False, **options)
    verdicts: list[Verdict] = []
    for number, vector in enumerate(proof["vectors"]):
        verdicts += _judge(loaded, place / vector["file"], vector["origin"], proof["terms"])
        progress(number + 1, len(proof["vectors"]))
    return verdicts


def _judge(model: Model, path: Path, origin: str, terms: int) -> Iterable[Verdict]:
    arrays = read_params(path)
    answers = model(**{name.removeprefix("input/"): a for name, a in arrays.items() if name.startswith("input/")})
    for number, (name, answer) in enumerate(zip(model.output_names, answers)):
        reference = np.asarray(arrays[f"reference/{number}"])
        if model.plan.precision in QUANTIZED:
            yield _judge_quantized(origin, name, answer, reference)
            continue
        moved = np.asarray(arrays[f"response/{_RESPONSE_OF[model.plan.precision]}/{number}"])
        found = numerics.compare(answer, reference, moved, model.plan.precision, terms)
        yield Verdict(origin, name, found.ok, found.headroom, found.max_error, found.message)


def _judge_quantized(origin: str, name: str, answer: Array, reference: Array) -> Verdict:
    if answer.shape != reference.shape:
        return Verdict(origin, name, False, math.inf, math.inf, f"the shape is {answer.shape}, not {reference.shape}")
    ratio = numerics.sqnr(answer, reference)
    agreement = numerics.top_k_agreement(answer, reference, 1) if reference.ndim == 2 else 1.0
    error = float(np.max(np.abs(answer.astype(np.float64) - reference), initial=0))
    ok = ratio >= SQNR_FLOOR and agreement >= TOP_K_FLOOR
    words = f"signal-to-noise {ratio:.1f} dB (at least {SQNR_FLOOR:g}), first class agrees in {agreement:.0%}"
    return Verdict(origin, name, ok, SQNR_FLOOR / ratio if ratio > 0 else math.inf, error, words)


def passed(verdicts: Sequence[Verdict]) -> bool:
    """Whether every answer is MXNet's."""
    return bool(verdicts) and all(verdict.ok for verdict in verdicts)
