"""The plan cache over a store that fails, stalls and lies: never a wrong plan, never a failed inference."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from harness.engines import shared_cache
from harness.engines.base import BuildRequest, get_engine
from harness.engines.plan_cache import PlanCache, key_of, list_entries
from harness.engines.shared_cache import SharedPlanCache, open_cache, pack, unpack
from harness.engines.tensorrt import library as libraries
from harness.errors import CacheError, EngineMissing

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'mxtrt[store]'")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

FAULTS = 200
HANG = 0.3  # seconds; the cache waits for a third of it


def fields(number: int) -> dict[str, Any]:
    return {"gpu": "H200", "structure": f"network {number}", "profiles": [{"data": [[1, 4, 8]]}]}


def right_plan(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (20 + number)


class Failure(Exception):
    """An exception that no cache has heard of, as the libraries of stores have."""


class FaultyStore(MemoryFileSystem):
    """A store in memory that fails as ``faults`` tells it, one fault an operation."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False
    rng = random.Random(0)
    active = False
    count: ClassVar[Counter[str]] = Counter()

    def _fault(self, *kinds: str) -> str:
        kind = self.rng.choice([*kinds, ""]) if self.active else ""
        if kind:
            self.count[kind] += 1
        if kind == "hang":
            time.sleep(HANG)
        errors = {
            "refused": ConnectionRefusedError("no route"),
            "foreign": Failure("403"),
            "denied": PermissionError("no"),
        }
        if kind in errors:
            raise errors[kind]
        return kind

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        kind = self._fault("refused", "foreign", "hang", "cut", "flipped", "longer", "other", "empty", "gone", "noise")
        data = bytearray(super().cat_file(path))
        at = self.rng.randrange(max(len(data), 1))
        if kind == "cut":
            del data[at:]
        if kind == "flipped" and data:
            data[at] ^= 1 << self.rng.randrange(8)
        if kind == "longer":
            data += b"\0"
        if kind == "other":
            data = bytearray(super().cat_file(self.rng.choice(sorted(self.store))))
        if kind == "noise":
            data = bytearray(self.rng.randbytes(len(data)))
        if kind == "gone":
            raise FileNotFoundError(path)
        return b"" if kind == "empty" else bytes(data)

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        kind = self._fault("refused", "denied", "hang", "torn") if "w" in mode else ""
        file = super().open(path, mode, **kwargs)
        if kind == "torn":  # the connection ends in the middle of an upload, and the store keeps what it has
            whole = file.write

            def write(data: bytes) -> int:
                whole(data[: len(data) // 2])
                raise Failure("connection reset")

            file.write = write
        return file


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FaultyStore]]:
    fsspec.register_implementation("faulty", FaultyStore, clobber=True)
    monkeypatch.setattr(shared_cache, "PAUSE", 0.0)
    monkeypatch.setattr(shared_cache, "_failed", {})
    FaultyStore.store.clear()
    FaultyStore.count.clear()
    FaultyStore.rng.seed(7)
    yield FaultyStore
    FaultyStore.active = False


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_cache, "_failed", {})


def build(number: int, built: list[int]) -> Callable[[], tuple[bytes, dict[str, Any]]]:
    def work() -> tuple[bytes, dict[str, Any]]:
        built.append(number)
        return right_plan(number), {"by": "test"}

    return work


def test_no_fault_gives_a_wrong_plan_or_fails_an_inference(
    faulty: type[FaultyStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts that come up with an empty folder, one after the other, over a store with a random fault each time."""
    monkeypatch.setenv("MXTRT_STORE_TIMEOUT", str(HANG / 3))
    built: list[int] = []
    outcomes: Counter[str] = Counter()
    faulty.active = True
    host = 0
    while sum(faulty.count.values()) < FAULTS:
        host += 1
        number = faulty.rng.randrange(5)
        found = SharedPlanCache("faulty://plans", tmp_path / str(host)).find_or_build(
            fields(number), build(number, built)
        )
        assert bytes(found.plan) == right_plan(number), f"a wrong plan after {dict(faulty.count)}"
        outcomes[found.outcome] += 1
    assert outcomes["hit"] and outcomes["built"] == len(built)
    assert set(faulty.count) == {
        "refused", "foreign", "hang", "cut", "flipped", "longer", "other", "empty", "gone", "noise", "denied", "torn",
    }  # fmt: skip


def test_the_same_faults_give_wrong_plans_without_the_checks(
    faulty: type[FaultyStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial above would see it: with the checks taken out, wrong plans come through."""

    def trusting(data: bytes, key: str) -> Any:
        return {"format": 1}, data[-20:]

    monkeypatch.setenv("MXTRT_STORE_TIMEOUT", str(HANG / 3))
    monkeypatch.setattr(shared_cache, "unpack", trusting)
    faulty.active = True
    wrong = 0
    for host in range(40):
        number = faulty.rng.randrange(5)
        found = SharedPlanCache("faulty://plans", tmp_path / str(host)).find_or_build(fields(number), build(number, []))
        wrong += bytes(found.plan) != right_plan(number)
    assert wrong


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_one_build_serves_the_others(kind: str, tmp_path: Path) -> None:
    address = f"memory://plans{tmp_path}" if kind == "memory" else f"file://{tmp_path}/store"
    built: list[int] = []
    outcomes = []
    for host in ("a", "b", "a"):
        cache = SharedPlanCache(address, tmp_path / host)
        found = cache.find_or_build(fields(1), build(1, built))
        assert bytes(found.plan) == right_plan(1)
        outcomes.append(found.outcome)
    assert outcomes == ["built", "hit", "hit"] and built == [1]
    assert [entry.key for entry in list_entries(tmp_path / "b")] == [key_of(fields(1))]
    left = [path.name for path in (tmp_path / "store").rglob("*")] if kind == "file" else []
    assert left in ([], [f"{key_of(fields(1))}.entry"]), "an upload left something behind"


@pytest.mark.parametrize("at", range(0, 900, 37))
def test_every_changed_byte_is_found_out(at: int) -> None:
    key = key_of(fields(1))
    manifest = {"format": 1, "fields": fields(1), "size": 672, "sha256": hashlib.sha256(right_plan(1)).hexdigest()}
    data = bytearray(pack(right_plan(1), manifest))
    assert not isinstance(unpack(bytes(data), key), str)
    data[at % len(data)] ^= 4
    assert isinstance(unpack(bytes(data), key), str)


@pytest.mark.parametrize("manifest", [{}, {"format": 1}, {"format": 1, "fields": 3}, [], "text", None])
def test_a_sealed_lie_is_found_out(manifest: Any) -> None:
    """A digest that is right over a manifest that is nonsense."""
    assert isinstance(unpack(pack(b"plan", manifest), key_of(fields(1))), str)


def test_the_entry_of_another_network_is_found_out() -> None:
    manifest = {"format": 1, "fields": fields(2), "size": 4, "sha256": hashlib.sha256(b"plan").hexdigest()}
    assert unpack(pack(b"plan", manifest), key_of(fields(1))) == "it is the plan of something else"


def test_a_store_that_failed_is_left_alone_for_a_while(
    faulty: type[FaultyStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_cache, "PAUSE", 60.0)
    monkeypatch.setenv("MXTRT_STORE_TIMEOUT", str(HANG / 3))
    monkeypatch.setattr(faulty, "_fault", lambda self, *kinds: time.sleep(HANG) or "")
    with caplog.at_level(logging.WARNING, "harness.plan_cache"):
        for number in range(4):
            cache = SharedPlanCache("faulty://plans", tmp_path)
            assert cache.find_or_build(fields(number), build(number, [])).outcome == "built"
    assert len(caplog.records) == 1 and "is left alone for 60 s" in caplog.text


def test_an_address_is_told_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_cache("memory://plans"), SharedPlanCache)
    assert type(open_cache(tmp_path)) is PlanCache
    monkeypatch.setenv("MXTRT_CACHE_DIR", "memory://plans")
    assert isinstance(open_cache(), SharedPlanCache)
    monkeypatch.setenv("MXTRT_STORE_TIMEOUT", "soon")
    with pytest.raises(CacheError, match="MXTRT_STORE_TIMEOUT: 'soon'"):
        open_cache()
    with pytest.raises(CacheError, match="nonsense"):
        open_cache("nonsense://plans")
    with pytest.raises(CacheError, match="store's address"):
        list_entries("memory://plans")


def test_a_missing_package_is_named() -> None:
    if _importable("adlfs"):
        pytest.skip("adlfs is installed here")
    with pytest.raises(EngineMissing, match="adlfs"):
        open_cache("abfs://container/plans")


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_the_engine_uses_it(faulty: type[FaultyStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TensorRT engine on its double: a second host builds nothing, and its answer is the first one's."""
    try:
        libraries.find("tensorrt_rtx")
    except EngineMissing as error:
        pytest.skip(f"the double of TensorRT needs TensorRT-RTX's parser: {error}")
    from .double import make_engine

    x = ir.Value(name="x", shape=ir.Shape((2, 3)), type=ir.TensorType(ir.DataType.FLOAT))
    relu = ir.node("Relu", [x], name="n/Relu")
    relu.outputs[0].name, relu.outputs[0].shape, relu.outputs[0].type = "y", x.shape, x.type
    graph = ir.Graph([x], relu.outputs, nodes=[relu], opset_imports={"": 22}, name="g")
    request = BuildRequest("part0", ir.Model(graph, ir_version=10), {}, {}, "faulty://plans")
    value = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    (expected,) = get_engine("onnxruntime").build(BuildRequest("part0", ir.Model(graph, ir_version=10))).run([value])
    builds = []
    for host, active in (("a", False), ("b", False), ("c", True), ("d", True)):
        monkeypatch.setattr(shared_cache, "_local_home", lambda host=host: tmp_path / host)
        faulty.active = active
        engine = make_engine()
        (answer,) = engine.build(request).run([value])
        np.testing.assert_array_equal(answer, expected)
        builds.append(int(engine.library.trt.builds))
    assert builds[:2] == [1, 0]
