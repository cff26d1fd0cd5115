"""The peers run the same network and give its answer; the command that measures against them says who is who."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="verdicts need SciPy")

import harness
from harness.benchmark import bench, first_answer, peers, sides, statistics
from harness.benchmark.peers import PEERS
from harness.inputs import Input

SMALL = Path(__file__).parent / "data" / "small.mxtrt"
SHAPE = (1, 3, 32, 32)
NO_TORCH = bool(PEERS["torch"].missing)
torch_only = pytest.mark.skipif(NO_TORCH, reason="PyTorch is not installed")
NAMES = [pytest.param(name, marks=[torch_only] if name.startswith("torch") else []) for name in PEERS]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> sides.Side:
    """A network of the zoo as MXNet's files."""
    folder = tmp_path_factory.mktemp("peers")
    side = sides.Side("zoo:mobilenet0.25", {"data": (SHAPE, "float32")}, "onnxruntime", options={"threads": 2})
    with sides.prepared(side, folder) as (ready, _):
        return ready


@pytest.mark.mxnet
@pytest.mark.parametrize("name", NAMES)
def test_a_peer_gives_the_network_s_answer(name: str, network: sides.Side, tmp_path: Path) -> None:
    from harness.frontend.mxnet import read_model
    from suites.models.gluon_zoo import held_to_mxnet

    data = np.random.default_rng(1).uniform(-1, 1, SHAPE).astype(np.float32)
    graph, params = read_model(network.model, None, [])
    model = harness.compile(network.model, inputs={"data": SHAPE}, engine="onnxruntime", threads=2)
    with sides.prepared(network.with_engine(name), tmp_path) as (ready, _):
        found = PEERS[name].open(ready.request(0, 0, 1), {"data": data}, model)()
    headroom, problem = held_to_mxnet(graph, params, {"data": data}, list(found))
    assert not problem, problem
    assert headroom <= 1


@pytest.mark.mxnet
def test_a_peer_is_a_process_with_figures(network: sides.Side, tmp_path: Path) -> None:
    with sides.prepared(network.with_engine("mx2onnx"), tmp_path) as (ready, tree):
        found = sides.run(ready, tree, 0.05, 0.0)
    assert found.segments == ("mx2onnx",)
    assert 0 < found.setup < found.first_answer


@pytest.mark.mxnet
def test_what_the_exporter_refuses_is_said(tmp_path: Path) -> None:
    from harness.frontend.compat import mxnet

    mx = mxnet()
    mx.sym.L2Normalization(mx.sym.var("data"), mode="spatial").save(str(tmp_path / "net-symbol.json"))
    mx.nd.save(str(tmp_path / "net-0000.params"), {"arg:unused": mx.nd.ones(1)})
    side = sides.Side(str(tmp_path / "net"), {"data": ((1, 2, 3), "float32")}).with_engine("mx2onnx")
    with pytest.raises(harness.HarnessError, match="MXNet's exporter"), sides.prepared(side, tmp_path):
        pass


def test_peers_need_mxnet_s_files() -> None:
    request = sides.Side(str(SMALL), engine="mxnet").request(0, 0, 1)
    with pytest.raises(harness.ExecutionError, match="needs MXNet's files"):
        peers.files(request)


def test_a_peer_takes_what_it_has_a_use_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: name)
    options = {"threads": 2, "optimization": "all"}
    side = sides.Side("net", {}, "onnxruntime", "fp16", commit="HEAD", options=options)
    mxnet, torch, bare = (side.with_engine(name) for name in ("mxnet", "torch", "bare"))
    assert (mxnet.precision, mxnet.commit, mxnet.options) == (None, None, {"threads": 2})
    assert torch.precision == "fp16"
    assert (bare.base_engine, bare.precision, bare.options) == ("onnxruntime", "fp16", options)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([str(SMALL), "--against", "tvm"], "the peers are mxnet, gluon"),
        ([str(SMALL), "threads=1", "--against", "bare"], "leave B away"),
        ([f"{SMALL},precision=int8", "--against", "torch"], "torch runs fp32|which is not installed"),
        ([f"{SMALL},engine=bare", "engine=mxnet,optimization=all"], "no option of mxnet|which is not installed"),
        ([f"{SMALL},engine=bare", "engine=mxnet,precision=fp16"], "the files' own types|which is not installed"),
        ([str(SMALL), "--first-answer", "--runs", "2"], "needs 5 runs"),
    ],
)
def test_wrong_use_is_refused_in_words(arguments: list[str], words: str) -> None:
    with pytest.raises(harness.HarnessError, match=words):
        bench(arguments)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(harness.EngineMissing, match="torch .* needs torch, which is not installed"):
        sides.parse("net,engine=torch", {"data": Input((1,))})


# --- the command ------------------------------------------------------------------------------------------------------

Pretend = Callable[[dict[str, float]], None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretend]:
    """Runs that take what they are told by their engine; no process is started."""

    def install(seconds: dict[str, float]) -> None:
        count = iter(range(10_000))

        def run(side: sides.Side, *_: object) -> sides.Run:
            took = seconds.get(str(side.engine), 1e-3) * (1 + next(count) % 7 / 2000)
            return sides.Run(statistics.summarise([took] * 10), {}, 1 / took, 0.5, took * 9, 2**27, 1e-3, ("x",))

        monkeypatch.setattr(sides, "run", run)

    yield install


@pytest.mark.parametrize("theirs, code, word", [(2e-3, 0, "FASTER"), (0.8e-3, 1, "SLOWER")])
def test_slower_than_a_peer_is_slower(
    pretend: Pretend, capsys: pytest.CaptureFixture[str], theirs: float, code: int, word: str
) -> None:
    pretend({"bare": theirs})
    assert bench([str(SMALL), "--against", "bare"]) == code
    out = capsys.readouterr().out
    assert f"A against bare: {word}" in out
    assert PEERS["bare"].what in out
    assert max(map(len, out.splitlines())) <= 80


def test_first_answers_are_held_to_the_first_way(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    pretend({})
    assert bench([str(SMALL), "--first-answer"]) == 0
    out = capsys.readouterr().out
    assert "saved model, empty cache" in out
    assert "1.00x SAME" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_cold_run_has_an_empty_cache_and_a_warm_one_a_filled_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []

    def ask(request: dict, tree: Path, timeout: float = 0, caches: Path | None = None) -> dict:
        assert caches is not None
        place = caches / "mxtrt_cache_dir"
        seen.append((request["model"], place.exists()))
        place.mkdir(parents=True, exist_ok=True)
        return {"times": [1.0], "phases": {}, "setup": 1.0, "first_answer": 1.0, "peak_rss": 1, "yardstick": None, "segments": []}  # fmt: skip

    monkeypatch.setattr(sides, "ask", ask)
    with first_answer.ways(sides.parse(str(SMALL), {})) as found:
        first_answer.measure(found, 3)
    filled = [there for _, there in seen]
    assert [dataclasses.astuple(way)[0] for way in found] == ["saved model, empty cache", "saved model, warm cache"]
    assert filled.count(True) == 3, "the warm runs"
    assert filled.count(False) == 3 + 1, "the cold runs, and the one that fills"


@pytest.mark.slow
def test_a_first_answer_is_later_than_its_process(tmp_path: Path) -> None:
    with first_answer.ways(sides.parse(str(SMALL), {})) as found:
        runs = first_answer.measure(found, 1)
    assert all(0 < one[0].setup < one[0].first_answer for one in runs.values())


def test_bare_enqueues_the_same_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the double of TensorRT (suites/meta/double): copies in and out of pinned memory, and the plan's own answer."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="the double parses with TensorRT-RTX")
    from harness.engines import base
    from harness.engines.tensorrt import library
    from suites.meta.double import make_engine

    engine = make_engine()
    monkeypatch.setattr(library, "open_device", lambda ordinal: engine.cuda)
    monkeypatch.setattr(library, "find", lambda name: engine.library)
    base.get_engine.cache_clear()
    inputs = dict(harness.load(SMALL).inputs)
    model = harness.compile(str(SMALL.with_name("small")), inputs=inputs, engine="tensorrt", cache_dir=tmp_path)
    rng = np.random.default_rng(2)
    arrays = {name: rng.uniform(-1, 1, spec.shape).astype(spec.dtype) for name, spec in inputs.items()}
    call = PEERS["bare"].open({}, arrays, model)
    for ours, bare, again in zip(model(**arrays), call(), call()):
        np.testing.assert_array_equal(bare, ours)
        np.testing.assert_array_equal(again, ours)
    base.get_engine.cache_clear()
