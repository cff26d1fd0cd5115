"""``mxtrt sweep``: the cells of the suites over a Ray cluster, one answer however many nodes there were or were lost.

Ray places each batch on a node that has its GPU kind, and runs it again when the node is lost. The unit is the batch
of cells that share engines; a batch that has an answer is in the journal and never runs again.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import EngineMissing, ExecutionError, HarnessError, OptionError
from . import cells as work
from .cells import Cell
from .journal import CPU, Journal, Result
from .report import Report, died, write

LOCAL = "local"
_KIND = "accelerator_type:"  # how Ray names a node's GPU kind among its resources
_RETRIES = 2  # of a batch whose node was lost or whose process died
_SHIPPED = ("harness", "scripts", "conftest.py", "pyproject.toml")  # what a worker needs besides the suites themselves


@dataclass(frozen=True, slots=True)
class Batch:
    """Cells that run in one process, on one kind of GPU."""

    name: str
    kind: str
    cells: tuple[str, ...]


def sweep(
    paths: Sequence[str],
    output: str | Path,
    ray: str = LOCAL,
    engine: str | None = None,
    gpu: Sequence[str] = (),
    marker: str = work.CHOSEN,
    keyword: str = "",
    batch: int = 32,
    progress: Callable[[str], None] = lambda text: None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Run suites over a Ray cluster, or go on with an interrupted run.

    Args:
        paths: files or folders of suites, under the working directory.
        output: the folder of the journal, ``junit.xml`` and ``sweep.json``.
        ray: the cluster's address, or "local" to start one here.
        engine: the engine of the GPU cells, in place of TensorRT.
        gpu: the GPU kinds on which cells marked ``gpu`` run; () is every kind that the cluster has, and "cpu" where it
            has none (the cells then say themselves why they are skipped).
        marker, keyword: pytest's ``-m`` and ``-k``; the marker "" is every cell.
        batch: how many cells without a group of their own go to a worker at a time.
        progress: called with a line for the user.
        on_result: called with each result after it was kept.

    Raises:
        EngineMissing: Ray is not installed.
        OptionError: a path, a GPU kind or the output does not fit.
        ExecutionError: the cluster cannot be reached, or pytest fails on it.
    """
    if batch < 1:
        raise OptionError(f"batch: {batch} is not a positive number of cells")
    folder = Path(output)
    environment = _environment(engine)
    library = _import_ray()
    with _connected(library, ray, paths, environment):
        kinds = _kinds(library, gpu)
        found, digest = _collect(library, paths, marker, keyword)
        header = {"paths": list(paths), "kinds": kinds, "marker": marker, "keyword": keyword, "environment": environment,
                  "sources": digest}  # fmt: skip
        journal = Journal(folder / "sweep.jsonl", header)
        wanted = [
            (kind, cell) for kind in dict.fromkeys([*kinds, CPU]) for cell in found if kind in _runs_on(cell, kinds)
        ]
        todo = _batches([pair for pair in wanted if (pair[0], pair[1].id) not in journal.results], batch)
        ran = sum(len(one.cells) for one in todo)
        progress(
            f"{len(wanted)} cells, {len(wanted) - ran} known, {ran} to run in {len(todo)} batches on {', '.join(kinds)}"
        )
        for result in _run(library, todo, progress):
            journal.append(result)
            on_result(result)
    return write(folder, [journal.results[kind, cell.id] for kind, cell in wanted], ran, header)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise EngineMissing(f"Ray cannot be imported ({error}); pip install 'mxtrt[ray]'") from None


def _environment(engine: str | None) -> dict[str, str]:
    """What the cells' meaning depends on: mxtrt's own variables, and the thread count, go to every worker."""
    chosen = {name: value for name, value in sorted(os.environ.items()) if name.startswith("MXTRT_")}
    chosen["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "2")  # as conftest.py has it; Ray would say 1
    return {**chosen, "MXTRT_GPU_ENGINE": engine} if engine else chosen


@contextmanager
def _connected(ray: Any, address: str, paths: Sequence[str], environment: Mapping[str, str]) -> Iterator[None]:
    if ray.is_initialized():
        raise OptionError(
            "this process is connected to a Ray cluster already; a sweep needs workers of its own settings"
        )
    shipped = _shipped(paths)
    left = [f"/{path.name}" for path in Path.cwd().iterdir() if path.name not in shipped]
    settings = {"working_dir": str(Path.cwd()), "excludes": [*left, "__pycache__"], "env_vars": dict(environment)}
    where = {} if address == LOCAL else {"address": address}
    try:
        ray.init(**where, runtime_env=settings, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ExecutionError(f"the Ray cluster {address!r} cannot be used: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _shipped(paths: Sequence[str]) -> list[str]:
    return sorted({*_SHIPPED, *map(_top, paths)})


def _top(path: str) -> str:
    """The folder under the working directory that a path lies in."""
    full = Path(path.partition("::")[0]).resolve()
    home = Path.cwd().resolve()
    if not full.exists() or home not in full.parents:
        raise OptionError(f"{path}: is not a suite under {home}; run the sweep where pytest runs")
    return full.relative_to(home).parts[0]


def _kinds(ray: Any, wanted: Sequence[str]) -> list[str]:
    there = sorted(name.removeprefix(_KIND) for name in ray.cluster_resources() if name.startswith(_KIND))
    missing = [kind for kind in wanted if kind != CPU and kind not in there]
    if missing:
        raise OptionError(
            f"--gpu {', '.join(missing)}: no node of the cluster has it; there are: {', '.join(there) or 'none'}"
        )
    return list(dict.fromkeys(wanted)) or there or [CPU]


def _runs_on(cell: Cell, kinds: Sequence[str]) -> Sequence[str]:
    return kinds if cell.gpu else (CPU,)


def _collect(ray: Any, paths: Sequence[str], marker: str, keyword: str) -> tuple[list[Cell], str]:
    names = _shipped(paths)

    def task() -> tuple[list[Cell], str]:
        return work.collect(paths, marker, keyword), work.fingerprint(names)

    try:
        found: tuple[list[Cell], str] = ray.get(ray.remote(task).options(num_cpus=1).remote())
    except ray.exceptions.RayError as error:
        raise _own(error) from None
    return found


def _own(error: Exception) -> HarnessError:
    """The error of ours that a task raised, or one that says what Ray says."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, HarnessError):
        return cause
    return ExecutionError(f"a task failed on the Ray cluster: {str(error).strip()[-1000:]}")


def _batches(pairs: Sequence[tuple[str, Cell]], size: int) -> list[Batch]:
    """Groups stay together; other cells of one kind are cut into pieces, each with the name of its first cell."""
    groups: dict[tuple[str, str], list[str]] = {}
    alone: dict[str, list[str]] = {}
    for kind, cell in pairs:
        name = cell.group
        if not name:
            others = alone.setdefault(kind, [])
            others.append(cell.id)
            name = others[(len(others) - 1) // size * size]
        groups.setdefault((kind, name), []).append(cell.id)
    return [Batch(name, kind, tuple(ids)) for (kind, name), ids in groups.items()]


def _run(ray: Any, batches: Sequence[Batch], progress: Callable[[str], None]) -> Iterator[Result]:
    """Results as they come. A batch whose process keeps dying is run cell by cell, so that one cell takes the blame."""

    def task(ids: Sequence[str]) -> tuple[dict[str, list[str]], str, float]:
        start = time.perf_counter()
        return work.run(ids), ray.get_runtime_context().get_node_id(), time.perf_counter() - start

    on_cpu = ray.remote(task)
    on_gpu = ray.remote(max_calls=1)(
        task
    )  # CUDA stays bound to the GPU it first saw, and the next batch may get another

    def submit(batch: Batch) -> Any:
        return _submit(on_cpu if batch.kind == CPU else on_gpu, batch)

    running = {submit(batch): batch for batch in batches}
    done = 0
    while running:
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        batch = running.pop(ready)
        try:
            found, node, seconds = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise _own(error) from None
        except ray.exceptions.RayError as error:
            if len(batch.cells) > 1:
                progress(
                    f"{batch.name} on {batch.kind}: {type(error).__name__}; its {len(batch.cells)} cells run one by one"
                )
                running |= {submit(one): one for one in _split(batch)}
                continue
            found, node, seconds = {}, "", 0.0
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            yield Result(batch.cells[0], batch.kind, (died(batch.cells[0], reason),), node, batch.name, seconds)
            continue
        done += 1
        progress(f"{done} batches done: {batch.name} on {batch.kind}, {len(batch.cells)} cells, {seconds:.1f} s")
        yield from _results(batch, found, node, seconds)


def _submit(remote: Any, batch: Batch) -> Any:
    resources = {} if batch.kind == CPU else {f"{_KIND}{batch.kind}": 0.001}  # Ray's own way to ask for a kind
    gpus = 0 if batch.kind == CPU else 1
    options = {"num_cpus": 1, "num_gpus": gpus, "resources": resources, "max_retries": _RETRIES}
    return remote.options(**options).remote(batch.cells)


def _split(batch: Batch) -> list[Batch]:
    return [replace(batch, name=f"{batch.name}/{number}", cells=(cell,)) for number, cell in enumerate(batch.cells)]


def _results(batch: Batch, found: Mapping[str, list[str]], node: str, seconds: float) -> Iterator[Result]:
    for cell in batch.cells:
        cases = tuple(found.get(cell) or [died(cell, "pytest wrote no result of it")])
        yield Result(cell, batch.kind, cases, node, batch.name, seconds)
