"""The plan cache: every field is in the key, nothing damaged is ever used, and no moment is a bad one to die."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines import plan_cache
from harness.engines.plan_cache import PlanCache, key_of, list_entries, prune, structure_digest, verify, weights_digest
from harness.errors import CacheError

from . import kill_trials

FIELDS: dict[str, Any] = {
    "flavour": "standard", "version": "10.6.0", "gpu": "H200", "driver": 12080, "compute_capability": [9, 0],
    "options": {"optimization_level": 3, "refit": False, "workspace": None}, "flags": ["TF32"],
    "profiles": [{"data": [[1, 4, 8], [3, 3, 3]]}], "weights": "abc", "precision": "fp32", "plugins": [],
}  # fmt: skip


def build(plan: bytes = b"plan") -> Callable[[], tuple[bytes, dict[str, Any]]]:
    return lambda: (plan, {"by": "test"})


def never() -> tuple[bytes, dict[str, Any]]:
    raise AssertionError("a plan that is there is built again")


# --- keys ------------------------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(FIELDS)), PLAIN)
def test_any_changed_field_changes_the_key(name: str, value: Any) -> None:
    if plan_cache.canonical(value) != plan_cache.canonical(FIELDS[name]):
        assert key_of({**FIELDS, name: value}) != key_of(FIELDS)


@given(st.permutations(sorted(FIELDS)), st.permutations(sorted(FIELDS["options"])))
def test_order_does_not_change_the_key(names: list[str], options: list[str]) -> None:
    reordered = {name: FIELDS[name] for name in names}
    reordered["options"] = {name: FIELDS["options"][name] for name in options}
    assert key_of(reordered) == key_of(FIELDS)


@given(PLAIN, PLAIN)
def test_equal_keys_mean_equal_values(left: Any, right: Any) -> None:
    same = plan_cache.canonical(left) == plan_cache.canonical(right)
    assert same == (json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True))
    assert key_of({"x": json.loads(json.dumps(left))}) == key_of({"x": left})  # a manifest can be held to its name


@pytest.mark.parametrize("value", [{1: 2}, {"x": object()}, {"x": float("nan")}, {"x": {1, 2}}])
def test_what_is_not_plain_is_refused(value: Any) -> None:
    with pytest.raises(CacheError, match="plain data"):
        key_of({"field": value})


def model(op: str = "Relu", shape: tuple[int, ...] = (2, 3), weight: float = 1.0, name: str = "g") -> ir.Model:
    weights = ir.Value(name="w", const_value=ir.Tensor(np.full(shape, weight, np.float32), name="w"))
    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    add = ir.node("Add", [x, weights], name="n/Add")
    last = ir.node(op, [add.outputs[0]], name="n/Last")
    last.outputs[0].name = "y"
    graph = ir.Graph(
        [x], [last.outputs[0]], nodes=[add, last], initializers=[weights], opset_imports={"": 22}, name=name
    )
    return ir.Model(graph, ir_version=10)


def test_digests_of_a_model() -> None:
    assert structure_digest(model()) == structure_digest(model(weight=2.0)) == structure_digest(model(name="other"))
    assert len({structure_digest(m) for m in (model(), model("Sigmoid"), model(shape=(3, 2)))}) == 3
    assert weights_digest(model()) == weights_digest(model("Sigmoid"))
    assert len({weights_digest(m) for m in (model(), model(weight=2.0), model(shape=(3, 2)))}) == 3


# --- entries ---------------------------------------------------------------------------------------------------------


def test_a_plan_is_built_once(tmp_path: Path) -> None:
    first = PlanCache(tmp_path).find_or_build(FIELDS, build())
    second = PlanCache(tmp_path).find_or_build(FIELDS, never)
    assert (first.outcome, second.outcome) == ("built", "hit")
    assert bytes(first.plan) == bytes(second.plan) == b"plan"
    (entry,) = list_entries(tmp_path)
    assert entry.manifest["fields"] == FIELDS and entry.manifest["notes"] == {"by": "test"} and entry.size == 4


def damage_plan(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path, str], Any]] = {
    "one bit of the plan": lambda f, k: damage_plan(f / f"{k}.plan"),
    "the plan is cut": lambda f, k: (f / f"{k}.plan").write_bytes((f / f"{k}.plan").read_bytes()[:-1]),
    "the plan is empty": lambda f, k: (f / f"{k}.plan").write_bytes(b""),
    "the plan is gone": lambda f, k: (f / f"{k}.plan").unlink(),
    "the manifest is no JSON": lambda f, k: (f / f"{k}.json").write_text("{"),
    "the manifest is a list": lambda f, k: (f / f"{k}.json").write_text("[]"),
    "the manifest is binary": lambda f, k: (f / f"{k}.json").write_bytes(b"\xff\xfe\0"),
    "the manifest is empty": lambda f, k: (f / f"{k}.json").write_text(""),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_entry_is_built_again(how: str, tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.find_or_build(FIELDS, build(b"plan" * 100))
    DAMAGE[how](cache.folder, key_of(FIELDS))
    assert cache.find_or_build(FIELDS, build(b"new!" * 100)).outcome == "built"
    found = cache.find_or_build(FIELDS, never)
    assert bytes(found.plan) == b"new!" * 100
    assert [checked.problem for checked in verify(tmp_path)] == [""]


def test_another_format_is_never_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PlanCache(tmp_path).find_or_build(FIELDS, build())
    monkeypatch.setattr(plan_cache, "FORMAT", plan_cache.FORMAT + 1)
    assert PlanCache(tmp_path).find_or_build(FIELDS, build()).outcome == "built"


def test_verify_finds_what_a_hit_need_not(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.find_or_build(FIELDS, build())
    path = cache.folder / f"{key_of(FIELDS)}.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "fields": {**FIELDS, "driver": 1}}))
    assert [checked.problem for checked in verify(tmp_path)] == ["the manifest's fields do not give its name"]
    path.write_text(json.dumps({**manifest, "sha256": "0" * 64}))
    assert [checked.problem for checked in verify(tmp_path)] == ["the plan's SHA-256 differs"]
    assert [entry.key for entry in prune(tmp_path)] == [key_of(FIELDS)]
    assert not list_entries(tmp_path)


def test_prune_by_size_and_age(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    keys = []
    for number in range(4):
        fields = {**FIELDS, "driver": number}
        cache.find_or_build(fields, build(b"p" * 100))
        keys.append(key_of(fields))
        os.utime(cache.folder / f"{keys[-1]}.json", (1000 + number, 1000 + number))
    cache.find_or_build({**FIELDS, "driver": 0}, never)  # a hit makes the oldest the newest
    assert [entry.key for entry in prune(tmp_path, max_bytes=250)] == keys[1:3]
    assert {entry.key for entry in list_entries(tmp_path)} == {keys[0], keys[3]}
    assert [entry.key for entry in prune(tmp_path, older_than=3600)] == [keys[3]]


def test_what_killed_processes_leave_is_swept(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.find_or_build(FIELDS, build())
    leftovers = [cache.folder / name for name in (".x.plan.abc", "orphan.plan", "old.lock")]
    for path in leftovers:
        path.write_bytes(b"")
        os.utime(path, (1000, 1000))
    fresh = cache.folder / "fresh.plan"
    fresh.write_bytes(b"")  # perhaps being written at this moment
    prune(tmp_path)
    assert not any(path.exists() for path in leftovers) and fresh.exists() and len(list_entries(tmp_path)) == 1


# --- folders that cannot be used -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_folder_that_cannot_be_written_is_no_failure(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(plan_cache.os, "fsync", refuse)
    found = PlanCache(tmp_path).find_or_build(FIELDS, build())
    assert bytes(found.plan) == b"plan" and found.outcome.startswith("built, not kept")
    assert os.strerror(code) in found.outcome and "name another cache_dir" in caplog.text
    monkeypatch.undo()
    assert not list_entries(tmp_path) and not list(PlanCache(tmp_path).folder.glob(".*"))


def test_a_folder_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    PlanCache(tmp_path).find_or_build(FIELDS, build())
    monkeypatch.setattr(plan_cache.filelock.FileLock, "acquire", refuse)
    assert PlanCache(tmp_path).find_or_build(FIELDS, never).outcome == "hit"  # reading needs no lock
    assert PlanCache(tmp_path).find_or_build({**FIELDS, "driver": 1}, build()).outcome.startswith("built, not kept")


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="file is a file; name a folder"):
        PlanCache(tmp_path / "file" / "cache")


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> tuple[bytes, dict[str, Any]]:
        raise ValueError("no plan")

    cache = PlanCache(tmp_path)
    with pytest.raises(ValueError, match="no plan"):
        cache.find_or_build(FIELDS, fail)
    assert not list_entries(tmp_path)
    assert cache.find_or_build(FIELDS, build()).outcome == "built"  # and the lock is free


# --- several processes -----------------------------------------------------------------------------------------------


def _compete(folder: str, results: Any) -> None:
    def slow() -> tuple[bytes, dict[str, Any]]:
        time.sleep(0.3)
        return b"plan", {"pid": os.getpid()}

    found = PlanCache(folder).find_or_build(FIELDS, slow)
    results.put((found.outcome, found.manifest["notes"]["pid"]))


def test_of_several_processes_one_builds(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_compete, args=(str(tmp_path), results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(timeout=30)
    assert sorted(outcome for outcome, _ in found) == ["built", "hit", "hit", "hit"]
    assert len({pid for _, pid in found}) == 1


def test_no_moment_is_a_bad_one_to_die() -> None:
    """A few of ``python -m suites.meta.kill_trials 200``."""
    report = kill_trials.main(12)
    assert report["damaged"] == 0, report
    assert report["plans_found_again"] > 0
