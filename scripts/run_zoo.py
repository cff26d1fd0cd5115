"""Compile the networks of Gluon's and GluonCV's model zoos and compare them with MXNet.

    python scripts/run_zoo.py [--only REGEX] [--limit N] [--timeout SECONDS] [--again]

Writes ``reports/zoo.json`` and ``reports/zoo.csv`` after each network, so that it goes on where it was stopped. Every
network runs in a process of its own. Weights are random (seeded); an answer is right under the error model, with
MXNet's own float32 answer as the reference where it has no float64 kernel. Detectors end in sorted, suppressed boxes
that jump when two scores change places, so the tensors before their first sort or suppression are compared as well.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "reports" / "zoo.json"
FIELDS = (
    "zoo", "network", "status", "segments", "fallbacks", "headroom", "headroom_before_sorting", "compile_seconds",
    "nodes", "input", "reason",
)  # fmt: skip
JUMPING = ("_contrib_box_nms", "topk", "argsort", "sort", "_contrib_MultiBoxDetection", "_contrib_Proposal")

# the size of the input, by the first pattern that the network's name matches
SIZES = (
    (r"i3d|c3d|p3d|r2plus1d|slowfast", None),  # videos: see VIDEOS
    (r"^ssd_300", (1, 3, 300, 300)),
    (r"^ssd|^center_net", (1, 3, 512, 512)),
    (r"^yolo", (1, 3, 320, 320)),
    (r"rcnn", (1, 3, 320, 384)),
    (r"monodepth", (1, 3, 192, 640)),
    (r"pose", (1, 3, 256, 192)),
    (r"^cifar", (1, 3, 32, 32)),
    (r"inception", (1, 3, 299, 299)),
    (r"nasnet", (1, 3, 331, 331)),
    (r"fcn|psp|deeplab|danet|icnet|fastscnn|_citys|hrnet.*_s$", (1, 3, 480, 480)),
    (r"", (1, 3, 224, 224)),
)
VIDEOS = (
    (r"c3d", (1, 3, 16, 112, 112)),
    (r"r2plus1d", (1, 3, 16, 112, 112)),
    (r"slowfast", (1, 3, 36, 224, 224)),
    (r"p3d", (1, 3, 16, 112, 112)),
    (r"", (1, 3, 16, 224, 224)),
)


def input_shape(name: str) -> tuple[int, ...]:
    """The shape of a network's input."""
    found = next(shape for pattern, shape in SIZES if re.search(pattern, name))
    return found or next(shape for pattern, shape in VIDEOS if re.search(pattern, name))


def networks() -> list[tuple[str, str]]:
    """(zoo, name) of all networks: Gluon's from its list, GluonCV's from its own registry."""
    from harness.frontend.compat import mxnet

    mxnet()
    from gluoncv.model_zoo import model_zoo as cv
    from mxnet.gluon.model_zoo import vision

    gluon = sorted(set(_gluon_names(vision)))
    return [("gluon", name) for name in gluon] + [("gluoncv", name) for name in sorted(cv._models)]


def _gluon_names(vision: Any) -> list[str]:
    source = re.findall(r"'([\w.]+)': \w+", Path(vision.__file__).read_text())
    return [name for name in source if name != "__name__"]


def build(zoo: str, name: str) -> tuple[Any, dict[str, Any]]:
    """The network's symbol and its parameters, random but fixed."""
    import numpy as np

    from harness.frontend.compat import mxnet

    mx = mxnet()
    mx.random.seed(7)
    np.random.seed(7)
    if zoo == "gluon":
        net = mx.gluon.model_zoo.vision.get_model(name, pretrained=False)
    else:
        from gluoncv.model_zoo import get_model

        for options in ({"pretrained": False, "pretrained_base": False}, {"pretrained": False}):
            try:
                net = get_model(name, **options)
                break
            except TypeError:
                if "pretrained_base" not in options:
                    raise
    net.initialize()
    net(mx.nd.array(sample(name)))
    rng = np.random.default_rng(5)
    for param in net.collect_params().values():
        if param.name.endswith(("_var", "_gamma")):  # those of a block made from a symbol know no initial value of their own
            param.set_data(mx.nd.ones(param.shape))
        elif len(param.shape) > 1 and param.grad_req != "null":  # LeCun's initialization: the signal reaches the end of a deep network and stays finite
            spread = (1 / np.prod(param.shape[1:])) ** 0.5
            param.set_data(mx.nd.array(rng.normal(0, spread, param.shape)))
    outputs = net(mx.sym.var("data"))
    flat = list(_flat(outputs))
    symbol = mx.sym.Group(flat) if len(flat) > 1 else flat[0]
    known = set(symbol.list_inputs())
    params = {p.name: p.data().asnumpy() for p in net.collect_params().values() if p.name in known}
    return symbol, params


def _flat(item: Any) -> Any:
    if isinstance(item, (list, tuple)):
        for part in item:
            yield from _flat(part)
    else:
        yield item


def sample(name: str) -> Any:
    """The input the network is compared on."""
    import numpy as np

    rng = np.random.default_rng(11)
    return rng.uniform(-1, 1, input_shape(name)).astype(np.float32)


def run(zoo: str, name: str) -> dict[str, Any]:
    """Compile and compare one network."""
    import harness

    symbol, params = build(zoo, name)
    data = sample(name)
    start = time.perf_counter()
    model = harness.compile(symbol, params, {"data": data.shape}, engine="onnxruntime")
    row: dict[str, Any] = {
        "zoo": zoo,
        "network": name,
        "input": list(data.shape),
        "compile_seconds": round(time.perf_counter() - start, 2),
        "segments": len(model.segments),
        "nodes": sum(len(segment.nodes) for segment in model.segments),
        "fallbacks": len(model.fallbacks),
        "reason": "; ".join(sorted({f"{b.operator}: {b.reason}" for b in model.fallbacks})),
    }
    row["headroom"] = headroom(symbol, params, data, model)
    early = before_sorting(symbol)
    if early is not None:
        inner = harness.compile(early, params, {"data": data.shape}, engine="onnxruntime")
        row["headroom_before_sorting"] = headroom(early, params, data, inner)
    judged = row.get("headroom_before_sorting", row["headroom"])
    row["status"] = "right" if judged <= 1 else "different"
    return row


def before_sorting(symbol: Any) -> Any:
    """What the first operators that sort or suppress take in, as a symbol of its own; None if there are none."""
    from harness.frontend.compat import mxnet

    mx = mxnet()
    graph = json.loads(symbol.tojson())
    after: set[int] = set()
    wanted: list[list[int]] = []
    for index, node in enumerate(graph["nodes"]):
        sources = [entry[0] for entry in node["inputs"]]
        if any(source in after for source in sources):
            after.add(index)
        elif node["op"] in JUMPING:
            after.add(index)
            wanted += [entry for entry in node["inputs"] if entry not in wanted]
    wanted = [entry for entry in wanted if graph["nodes"][entry[0]]["op"] != "null"]
    if not wanted:
        return None
    graph["heads"] = wanted
    return mx.sym.load_json(json.dumps(graph))


def headroom(symbol: Any, params: dict[str, Any], data: Any, model: Any) -> float:
    """The largest error over its bound under the error model."""
    import numpy as np

    from harness import numerics
    from harness.frontend.compat import mxnet

    mx = mxnet()

    def reference(arrays: dict[str, Any], dtype: str = "float64") -> list[Any]:
        aux = set(symbol.list_auxiliary_states())
        arrays = {**params, **arrays}
        made = {n: mx.nd.array(arrays[n], dtype=dtype if arrays[n].dtype.kind == "f" else arrays[n].dtype) for n in symbol.list_inputs()}
        bound = symbol.bind(
            mx.cpu(), {n: v for n, v in made.items() if n not in aux}, aux_states={n: v for n, v in made.items() if n in aux}
        )
        return [array.asnumpy() for array in bound.forward(is_train=False)]

    inputs = {"data": data, **params}
    try:
        exact = reference({"data": data})
        moved = numerics.response(reference, inputs, exact, "fp32", draws=1)
    except mx.base.MXNetError:
        exact = reference({"data": data}, "float32")
        moved = numerics.response(lambda arrays: reference(arrays, "float32"), inputs, exact, "fp32", draws=1)
    worst = 0.0
    for found, wanted, bound in zip(model(data=data), exact, moved, strict=True):
        result = numerics.compare(found, wanted, bound, "fp32", terms=4096)
        worst = max(worst, result.headroom)
        if not np.isfinite(worst):
            break
    return round(float(worst), 4)


def one(zoo: str, name: str, limit: int) -> dict[str, Any]:
    """``run`` in a process of its own."""
    failed = {"zoo": zoo, "network": name}
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", zoo, name], capture_output=True, text=True, timeout=limit, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return {**failed, "status": "timeout", "reason": f"more than {limit} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        text = done.stderr.strip().splitlines()
        return {**failed, "status": "error", "reason": (text[-1] if text else f"exit code {done.returncode}")[:400]}
    return dict(json.loads(lines[-1]))


def write(rows: dict[str, dict[str, Any]]) -> None:
    """Both reports, replaced as a whole."""
    REPORT.parent.mkdir(exist_ok=True)
    temporary = REPORT.with_suffix(".tmp")
    temporary.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
    temporary.replace(REPORT)
    with REPORT.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a regular expression that the name must match")
    parser.add_argument("--limit", type=int, default=10**6, help="at most this many networks")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one network")
    parser.add_argument("--again", action="store_true", help="also those that are in the report already")
    parser.add_argument("--one", nargs=2, metavar=("ZOO", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.one:
        try:
            print(json.dumps(run(*options.one)))
        except Exception as error:  # noqa: BLE001 - the report says why
            traceback.print_exc()
            print(f"{type(error).__name__}: {' | '.join(str(error).splitlines())[:400]}", file=sys.stderr)
            return 1
        return 0
    rows = {f"{r['zoo']}/{r['network']}": r for r in (json.loads(REPORT.read_text()) if REPORT.exists() else [])}
    todo = [(z, n) for z, n in networks() if re.search(options.only, n) and (options.again or f"{z}/{n}" not in rows)]
    for count, (zoo, name) in enumerate(todo[: options.limit], 1):
        row = one(zoo, name, options.timeout)
        rows[f"{zoo}/{name}"] = row
        write(rows)
        print(f"[{count}/{len(todo)}] {zoo}/{name}: {row['status']} headroom={row.get('headroom')} {row.get('reason', '')[:160]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
