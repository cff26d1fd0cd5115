"""What a network of GluonCV's is held to: MXNet in float64, cut where it sorts, and the error model.

MXNet's CPU leaves unwritten what ROIAlign gives for a region of image -1, with which feature pyramids mask the regions of
other levels, and overwrites a number of another region. The reference has 0 there, as MXNet's GPU has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .zoo_networks import Array, prepare

_COMPARISONS = ("equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal")
JUMPING = {
    "_contrib_box_nms", "_contrib_MultiBoxDetection", "_contrib_Proposal", "_contrib_MultiProposal",
    "topk", "argsort", "argmax", "argmin", "sort", "floor", "ceil", "round", "rint", "trunc", "fix",
    *(f"broadcast_{name}" for name in _COMPARISONS), *(f"_{name}_scalar" for name in _COMPARISONS),
}  # fmt: skip
DRAWS = (3, 16)  # perturbations behind the bound; the second where an error exceeds the first


def in_float64(symbol: Any) -> Any:
    """The symbol with float64 wherever a node names float32."""
    mx = prepare()
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
    mx = prepare()
    return mx.sym.load_json(
        json.dumps({"nodes": new, "arg_nodes": variables, "heads": heads, "attrs": graph.get("attrs", {})})
    )


def run_mxnet(symbol: Any, arrays: Mapping[str, Array], dtype: str) -> list[Array]:
    """MXNet's answer, with float arrays in ``dtype``."""
    mx = prepare()
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
    mx = prepare()
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
    mx = prepare()
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


def past_sorting(symbol: Any, params: Mapping[str, Array], data: Array) -> tuple[Any, dict[str, Array]] | None:
    """The symbol cut by ``without_sorting``, and its inputs: the image, and MXNet's outputs of what sorts."""
    cut = without_sorting(symbol)
    if cut is None:
        return None
    rest, jumps, names = cut
    found = run_mxnet(with_masked_regions(jumps), {"data": data, **params}, "float32")
    needed = set(rest.list_inputs())
    return rest, {n: a for n, a in [("data", data), *zip(names, found)] if n in needed}


def compiled(symbol: Any, params: Mapping[str, Array], inputs: Mapping[str, Array], **options: Any) -> Any:
    import harness

    specs = {name: harness.Input(array.shape, str(array.dtype)) for name, array in inputs.items()}
    return harness.compile(symbol, dict(params), specs, engine="onnxruntime", threads=2, **options)


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
