"""Whatever a caller gives ends in an answer or a HarnessError that says why: never another exception, hang or crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import harness
from harness.errors import HarnessError, InputError, ModelError, ParameterError

from . import bad_arguments, bad_input, fuzz

BATCHES = {"json": (3, 200), "params": (1, 250), "header": (1, 300), "operator": (2, 250), "artifact": (1, 150),
           "plan": (1, 150), "table": (1, 60)}  # fmt: skip
ARGUMENTS = bad_arguments.cases()


@pytest.mark.parametrize(
    ("kind", "number", "count"),
    [(kind, number, size) for kind, (batches, size) in BATCHES.items() for number in range(batches)],
)
def test_mutated_files(kind: str, number: int, count: int) -> None:
    """A part of the cases; ``python -m scripts.bench_spine --row fuzz`` runs them all."""
    tally, bad = fuzz.run(kind, number * count, count)
    assert not bad, "\n".join(map(str, bad))
    assert sum(tally.values()) == count
    assert len(tally) > 1 or kind == "plan", f"the mutations all end alike: {tally}"


def test_the_loop_finds_what_it_is_for() -> None:
    """A foreign exception, a message that says nothing, a blow-up, a hang, and a process that dies."""
    tally, bad = fuzz.run("planted", 0, 5)
    assert [(record["case"], record["error"].partition(":")[0]) for record in bad] == [
        (0, "ValueError"), (1, "a message that says nothing"), (2, "MemoryError"), (3, "TooLate"),
    ]  # fmt: skip
    assert tally["answers"] == 1
    tally, bad = fuzz.run("crash", 0, 4)
    assert [record["case"] for record in bad] == [1] and "-11" in bad[0]["error"]
    assert tally["answers"] == 2


@pytest.fixture
def files(tmp_path: Path) -> str:
    return bad_arguments.make_files(tmp_path)


def test_the_good_model_answers(files: str) -> None:
    model = harness.compile(files, inputs=bad_input.INPUTS, engine="onnxruntime")
    softmax, *_ = model(data=np.ones((2, 3, 8, 8), np.float32))
    np.testing.assert_allclose(softmax.sum(axis=1), 1, rtol=1e-6)


@pytest.fixture(scope="module")
def shared_files(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bad_arguments.make_files(tmp_path_factory.mktemp("arguments"))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_wrong_arguments(shared_files: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(shared_files).parent)
    with pytest.raises(HarnessError, match=r".{10}"):
        ARGUMENTS[name](shared_files)


def test_what_the_message_names(tmp_path: Path, files: str) -> None:
    with pytest.raises(ModelError, match="no/such"):
        harness.compile("no/such", inputs=bad_input.INPUTS)
    with pytest.raises(ParameterError, match=r"gone\.params"):
        harness.compile(files, "gone.params", bad_input.INPUTS)
    with pytest.raises(InputError, match="'fc_weight' is neither an input nor a parameter"):
        params = bad_input.parameters()
        del params["fc_weight"]
        harness.compile(files, params, bad_input.INPUTS, "onnxruntime", fallback="error")
    (tmp_path / "cycle.json").write_text(
        '{"nodes": [{"op": "relu", "name": "a", "inputs": [[1,0,0]]}, {"op": "relu", "name": "b", "inputs": [[0,0,0]]}],'
        ' "heads": [[1,0,0]]}'
    )
    with pytest.raises(ModelError, match="the inputs of 'a'"):
        harness.compile(str(tmp_path / "cycle.json"), {}, {})
