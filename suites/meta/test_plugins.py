"""Plugins on the CPU: what can be registered, how nodes find their plugin, and what is said where one fails."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import harness
from harness import plugins
from harness.compiler import compile_graph
from harness.engines import base
from harness.engines.base import BuildRequest
from harness.frontend.params import write_params
from harness.graph import Entry, Graph, Node

HOME = Path(harness.__file__).parents[1]
X = (np.arange(-6, 6, dtype=np.float32) / 4).reshape(4, 3)  # numbers that 16 bits hold


def example() -> Any:
    """examples/plugin.py as a module; its plugin is registered by the import."""
    spec = importlib.util.spec_from_file_location("example_plugin", HOME / "examples" / "plugin.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules["example_plugin"] = module  # the digest of a class asks for its module's source
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    before = dict(plugins._registered)
    yield
    plugins._registered.clear()
    plugins._registered.update(before)


def graph(operator: str = "Custom", inputs: int = 1, heads: int = 1, **attributes: str) -> Graph:
    """relu -> the operator -> minus its first output; a second input is the parameter ``w``."""
    attributes = {"op_type": "mine", **attributes} if operator == "Custom" else attributes
    nodes = [Node("data", "null"), Node("w", "null"), Node("relu0", "Activation", (Entry(0),), {"act_type": "relu"})]
    nodes.append(Node("mine0", operator, (Entry(2), Entry(1))[:inputs], attributes))
    nodes.append(Node("minus0", "negative", (Entry(3),)))
    names = ("minus", "first", "second")[:heads]
    return Graph(tuple(nodes), (Entry(4), Entry(3), Entry(3, 1))[:heads], names)


def compiled(net: Graph | None = None, shape: Any = (4, 3), **options: Any) -> harness.Model:
    params = {"w": np.full((1, 3), 2, np.float32)}
    return compile_graph(net or graph(), params, {"data": shape}, "onnxruntime", fallback="error", **options)


class Doubled:
    """2 x."""

    def infer(self, a: Any, x: Any) -> Any:
        return x

    def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
        return x * 2


def register(cls: type = Doubled, **options: Any) -> type:
    return harness.plugin("Custom", op_type="mine", **options)(cls)


# --- what can be registered ----------------------------------------------------------------------------------------------


class NoNumpy:
    def infer(self, a: Any, x: Any) -> Any: ...


class NotCallable(Doubled):
    cuda = 3


class NeedsArguments(Doubled):
    def __init__(self, size: int) -> None: ...


WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], Any, str]] = {
    "no name": ((3,), {}, Doubled, "3 is not the name of an operator"),
    "empty name": (("",), {}, Doubled, "'' is not the name of an operator"),
    "Custom without op_type": (("Custom",), {}, Doubled, "op_type= names a Custom operator, and only that; found None"),
    "op_type of another operator": (("erfinv",), {"op_type": "x"}, Doubled, "and only that; found 'x'"),
    "op_type": (("Custom",), {"op_type": 5}, Doubled, "op_type=5 is not a name"),
    "attributes of the registry": (("erfinv",), {"attributes": {}}, Doubled, "known from MXNet's registry"),
    "attributes": (("mine",), {"attributes": ["a"]}, Doubled, r"attributes=\['a'\] is not a mapping"),
    "kind": (("mine",), {"attributes": {"a": [1]}}, Doubled, r"attributes\['a'\]=\[1\] is none of float, int"),
    "version": (("mine",), {"version": 3}, Doubled, "version=3 is not a text"),
    "no numpy": (("mine",), {}, NoNumpy, "NoNumpy has no method 'numpy'"),
    "cuda is no method": (("mine",), {}, NotCallable, "NotCallable has no method 'cuda'"),
    "constructor": (("mine",), {}, NeedsArguments, r"NeedsArguments\(\) fails: TypeError"),
    "no source": (("mine",), {}, type("Made", (Doubled,), {}), "source of Made cannot be read; give version="),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_registered_is_refused(what: str) -> None:
    arguments, options, cls, message = WRONG[what]
    with pytest.raises(harness.OptionError, match=message):
        harness.plugin(*arguments, **options)(cls)


def test_an_alias_is_the_operator() -> None:
    harness.plugin("_npx_gammaln")(Doubled)
    assert plugins.find("gammaln", {}).operator == "gammaln"  # type: ignore[union-attr]


def test_the_version_is_the_source_s_digest_or_the_caller_s_word() -> None:
    versions = []
    for cls, options in ((Doubled, {}), (Doubled, {}), (NotCallable.__mro__[1], {}), (Doubled, {"version": "7"})):
        register(cls, **options)
        versions.append(plugins.find("Custom", {"op_type": "mine"}).version)  # type: ignore[union-attr]
    assert versions[0] == versions[1] == versions[2] != versions[3] == "7" and len(versions[0]) == 16

    class Other(Doubled):
        """Another source."""

    register(Other)
    assert plugins.find("Custom", {"op_type": "mine"}).version not in versions  # type: ignore[union-attr]


# --- attributes ----------------------------------------------------------------------------------------------------------

KINDS = {"f": 1.5, "i": 3, "b": True, "s": "same", "t": (1, 2), "need": float}
READ: dict[str, tuple[dict[str, str], dict[str, Any] | str]] = {
    "defaults": ({"need": "2"}, {"f": 1.5, "i": 3, "b": True, "s": "same", "t": (1, 2), "need": 2.0}),
    "all": (
        {"need": "1e-3", "f": "2.5", "i": "-4", "b": "False", "s": "a b", "t": "(5, 6)"},
        {"f": 2.5, "i": -4, "b": False, "s": "a b", "t": (5, 6), "need": 0.001},
    ),
    "hidden ones": ({"need": "1", "__lr_mult__": "2"}, {"f": 1.5, "i": 3, "b": True, "s": "same", "t": (1, 2), "need": 1.0}),
    "missing": ({}, r"node 'mine0' \(Custom\): the attribute 'need' is required and missing"),
    "unknown": ({"need": "1", "x": "2"}, "does not know the attribute 'x'; add it to attributes="),
    "no float": ({"need": "much"}, "the attribute need='much' is not float"),
    "no int": ({"need": "1", "i": "2.5"}, "the attribute i='2.5' is not int"),
    "no bool": ({"need": "1", "b": "maybe"}, "the attribute b='maybe' is not bool"),
    "no tuple": ({"need": "1", "t": "3"}, "the attribute t='3' is not tuple"),
    "no literal": ({"need": "1", "t": "(a"}, "the attribute t=.* is not tuple"),
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_attributes_are_typed_by_hand(what: str) -> None:
    raw, wanted = READ[what]
    seen = []

    class Reads(Doubled):
        def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
            seen.append(a)
            return x

    register(Reads, attributes=KINDS)
    if isinstance(wanted, str):
        with pytest.raises(harness.ModelError, match=wanted):
            compiled(graph(**raw))
    else:
        compiled(graph(**raw))(data=X)
        assert seen == [wanted] and [type(v) for v in seen[0].values()] == [type(v) for v in wanted.values()]


def test_attributes_are_typed_by_the_registry() -> None:
    """And a plugin takes the place of a lowering."""
    seen = []

    class Reads(Doubled):
        def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
            seen.append(a)
            return x * 2

    net = graph("hard_sigmoid", alpha="0.25")
    own = compiled(net)
    assert [segment.engine for segment in own.segments] == ["onnxruntime"]
    harness.plugin("hard_sigmoid")(Reads)
    model = compiled(net)
    np.testing.assert_array_equal(model(data=X)[0], -(np.maximum(X, 0) * 2))
    assert seen == [{"alpha": 0.25, "beta": 0.5}]


def test_an_operator_of_a_library_that_mxnet_loads() -> None:
    net = graph("my_library_op", gain="3")
    with pytest.raises(
        harness.UnsupportedOperator, match=r"@harness.plugin\('my_library_op'\) registers an implementation"
    ):
        compiled(net)
    harness.plugin("my_library_op", attributes={"gain": 1.0})(Doubled)
    np.testing.assert_array_equal(compiled(net)(data=X)[0], -(np.maximum(X, 0) * 2))


# --- running -------------------------------------------------------------------------------------------------------------


def test_a_plugin_is_a_part_of_its_own_and_said_to_be(tmp_path: Path) -> None:
    register()
    model = compiled()
    assert [segment.engine for segment in model.segments] == ["onnxruntime", "python", "onnxruntime"]
    assert not model.fallbacks
    assert "mine0 (Custom) is run by its plugin's NumPy function: onnxruntime runs no plugins" in model.explain()
    np.testing.assert_array_equal(model(data=X)[0], -(np.maximum(X, 0) * 2))


def test_several_inputs_and_outputs_and_a_parameter() -> None:
    class Both:
        def infer(self, a: Any, x: Any, w: Any) -> list[Any]:
            return [x, (x.dtype, (x.shape[0],))]

        def numpy(self, a: Any, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
            return x * w, x.sum(axis=1)

    register(Both)
    relu = np.maximum(X, 0)
    found = compiled(graph(inputs=2, heads=3))(data=X)
    for array, wanted in zip(found, (-(relu * 2), relu * 2, relu.sum(axis=1)), strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_sizes_that_vary_follow_from_infer() -> None:
    class Repeated:
        def infer(self, a: Any, x: Any) -> Any:
            return x.dtype, (x.shape[0] * 2 + 1, x.shape[1])

        def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
            return np.concatenate([x, x, x[:1]])

    register(Repeated)
    model = compiled(shape=((1, 2, 8), 3))
    assert model.outputs["minus"].shape == ((3, 5, 17), 3)
    for rows in (1, 4):
        relu = np.maximum(X[:rows], 0)
        np.testing.assert_array_equal(model(data=X[:rows])[0], -(np.concatenate([relu, relu, relu[:1]])))


def test_inputs_stay_untouched_and_answers_are_fresh() -> None:
    class Writes(Doubled):
        def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
            x *= 2
            return x

    class Passes(Doubled):
        def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
            return x

    only = Graph((Node("data", "null"), Node("mine0", "Custom", (Entry(0),), {"op_type": "mine"})), (Entry(1),), ("y",))
    register(Writes)
    with pytest.raises(harness.ExecutionError, match="mine0.*read-only"):
        compiled(only)(data=X)
    register(Passes)
    x = X.copy()
    (y,) = compiled(only)(data=x)
    y += 1
    np.testing.assert_array_equal(x, X)


class Fails(Doubled):
    def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("by nothing")


class WrongType(Doubled):
    def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
        return x.astype(np.float64)


class WrongShape(Doubled):
    def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
        return x[:1]


class WrongCount(Doubled):
    def numpy(self, a: Any, x: np.ndarray) -> list[np.ndarray]:
        return [x, x]


class FailsToInfer(Doubled):
    def infer(self, a: Any, x: Any) -> Any:
        return x.shape[7]


class InfersNonsense(Doubled):
    def infer(self, a: Any, x: Any) -> Any:
        return "float32"


class InfersNegative(Doubled):
    def infer(self, a: Any, x: Any) -> Any:
        return x.dtype, (-1, 3)


FAILURES: dict[type, tuple[type[Exception], str]] = {
    Fails: (harness.ExecutionError, "numpy: ZeroDivisionError: by nothing"),
    WrongType: (harness.ExecutionError, r"numpy gives float64\[4, 3\], should be float32\[4, 3\]"),
    WrongShape: (harness.ExecutionError, r"numpy gives float32\[1, 3\], should be float32\[4, 3\]"),
    WrongCount: (harness.ExecutionError, "numpy gives 2 outputs, should be 1"),
    FailsToInfer: (harness.ModelError, r"infer\(float32\[4, 3\]\): IndexError"),
    InfersNonsense: (harness.ModelError, r"infer\(float32\[4, 3\]\): "),
    InfersNegative: (harness.ModelError, "negative size"),
}


@pytest.mark.parametrize("cls", FAILURES, ids=lambda cls: cls.__name__)
def test_a_plugin_that_fails_is_named_with_its_node(cls: type) -> None:
    raised, message = FAILURES[cls]
    register(cls)
    with pytest.raises(raised, match=rf"the plugin of Custom \(mine\) failed at node 'mine0': .*{message}"):
        compiled()(data=X)
    register()
    assert compiled()(data=X)


def test_without_infer_mxnet_or_nobody_tells_the_types() -> None:
    class Untyped:
        def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
            return x

    register(Untyped)
    with pytest.raises(
        harness.HarnessError, match="mine0.*does not tell the types of its outputs: give it a method infer"
    ):
        compiled()


def test_a_plugin_may_be_run_by_many_threads() -> None:
    register()
    model, wrong = compiled(), []

    def work(scale: float) -> None:
        for _ in range(50):
            x = X * np.float32(scale)
            if not np.array_equal(model(data=x)[0], -(np.maximum(x, 0) * 2)):
                wrong.append(scale)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_plugin_is_never_left_to_mxnet_for_the_size_of_its_part() -> None:
    register()
    with pytest.raises(harness.OptionError, match="min_segment_size: 2 nodes are in smaller parts"):
        compiled(min_segment_size=2)


def test_a_plugin_in_the_body_of_a_loop_is_refused() -> None:
    register()
    body = Graph(
        (Node("x", "null"), Node("mine0", "Custom", (Entry(0),), {"op_type": "mine"})), (Entry(1),), ("mine0_output",)
    )
    attributes = {
        "num_args": "2", "num_outputs": "1", "num_out_data": "1", "in_state_locs": "()", "in_data_locs": "(0,)",
        "remain_locs": "()",
    }  # fmt: skip
    nodes = (Node("data", "null"), Node("loop0", "_foreach", (Entry(0),), attributes, (body,)))
    with pytest.raises(harness.UnsupportedOperator, match="in its body, 'loop0.*mine0' .Custom. is a plugin's"):
        compiled(Graph(nodes, (Entry(1),), ("y",)))


# --- precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_plugin_sees_the_types_that_it_was_told(precision: str) -> None:
    seen = []

    class Looks(Doubled):
        def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
            seen.append(x.dtype)
            return x * 2

    register(Looks)
    samples = [{"data": X}] if precision == "int8" else None
    found = compiled(precision=precision, calibration=samples)(data=X)[0]
    assert found.dtype == np.float32 and set(seen) == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found, -(np.maximum(X, 0) * 2))


def whole() -> ir.Model:
    """The network as one model, its plugin inside: what TensorRT gets, or to_onnx gives."""
    proto = harness.to_onnx(*as_files(), inputs={"data": (4, 3)})
    return ir.from_proto(proto)  # type: ignore[arg-type]


def as_files(net: Graph | None = None) -> tuple[str, dict[str, np.ndarray]]:
    import tempfile

    from harness.engines.mxnet import graph_json

    path = Path(tempfile.mkdtemp()) / "net-symbol.json"
    path.write_text(json.dumps(graph_json(net or graph(inputs=2))))
    return str(path), {"w": np.full((1, 3), 2, np.float32)}


class Times:
    """x w."""

    def infer(self, a: Any, x: Any, w: Any) -> Any:
        return x

    def numpy(self, a: Any, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return x * w


def test_as_onnx_a_plugin_is_a_node_of_its_own_domain() -> None:
    register(Times)
    model = whole()
    (node,) = plugins.in_model(model)
    assert (node.op_type, node.domain) == ("MXNet_Custom_mine", "mxtrt.plugins")
    assert model.opset_imports == {"": 22, "mxtrt.plugins": 1}
    assert plugins.read_node(node).node == "mine0"


def test_onnx_runtime_runs_a_model_that_was_cut_for_another_engine() -> None:
    register(Times)
    session = base.get_engine("onnxruntime").build(BuildRequest("whole", whole()))
    np.testing.assert_array_equal(session.run([X])[0], -(np.maximum(X, 0) * 2))


# --- saved models --------------------------------------------------------------------------------------------------------


def test_a_saved_model_wants_the_same_plugin_again(tmp_path: Path) -> None:
    register(version="1")
    model = compiled()
    model.save(tmp_path / "saved")
    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    assert manifest["plugins"] == {"MXNet_Custom_mine": "1"}
    assert [segment["engine"] for segment in manifest["segments"]] == ["onnxruntime", "python", "onnxruntime"]
    loaded = harness.load(tmp_path / "saved")
    assert [segment.engine for segment in loaded.segments] == ["onnxruntime", "python", "onnxruntime"]
    np.testing.assert_array_equal(loaded(data=X)[0], model(data=X)[0])
    register(version="2")
    with pytest.raises(
        harness.EngineMissing, match="compiled with version 1 of the plugin of Custom .* 2 is registered"
    ):
        harness.load(tmp_path / "saved")
    plugins.unregister("Custom", "mine")
    with pytest.raises(harness.EngineMissing, match=r"@harness.plugin\('Custom', op_type='mine'\) first"):
        harness.load(tmp_path / "saved")
    np.testing.assert_array_equal(model(data=X)[0], -(np.maximum(X, 0) * 2))  # it has its own


def test_triton_cannot_load_plugins(tmp_path: Path) -> None:
    from harness.serving.triton import export

    register(Doubled)
    only = Graph((Node("data", "null"), Node("mine0", "Custom", (Entry(0),), {"op_type": "mine"})), (Entry(1),), ("y",))
    compiled(only).save(tmp_path / "saved")
    with pytest.raises(harness.OptionError, match="MXNet_Custom_mine run in Python plugins, which Triton cannot load"):
        export([str(tmp_path / "saved")], tmp_path / "repository", "m", 1, 100, False)


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_command_line_imports_plugins_first(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from harness import cli

    from .test_cli import _mxtrt

    path, params = example().write_model(tmp_path)
    plugins.unregister("Custom", "capped_swish")
    write_params(tmp_path / "net-0000.params", params)
    command = ("explain", path, "--params", str(tmp_path / "net-0000.params"), "-i", "data=2,3", "--fallback", "error")
    code, _, err = _mxtrt(monkeypatch, capsys, *command, "--engine", "onnxruntime")
    assert code == cli.FAILED and "@harness.plugin('Custom', op_type=...) registers it here" in err
    file = str(HOME / "examples" / "plugin.py")
    code, out, _ = _mxtrt(monkeypatch, capsys, "--import", file, *command, "--engine", "onnxruntime")
    assert code == cli.OK and "is run by its plugin's NumPy function" in out
    for wrong, words in (("no_such_module", "ModuleNotFoundError"), (str(tmp_path / "gone.py"), "FileNotFoundError")):
        code, _, err = _mxtrt(monkeypatch, capsys, "--import", wrong, *command)
        assert code == cli.FAILED and f"--import {wrong}: {words}" in err.replace("\n", "")


# --- the example ---------------------------------------------------------------------------------------------------------


def test_the_example() -> None:
    command = [sys.executable, "examples/plugin.py", "--engine", "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HOME, env={"PYTHONPATH": str(HOME)}, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1 by python" in done.stdout and "largest difference from NumPy: 0" in done.stdout
