"""Bad files of our own making: saved models, entries of the plan cache, calibration tables, each from a good one."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness import manifest
from harness.engines import plan_cache
from harness.errors import ArtifactError
from harness.precision.calibration import save_table

from . import bad_input
from .bad_input import ODD_VALUES, flipped

PLAN = b"a plan, or what stands for one" * 9
FIELDS = {"gpu": "any", "driver": 12080, "options": {"a": [1, 2]}}
NAMES = ("segment0.onnx", "constants.params", "manifest.json")


# --- saved models ----------------------------------------------------------------------------------------------------


def good_artifact(folder: Path) -> Path:
    """A saved model of two outputs, one of which is a constant; made once."""
    place = folder / "good.mxtrt"
    if not place.exists():
        nodes = [
            {"op": "null", "name": "data", "inputs": []},
            {"op": "null", "name": "weight", "inputs": []},
            {"op": "broadcast_mul", "name": "product", "inputs": [[0, 0, 0], [1, 0, 0]]},
            {"op": "Activation", "name": "act", "inputs": [[2, 0, 0]], "attrs": {"act_type": "relu"}},
        ]
        (folder / "a.json").write_text(json.dumps({"nodes": nodes, "heads": [[3, 0, 0], [1, 0, 0]]}))
        weight = np.random.default_rng(0).standard_normal((1, 300)).astype(np.float32)
        model = harness.compile(
            str(folder / "a.json"), {"weight": weight}, {"data": ((1, 2, 4), 300)}, "onnxruntime", threads=1
        )
        model.save(place)
    return place


def run_artifact(rng: random.Random, folder: Path) -> None:
    """A damaged saved model is refused; one whose writer meant something else is loaded or refused."""
    place = folder / "bad.mxtrt"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(good_artifact(folder), place)
    if rng.random() < 0.4:
        _damage(place, rng)
        try:
            harness.load(place)
        except ArtifactError:
            raise
        raise AssertionError("a damaged folder was loaded")
    document = json.loads((place / manifest.MANIFEST).read_text())
    for _ in range(rng.choice((1, 1, 2))):
        _change(document, rng)
    _seal(place, document)
    model = harness.load(place)
    call(model)
    model.explain()
    model.save(folder / "again.mxtrt")


def _damage(place: Path, rng: random.Random) -> None:
    """One file changed, cut, emptied, removed, exchanged for another or for a folder."""
    path = place / rng.choice(NAMES)
    good = path.read_bytes()
    path.unlink()
    kind = rng.randrange(5)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.write_bytes(b"")
    elif kind == 2:
        path.write_bytes((place / rng.choice([name for name in NAMES if (place / name).exists()])).read_bytes() + b" ")
    elif kind == 3:
        bad = flipped(good, rng)
        path.write_bytes(bad if bad != good else good[:-1])


def _change(document: Any, rng: random.Random) -> None:
    """Something anywhere in a JSON document replaced, removed or repeated."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(document)
    if not places:
        return
    holder, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.6:
        other, name = rng.choice(places)
        holder[key] = rng.choice(
            (*ODD_VALUES, "../a.json", "/etc/passwd", [[]], {"format": 1}, copy.deepcopy(other[name]))
        )
    elif kind < 0.8:
        del holder[key]
    elif isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder["more"] = holder[key]


def _seal(place: Path, document: Any) -> None:
    """The manifest as its writer would have left it; its list of files is the document's own, if it is one."""
    try:
        document["digest"] = manifest.digest(document)
        text = json.dumps(document)
    except (TypeError, ValueError, KeyError):
        text = "{}"
    (place / manifest.MANIFEST).write_text(text, "utf-8", "surrogatepass")


def call(model: harness.Model) -> None:
    """Run a model once on ones."""
    model(**{name: np.ones([_one_of(s) for s in spec.shape], spec.dtype) for name, spec in model.inputs.items()})


def _one_of(size: int | str | tuple[int, int, int]) -> int:
    """A size that an axis may have: the best of a range; a size that only a name tells may be any."""
    return size[1] if isinstance(size, tuple) else 1 if isinstance(size, str) else size


# --- plans -----------------------------------------------------------------------------------------------------------


def run_plan(rng: random.Random, folder: Path) -> None:
    """Whatever became of an entry: the plan is the right one, and looking around ends in answers."""
    place = folder / "plans"
    shutil.rmtree(place, ignore_errors=True)
    cache = plan_cache.PlanCache(place)
    cache.find_or_build(FIELDS, lambda: (PLAN, {"by": "test"}))
    key = plan_cache.key_of(FIELDS)
    path = cache.folder / f"{key}{rng.choice(('.json', '.json', '.plan'))}"
    good = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.7:
        document = json.loads(good)
        _change(document, rng)
        good = json.dumps(document).encode("utf-8", "surrogatepass")
    elif path.suffix == ".json" and rng.random() < 0.3:
        good = b"[" * 100_000
    else:
        good = flipped(good, rng)
    path.write_bytes(good)
    plan_cache.list_entries(place)
    for checked in plan_cache.verify(place):
        assert isinstance(checked.problem, str)
        assert checked.entry.size >= 0 and checked.entry.last_used >= 0
    if rng.random() < 0.5:
        plan_cache.prune(place, older_than=1e9, max_bytes=10**9)
    found = cache.find_or_build(FIELDS, lambda: (PLAN, {"by": "test"}))
    assert bytes(found.plan) == PLAN, "another plan was found"


# --- calibration tables ----------------------------------------------------------------------------------------------


def run_table(rng: random.Random, folder: Path) -> None:
    """A table changed anywhere, given to a compilation."""
    path, symbol = folder / "table.json", folder / "t-symbol.json"
    if not symbol.exists():
        symbol.write_text(json.dumps(bad_input.wide_model()))
    save_table(path, {"data": 1.0, "fc": 2.0}, "entropy")
    document = json.loads(path.read_text())
    _change(document, rng)
    data = json.dumps(document).encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        data = flipped(data, rng)
    elif rng.random() < 0.1:
        data = b'{"format": 1, "ranges": ' + b"[" * 100_000
    path.write_bytes(data)
    model = harness.compile(
        str(symbol), bad_input.wide_parameters(), bad_input.WIDE_INPUTS, "onnxruntime", "int8", "error",
        calibration_table=str(path), threads=1,
    )  # fmt: skip
    call(model)


KINDS: dict[str, Callable[[random.Random, Path], None]] = {
    "artifact": run_artifact,
    "plan": run_plan,
    "table": run_table,
}
