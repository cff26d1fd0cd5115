"""Bad models made from good ones: mutated symbol JSON, mutated .params files, operators under odd attributes and types."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

import harness
from harness.frontend.arity import input_names
from harness.operators import registry
from harness.operators.schema import AttributeType, schemas

INPUTS = {"data": (2, 3, 8, 8)}
ODD_TEXT = ["", "None", "nan", "inf", "-1", "0", "1", "99999999999999999999", "(0,0)", "(-1,-1)", "(1,2,3,4,5,6,7)", "()",
            "[", "((1,2),(3,4))", "1e400", "True", "abc", "\x00", "é" * 9, "(99999999,99999999)", "1.5", "'", "(None,)",
            "2147483647", "-9223372036854775808", "(2147483647,)", "(1000000,1000000,1000000)", "(1e3,2)", "(nan,nan)",
            "-inf", "0x10", "１", "(" * 20_000, "9" * 6_000, "__import__('os').abort()", "{'a': 1}", "(1,2", "\ud800"]  # fmt: skip
ODD_VALUES: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**70, 10**400, 1.5, float("nan"), float("inf"), "", "x", [], {}, [[]], {"a": 1},
    [0, 0, 0], [1, 99], [0.5, 0, 0], [float("nan"), 0, 0], [None] * 1000, "\ud800", "é" * 10_000,
]  # fmt: skip


# --- a good model ----------------------------------------------------------------------------------------------------


def good_model() -> dict[str, Any]:
    """MXNet's JSON of a small network with convolutions, branches, several outputs and old-style loss layers."""
    nodes: list[dict[str, Any]] = []
    places: dict[str, int] = {}

    def add(name: str, op: str = "null", inputs: tuple[str, ...] = (), **attrs: str) -> str:
        entries = [[places[n.partition(":")[0]], int(n.partition(":")[2] or 0), 0] for n in inputs]
        node: dict[str, Any] = {"op": op, "name": name, "inputs": entries}
        places[name] = len(nodes)
        nodes.append({**node, "attrs": attrs} if attrs else node)
        return name

    for name in ("data", *parameters(), "softmax_label"):
        add(name)
    add("conv", "Convolution", ("data", "conv_weight", "conv_bias"), kernel="(3, 3)", num_filter="4", pad="(1, 1)", stride="(1, 1)")  # fmt: skip
    add("bn", "BatchNorm", ("conv", "bn_gamma", "bn_beta", "bn_mean", "bn_var"), eps="1e-05", fix_gamma="False")
    add("act", "LeakyReLU", ("bn", "slope"), act_type="prelu")
    add("pool", "Pooling", ("act",), kernel="(2, 2)", stride="(2, 2)", pool_type="max")
    add("split", "SliceChannel", ("pool",), num_outputs="2", axis="1")
    add("cat", "Concat", ("split:1", "split:0"), num_args="2", dim="1")
    add("sum", "elemwise_add", ("cat", "pool"))
    add("scaled", "_mul_scalar", ("sum",), scalar="0.5")
    add("up", "UpSampling", ("scaled",), scale="2", sample_type="nearest", num_args="1")
    add("crop", "slice", ("up",), begin="(0, 0, 2, 2)", end="(None, None, 6, 6)")
    add("moved", "transpose", ("crop",), axes="(0, 2, 3, 1)")
    add("shaped", "Reshape", ("moved",), shape="(0, -1)")
    add("fc", "FullyConnected", ("shaped", "fc_weight", "fc_bias"), num_hidden="5")
    add("mean", "mean", ("crop",), axis="(2, 3)", keepdims="True")
    add("best", "topk", ("fc",), k="2", ret_typ="both", axis="-1")
    add("softmax", "SoftmaxOutput", ("fc", "softmax_label"))
    heads = [[places[n], i, 0] for n, i in (("softmax", 0), ("mean", 0), ("best", 0), ("best", 1))]
    variables = [i for i, node in enumerate(nodes) if node["op"] == "null"]
    return {
        "nodes": nodes,
        "arg_nodes": variables,
        "node_row_ptr": list(range(len(nodes) + 1)),
        "heads": heads,
        "attrs": {"mxnet_version": ["int", 10901]},
    }


def parameters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"conv_weight": (4, 3, 3, 3), "conv_bias": (4,), "slope": (4,), "fc_weight": (5, 64), "fc_bias": (5,)}
    found = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    return found | {
        name: rng.uniform(0.5, 1, 4).astype(np.float32) for name in ("bn_gamma", "bn_beta", "bn_mean", "bn_var")
    }


def wide_model() -> dict[str, Any]:
    """One layer wide enough to be quantized."""
    nodes: list[dict[str, Any]] = [
        {"op": "null", "name": name, "inputs": []} for name in ("data", "fc_weight", "fc_bias")
    ]
    attributes = {"num_hidden": "16"}
    nodes.append({"op": "FullyConnected", "name": "fc", "inputs": [[i, 0, 0] for i in range(3)], "attrs": attributes})
    return {"nodes": nodes, "heads": [[3, 0, 0]], "attrs": {"mxnet_version": ["int", 10901]}}


def wide_parameters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"fc_weight": rng.uniform(-1, 1, (16, 32)).astype(np.float32), "fc_bias": np.zeros(16, np.float32)}


WIDE_INPUTS = {"data": (2, 32)}


# --- mutations -------------------------------------------------------------------------------------------------------


def mutated_json(rng: random.Random) -> bytes:
    """The good model's text after one to three mutations of its structure, its attributes or its bytes."""
    document = good_model()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(STRUCTURAL)(document, rng)
    text = json.dumps(document)
    if rng.random() < 0.2:
        text = rng.choice(TEXTUAL)(text, rng)
    data = text.encode("utf-8", "surrogatepass")
    return flipped(data, rng) if rng.random() < 0.1 else data


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Bytes cut short, or with bits turned, so that they may be no UTF-8."""
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data) + 1)]
    turned = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 40))):
        if turned:
            turned[rng.randrange(len(turned))] ^= 1 << rng.randrange(8)
    return bytes(turned)


def _node(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    nodes = document.get("nodes")
    found = [node for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []
    return rng.choice(found) if found else {}


def _odd_attribute(document: dict[str, Any], rng: random.Random) -> None:
    node = _node(document, rng)
    attributes = node.get("attrs") if isinstance(node.get("attrs"), dict) else {}
    kinds = schemas()[node["op"]].attributes if node.get("op") in schemas() else {}
    name = rng.choice(list(kinds) or list(attributes) or ["axis"])
    node["attrs"] = {**attributes, name: rng.choice(ODD_TEXT)}


def _typed_attribute(document: dict[str, Any], rng: random.Random) -> None:
    node = _node(document, rng)
    if rng.random() < 0.3:
        node[rng.choice(("attrs", "attr", "param"))] = rng.choice(ODD_VALUES)
        return
    attributes = node.get("attrs") if isinstance(node.get("attrs"), dict) else {}
    node["attrs"] = {**attributes, rng.choice(list(attributes) or ["axis"]): rng.choice(ODD_VALUES)}


def _unknown_attribute(document: dict[str, Any], rng: random.Random) -> None:
    node = _node(document, rng)
    attributes = node.get("attrs") if isinstance(node.get("attrs"), dict) else {}
    name = rng.choice(("nosuch", "__hidden__", "ctx_group", "", "\ud800", "a" * 10_000, "__dtype__", "__shape__"))
    node["attrs"] = {**attributes, name: rng.choice(ODD_TEXT)}


def _drop_attribute(document: dict[str, Any], rng: random.Random) -> None:
    attributes = _node(document, rng).get("attrs")
    if isinstance(attributes, dict) and attributes:
        attributes.pop(rng.choice(list(attributes)))


def _odd_field(document: dict[str, Any], rng: random.Random) -> None:
    target = rng.choice((document, _node(document, rng), _node(document, rng)))
    if target:
        target[rng.choice(list(target))] = rng.choice(ODD_VALUES)


def _drop_field(document: dict[str, Any], rng: random.Random) -> None:
    target = rng.choice((document, _node(document, rng), _node(document, rng)))
    if target:
        target.pop(rng.choice(list(target)))


def _rewire(document: dict[str, Any], rng: random.Random) -> None:
    entries = _node(document, rng).get("inputs") if rng.random() < 0.7 else document.get("heads")
    if isinstance(entries, list) and entries:
        entries[rng.randrange(len(entries))] = rng.choice(
            (
                [rng.randrange(40), 0, 0],
                [rng.randrange(40), rng.randrange(4), 0],
                [-1, 0],
                [2**40, 0, 0],
                [0],
                3,
                None,
                [1, -1, 0],
            )
        )


def _cycle(document: dict[str, Any], rng: random.Random) -> None:
    """A node that reads itself, or one that comes after it."""
    nodes = document.get("nodes")
    places = [i for i, node in enumerate(nodes) if isinstance(node, dict) and node.get("inputs")] if nodes else []
    if places:
        place = rng.choice(places)
        nodes[place]["inputs"] = [[rng.choice((place, len(nodes) - 1)), 0, 0], *nodes[place]["inputs"][1:]]


def _count_inputs(document: dict[str, Any], rng: random.Random) -> None:
    entries = _node(document, rng).get("inputs")
    if isinstance(entries, list) and entries:
        entries.pop() if rng.random() < 0.5 else entries.extend(entries * rng.choice((1, 9)))


def _other_operator(document: dict[str, Any], rng: random.Random) -> None:
    _node(document, rng)["op"] = rng.choice([*schemas(), "null", "NoSuchOperator", ""])


def _same_name(document: dict[str, Any], rng: random.Random) -> None:
    _node(document, rng)["name"] = rng.choice(
        ("data", "conv", "", "conv/Conv", "conv_output", "softmax_output", "a\x00b", "x:0")
    )


def _all_one_name(document: dict[str, Any], rng: random.Random) -> None:
    """Twenty thousand nodes behind the last one, all of one name."""
    nodes = document.get("nodes")
    if isinstance(nodes, list) and nodes and rng.random() < 0.05:
        name = rng.choice(("same", "", "data"))
        nodes += [{"op": "relu", "name": name, "inputs": [[len(nodes) - 1, 0, 0]]} for _ in range(20_000)]


def _shuffle(document: dict[str, Any], rng: random.Random) -> None:
    if isinstance(document.get("nodes"), list):
        rng.shuffle(document["nodes"])


def _drop_node(document: dict[str, Any], rng: random.Random) -> None:
    nodes = document.get("nodes")
    if isinstance(nodes, list) and nodes:
        del nodes[rng.randrange(len(nodes))]


def _nest(document: dict[str, Any], rng: random.Random) -> None:
    inner: Any = good_model()
    for _ in range(rng.choice((1, 3, 40))):
        inner = {
            "nodes": [{"op": "_foreach", "name": "loop", "inputs": [], "subgraphs": [inner]}],
            "heads": [[0, 0, 0]],
        }
    _node(document, rng)["subgraphs"] = [inner]


def _old_version(document: dict[str, Any], rng: random.Random) -> None:
    document["attrs"] = {"mxnet_version": ["int", rng.choice((0, 800, 904, 1000, 20000, -1, "x"))]}


STRUCTURAL: list[Callable[[dict[str, Any], random.Random], None]] = [
    _odd_attribute, _odd_attribute, _odd_attribute, _odd_attribute, _typed_attribute, _unknown_attribute, _drop_attribute,
    _odd_field, _drop_field, _rewire, _rewire, _cycle, _count_inputs, _other_operator, _same_name, _all_one_name, _shuffle,
    _drop_node, _nest, _old_version,
]  # fmt: skip


def _cut(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text))]


def _swap_letter(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + chr(rng.randrange(128)) + text[place + 1 :]


def _deep(text: str, rng: random.Random) -> str:
    depth = rng.choice((100, 100_000))
    return text.replace('"heads": [[', '"heads": [' + "[" * depth + "1" + "]" * depth + ", [", 1)


def _long_number(text: str, rng: random.Random) -> str:
    return text.replace("[0, 0, 0]", f"[{'9' * rng.choice((30, 5000))}, 0, 0]", 1)


def _deep_subgraphs(text: str, rng: random.Random) -> str:
    """Symbols within symbols, as far down as the memory of a reader that follows them."""
    depth = rng.choice((10, 20, 20_000))
    opened = '{"nodes": [{"op": "_foreach", "name": "f", "inputs": [], "subgraphs": ['
    return opened * depth + text + ']}], "heads": [[0, 0, 0]]}' * depth


def _no_number(text: str, rng: random.Random) -> str:
    return text.replace("[0, 0, 0]", rng.choice(("[NaN, 0, 0]", "[Infinity, 0, 0]", "[1e999, 0, 0]", "[0.0, 0, 0]")), 1)


def _twice(text: str, rng: random.Random) -> str:
    """A key that occurs twice in one object."""
    return text.replace('"heads": ', f'"nodes": {json.dumps(rng.choice(ODD_VALUES[:10]))}, "heads": ', 1)


TEXTUAL: list[Callable[[str, random.Random], str]] = [
    _cut, _swap_letter, _deep, _long_number, _deep_subgraphs, _no_number, _twice,
]  # fmt: skip


def mutated_params(rng: random.Random, good: bytes) -> bytes:
    """A ``.params`` file with flipped bits, cut short, or with counts, ranks, sizes and types that lie."""
    data = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 5))):
        kind = rng.randrange(6)
        place = rng.randrange(max(len(data) - 8, 1))
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place:]
            data.extend(b"\0" * max(8 - len(data), 0))
        elif kind == 2:  # a header word
            word = rng.choice((0, 1, 2, 7, 12, 99, 0xF993FAC8, 0xF993FAC9, 0xF993FACA, 2**31 - 1, 2**32 - 1))
            data[(at := rng.randrange(0, 64, 4)) : at + 4] = struct.pack("<I", word)
        elif kind == 3:
            data[place : place + 8] = struct.pack("<Q", rng.choice((0, 2**31, 2**40, 2**62, 2**64 - 1)))
        elif kind == 4:
            del data[place : place + rng.choice((1, 4, 8))]
        else:
            data[place:place] = rng.randbytes(rng.choice((1, 4, 8)))
    return bytes(data)


def good_params() -> tuple[bytes, list[int]]:
    """The parameters as a ``.params`` file, one row-sparse and one in compressed rows; the positions of its headers."""
    pieces: list[tuple[bytes, bool]] = [(struct.pack("<QQQ", 0x112, 0, len(parameters())), True)]  # and is it a header
    sparse = {"fc_bias": 1, "fc_weight": 2}
    for name, array in parameters().items():
        kind, count = sparse.get(name, 0), len(array)
        own = struct.pack(f"<i{array.ndim}q", array.ndim, *array.shape)
        where = struct.pack("<iii", 1, 0, 0)  # on the CPU, float32
        stored = array.reshape(-1) if kind == 2 else array
        if kind:
            own = struct.pack(f"<i{stored.ndim}q", stored.ndim, *stored.shape) + own
        pieces.append((struct.pack("<Ii", 0xF993FAC9, kind) + own + where, True))
        rows = np.arange(count, dtype=np.int64)
        starts = np.arange(count + 1, dtype=np.int64) * (array.size // count)
        columns = np.tile(np.arange(array.size // count, dtype=np.int64), count)
        auxiliary = [[], [rows], [starts, columns]][kind]
        pieces += [(struct.pack("<iiq", 6, 1, len(one)), True) for one in auxiliary]  # int64, of one axis
        pieces += [(one.tobytes(), False) for one in (stored, *auxiliary)]
    names = [f"arg:{name}".encode() for name in parameters()]
    pieces.append((struct.pack("<Q", len(names)), True))
    pieces += [(struct.pack("<Q", len(name)) + name, True) for name in names]
    headers: list[int] = []
    at = 0
    for data, is_header in pieces:
        headers += range(at, at + len(data)) if is_header else ()
        at += len(data)
    return b"".join(data for data, _ in pieces), headers


WORDS = (
    0,
    1,
    2,
    7,
    12,
    33,
    99,
    0xF993FAC8,
    0xF993FAC9,
    0xF993FACA,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**64 - 1,
)


_HEADERS = good_params()[1]
HEADERS = (8 + len(WORDS) // 4) * len(_HEADERS)  # cases


def wrong_header(number: int) -> bytes:
    """Every bit of every header turned, one at a time, and then each of WORDS in every fourth place."""
    good, places = good_params()
    data = bytearray(good)
    if number < 8 * len(places):
        data[places[number // 8]] ^= 1 << number % 8
        return bytes(data)
    at, which = divmod(number - 8 * len(places), len(WORDS))
    size = 8 if WORDS[which] >= 2**32 or at % 2 else 4
    data[places[4 * at] : places[4 * at] + size] = WORDS[which].to_bytes(size, "little")
    return bytes(data)


# --- operators under odd attributes and types ------------------------------------------------------------------------

SHAPES = [
    (),
    (0,),
    (1,),
    (3,),
    (2, 3),
    (1, 4),
    (2, 3, 4),
    (2, 3, 8, 8),
    (1, 4, 5, 5),
    (2, 0, 3),
    (1, 2, 3, 4, 5),
    (2, 1, 6, 7),
]
DTYPES = ["float32", "float32", "float32", "float32", "float16", "float64", "int32", "int64", "int8", "uint8", "bool"]


def odd_operator(rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model of one lowered operator with attributes right and wrong, and inputs of any shape; (JSON, inputs)."""
    name = rng.choice(sorted(registry.definitions()))
    schema = schemas()[name]
    attributes = {}
    for attribute, kind in schema.attributes.items():
        if (kind.required and rng.random() < 0.95) or rng.random() < 0.3:
            attributes[attribute] = _attribute(attribute, kind, rng)
    takes = input_names(name, attributes)
    count = rng.choice((1, 2, 3)) if takes is None else max(len(takes) - (rng.random() < 0.05), 0)
    if schema.variadic and rng.random() < 0.9:
        attributes[schema.variadic] = str(count)
    names = [f"in{i}" for i in range(count)]
    nodes: list[dict[str, Any]] = [{"op": "null", "name": n, "inputs": []} for n in names]
    nodes.append({"op": name, "name": "op", "inputs": [[i, 0, 0] for i in range(count)], "attrs": attributes})
    shape = rng.choice(SHAPES)
    inputs = {}
    for n in names:
        inputs[n] = harness.Input(shape if rng.random() < 0.5 else rng.choice(SHAPES), rng.choice(DTYPES))
    attrs = {"mxnet_version": ["int", 10901], "is_np_shape": ["int", rng.randrange(2)]}
    return {"nodes": nodes, "heads": [[count, rng.choice((0, 0, 0, 1)), 0]], "attrs": attrs}, inputs


def _attribute(name: str, kind: AttributeType, rng: random.Random) -> str:
    if rng.random() < 0.1:
        return rng.choice(ODD_TEXT)
    if kind.choices:
        return rng.choice(kind.choices)
    if kind.kind == "boolean":
        return rng.choice(("0", "1"))
    if "Shape" in kind.kind or "tuple" in kind.kind:
        sizes = [str(rng.choice((-2, -1, 0, 1, 1, 2, 2, 3, 3, 100, 2**31, 10**12))) for _ in range(rng.randrange(5))]
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
    if kind.kind in ("int", "long", "ptr"):
        return str(rng.choice((-9, -1, 0, 0, 1, 1, 2, 3, 5, 10**6, 2**31, 10**12)))
    return str(rng.choice((-1.0, 0.0, 0.5, 1.0, 2.0, 1e30, 1e-30)))
