"""Shapes outside the ranges, with ``outside="rebuild"``: one further plan for each class of sizes. On the test double."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.compiler import compile_graph
from harness.engines import base
from harness.engines.tensorrt import library as libraries
from harness.engines.tensorrt.profiles import _size_class, holds, widened
from harness.graph import Entry, Graph, Node

from .double import make_engine
from .test_tensorrt_engine import builds, calls, dynamic, expected, image, network, on_device, request


def check(session: Any, *batches: int) -> None:
    for batch in batches:
        np.testing.assert_array_equal(session.run([image(batch, batch)])[0], expected(image(batch, batch)))


# --- classes of sizes ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 20))
def test_classes_part_the_sizes(size: int) -> None:
    first, last = _size_class(size)
    assert first <= size <= last <= max(size * 1.25, size)
    assert all(_size_class(other) == (first, last) for other in {first, last, (first + last) // 2})
    assert _size_class(last + 1)[0] == last + 1


def test_a_doubling_has_four_classes() -> None:
    assert len({_size_class(size) for size in range(1025, 2049)}) == 4


@given(low=st.integers(0, 20), span=st.integers(1, 20), size=st.integers(0, 100))
def test_a_widened_range_holds_the_size_and_nothing_of_the_old_range(low: int, span: int, size: int) -> None:
    whole = {"x": ((low, low, low + span), (3, 3, 3))}
    found = widened(whole, {"x": (size, 3)})
    assert holds([found], {"x": (size, 3)})
    (first, best, last), fixed = found["x"]
    assert first <= best <= last and fixed == (3, 3, 3)
    assert (first, last) == (low, low + span) or last < low or first > low + span


# --- a part --------------------------------------------------------------------------------------------------------------


def test_each_class_is_built_once_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = make_engine()
    session = dynamic(engine, tmp_path, outside="rebuild")
    check(session, 1, 4, 2)
    assert builds(engine) == 1 and not caplog.text
    with caplog.at_level(logging.WARNING, "harness.tensorrt"):
        check(session, 9, 10, 9, 3, 6)
    assert builds(engine) == 3
    notice = "'data' has the shape (9, 3, 8, 8), outside [1..4, 3, 8, 8]: for [9..10, 3, 8, 8]"
    assert f"part part0: a further plan is built, since {notice}" in caplog.text
    again = dynamic(make_engine(engine.cuda), tmp_path, outside="rebuild")  # type: ignore[arg-type]
    check(again, 10, 6, 2)
    assert [s.outcome for s in (again.base, *again.further.values())] == ["hit"] * 3


def test_the_default_is_an_error_that_says_how(tmp_path: Path) -> None:
    with pytest.raises(harness.InputError, match=r"outside what was built: \[1..4, 3, 8, 8\].*outside='rebuild'"):
        dynamic(make_engine(), tmp_path).run([image(5)])


def test_only_sizes_that_vary_may_leave_their_range(tmp_path: Path) -> None:
    engine = make_engine()
    session = dynamic(engine, tmp_path, outside="rebuild")
    with pytest.raises(harness.InputError, match="outside what was built"):
        session.run([np.zeros((5, 3, 9, 8), np.float32)])
    assert builds(engine) == 1
    static = engine.build(request(tmp_path, outside="rebuild"))
    assert not getattr(static, "rebuilds", False)


def test_runs_in_place_and_without_waiting(tmp_path: Path) -> None:
    engine = make_engine()
    session = dynamic(engine, tmp_path, outside="rebuild")
    for batch in (2, 6, 6, 2):
        run = session.enqueue([on_device(engine.cuda, image(batch))])
        np.testing.assert_array_equal(run.numpy()[0], expected(image(batch)))
    assert builds(engine) == 2 and session.profile([image(6)], 2)
    graphs = calls(engine, "launch")
    check(session, 2, 2, 6, 6, 2, 6)  # each plan keeps its own graph
    assert calls(engine, "launch") > graphs
    session.close()
    assert list(engine.cuda._streams) == [0]  # type: ignore[attr-defined]
    with pytest.raises(harness.ExecutionError, match="has been closed"):
        session.run([image(6)])


def test_of_many_threads_one_builds_and_none_in_range_waits(tmp_path: Path) -> None:
    engine = make_engine()
    session = dynamic(engine, tmp_path, outside="rebuild")
    building, go_on = threading.Event(), threading.Event()
    wrong: list[Any] = []

    def wait_in_builder() -> None:
        building.set()
        assert go_on.wait(60)

    engine.library.trt.build_delay = wait_in_builder

    def work(batch: int) -> None:
        try:
            check(session, batch, batch)
        except BaseException as error:  # noqa: BLE001 - told to the thread that asserts
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(6,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert building.wait(60)
    check(session, 3, 3)  # while the further plan is being built
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert not wrong and builds(engine) == 2


@pytest.mark.parametrize(
    ("fault", "raised"),
    [("the machine has no more memory", harness.BuildError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_further_plan_that_fails_leaves_the_part_as_it_was(fault: Any, raised: Any, tmp_path: Path) -> None:
    engine = make_engine()
    session = dynamic(engine, tmp_path, outside="rebuild")
    engine.library.trt.failures["build"] = fault
    with pytest.raises(raised):
        session.run([image(6)])
    check(session, 2, 6, 2)


def test_sizes_that_follow_from_the_inputs(tmp_path: Path) -> None:
    model = network(batch="2*(image_0 + 1)//2 + 1")
    session: Any = make_engine().build(request(tmp_path, model, {"image": {0: (1, 3, 5)}}, outside="rebuild"))
    check(session, 7, 13)
    assert [s.profiles[0]["data"][0] for s in session.further.values()] == [(13, 14, 14)]


# --- through the front door ----------------------------------------------------------------------------------------------


def test_the_model_leaves_the_decision_to_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    monkeypatch.setattr(libraries, "open_device", lambda ordinal: engine.cuda)
    monkeypatch.setattr(libraries, "find", lambda name: engine.library)
    monkeypatch.setenv("MXTRT_CACHE_DIR", str(tmp_path / "cache"))
    base.get_engine.cache_clear()
    nodes = (Node("data", "null"), Node("relu0", "Activation", (Entry(0),), {"act_type": "relu"}))
    graph, inputs = Graph(nodes, (Entry(1),), ("relu0_output",)), {"data": ((1, 2, 4), 3)}
    x = np.linspace(-1, 1, 27, dtype=np.float32).reshape(9, 3)
    try:
        model = compile_graph(graph, {}, inputs, "tensorrt", outside="rebuild")
        model.save(tmp_path / "saved")
        for one in (model, harness.load(tmp_path / "saved")):
            np.testing.assert_array_equal(one(data=x)[0], np.maximum(x, 0))
            np.testing.assert_array_equal(one(data=on_device(engine.cuda, x))[0], np.maximum(x, 0))
            with pytest.raises(harness.InputError, match="axis 1 has size 4, not 3"):
                one(data=np.zeros((9, 4), np.float32))
        assert builds(engine) == 2
        with pytest.raises(harness.InputError, match="compiled for 1 to 4; compile again with a wider range, or"):
            compile_graph(graph, {}, inputs, "tensorrt")(data=x)
        with pytest.raises(harness.OptionError, match="'outside' is not an option of the engine onnxruntime"):
            compile_graph(graph, {}, inputs, "onnxruntime", outside="rebuild")
    finally:
        base.get_engine.cache_clear()
