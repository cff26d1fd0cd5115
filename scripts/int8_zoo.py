"""How far a network of MXNet's own INT8 graphs is from MXNet's answer, layer by layer and as a whole.

Used by scripts/run_zoo.py. Every layer that gives out integers is run on MXNet's own integers of the layers before it.
Its integers are MXNet's, but for those whose exact number lies so near to the middle between two integers that the
order of a few float32 roundings decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from .zoo_networks import Array, prepare
from .zoo_reference import compiled, run_mxnet

# Numbers up to 255 in magnitude, ten float32 roundings of 2^-24 on either side of a middle.
MOST_MOVED = 2 * 10 * 2.0**-24 * 255
LOUDEST = 300.0  # dB, stands for infinity
INTEGERS = ("_contrib_quantize", "_contrib_requantize", "_sg_mkldnn_")


def comparison(symbol: Any, params: Mapping[str, Array], data: Array, model: Any) -> dict[str, Any]:
    """The row of a network: the share of integers that are a step off, and the noise of the whole in dB."""
    from harness import numerics

    arrays = {**params, "data": data}
    layers, heads, names = taken_apart(symbol)
    found = run_mxnet(heads, arrays, "float32")
    inputs = {"data": data, **dict(zip(names, found, strict=True))}
    needed = set(layers.list_inputs())
    inner = compiled(layers, params, {name: array for name, array in inputs.items() if name in needed})
    ours = inner(**{name: array for name, array in inputs.items() if name in needed})[: len(found)]
    pairs = [(x.astype(np.int64), y.astype(np.int64)) for x, y in zip(ours, found) if y.dtype.kind in "iu"]
    steps = max(int(np.abs(x - y).max()) for x, y in pairs)
    moved = sum(int((x != y).sum()) for x, y in pairs) / sum(x.size for x, _ in pairs)
    whole = zip(model(data=data), run_mxnet(symbol, arrays, "float32"), strict=True)
    agrees = steps <= 1 and moved <= MOST_MOVED
    return {
        "reference": "float32",
        "moved": float(f"{moved:.1e}"),
        "sqnr_db": round(min(LOUDEST, *(numerics.sqnr(x, y) for x, y in whole)), 1),
        "difference": "" if agrees else f"{moved:.2%} of the integers differ, by up to {steps} steps",
        "status": "agrees" if agrees else "differs",
    }


def taken_apart(symbol: Any) -> tuple[Any, Any, list[str]]:
    """A network of independent layers.

    Returns:
        The symbol whose layers read the integers of the layers before them as variables, and whose first outputs are
        those integers; the symbol of the integers in the network itself; and the variables' names. Ranges stay where
        they are: they are constants of the layers.
    """
    mx = prepare()
    graph = json.loads(symbol.tojson())
    new: list[dict[str, Any]] = []
    place: dict[tuple[int, int], list[int]] = {}
    cut: list[int] = []
    firsts: list[list[int]] = []
    for index, node in enumerate(graph["nodes"]):
        inputs = [place.get((e[0], e[1])) or [place[(e[0], 0)][0], e[1], 0] for e in node["inputs"]]
        if not node["op"].startswith(INTEGERS):
            place[(index, 0)] = [len(new), 0, 0]
            new.append({**node, "inputs": inputs})
            continue
        firsts.append([len(new), 0, 0])
        place.update({(index, output): [len(new), output, 0] for output in (1, 2)})
        new.append({**node, "inputs": inputs})
        place[(index, 0)] = [len(new), 0, 0]
        new.append({"op": "null", "name": f"integers{len(cut)}", "inputs": []})
        cut.append(index)
    heads = firsts + [place[(e[0], e[1])] for e in graph["heads"]]
    variables = [i for i, node in enumerate(new) if node["op"] == "null"]
    layers = {"nodes": new, "arg_nodes": variables, "heads": heads, "attrs": graph["attrs"]}
    inside = {**graph, "heads": [[index, 0, 0] for index in cut]}
    return (
        mx.sym.load_json(json.dumps(layers)),
        mx.sym.load_json(json.dumps(inside)),
        [f"integers{i}" for i in range(len(cut))],
    )
