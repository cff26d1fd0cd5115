"""Bad models, made from good ones: the material of test_bad_input.py, and the loop that runs it in its own process.

    python -m suites.meta.bad_input KIND FIRST COUNT

runs cases FIRST to FIRST + COUNT of a kind and prints one JSON line per case that did not end in an answer or a
HarnessError. The process has a memory limit and each case a time limit, so that a blow-up and a hang are found too.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import signal
import struct
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness.errors import HarnessError
from harness.frontend import compat
from harness.frontend.arity import input_names
from harness.frontend.params import write_params
from harness.operators import registry
from harness.operators.schema import AttributeType, schemas

SECONDS = 5  # of processor time, which a busy machine does not stretch; the test stops a process that sleeps
MEMORY = 6 << 30  # of address space; the libraries alone map about two
INPUTS = {"data": (2, 3, 8, 8)}
ODD_TEXT = ["", "None", "nan", "inf", "-1", "0", "1", "99999999999999999999", "(0,0)", "(-1,-1)", "(1,2,3,4,5,6,7)", "()",
            "[", "((1,2),(3,4))", "1e400", "True", "abc", "\x00", "é" * 9, "(99999999,99999999)", "1.5", "'", "(None,)"]  # fmt: skip
ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**31,
    2**70,
    1.5,
    "",
    "x",
    [],
    {},
    [[]],
    {"a": 1},
    [0, 0, 0],
    [1, 99],
    "\ud800",
]


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


# --- mutations -------------------------------------------------------------------------------------------------------


def mutated_json(rng: random.Random) -> str:
    """The good model's text after one to three mutations of its structure, its attributes or its bytes."""
    document = good_model()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(STRUCTURAL)(document, rng)
    text = json.dumps(document)
    if rng.random() < 0.15:
        text = rng.choice(TEXTUAL)(text, rng)
    return text


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
    _odd_attribute, _odd_attribute, _odd_attribute, _odd_attribute, _drop_attribute, _odd_field, _drop_field, _rewire,
    _rewire, _count_inputs, _other_operator, _same_name, _shuffle, _drop_node, _nest, _old_version,
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


TEXTUAL: list[Callable[[str, random.Random], str]] = [_cut, _swap_letter, _deep, _long_number]


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


# --- running ---------------------------------------------------------------------------------------------------------


def run_json(rng: random.Random, folder: Path) -> None:
    text = mutated_json(rng)
    (folder / "m-symbol.json").write_text(text, "utf-8", "surrogatepass")
    fallback = "mxnet" if rng.random() < 0.2 else "error"
    model = harness.compile(
        str(folder / "m-symbol.json"), parameters(), INPUTS, "onnxruntime", fallback=fallback, threads=1
    )
    if not model.fallbacks:  # what MXNet's own kernels do to absurd values is not ours
        _call(model)


def run_params(rng: random.Random, folder: Path, mutate: Callable[[bytes], bytes] | None = None) -> None:
    good, path = folder / "good.params", folder / "m-0000.params"
    if not good.exists():
        write_params(good, {f"arg:{name}": array for name, array in parameters().items()})
        (folder / "m-symbol.json").write_text(json.dumps(good_model()))
    data = good.read_bytes()
    path.write_bytes(mutate(data) if mutate else mutated_params(rng, data))
    _call(harness.compile(str(folder / "m"), None, INPUTS, "onnxruntime", fallback="error", threads=1))


def run_operator(rng: random.Random, folder: Path) -> None:
    document, inputs = odd_operator(rng)
    path = folder / "op.json"
    path.write_text(json.dumps(document))
    _call(harness.compile(str(path), None, inputs, "onnxruntime", fallback="error", threads=1))


def _call(model: harness.Model) -> None:
    sizes = {name: [s[1] if isinstance(s, tuple) else s for s in spec.shape] for name, spec in model.inputs.items()}
    model(**{name: np.ones(sizes[name], spec.dtype) for name, spec in model.inputs.items()})


KINDS: dict[str, Callable[[random.Random, Path], None]] = {
    "json": run_json,
    "params": run_params,
    "operator": run_operator,
}


def failures(kind: str, first: int, count: int, tally: Counter[str]) -> Iterator[dict[str, Any]]:
    """Run cases; one record per case that ended in anything but an answer or a HarnessError.

    The good model runs first: what is imported at first use is not the first case's fault.
    """
    if kind == "json" and compat.available():
        compat.mxnet()
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(HarnessError):
        run_params(random.Random(0), Path(name), lambda good: good)
    signal.signal(signal.SIGPROF, _too_late)
    with tempfile.TemporaryDirectory() as name:
        for number in range(first, first + count):
            print(f"case {number}", file=sys.stderr, flush=True)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                KINDS[kind](random.Random(f"{kind} {number}"), Path(name))
                tally["answers"] += 1
            except HarnessError as error:
                tally[type(error).__name__] += 1
                if len(str(error)) < 10:
                    yield {"case": number, "error": f"a message that says nothing: {error!r}"}
            except BaseException as error:  # noqa: BLE001 - any other exception is what is looked for
                frames = traceback.extract_tb(error.__traceback__)[-6:]
                where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
                yield {"case": number, "error": f"{type(error).__name__}: {str(error)[:200]}", "where": where}
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)


class TooLate(BaseException):
    """A case took longer than SECONDS; not an Exception, so that no handler takes it for one of its own."""


def _too_late(*_: Any) -> None:
    raise TooLate(f"more than {SECONDS} s")


def main() -> None:
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    tally: Counter[str] = Counter()
    for record in failures(kind, first, count, tally):
        print(json.dumps(record), flush=True)
    print(json.dumps({"tally": tally}))


if __name__ == "__main__":
    main()
