"""The readers against MXNet's own: names, old files, parameter files, and every kind of object at the door."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import harness
from harness.errors import HarnessError, ModelError, OptionError, ParameterError
from harness.frontend import compat
from harness.frontend.mxnet import read_model
from harness.frontend.params import read_params, write_params
from harness.frontend.symbol import parse_symbol
from harness.graph import MXNET_DTYPES

needs_mxnet = pytest.mark.skipif(not compat.available(), reason="MXNet is not installed")
ROOT = Path(__file__).resolve().parents[2]


def _document(nodes: list[dict[str, Any]], heads: Any, version: int | None = None) -> str:
    attrs = {"attrs": {"mxnet_version": ["int", version]}} if version else {}
    variables = [i for i, node in enumerate(nodes) if node["op"] == "null"]
    rows = {"arg_nodes": variables, "node_row_ptr": list(range(len(nodes) + 1))}
    return json.dumps({"nodes": nodes, "heads": heads, **rows, **attrs})


def _variable(name: str) -> dict[str, Any]:
    return {"op": "null", "name": name, "inputs": []}


# --- names and old files: MXNet answers ------------------------------------------------------------------------------

OPERATORS: list[tuple[str, dict[str, str], int]] = [  # operator, attributes, inputs
    ("BatchNorm", {}, 5), ("BatchNorm", {"output_mean_var": "True"}, 5), ("LayerNorm", {"output_mean_var": "True"}, 3),
    ("SliceChannel", {"num_outputs": "3"}, 1), ("SliceChannel", {"num_outputs": "1"}, 1),
    ("_split_v2", {"indices": "(0, 2)"}, 1), ("_split_v2", {"indices": "(0,)"}, 1), ("_split_v2", {"sections": "2", "indices": "()"}, 1),
    ("topk", {"ret_typ": "both"}, 1), ("topk", {"ret_typ": "value"}, 1), ("topk", {}, 1), ("sort", {}, 1), ("moments", {}, 1),
    ("LeakyReLU", {"act_type": "rrelu"}, 1), ("LeakyReLU", {"act_type": "prelu"}, 2), ("Dropout", {}, 1),
    ("RNN", {"mode": "lstm", "state_size": "2", "num_layers": "1", "state_outputs": "True"}, 4),
    ("RNN", {"mode": "gru", "state_size": "2", "num_layers": "1", "state_outputs": "True"}, 3),
    ("RNN", {"mode": "gru", "state_size": "2", "num_layers": "1"}, 3),
    ("_contrib_Proposal", {"output_score": "True"}, 3), ("_contrib_MultiBoxTarget", {}, 3), ("_contrib_box_nms", {}, 1),
    ("_contrib_box_encode", {}, 6), ("_contrib_bipartite_matching", {"threshold": "0.5"}, 1), ("_npi_svd", {}, 1),
    ("Convolution", {"kernel": "(1,1)", "num_filter": "1"}, 3), ("elemwise_add", {}, 2), ("make_loss", {}, 1),
    ("_linalg_syevd", {}, 1), ("_linalg_gelqf", {}, 1), ("_histogram", {"bin_cnt": "3", "range": "(0, 1)"}, 1),
    ("_npi_concatenate", {"num_args": "2"}, 2), ("GroupNorm", {"output_mean_var": "1"}, 3), ("CTCLoss", {}, 2),
    ("amp_multicast", {"num_outputs": "2"}, 2), ("_contrib_quantize_v2", {}, 1), ("_sample_multinomial", {"get_prob": "True"}, 1),
]  # fmt: skip


@needs_mxnet
@pytest.mark.parametrize(("operator", "attributes", "inputs"), OPERATORS)
def test_output_names(operator: str, attributes: dict[str, str], inputs: int) -> None:
    nodes = [_variable(f"in{i}") for i in range(inputs)]
    nodes.append({"op": operator, "name": "op", "attrs": attributes, "inputs": [[i, 0, 0] for i in range(inputs)]})
    symbol = compat.mxnet().sym.load_json(_document(nodes, [[inputs, 0, 0]], 10901))
    visible = [name for name in symbol.get_internals().list_outputs() if not name.startswith("in")]
    heads = [[inputs, output, 0] for output in range(len(visible))]
    assert list(parse_symbol(_document(nodes, heads, 10901)).output_names) == visible


IMPLICIT: list[tuple[str, dict[str, str]]] = [
    ("FullyConnected", {"num_hidden": "2"}), ("FullyConnected", {"num_hidden": "2", "no_bias": "True"}),
    ("Convolution", {"kernel": "(1,1)", "num_filter": "1"}), ("Deconvolution", {"kernel": "(1,1)", "num_filter": "1"}),
    ("BatchNorm", {}), ("SoftmaxOutput", {}), ("LeakyReLU", {"act_type": "prelu"}), ("LeakyReLU", {"act_type": "elu"}),
    ("Embedding", {"input_dim": "2", "output_dim": "2"}), ("InstanceNorm", {}), ("LinearRegressionOutput", {}),
    ("RNN", {"mode": "lstm", "state_size": "2", "num_layers": "1"}),
]  # fmt: skip


@needs_mxnet
@pytest.mark.parametrize(("operator", "attributes"), IMPLICIT)
@pytest.mark.parametrize("key", ["param", "attr", "attrs"])
def test_implicit_inputs_of_old_files(operator: str, attributes: dict[str, str], key: str) -> None:
    node = {"op": operator, "name": "op", "inputs": [[0, 0]], key: attributes, "backward_source_id": -1}
    text = _document([_variable("data"), node], [[1, 0]])
    graph = parse_symbol(text)
    assert [node.name for node in graph.variables] == compat.mxnet().sym.load_json(text).list_inputs()


@pytest.mark.parametrize(("version", "axis"), [(800, None), (904, None), (905, "-1"), (10901, "-1")])
def test_argmax_over_all_axes(version: int, axis: str | None) -> None:
    nodes = [_variable("data"), {"op": "argmax", "name": "op", "inputs": [[0, 0, 0]], "attrs": {"axis": "-1"}}]
    assert parse_symbol(_document(nodes, [[1, 0, 0]], version)).nodes[1].attributes.get("axis") == axis


def test_hidden_keys_and_merged_attributes() -> None:
    node = {"op": "FullyConnected", "name": "op", "inputs": [[0, 0]], "param": {"num_hidden": "2"}}
    node["attr"] = {"lr_mult": "2", "ctx_group": "a", "weight_lr_mult": "3"}
    attributes = parse_symbol(_document([_variable("data"), node], [[1, 0]])).nodes[3].attributes
    assert attributes == {"num_hidden": "2", "__lr_mult__": "2", "__ctx_group__": "a", "weight_lr_mult": "3"}


def test_unknown_attribute_is_refused_by_name() -> None:
    node = {"op": "Flatten", "name": "op", "inputs": [[0, 0, 0]], "attrs": {"num_hidden": "2"}}
    parse_symbol(_document([_variable("data"), node], [[1, 0, 0]]))  # Flatten reads none: MXNet takes any
    node["op"] = "Activation"
    with pytest.raises(ModelError, match="'num_hidden' is not an attribute of Activation"):
        parse_symbol(_document([_variable("data"), node], [[1, 0, 0]]))


def test_same_names_are_told_apart_and_outputs_keep_theirs() -> None:
    nodes = [_variable("data"), *({"op": "relu", "name": "same", "inputs": [[i, 0, 0]]} for i in range(2))]
    graph = parse_symbol(_document(nodes, [[1, 0, 0], [2, 0, 0]]))
    assert [node.name for node in graph.nodes] == ["data", "same", "same__1"]
    assert graph.output_names == ("same_output", "same_output")


def test_reading_is_linear() -> None:
    def seconds(count: int) -> float:
        nodes = [_variable("data"), *({"op": "relu", "name": f"n{i}", "inputs": [[i, 0, 0]]} for i in range(count))]
        text = _document(nodes, [[count, 0, 0]], 10901)
        start = time.process_time()
        parse_symbol(text)
        return time.process_time() - start

    seconds(1000)
    small, large = (min(seconds(count) for _ in range(3)) for count in (2_000, 20_000))
    assert large < 2
    assert large < 40 * small


@needs_mxnet
def test_the_tables_are_the_installed_mxnets() -> None:
    """arity.json against MXNet, by the script that wrote it."""
    done = subprocess.run(
        [sys.executable, "scripts/dump_arity.py", "--check"], cwd=ROOT, env=_environment(), check=False
    )
    assert done.returncode == 0, "run scripts/dump_arity.py and look at the difference"


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


# --- parameters ------------------------------------------------------------------------------------------------------

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1, 2], np.float16),
    "brain": np.array([1, 2], ml_dtypes.bfloat16),
    "flags": np.array([True, False]),
    "long": np.array([[2**40]]),
}


@pytest.mark.parametrize("dtype", MXNET_DTYPES.values(), ids=str)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (), (0, 2)], ids=str)
def test_write_then_read(tmp_path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    write_params(tmp_path / "p", {"arg:a": array, "b": np.ones(1, np.float32)})
    found = read_params(tmp_path / "p")["a"]
    assert (found.dtype, found.shape) == (array.dtype, shape)
    assert (found == array).all()


@needs_mxnet
@pytest.mark.parametrize("np_shape", [False, True])
def test_mxnet_reads_what_is_written(tmp_path: Path, np_shape: bool) -> None:
    mx = compat.mxnet()
    arrays = {name: array for name, array in ARRAYS.items() if name != "brain"}
    arrays |= {"scalar": np.array(3.0), "none": np.zeros((0, 2), np.int8)} if np_shape else {}
    write_params(tmp_path / "p", arrays)
    with mx.util.np_shape(np_shape):
        found = {name: array.asnumpy() for name, array in mx.nd.load(str(tmp_path / "p")).items()}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


@needs_mxnet
@pytest.mark.parametrize("storage", ["default", "row_sparse", "csr"])
@pytest.mark.parametrize("named", [True, False])
def test_reading_what_mxnet_writes(tmp_path: Path, storage: str, named: bool) -> None:
    mx = compat.mxnet()
    dense = np.array([[0, 1, 0], [0, 0, 0], [2, 0, 3]], np.float32)
    arrays = [mx.nd.array(dense).tostype(storage), mx.nd.zeros((3, 3)).tostype(storage)]
    mx.nd.waitall()  # saving does not wait for the storage's shape: without this MXNet itself writes a broken file
    mx.nd.save(str(tmp_path / "p"), dict(zip(("arg:w", "aux:z"), arrays)) if named else arrays)
    found = read_params(tmp_path / "p")
    assert list(found) == (["w", "z"] if named else ["0", "1"])
    np.testing.assert_array_equal(found["w" if named else "0"], dense)
    assert not found["z" if named else "1"].any()


@pytest.mark.parametrize("magic", ["first", "v1"])
def test_arrays_of_before_storage_types(tmp_path: Path, magic: str) -> None:
    """Until 0.12 the rank stood where the magic word is now, and sizes had 32 bits; 0.12 had the word and 64 bits."""
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    head = struct.pack("<III", 2, 2, 3) if magic == "first" else struct.pack("<Iiqq", 0xF993FAC8, 2, 2, 3)
    body = head + struct.pack("<iii", 1, 0, 0) + data.tobytes()
    (tmp_path / "p").write_bytes(struct.pack("<QQQ", 0x112, 0, 1) + body + struct.pack("<QQ", 1, 5) + b"arg:w")
    np.testing.assert_array_equal(read_params(tmp_path / "p")["w"], data)
    if compat.available():
        np.testing.assert_array_equal(compat.mxnet().nd.load(str(tmp_path / "p"))["arg:w"].asnumpy(), data)


def test_every_shorter_file_is_an_error(tmp_path: Path) -> None:
    write_params(tmp_path / "p", ARRAYS)
    data = (tmp_path / "p").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "q").write_bytes(data[:length])
        with pytest.raises(ParameterError, match="q: "):
            read_params(tmp_path / "q")


def test_epochs(tmp_path: Path) -> None:
    (tmp_path / "m-symbol.json").write_text(_document([_variable("w")], [[0, 0, 0]]))
    for epoch in (3, 12):
        write_params(tmp_path / f"m-{epoch:04d}.params", {"w": np.full(1, epoch, np.float32)})
    notices: list[str] = []
    assert read_model(str(tmp_path / "m"), None, notices)[1]["w"] == 12
    assert "m-0012.params" in notices[0]
    assert read_model(str(tmp_path / "m"), 3, [])[1]["w"] == 3
    with pytest.raises(ParameterError, match=r"m-0004\.params"):
        read_model(str(tmp_path / "m"), 4, [])


# --- objects ---------------------------------------------------------------------------------------------------------


def _block(inputs: int) -> Any:
    mx = compat.mxnet()

    class Net(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(prefix="net_")
            with self.name_scope():
                self.dense = mx.gluon.nn.Dense(3, in_units=4)
                self.scale = self.params.get("scale", shape=(1,), init="ones")

    def one(self: Any, F: Any, x: Any, scale: Any) -> Any:
        return F.broadcast_mul(self.dense(x), scale)

    def two(self: Any, F: Any, x: Any, y: Any, scale: Any) -> Any:
        return [F.broadcast_mul(self.dense(x), scale), [F.relu(y)]]

    Net.hybrid_forward = one if inputs == 1 else two
    net = Net()
    net.initialize()
    return net


@needs_mxnet
@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("hybridized", [False, True])
def test_blocks(inputs: int, hybridized: bool) -> None:
    mx = compat.mxnet()
    net = _block(inputs)
    if hybridized:
        net.hybridize()
        net(*[mx.nd.ones((2, 4))] * inputs)
    graph, params = read_model(net, None, [])
    assert set(params) == {"net_dense0_weight", "net_dense0_bias", "net_scale"}
    free = {node.name for node in graph.variables} - set(params)
    assert free == ({"data"} if inputs == 1 else {"data0", "data1"})
    assert len(graph.heads) == inputs


@needs_mxnet
def test_symbol_block_and_module(tmp_path: Path) -> None:
    mx = compat.mxnet()
    net = _block(1)
    net.hybridize()
    net(mx.nd.ones((2, 4)))
    net.export(str(tmp_path / "m"))
    files = read_model(str(tmp_path / "m"), None, [])
    imported = mx.gluon.SymbolBlock.imports(str(tmp_path / "m-symbol.json"), ["data"], str(tmp_path / "m-0000.params"))
    module = mx.mod.Module(mx.sym.load(str(tmp_path / "m-symbol.json")), ["data"], None)
    with pytest.raises(ParameterError, match="bind"):
        read_model(module, None, [])
    module.bind([("data", (2, 4))], for_training=False)
    module.set_params(*mx.model.load_params(str(tmp_path / "m"), 0))
    for source in (imported, module):
        graph, params = read_model(source, None, [])
        assert graph.output_names == files[0].output_names
        assert {name: array.tolist() for name, array in params.items()} == {n: a.tolist() for n, a in files[1].items()}


@needs_mxnet
def test_objects_that_are_no_models() -> None:
    mx = compat.mxnet()
    lazy = mx.gluon.nn.Dense(3)
    lazy.initialize()
    with pytest.raises(ParameterError, match="weight"):
        read_model(lazy, None, [])
    with pytest.raises(OptionError, match="not hybridizable"):
        read_model(mx.gluon.nn.Sequential(), None, [])
    with pytest.raises(HarnessError):
        read_model(mx.nd.ones((1,)), None, [])


@needs_mxnet
def test_names_that_are_not_ascii_reach_mxnet() -> None:
    """Its own JSON reader knows no escapes of Unicode."""
    mx = compat.mxnet()
    data = mx.sym.Variable("вход")
    symbol = mx.sym.sample_uniform(mx.sym.relu(data, name="слой"), data, name="große 重み")
    model = harness.compile(symbol, {}, inputs={"вход": (2, 3)}, engine="onnxruntime")
    (found,) = model(вход=np.full((2, 3), 0.5, np.float32))
    np.testing.assert_array_equal(found, np.full((2, 3), 0.5, np.float32))
    assert [blocked.node for blocked in model.fallbacks] == ["große 重み"]


_AT_ONCE = """
import sys
import numpy as np
from harness.frontend.compat import mxnet
from harness.frontend.mxnet import read_model
mx = mxnet()
for trial in range(4):
    net = mx.gluon.model_zoo.vision.resnet50_v1()
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 224, 224)))  # nobody waits for it
    _, first = read_model(net, None, [])
    mx.nd.waitall()
    _, again = read_model(net, None, [])
    assert all(np.array_equal(first[name], again[name]) for name in again), trial
"""


@needs_mxnet
def test_weights_are_read_whole_while_a_call_is_under_way() -> None:
    """oneDNN lays weights out anew in place, when a network first runs: a copy made meanwhile was half of each."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MXNET_")}
    done = subprocess.run(
        [sys.executable, "-c", _AT_ONCE], env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr[-1000:]
