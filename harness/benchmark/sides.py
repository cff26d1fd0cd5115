"""What is compared: a side is a model with an engine, a precision and options, at a commit.

    zoo:resnet18_v1,engine=onnxruntime
    path/prefix,precision=fp16,commit=HEAD~3
    saved.mxtrt,threads=2

The second side takes from the first whatever it does not say itself, so ``engine=mxnet`` alone is a side. A peer
(:mod:`harness.benchmark.peers`) is an engine too; of the rest it takes what it has a use for.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import EngineMissing, ExecutionError, OptionError
from .peers import PEERS
from .statistics import Summary, median, summarise, throughput

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")
CACHES = ("MXTRT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")  # what a first answer may find ready
ENGINES = ("auto", "onnxruntime", "tensorrt", "tensorrt_rtx", *PEERS)
ZOO = "zoo:"
# runs the worker as a script, but with the side's tree in front and not the worker's own folder, whose modules
# have names of the standard library
_LAUNCH = (
    "import runpy,sys; sys.path[0]=sys.argv.pop(1); sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        model: ``zoo:NAME``, path/prefix, a symbol.json, or a saved model's folder.
        inputs: name -> (shape, dtype).
        engine: of harness.compile, or a peer; None takes the saved model's, or "auto".
        commit: of this repository, for the compiler and the runtime; None is the tree as it is.
        base_engine: whose session the peer "bare" calls.
        file: what a peer runs in place of the model, made by :func:`prepared`.
    """

    model: str
    inputs: Mapping[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)
    engine: str | None = None
    precision: str | None = None
    params: str | None = None
    commit: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    base_engine: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        named = {"engine": self.engine, "precision": self.precision, "params": self.params, "commit": self.commit}
        parts = [f"{name}={value}" for name, value in {**named, **self.options}.items() if value is not None]
        return ",".join([self.model, *parts])

    @property
    def batch(self) -> int:
        """Items of a query: the first size of the first input, 1 if there is none."""
        for shape, _ in self.inputs.values():
            if shape:
                return int(shape[0][1] if isinstance(shape[0], tuple) else shape[0])
        return 1

    def request(self, seconds: float, warmup: float, queries: int) -> dict[str, Any]:
        """What the worker is asked for."""
        params: Any = self.params
        return {
            "model": self.model, "params": int(params) if params and params.isdecimal() else params,
            "inputs": dict(self.inputs), "engine": self.engine, "precision": self.precision,
            "options": dict(self.options), "seconds": seconds, "warmup": warmup, "queries": queries,
            "base_engine": self.base_engine, "file": self.file,
        }  # fmt: skip

    def with_engine(self, name: str) -> Side:
        """The same on another engine. A peer runs no commit of ours, its own precisions, and of the options ``threads``.

        Raises:
            OptionError: the peer does not have the precision.
            EngineMissing: a package that the peer needs is not installed.
        """
        peer = PEERS.get(name)
        if peer is None:
            return replace(self, engine=name, base_engine=None)
        if peer.missing:
            raise EngineMissing(f"{name} ({peer.what}) needs {' and '.join(peer.missing)}, which is not installed")
        if peer.compiles:
            base = None if self.engine in PEERS else self.engine
            return replace(self, engine=name, base_engine=base, commit=None)
        if peer.precisions and self.precision not in (None, *peer.precisions):
            raise OptionError(f"{name} runs {', '.join(peer.precisions)}, not {self.precision}")
        options = {key: value for key, value in self.options.items() if key == "threads"}
        precision = self.precision if peer.precisions else None
        return replace(self, engine=name, precision=precision, commit=None, options=options, base_engine=None)


@dataclass(frozen=True, slots=True)
class Run:
    """One process: its queries reduced, in seconds and bytes.

    Attributes:
        summary: the latency of a call, on the host.
        phases: TensorRT's phases, each reduced: enqueue, h2d, compute, d2h.
        throughput: items per second.
        setup: until the model was ready; first_answer: until the first answer was there, from the process's start.
        yardstick: of the machine's own speed while it ran; None where the commit does not know it.
    """

    summary: Summary
    phases: Mapping[str, Summary]
    throughput: float
    setup: float
    first_answer: float
    peak_rss: int
    yardstick: float | None
    segments: tuple[str, ...]


def parse(text: str, inputs: Mapping[str, Any], base: Side | None = None) -> Side:
    """A side from the command line.

    Raises:
        OptionError: a part of it is not understood, or names no model.
    """
    side = base or Side("", {name: (spec.shape, spec.dtype.name) for name, spec in inputs.items()})
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            side = replace(side, model=name)
        elif name == "engine" and value not in ENGINES:
            raise OptionError(f"{text!r}: engine {value!r} is none of {', '.join(ENGINES)}")
        elif name == "engine":
            side = side.with_engine(value)
        elif name in ("precision", "params", "commit"):
            side = replace(side, **{name: value})  # type: ignore[arg-type]  # mypy cannot follow the name
        else:
            side = replace(side, options={**side.options, name: _value(value)})
    _check_peer(text, side)
    if not side.model:
        raise OptionError(f"{text!r} names no model: write MODEL[,engine=E][,precision=P][,commit=C][,OPTION=VALUE]")
    return side


def _check_peer(text: str, side: Side) -> None:
    peer = PEERS.get(side.engine or "")
    if peer is None or peer.compiles:
        return
    if side.precision and side.precision not in peer.precisions:
        own = f"has {', '.join(peer.precisions)}" if peer.precisions else "runs the files' own types"
        raise OptionError(f"{text!r}: {side.engine} {own}; leave precision= away")
    unknown = [name for name in side.options if name != "threads"]
    if unknown:
        raise OptionError(f"{text!r}: {', '.join(unknown)} is no option of {side.engine}; it has threads")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextlib.contextmanager
def prepared(side: Side, folder: Path) -> Iterator[tuple[Side, Path]]:
    """The side with its zoo network written as files, and the tree of its commit.

    Raises:
        OptionError: there is no such commit, or this is not a checkout.
        ExecutionError: the network cannot be written.
    """
    if side.model.startswith(ZOO):
        side = replace(side, model=str(_export(side, folder)))
    elif Path(side.model).exists() or Path(f"{side.model}-symbol.json").exists():
        side = replace(side, model=str(Path(side.model).resolve()))
    else:
        raise OptionError(f"{side.model}: there is no such model; zoo:NAME is a network of Gluon's zoo")
    peer = PEERS.get(side.engine or "")
    if peer is not None and peer.prepare:
        file = folder / f"{Path(side.model).name}.{side.engine}.onnx"
        ask({**side.request(0, 0, 1), "task": "prepare", "to": str(file)}, ROOT)
        side = replace(side, file=str(file))
    if side.commit is None:
        yield side, ROOT
        return
    with tempfile.TemporaryDirectory(prefix="mxtrt-tree-") as tree:
        _git("worktree", "add", "--detach", "--force", tree, side.commit)
        try:
            yield side, Path(tree)
        finally:
            _git("worktree", "remove", "--force", tree)


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OptionError(f"git {' '.join(arguments)}: {done.stderr.strip() or 'failed'}")


def _export(side: Side, folder: Path) -> Path:
    """The prefix of the network's files; both sides use the same."""
    name = side.model.removeprefix(ZOO)
    prefix = folder / name.replace(".", "_")
    if not Path(f"{prefix}-symbol.json").exists():
        if not side.inputs:
            raise OptionError(f"{side.model}: name its input, for example --input data=1,3,224,224")
        shape = next(iter(side.inputs.values()))[0]
        ask({"task": "export", "to": str(prefix), "network": name, "shape": shape}, ROOT)
    return prefix


def run(
    side: Side, tree: Path, seconds: float = 1.0, warmup: float = 0.3, queries: int = 10, caches: Path | None = None
) -> Run:
    """One run of a prepared side, in a process of its own.

    Args:
        caches: where built plans and compiled kernels are kept; None is the user's own place.

    Raises:
        ExecutionError: the process failed, and why.
    """
    found = ask(side.request(seconds, warmup, queries), tree, caches=caches)
    summary = summarise(found["times"])
    return Run(
        summary,
        {name: summarise(times) for name, times in found["phases"].items()},
        throughput(summary.queries, side.batch, sum(found["times"])),
        found["setup"], found["first_answer"], found["peak_rss"], found["yardstick"], tuple(found["segments"]),
    )  # fmt: skip


def save(side: Side, tree: Path, folder: Path) -> Side:
    """A prepared side compiled and saved, as the side that loads it.

    Raises:
        ExecutionError: it cannot be compiled or saved.
    """
    ask({**side.request(0, 0, 1), "task": "save", "to": str(folder)}, tree)
    return replace(side, model=str(folder), inputs={}, engine=None, precision=None, params=None, options={})


def ask(request: Mapping[str, Any], tree: Path, timeout: float = 900, caches: Path | None = None) -> dict[str, Any]:
    """The worker's answer.

    Raises:
        ExecutionError: it took too long, died, or says why it cannot.
    """
    what = request.get("model") or request.get("network")
    environment = dict(os.environ)
    if request.get("engine") in PEERS and "threads" in request.get("options", {}):
        environment["OMP_NUM_THREADS"] = str(request["options"]["threads"])  # MXNet reads it when it is imported
    if caches is not None:
        environment.update({name: str(caches / name.lower()) for name in CACHES})
    request = {**request, "started": time.monotonic()}  # the clock is the system's: the worker goes on reading it
    command = [sys.executable, "-c", _LAUNCH, str(tree), str(WORKER), json.dumps(request)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
    except subprocess.TimeoutExpired:
        raise ExecutionError(f"{what}: a run took more than {timeout:.0f} s; use a smaller input") from None
    lines = done.stdout.splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        said = " ".join(done.stderr.split())[-500:]
        raise ExecutionError(f"{what}: a run ended with exit code {done.returncode} and no figures: {said}") from None
    if "error" in answer:
        raise ExecutionError(f"{what}: {answer['error']}")
    return answer


METRICS = ("median", "p99", "setup", "first_answer")


def figure(one: Run, metric: str) -> float:
    """A run's figure by the name of a metric, in seconds."""
    return float(getattr(one if metric in ("setup", "first_answer") else one.summary, metric))


def reduce(runs: list[Run], metric: str = "median") -> dict[str, Any]:
    """What is stored of several runs: each figure as the median over them, and of each run the one that decides."""
    stored: dict[str, Any] = {
        "runs": [figure(one, metric) for one in runs],
        "metric": metric,
        "yardstick": [one.yardstick for one in runs],
        "queries": sum(one.summary.queries for one in runs),
        "segments": list(runs[0].segments),
    }
    for name in ("median", "p90", "p95", "p99", "mean", "minimum", "maximum", "cov"):
        stored[name] = median([getattr(one.summary, name) for one in runs])
    for name in ("throughput", "setup", "first_answer", "peak_rss"):
        stored[name] = median([getattr(one, name) for one in runs])
    for name in runs[0].phases:
        stored[name] = {
            key: median([getattr(one.phases[name], key) for one in runs])
            for key in ("median", "p90", "p95", "p99", "cov")
        }
    return stored
