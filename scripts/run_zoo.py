"""Compile the networks of GluonCV's model zoo and hold them to MXNet.

    python scripts/run_zoo.py [--no-compare] [--only REGEX] [--limit N] [--minutes N] [--timeout SECONDS] [--again]
    python scripts/run_zoo.py --locate NETWORK       the first node whose output differs from MXNet's
    python scripts/run_zoo.py --builder              what TensorRT-RTX's builder says of the smallest of each family
    python scripts/run_zoo.py --page                 only write docs/networks.md again

Writes ``reports/zoo.json``, ``reports/zoo.csv`` and ``docs/networks.md`` after each network, so that it goes on where
it was stopped. Every network runs in a process of its own; families take turns, their smallest networks first.
``--no-compare`` reads, lowers and cuts only; without it, networks that have not been compared yet are.

Weights are random and fixed, inputs the smallest that the network takes. An answer is right under the error model
(docs/error-model.md): the reference is MXNet in float64, or in float32 where it has no such kernel. Detectors sort and
suppress boxes, and random weights give scores so close that a rounding changes their order; what comes after is
another answer altogether. So they are judged with the outputs of those nodes, and of comparisons and floors, replaced
by MXNet's: on what goes into the nodes and on the final outputs. That is everything but the sorting itself, which
suites/ops holds to MXNet.

MXNet's CPU leaves unwritten what ROIAlign gives for a region of image -1, with which feature pyramids mask the regions of
other levels, and overwrites a number of another region. The reference has 0 there, as MXNet's GPU has.

MXNet's own INT8 networks are judged layer by layer (scripts/int8_zoo.py): one integer that a rounding moves by a step
grows through fifty layers of random weights to another answer. The noise of the whole network is beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import int8_zoo  # noqa: E402

REPORT = ROOT / "reports" / "zoo.json"
PAGE = ROOT / "docs" / "networks.md"
COMMAND = "python scripts/run_zoo.py"
FIELDS = (
    "family", "network", "status", "nodes", "segments", "fallbacks", "headroom", "headroom_whole", "moved", "sqnr_db",
    "compile_seconds", "input", "reference", "builder", "reason",
)  # fmt: skip
_COMPARISONS = ("equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal")
JUMPING = {
    "_contrib_box_nms", "_contrib_MultiBoxDetection", "_contrib_Proposal", "_contrib_MultiProposal",
    "topk", "argsort", "argmax", "argmin", "sort", "floor", "ceil", "round", "rint", "trunc", "fix",
    *(f"broadcast_{name}" for name in _COMPARISONS), *(f"_{name}_scalar" for name in _COMPARISONS),
}  # fmt: skip
DRAWS = (3, 16)  # perturbations behind the bound; the second where an error exceeds the first
EQUAL = 300.0  # dB, stands for infinity
SMALLEST_PROPOSALS = 16  # instead of 300 or 1000: the heads behind them run once per proposal

Array = npt.NDArray[Any]
Draw = Callable[[str, tuple[int, ...], "np.dtype[Any]", np.random.Generator], Array]
Sizes = Sequence[tuple[tuple[int, ...], Mapping[str, Any]]]


def _images(*sizes: int) -> Sizes:
    return [((1, 3, size, size), {}) for size in sizes]


def _crops(*sizes: int) -> Sizes:
    return [((1, 3, size, size), {"crop_size": size, "base_size": size}) for size in sizes]


def _videos(frames: int, *sizes: int) -> Sizes:
    return [((1, 3, frames, size, size), {}) for size in sizes]


# family, the names that belong to it (the first that matches counts), the inputs to try, smallest first
FAMILIES: Sequence[tuple[str, str, Sizes]] = (
    ("int8", r"_int8$", _images(64, 224)),
    ("custom classes", r"custom", _images(64, 224)),
    ("frames of videos", r"^(inception|resnet|vgg).*_(hmdb51|ucf101|sthsthv2|kinetics400)$", _images(64, 224, 299)),
    ("ssd_300", r"^ssd_300", _images(300)),
    ("ssd_512", r"^ssd_512", _images(256, 512)),
    ("yolo3", r"^yolo3", _images(96, 320)),
    ("mask_rcnn", r"mask_rcnn", _images(128, 320)),
    ("faster_rcnn", r"rcnn", _images(128, 320)),
    ("center_net", r"^center_net", _images(128, 512)),
    ("fcn", r"^fcn", _crops(96, 480)),
    ("psp", r"^psp", _crops(96, 480)),
    ("deeplab", r"^deeplab", _crops(96, 480)),
    ("icnet", r"^icnet", _crops(192, 480)),
    ("danet", r"^danet", _crops(96, 480)),
    ("fastscnn", r"^fastscnn", _crops(192, 480)),
    ("hrnet segmentation", r"^hrnet.*_s$", _crops(96, 480)),
    ("simple_pose", r"^simple_pose", [((1, 3, 64, 64), {}), ((1, 3, 256, 192), {})]),
    ("alpha_pose", r"^alpha_pose", [((1, 3, 64, 64), {}), ((1, 3, 256, 192), {})]),
    ("mobile_pose", r"^mobile_pose", [((1, 3, 64, 64), {}), ((1, 3, 256, 192), {})]),
    ("c3d", r"^c3d", _videos(16, 112)),
    ("r2plus1d", r"^r2plus1d", _videos(8, 64, 112)),
    ("p3d", r"^p3d", _videos(16, 64, 112, 224)),
    ("slowfast", r"^slowfast_4x16", _videos(36, 64, 224)),  # frames of the slow and of the fast path
    ("slowfast", r"^slowfast_8x8", _videos(40, 64, 224)),
    ("slowfast", r"^slowfast_16x8", _videos(80, 64, 224)),
    ("i3d", r"^i3d", _videos(8, 64) + _videos(16, 64, 112, 224) + _videos(32, 224)),
    (
        "monodepth2",
        r"^monodepth2",
        [((1, 3, 64, 96), {}), ((1, 3, 192, 640), {}), ((1, 6, 64, 96), {}), ((1, 6, 192, 640), {})],
    ),
    ("cifar", r"^cifar", _images(32)),
    ("residual attention", r"^residualattention", _images(64, 224, 448)),
    ("inception", r"^inception|^googlenet", _images(96, 128, 224, 299)),
    ("nasnet", r"^nasnet", _images(96, 224, 331)),
    ("se_resnet", r"^se_resnet", _images(64, 224)),
    ("se_resnext, senet", r"^se_resnext|^senet", _images(64, 224)),
    ("resnext", r"^resnext", _images(64, 224)),
    ("resnest", r"^resnest", _images(64, 224)),
    ("resnet v1b to v1s", r"^resnet\d+_v1[bcdes]", _images(64, 224)),
    ("resnet v1, v2", r"^resnet", _images(64, 224)),
    ("hrnet", r"^hrnet", _images(64, 224)),
    ("mobilenet", r"^mobilenet", _images(64, 224)),
    ("shufflenet", r"^shufflenet", _images(64, 224)),
    ("xception", r"^xception", _images(64, 299)),
    ("densenet", r"^densenet", _images(64, 224)),
    ("vgg, alexnet, squeezenet", r"^vgg|^alexnet|^squeezenet", _images(64, 128, 224)),
    ("dla, darknet", r"^dla|^darknet", _images(64, 224)),
    ("others", r"", _images(64, 224)),
)
GROUPS: Sequence[tuple[str, str]] = (
    ("MXNet's own INT8 graphs", r"^int8$"),
    ("detection", r"^(ssd|yolo|mask_rcnn|faster_rcnn|center_net)"),
    ("segmentation", r"^(fcn|psp|deeplab|icnet|danet|fastscnn)|segmentation$"),
    ("pose", r"_pose$"),
    ("video", r"^(c3d|r2plus1d|p3d|slowfast|i3d|frames)"),
    ("depth", r"^monodepth"),
    ("classification", r""),
)
LAST = ("int8", "custom classes", "frames of videos", "others")


class NotTraceable(Exception):
    """GluonCV cannot make a symbol of the network: it needs weights, classes, or more than one input."""


# --- networks --------------------------------------------------------------------------------------------------------


def family_of(name: str) -> tuple[str, Sizes]:
    """A network's family and the inputs to try."""
    return next((family, sizes) for family, pattern, sizes in FAMILIES if re.search(pattern, name))


def networks() -> list[str]:
    """All networks that GluonCV registers."""
    _prepare()
    from gluoncv.model_zoo import model_zoo

    return sorted(model_zoo._models)


def _prepare() -> Any:
    """MXNet, imported so that GluonCV can be; with its own kernels (set MXNET_MKLDNN_ENABLED=1 for INT8)."""
    os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "NONE")
    os.environ.setdefault("MXNET_MKLDNN_ENABLED", "0")
    from harness.frontend.compat import mxnet

    return mxnet()


def build(name: str, draw: Draw, sizes: Sizes | None = None) -> tuple[Any, dict[str, Array], Array]:
    """The network's symbol, its parameters as ``draw`` makes them, and a random but fixed input.

    Args:
        sizes: the inputs to try and the network's options with each; None takes the family's.

    Raises:
        NotTraceable: GluonCV cannot make a symbol of it, or no input fits.
    """
    mx = _prepare()
    reason = "no size is known for it"
    for shape, options in sizes or family_of(name)[1]:
        mx.random.seed(7)
        np.random.seed(7)
        try:
            net = _network(name, options)
            _propose_less(net)
            flat = list(_flat(net(mx.sym.var("data"))))
            symbol = mx.sym.Group(flat) if len(flat) > 1 else flat[0]
            arguments, _, states = symbol.infer_shape(data=shape)
        except Exception as error:  # noqa: BLE001 - GluonCV raises whatever it likes
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            continue
        shapes = dict(zip(symbol.list_arguments(), arguments)) | dict(zip(symbol.list_auxiliary_states(), states))
        data = np.random.default_rng(11).uniform(-1, 1, shape).astype(np.float32)
        return symbol, _parameters(net, shapes, draw), data
    raise NotTraceable(reason)


def _network(name: str, options: Mapping[str, Any]) -> Any:
    import requests
    from gluoncv.model_zoo import get_model

    requests.get = _no_download
    tries = ({"pretrained_base": False, **options}, {"pretrained_base": False}, {})
    for attempt in tries[:-1]:
        try:
            return get_model(name, pretrained=False, **attempt)
        except (TypeError, Warning):  # it does not know an option
            continue
    return get_model(name, pretrained=False)


def _no_download(*_args: Any, **_options: Any) -> None:
    raise NotTraceable("its definition downloads weights")


def _propose_less(block: Any) -> None:
    """Fewer proposals for the second stage of R-CNNs."""
    for attribute in ("_rpn_test_post_nms", "_test_post_nms"):
        if hasattr(block, attribute):
            setattr(block, attribute, SMALLEST_PROPOSALS)
    for child in block._children.values():
        _propose_less(child)


def _parameters(net: Any, shapes: Mapping[str, tuple[int, ...]], draw: Draw) -> dict[str, Array]:
    """Constants as the network has them, the rest drawn."""
    mx = _prepare()
    rng = np.random.default_rng(5)
    result = {}
    for _, param in sorted(net.collect_params().items()):
        if isinstance(param, mx.gluon.parameter.Constant):
            param.initialize()
            result[param.name] = param.data().asnumpy()
        elif param.name in shapes:
            result[param.name] = draw(param.name, shapes[param.name], np.dtype(param.dtype), rng)
    return {name: array for name, array in result.items() if name in shapes}


def random_weights(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """LeCun's rule, so that a signal reaches the end of a deep network; statistics and scales around one."""
    if dtype.kind in "iu":
        return rng.integers(-100, 100, shape).astype(dtype)
    if name.endswith(("_min", "_max")):  # the range of a quantized tensor
        return np.full(shape, -1 if name.endswith("_min") else 1, dtype)
    values = rng.standard_normal(shape, np.float32)
    if name.endswith(("gamma", "var")):
        values = np.exp(values / 4)
    elif len(shape) > 1:
        values *= np.float32(np.prod(shape[1:]) ** -0.5)
    else:
        values *= np.float32(0.1)
    return values.astype(dtype)


def no_weights(_name: str, shape: tuple[int, ...], dtype: np.dtype[Any], _rng: np.random.Generator) -> Array:
    """Zeros, which take no time and no memory."""
    return np.zeros(shape, dtype)


def _flat(item: Any) -> Iterator[Any]:
    if isinstance(item, (list, tuple)):
        for part in item:
            yield from _flat(part)
    else:
        yield item


# --- the reference ---------------------------------------------------------------------------------------------------


def in_float64(symbol: Any) -> Any:
    """The symbol with float64 wherever a node names float32."""
    mx = _prepare()
    graph = json.loads(symbol.tojson())
    for node in graph["nodes"]:
        attrs = node.get("attrs", {})
        if attrs.get("dtype") == "float32" and node["op"] != "null":
            attrs["dtype"] = "float64"
    return mx.sym.load_json(json.dumps(graph))


def with_masked_regions(symbol: Any) -> Any:
    """The symbol whose ROIAligns give 0 for regions of a negative image, which MXNet's CPU kernel does not write."""
    graph = json.loads(symbol.tojson())
    if not any(node["op"] == "_contrib_ROIAlign" for node in graph["nodes"]):
        return symbol
    new: list[dict[str, Any]] = []
    place: list[int] = []

    def add(name: str, op: str, *inputs: Sequence[int], **attrs: str) -> list[int]:
        new.append({"op": op, "name": name, "attrs": attrs, "inputs": [list(entry) for entry in inputs]})
        return [len(new) - 1, 0, 0]

    for node in graph["nodes"]:
        inputs = [[place[e[0]], *e[1:]] for e in node["inputs"]]
        if node["op"] == "_contrib_ROIAlign":
            name = node["name"]
            image = add(f"{name}/image", "slice_axis", inputs[1], axis="1", begin="0", end="1")
            there = add(f"{name}/there", "_greater_equal_scalar", image, scalar="0")
            rois = add(f"{name}/rois", "broadcast_mul", inputs[1], there)
            whole = add(f"{name}/whole", node["op"], inputs[0], rois, **node["attrs"])
            mask = add(f"{name}/mask", "Reshape", there, shape="(-1, 1, 1, 1)")
            place.append(add(name, "broadcast_mul", whole, mask)[0])
        else:
            new.append({**node, "inputs": inputs})
            place.append(len(new) - 1)
    heads = [[place[e[0]], *e[1:]] for e in graph["heads"]]
    variables = [i for i, node in enumerate(new) if node["op"] == "null"]
    mx = _prepare()
    return mx.sym.load_json(
        json.dumps({"nodes": new, "arg_nodes": variables, "heads": heads, "attrs": graph.get("attrs", {})})
    )


def run_mxnet(symbol: Any, arrays: Mapping[str, Array], dtype: str) -> list[Array]:
    """MXNet's answer, with float arrays in ``dtype``."""
    mx = _prepare()
    states = set(symbol.list_auxiliary_states())
    names = [*symbol.list_arguments(), *states]
    made = {n: mx.nd.array(arrays[n], dtype=dtype if arrays[n].dtype.kind == "f" else arrays[n].dtype) for n in names}
    arguments = {n: a for n, a in made.items() if n not in states}
    bound = symbol.bind(mx.cpu(), arguments, aux_states={n: made[n] for n in states}, grad_req="null")
    return [array.asnumpy() for array in bound.forward(is_train=False)]


def reference(
    symbol: Any, arrays: Mapping[str, Array]
) -> tuple[str, Callable[[Mapping[str, Array]], list[Array]], list[Array]]:
    """The type of the reference, the reference as a function of all arrays, and its answer."""
    mx = _prepare()
    symbol = with_masked_regions(symbol)
    exact = in_float64(symbol)
    for kind, network in (("float64", exact), ("float32", symbol)):

        def answer(values: Mapping[str, Array], network: Any = network, kind: str = kind) -> list[Array]:
            return run_mxnet(network, values, kind)

        try:
            return kind, answer, answer(arrays)
        except mx.base.MXNetError:
            if kind == "float32":
                raise
    raise AssertionError


def without_sorting(symbol: Any) -> tuple[Any, Any, list[str]] | None:
    """The symbol cut at the nodes that sort or suppress, if it has any.

    Returns:
        The symbol with the outputs of those nodes as variables, whose outputs are what the nodes take in and the
        original ones; the symbol of the nodes' outputs; and the variables' names.
    """
    mx = _prepare()
    graph = json.loads(symbol.tojson())
    old, new = graph["nodes"], []
    place: dict[tuple[int, int], list[int]] = {}
    cut: list[tuple[int, int]] = []
    used = sorted({(e[0], e[1]) for node in old for e in node["inputs"]} | {(e[0], e[1]) for e in graph["heads"]})
    heads: list[list[int]] = []
    for index, node in enumerate(old):
        outputs = [output for source, output in used if source == index] or [0]
        inputs = [place[(e[0], e[1])] for e in node["inputs"]]
        if node["op"] in JUMPING:
            heads += [e for e in inputs if new[e[0]]["op"] != "null" and e not in heads]
            for output in outputs:
                place[(index, output)] = [len(new), 0, 0]
                new.append({"op": "null", "name": f"sorted{len(cut)}", "inputs": []})
                cut.append((index, output))
            continue
        for output in outputs:
            place[(index, output)] = [len(new), output, 0]
        new.append({**node, "inputs": inputs})
    if not cut:
        return None
    heads += [place[(e[0], e[1])] for e in graph["heads"]]
    heads = [e for e in heads if new[e[0]]["op"] != "null"]
    variables = [i for i, node in enumerate(new) if node["op"] == "null"]
    rest = {"nodes": new, "arg_nodes": variables, "heads": heads, "attrs": graph.get("attrs", {})}
    jumps = {**graph, "heads": [[index, output, 0] for index, output in cut]}
    return (
        mx.sym.load_json(json.dumps(rest)),
        mx.sym.load_json(json.dumps(jumps)),
        [f"sorted{i}" for i in range(len(cut))],
    )


# --- one network -----------------------------------------------------------------------------------------------------


def structure(name: str) -> dict[str, Any]:
    """How the compiler cuts a network; nothing is built or run."""
    from harness.compiler import plan

    symbol, params, data = build(name, no_weights)
    start = time.perf_counter()
    found = plan(symbol, params, {"data": data.shape}, engine="onnxruntime")
    seconds = time.perf_counter() - start
    row = _row(symbol, params, data, len(found.segments), [(b.operator, b.reason) for b in found.fallbacks])
    return {**row, "lower_seconds": round(seconds, 2), "status": "lowered"}


def comparison(name: str) -> dict[str, Any]:
    """``structure``, and whether the answer is MXNet's."""
    symbol, params, data = build(name, random_weights)
    start = time.perf_counter()
    model = _compile(symbol, params, {"data": data})
    row = _row(symbol, params, data, len(model.segments), [(b.operator, b.reason) for b in model.fallbacks])
    row["compile_seconds"] = round(time.perf_counter() - start, 2)
    if family_of(name)[0] == "int8":
        return {**row, **int8_zoo.comparison(symbol, params, data, model)}
    cut = without_sorting(symbol)
    draws = DRAWS if cut is None else DRAWS[:1]  # what is not judged is not worth more
    row["reference"], row["headroom"], row["difference"] = held_to_mxnet(symbol, {"data": data}, params, model, draws)
    if cut is not None:
        rest, jumps, names = cut
        found = run_mxnet(with_masked_regions(jumps), {"data": data, **params}, "float32")
        needed = set(rest.list_inputs())
        inputs = {n: a for n, a in [("data", data), *zip(names, found)] if n in needed}
        inner = _compile(rest, params, inputs)
        row["headroom_whole"] = row["headroom"]
        row["reference"], row["headroom"], row["difference"] = held_to_mxnet(rest, inputs, params, inner)
    row["status"] = "agrees" if row["headroom"] <= 1 else "differs"
    return row


def _compile(symbol: Any, params: Mapping[str, Array], inputs: Mapping[str, Array], **options: Any) -> Any:
    import harness

    specs = {name: harness.Input(array.shape, str(array.dtype)) for name, array in inputs.items()}
    return harness.compile(symbol, dict(params), specs, engine="onnxruntime", threads=2, **options)


def _row(
    symbol: Any, params: Mapping[str, Array], data: Array, segments: int, blocked: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    return {
        "input": list(data.shape),
        "parameters": int(sum(array.size for array in params.values())),
        "nodes": sum(node["op"] != "null" for node in json.loads(symbol.tojson())["nodes"]),
        "segments": segments,
        "fallbacks": len(blocked),
        "reason": "; ".join(sorted({f"{operator}: {reason}" for operator, reason in blocked})),
    }


def held_to_mxnet(
    symbol: Any, inputs: Mapping[str, Array], params: Mapping[str, Array], model: Any, draws: Sequence[int] = DRAWS
) -> tuple[str, float, str]:
    """The reference's type, the largest error over its bound under the error model, and what is wrong.

    The response is the largest of three draws, as everywhere. A network has so many elements that some of them stand
    still in all three, so an error beyond the bound is looked at again with many more draws.
    """
    from harness import numerics

    arrays = {**params, **inputs}
    kind, run, exact = reference(symbol, arrays)
    whole = {n: a == np.floor(a) for n, a in arrays.items()}  # indices, classes, flags, anchors: nothing rounds them
    kept = {n: integral for n, integral in whole.items() if integral.all() or n in inputs}

    def answer(values: Mapping[str, Array]) -> list[Array]:
        return run({**values, **{n: np.where(integral, arrays[n], values[n]) for n, integral in kept.items()}})

    found = model(**inputs)
    terms = max((int(np.prod(a.shape[1:])) for a in params.values() if a.ndim > 1), default=1)
    by = "fp32" if kind == "float32" else "fp64"  # a float32 reference errs by the same rule itself
    worst, message = 0.0, ""
    for count in draws:
        moved = numerics.response(answer, arrays, exact, "fp32", draws=count)
        results = [numerics.compare(*three, "fp32", terms, by) for three in zip(found, exact, moved, strict=True)]
        named = zip(results, symbol.list_outputs(), strict=True)
        worst, message = max((r.headroom, f"{output}: {r.message}" if r.message else "") for r, output in named)
        if worst <= 1 or not np.isfinite(worst):
            break
    return kind, round(float(worst), 4) if np.isfinite(worst) else 1e30, message[:300]


def locate(name: str) -> None:
    """Print the nodes whose output is not MXNet's, the first ones."""
    from harness import numerics

    symbol, params, data = build(name, random_weights)
    arrays = {"data": data, **params}
    cut = without_sorting(symbol)
    inputs = {"data": data}
    if cut is not None:
        found = run_mxnet(with_masked_regions(cut[1]), arrays, "float32")
        symbol = cut[0]
        inputs |= {n: a for n, a in zip(cut[2], found) if n in symbol.list_inputs()}
        arrays |= inputs
    graph = json.loads(symbol.tojson())
    inner = symbol.get_internals()
    variables = {node["name"] for node in graph["nodes"] if node["op"] == "null"}
    outputs = inner.list_outputs()
    chosen = [i for i, name in enumerate(outputs) if name not in variables]
    names = [outputs[i] for i in chosen]
    mx = _prepare()
    every = mx.sym.Group([inner[i] for i in chosen])  # by number: GluonCV gives some outputs one name
    model = _compile(every, params, inputs)
    kind, answer, exact = reference(every, arrays)
    moved = numerics.response(answer, arrays, exact, "fp32", draws=DRAWS[-1])
    terms = max((int(np.prod(a.shape[1:])) for a in params.values() if a.ndim > 1), default=1)
    print(f"reference: {kind}, {len(names)} tensors")
    count = 0
    for output, found, wanted, bound in zip(names, model(**inputs), exact, moved, strict=True):
        result = numerics.compare(found, wanted, bound, "fp32", terms)
        if not result:
            node = next(
                (n for n in graph["nodes"] if output.startswith(n["name"] + "_output") or output == n["name"]), {}
            )
            print(f"{output} ({node.get('op')} {node.get('attrs')}): headroom {result.headroom:.3g}; {result.message}")
            count += 1
            if count == 12:
                return


def builder(name: str) -> dict[str, Any]:
    """What TensorRT-RTX's parser and builder say of the network."""
    import onnx_ir as ir

    import harness
    from harness.engines.tensorrt import check_model

    symbol, params, data = build(name, random_weights)
    proto = harness.to_onnx(symbol, params, inputs={"data": data.shape})
    start = time.perf_counter()
    refusals = check_model(ir.from_proto(proto), name)
    seconds = time.perf_counter() - start
    if not refusals:
        return {"builder": f"builds in {seconds:.1f} s"}
    return {"builder": "; ".join(sorted({f"{r.operator or r.stage}: {r.reason}"[:200] for r in refusals}))}


# --- all of them -----------------------------------------------------------------------------------------------------


def in_process(work: Callable[[str], dict[str, Any]], name: str, limit: float) -> dict[str, Any]:
    """``work(name)`` in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(work, name, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            return {"status": "timeout", "reason": f"more than {limit:.0f} s"}
        return dict(receiver.recv())
    except EOFError:
        process.join()
        return {"status": "crashed", "reason": f"exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _report(work: Callable[[str], dict[str, Any]], name: str, sender: Any) -> None:
    try:
        sender.send(work(name))
    except NotTraceable as error:
        sender.send({"status": "not traceable", "reason": str(error)})
    except Exception as error:  # noqa: BLE001 - the report says why
        sender.send({"status": "error", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"})


def in_turns(names: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Families take turns, each with its smallest network next; what GluonCV can hardly trace comes last."""
    queues: dict[str, list[tuple[float, str]]] = {}
    for name in names:
        numbers = [float(n) for n in re.findall(r"(?<![v\d._])\d+(?:\.\d+)?", name)]
        size = rows.get(name, {}).get("parameters") or 1e12 + sum(numbers)
        queues.setdefault(family_of(name)[0], []).append((size, name))
    turns = [
        (family in LAST, turn, size, name)
        for family, queue in queues.items()
        for turn, (size, name) in enumerate(sorted(queue))
    ]
    return [name for *_, name in sorted(turns)]


def smallest(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The smallest network of each family that is built as a whole."""
    best: dict[str, str] = {}
    for name, row in sorted(rows.items(), key=lambda item: item[1].get("parameters", 0)):
        if row.get("fallbacks") == 0:
            best.setdefault(row["family"], name)
    return list(best.values())


def read() -> dict[str, dict[str, Any]]:
    """The stored rows by network."""
    if not REPORT.exists():
        return {}
    return {row["network"]: row for row in json.loads(REPORT.read_text("utf-8"))["networks"]}


def group_of(family: str) -> str:
    """What the networks of a family are for."""
    return next(group for group, pattern in GROUPS if re.search(pattern, family))


def summary(rows: Mapping[str, Mapping[str, Any]], of: Callable[[str], str]) -> list[list[Any]]:
    """Counts of traceable networks for each value of ``of(family)``, and for all of them."""
    traceable = [row for row in rows.values() if row["status"] != "not traceable"]
    names = sorted({of(row["family"]) for row in traceable})
    lines = [[name, *_counts([row for row in traceable if of(row["family"]) == name])] for name in names]
    return [*lines, ["all", *_counts(traceable)]]


def _counts(members: Sequence[Mapping[str, Any]]) -> list[Any]:
    whole = sum(row.get("segments") == 1 and row.get("fallbacks") == 0 for row in members)
    compared = [row for row in members if "headroom" in row or "moved" in row]
    agreeing = sum(row["status"] == "agrees" for row in compared)
    worst = max((row["headroom"] for row in compared if row["status"] == "agrees" and "headroom" in row), default="")
    return [len(members), whole, len(compared), agreeing, worst]


COLUMNS = [
    "family",
    "networks",
    "one engine, no fallback",
    "compared with MXNet",
    "agree",
    "largest error over its bound",
]


def write(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """The reports and the page, each replaced as a whole."""
    ordered = sorted(rows.values(), key=lambda row: (row["family"], row["network"]))
    report = {
        "command": COMMAND,
        "columns": ["GluonCV's zoo", *COLUMNS[1:]],
        "rows": summary(rows, group_of),
        "networks": ordered,
    }
    REPORT.parent.mkdir(exist_ok=True)
    _replace(REPORT, json.dumps(report, indent=1) + "\n")
    _replace(PAGE, page(rows))
    with REPORT.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(ordered)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def page(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/networks.md."""
    traceable = [row for row in rows.values() if row["status"] != "not traceable"]
    lines = [
        "<!-- Generated by scripts/run_zoo.py from reports/zoo.json; do not edit. -->",
        "",
        "# Networks",
        "",
        f"GluonCV's model zoo: {len(rows)} networks tried, of which {len(traceable)} can be made a symbol without",
        "weights, classes or a second input. Weights are random, inputs small. An answer agrees under the error model",
        "([error-model.md](error-model.md)); an error over its bound of 1 is the limit. Detectors are judged with the",
        "outputs of the nodes that sort, suppress or compare replaced by MXNet's; their whole answer is beside it.",
        "MXNet's own INT8 networks are judged layer by layer, by the share of integers that are a step off; the noise of",
        "the whole network against MXNet's INT8 answer (SQNR, in dB) is beside it.",
        "A network without an error has been cut, not compared yet.",
        "",
        *_table(COLUMNS, summary(rows, str)),
        "",
        "## Each network",
        "",
    ]
    columns = [
        "network",
        "status",
        "nodes",
        "segments",
        "fallbacks",
        "error / bound",
        "whole",
        "a step off",
        "SQNR",
        "input",
        "compiled in s",
    ]
    keys = (
        "network",
        "status",
        "nodes",
        "segments",
        "fallbacks",
        "headroom",
        "headroom_whole",
        "moved",
        "sqnr_db",
        "input",
        "compile_seconds",
    )
    ordered = sorted(traceable, key=lambda row: (row["family"], row["network"]))
    lines += _table(columns, [[_cell(row.get(key, "")) for key in keys] for row in ordered])
    told = [row for row in ordered if row.get("reason") or row["status"] == "differs"]
    lines += ["", "## What does not run in one engine, or differs", ""]
    lines += [f"- `{row['network']}`: {row.get('reason') or row.get('difference')}" for row in told] or ["Nothing."]
    built = [row for row in ordered if "builder" in row]
    if built:
        lines += [
            "",
            "## TensorRT-RTX's builder",
            "",
            *_table(["network", "says"], [[r["network"], r["builder"]] for r in built]),
        ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return str(value).replace("1e+30", "not finite").replace(str(EQUAL), "equal")


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [f"| {' | '.join(map(str, line))} |".replace("\n", " ") for line in (columns, ["---"] * len(columns), *rows)]


def store(name: str, found: dict[str, Any], work: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Put what was found into the reports; the row as it is now. Other sweeps may run beside this one."""
    with filelock.FileLock(Path(tempfile.gettempdir()) / "mxtrt-zoo.lock"):
        rows = read()
        before = rows.get(name, {})
        if work is builder and "builder" not in found:
            found = {"builder": f"{found['status']}: {found['reason']}"}
        keep = before if work is builder or found["status"] in ("timeout", "crashed") else {}
        kept = {key: before[key] for key in ("builder",) if key in before}
        rows[name] = {"network": name, "family": family_of(name)[0], **kept, **keep, **found}
        write(rows)
        return rows[name]


def sweep(work: Callable[[str], dict[str, Any]], names: Sequence[str], options: argparse.Namespace) -> None:
    """Run ``work`` for each name, storing every row as it comes."""
    end = time.monotonic() + 60 * options.minutes
    for count, name in enumerate(names, 1):
        if time.monotonic() > end:
            return
        found = in_process(work, name, options.timeout)
        row = store(name, found, work)
        print(
            f"[{count}/{len(names)}] {name} {tuple(row.get('input', ()))}: {row['status']} segments={row.get('segments')} "
            f"headroom={row.get('headroom')} {row.get('compile_seconds', row.get('lower_seconds'))} s {row.get('reason', '')[:200]} "
            f"{row.get('difference', '')} {row.get('builder', '')}",
            flush=True,
        )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-compare", action="store_true", help="read, lower and cut, but do not build or run")
    parser.add_argument("--only", default="", help="a regular expression that the name must match")
    parser.add_argument("--limit", type=int, default=10**6, help="at most this many networks")
    parser.add_argument("--minutes", type=float, default=10**6, help="start no network after this time")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one network")
    parser.add_argument("--again", action="store_true", help="also those that are in the report already")
    parser.add_argument("--locate", metavar="NETWORK", help="print the first nodes that differ from MXNet's")
    parser.add_argument("--builder", action="store_true", help="TensorRT-RTX's builder on the smallest of each family")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    rows = read()
    if options.locate:
        locate(options.locate)
        return 0
    if options.page:
        write(rows)
        return 0
    names = [name for name in networks() if re.search(options.only, name)]
    work: Callable[[str], dict[str, Any]] = structure if options.no_compare else comparison
    if options.builder:
        work, names = builder, [n for n in smallest(rows) if n in names and (options.again or "builder" not in rows[n])]
    elif not options.again:
        done = {
            n for n, row in rows.items() if options.no_compare or row["status"] not in ("lowered", "differs", "timeout")
        }
        names = [name for name in names if name not in done]
    import harness
    import harness.engines.onnxruntime
    import harness.numerics

    harness.operators()  # imports all lowerings once, before the processes of the networks
    sweep(work, in_turns(names, rows)[: options.limit], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
