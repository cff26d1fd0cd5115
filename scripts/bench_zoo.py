"""Gluon's model zoo on this machine: the compiled model against MXNet, in turns, as a ratio.

    python scripts/bench_zoo.py [--quick] [--only REGEX] [--rounds 12] [--threads 2] [--engine onnxruntime] [--batch 1]

Writes reports/speed-cpu.json (or --out) and the picture beside it. Both run in one process, which takes turns: whatever
the machine does meanwhile meets both, so the ratio is sound where a time would not be. A round is the unit of the
interval. MXNet is its released wheel as it comes, with oneDNN, hybridized with static memory. Each network has a process
of its own; --quick takes seven of them with a few rounds, into a file of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = (
    *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")),
    *(f"resnet{depth}_v{version}" for version in (1, 2) for depth in (18, 34, 50, 101, 152)),
    "alexnet", "densenet121", "densenet161", "densenet169", "densenet201", "squeezenet1.0", "squeezenet1.1", "inceptionv3",
    "mobilenet1.0", "mobilenet0.75", "mobilenet0.5", "mobilenet0.25",
    "mobilenetv2_1.0", "mobilenetv2_0.75", "mobilenetv2_0.5", "mobilenetv2_0.25",
)  # fmt: skip
QUICK = ("vgg11", "resnet18_v1", "resnet50_v2", "alexnet", "squeezenet1.1", "mobilenet0.25", "mobilenetv2_0.25")
SIDES = ("mxnet", "compiled")


def measure(name: str, rounds: int, threads: int, engine: str, batch: int) -> dict[str, Any]:
    """One network: seconds of each round on each side, and the ratio with its interval."""
    import numpy as np

    import harness
    from harness.benchmark.verdict import ratio_interval
    from harness.frontend.compat import mxnet

    mx = mxnet()
    mx.random.seed(7)
    network = mx.gluon.model_zoo.vision.get_model(name)
    network.initialize(mx.init.Xavier(magnitude=2.0))
    network.hybridize(static_alloc=True, static_shape=True)
    size = 299 if "inception" in name else 224
    image = np.random.default_rng(7).uniform(-1, 1, (batch, 3, size, size)).astype(np.float32)
    network(mx.nd.array(image)).wait_to_read()
    begin = time.perf_counter()
    options = {"threads": threads} if engine == "onnxruntime" else {}
    model = harness.compile(network, inputs={"data": image.shape}, engine=engine, fallback="error", **options)
    compile_seconds = time.perf_counter() - begin
    calls = {"mxnet": lambda: network(mx.nd.array(image)).asnumpy(), "compiled": lambda: model(data=image)[0]}
    difference = float(np.abs(calls["mxnet"]() - calls["compiled"]()).max() / np.abs(calls["mxnet"]()).max())
    taken = interleaved(calls, rounds)
    ratio, low, high = ratio_interval(taken["compiled"], taken["mxnet"], confidence=0.95)
    return {
        "network": name, "ratio": ratio, "low": low, "high": high, "rounds": rounds, "relative_difference": difference,
        **{f"{side}_ms": float(np.median(taken[side])) * 1e3 for side in SIDES}, "compile_seconds": compile_seconds,
    }  # fmt: skip


def interleaved(calls: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """The faster of two calls of each side in each round; the sides take turns in going first (A B B A)."""
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            time.sleep(0.02)  # the other side's threads stop spinning
            calls[side]()  # and this side's wake up
            times = []
            for _ in range(2):
                start = time.perf_counter()
                calls[side]()
                times.append(time.perf_counter() - start)
            taken[side].append(min(times))
    return taken


def one(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """``measure`` in a process of its own; the reason in place of figures where it fails."""
    arguments = [
        "--rounds",
        options.rounds,
        "--threads",
        options.threads,
        "--engine",
        options.engine,
        "--batch",
        options.batch,
    ]
    command = [sys.executable, __file__, "--one", name, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(options.threads)}
    for variable in ("MXNET_MKLDNN_ENABLED", "MXNET_SUBGRAPH_BACKEND"):
        environment.pop(variable, None)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=options.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return {"network": name, "error": f"not done after {options.timeout} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"network": name, "error": done.stderr.strip()[-300:]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seven networks, five rounds")
    parser.add_argument("--only", default="", help="a regular expression that the name must match")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.one:
        print(json.dumps(measure(options.one, options.rounds, options.threads, options.engine, options.batch)))
        return 0
    if options.quick:
        options.rounds = min(options.rounds, 5)
    out = options.out or ROOT / "reports" / ("speed-cpu-quick.json" if options.quick else "speed-cpu.json")
    rows = []
    for name in QUICK if options.quick else NETWORKS:
        if re.search(options.only, name):
            rows.append(one(name, options))
            shown = rows[-1].get("error") or "{ratio:.2f}x [{low:.2f}, {high:.2f}]".format(**rows[-1])
            print(f"{name}: {shown}", flush=True)
    return write(out, rows, options)


def write(out: Path, rows: list[dict[str, Any]], options: argparse.Namespace) -> int:
    """The stored result, as a table that the README takes, and its picture."""
    from harness.benchmark import machine
    from harness.report.charts import speed_chart

    right = [row for row in rows if "error" not in row]
    command = f"scripts/bench_zoo.py{' --quick' if options.quick else ''}"
    where = machine.record()
    content = {
        "command": command,
        "what": f"latency of MXNet 1.9.1 over that of the compiled model ({options.engine}, fp32, batch {options.batch}, {options.threads} threads)",
        "columns": ["network", "MXNet over compiled", "95 % interval"],
        "rows": [[row["network"], f"{row['ratio']:.2f}x", f"{row['low']:.2f} to {row['high']:.2f}"] for row in right],
        "measured": rows,
        "commit": machine.commit(ROOT),
        "machine": where,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    if right:
        out.with_suffix(".svg").write_text(speed_chart(right, f"{where['cpu']}, {where['cores']} cores"), "utf-8")
    return int(len(right) != len(rows) or not rows)


if __name__ == "__main__":
    sys.exit(main())
