"""The model suites' networks on this machine: the compiled model against MXNet in turns, as ratios; and memory, build time.

    python scripts/bench_zoo.py               everything, about half an hour on two quiet cores; goes on where it stopped
    python scripts/bench_zoo.py --list        what would be measured, and for how long
    python scripts/bench_zoo.py --quick       seven networks into a file of its own
    python scripts/bench_zoo.py --draw        only draw the picture of what is stored again

Writes reports/speed.json (or --out) after each network, and the picture beside it. What is stored of the same commit and
machine is kept; --again begins anew. Each network has a process of its own, in which both sides take turns: whatever
the machine does meanwhile meets both, so the ratio is sound where a time would not be. A round is the unit of the
interval. MXNet is its released wheel with oneDNN, in both ways in which it is used: its executor (Symbol.bind, Module),
whose graph oneDNN fuses, and a Gluon block, hybridized with static memory. Peak memory is that of a process that loads
or compiles the files and answers once. --against adds peers (harness/benchmark/peers.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GLUON = (
    *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")),
    *(f"resnet{depth}_v{version}" for version in (1, 2) for depth in (18, 34, 50, 101, 152)),
    "alexnet", "densenet121", "densenet161", "densenet169", "densenet201", "squeezenet1.0", "squeezenet1.1", "inceptionv3",
    "mobilenet1.0", "mobilenet0.75", "mobilenet0.5", "mobilenet0.25",
    "mobilenetv2_1.0", "mobilenetv2_0.75", "mobilenetv2_0.5", "mobilenetv2_0.25",
)  # fmt: skip
# GluonCV's, one of each kind, at sizes that two cores answer in about a second
GLUONCV: Mapping[str, tuple[tuple[int, ...], Mapping[str, Any]]] = {
    "ssd_300_vgg16_atrous_voc": ((1, 3, 300, 300), {}),
    "yolo3_darknet53_voc": ((1, 3, 320, 320), {}),
    "faster_rcnn_resnet50_v1b_voc": ((1, 3, 320, 320), {}),
    "center_net_resnet18_v1b_voc": ((1, 3, 512, 512), {}),
    "fcn_resnet50_voc": ((1, 3, 320, 320), {"crop_size": 320, "base_size": 320}),
    "simple_pose_resnet18_v1b": ((1, 3, 256, 192), {}),
    "i3d_inceptionv1_kinetics400": ((1, 3, 16, 224, 224), {}),
}
QUICK = ("vgg11", "resnet18_v1", "resnet50_v2", "alexnet", "squeezenet1.1", "mobilenet0.25", "mobilenetv2_0.25")
BATCHED = ("resnet18_v1", "resnet50_v1", "mobilenet1.0", "mobilenetv2_1.0", "squeezenet1.1")
QUANTIZED = ("resnet18_v1", "resnet50_v1", "vgg16", "mobilenet1.0", "mobilenetv2_1.0", "densenet121", "inceptionv3")
REFERENCES = ("mxnet", "gluon")
SLOW = 0.5  # seconds of a call above which a round is one call after the one that wakes the threads, else two
FEWEST, MOST = 6, 24  # rounds
A_JOB = 35.0  # seconds, until it is known


@dataclass(frozen=True, slots=True)
class Job:
    """One line of the table."""

    network: str
    batch: int = 1
    precision: str = "fp32"

    def __str__(self) -> str:
        return f"{self.network} x{self.batch} {self.precision}"


def jobs(quick: bool) -> list[Job]:
    """What is measured, the most important first."""
    if quick:
        return [Job(name) for name in QUICK]
    return [
        *(Job(name) for name in (*GLUON, *GLUONCV)),
        *(Job(name, precision="int8") for name in QUANTIZED),
        *(Job(name, batch) for batch in (8, 32) for name in BATCHED),
    ]


# --- in the network's own process ------------------------------------------------------------------------------------


def write_files(name: str, batch: int, prefix: Path) -> tuple[int, ...]:
    """The network as MXNet's files, with random weights; the shape of its input."""
    from harness.frontend.compat import mxnet

    mx = mxnet()
    if name in GLUONCV:
        from scripts.zoo_networks import build, random_weights

        symbol, params, _ = build(name, random_weights, [GLUONCV[name]])
        states = set(symbol.list_auxiliary_states())
        symbol.save(f"{prefix}-symbol.json")
        saved = {
            f"{'aux' if key in states else 'arg'}:{key}": mx.nd.array(a, dtype=a.dtype) for key, a in params.items()
        }
        mx.nd.save(f"{prefix}-0000.params", saved)
        return (batch, *GLUONCV[name][0][1:])
    mx.random.seed(7)
    network = mx.gluon.model_zoo.vision.get_model(name)
    network.initialize(mx.init.Xavier(magnitude=2.0))
    network.hybridize()
    size = 299 if "inception" in name else 224
    network(mx.nd.zeros((1, 3, size, size))).wait_to_read()
    network.export(str(prefix))
    return (batch, 3, size, size)


def examine(
    job: Job, prefix: Path, threads: int, engine: str, against: Sequence[str], seconds: float, rounds: int | None = None
) -> dict[str, Any]:
    """Both sides of one network in turns: the ratio to each reference with its interval, and what compiling took."""
    import numpy as np

    import harness
    from harness.benchmark import sides
    from harness.benchmark.peers import PEERS
    from harness.benchmark.verdict import ratio_interval

    shape = write_files(job.network, job.batch, prefix)
    image = np.random.default_rng(7).uniform(-1, 1, shape).astype(np.float32)
    options: dict[str, Any] = {"threads": threads} if engine == "onnxruntime" else {}
    more = {"calibration": [{"data": image}]} if job.precision == "int8" else {}
    begin = time.perf_counter()
    model = harness.compile(
        str(prefix), inputs={"data": shape}, engine=engine, precision=job.precision, fallback="error", **options, **more
    )
    found: dict[str, Any] = {"input": list(shape), "compile_seconds": time.perf_counter() - begin}
    side = sides.Side(str(prefix), {"data": (shape, "float32")}, engine, job.precision, options=options)
    calls: dict[str, Callable[[], Any]] = {"compiled": lambda: model(data=image)}
    with ExitStack() as stack:
        for name in against:
            ready, _ = stack.enter_context(sides.prepared(side.with_engine(name), prefix.parent))
            calls[name] = PEERS[name].open(ready.request(0, 0, 1), {"data": image}, model)
    answers = {name: call() for name, call in calls.items()}
    taken = interleaved(calls, seconds, rounds)
    ours = np.asarray(answers["compiled"][0], np.float64)
    for name in against:
        ratio, low, high = ratio_interval(taken["compiled"], taken[name], confidence=0.95)
        theirs = np.asarray(answers[name][0], np.float64)
        found[name] = {
            "ratio": ratio, "low": low, "high": high, "ms": float(np.median(taken[name])) * 1e3,
            "difference": float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30)),
        }  # fmt: skip
    return {**found, "compiled_ms": float(np.median(taken["compiled"])) * 1e3, "rounds": len(taken["compiled"])}


def interleaved(calls: Mapping[str, Callable[[], Any]], seconds: float, rounds: int | None) -> dict[str, list[float]]:
    """The faster of two calls of each side in each round; the sides take turns in going first (A B B A)."""
    order = list(calls)
    once = {side: _timed(calls[side]) for side in order}
    timed = {side: 1 if once[side] > SLOW else 2 for side in order}
    a_round = sum(once[side] * (1 + timed[side]) for side in order)
    taken: dict[str, list[float]] = {side: [] for side in order}
    for number in range(rounds or min(MOST, max(FEWEST, round(seconds / a_round)))):
        for side in order if number % 2 == 0 else order[::-1]:
            time.sleep(0.02)  # the other side's threads stop spinning
            calls[side]()  # and this side's wake up
            taken[side].append(min(_timed(calls[side]) for _ in range(timed[side])))
    return taken


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name: str, rounds: int, threads: int, engine: str, batch: int) -> dict[str, Any]:
    """One network in this process: MXNet's time (Gluon, hybridized) over the compiled model's, with its interval."""
    _own_kernels()
    with tempfile.TemporaryDirectory() as folder:
        found = examine(Job(name, batch), Path(folder) / "net", threads, engine, REFERENCES, 0, rounds)
    gluon, executor = found["gluon"], found["mxnet"]
    return {
        "network": name, "ratio": gluon["ratio"], "low": gluon["low"], "high": gluon["high"], "rounds": rounds,
        "relative_difference": gluon["difference"], "mxnet_ms": gluon["ms"], "compiled_ms": found["compiled_ms"],
        "compile_seconds": found["compile_seconds"], "over_executor": executor["ratio"], "executor_ms": executor["ms"],
    }  # fmt: skip


def _own_kernels() -> None:
    """MXNet as it comes; said aloud, because what writes GluonCV's networks would switch oneDNN off."""
    os.environ["MXNET_MKLDNN_ENABLED"], os.environ["MXNET_SUBGRAPH_BACKEND"] = "1", "MKLDNN"


# --- over all networks -----------------------------------------------------------------------------------------------


def one(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """A job's figures, or the reason in their place: the ratio in a process of its own, then memory in two more."""
    from harness.benchmark import sides
    from harness.errors import HarnessError

    begin, load = time.monotonic(), round(os.getloadavg()[0], 1)
    row: dict[str, Any] = {"network": job.network, "batch": job.batch, "precision": job.precision, "load_before": load}
    with tempfile.TemporaryDirectory(prefix="mxtrt-zoo-") as folder:
        prefix = Path(folder) / "net"
        row.update(_in_own_process(job, prefix, options))
        if "error" not in row:
            side = sides.Side(
                str(prefix), {"data": (tuple(row["input"]), "float32")}, options.engine, job.precision,
                options={"threads": options.threads} if options.engine == "onnxruntime" else {},
            )  # fmt: skip
            try:
                for name, which in (("memory", side), ("mxnet_memory", side.with_engine("mxnet"))):
                    row[name] = sides.run(which, ROOT, 0, 0, 1).peak_rss
            except HarnessError as error:
                row["error"] = str(error)[:300]
    return {**row, "seconds": round(time.monotonic() - begin, 1)}


def _in_own_process(job: Job, prefix: Path, options: argparse.Namespace) -> dict[str, Any]:
    request = {
        "job": [job.network, job.batch, job.precision], "prefix": str(prefix), "threads": options.threads,
        "engine": options.engine, "against": [*REFERENCES, *options.against], "seconds": options.seconds,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(options.threads)}
    command = [sys.executable, __file__, "--one", json.dumps(request)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=options.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {options.timeout:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _asked(text: str) -> dict[str, Any]:
    request = json.loads(text)
    _own_kernels()
    return examine(
        Job(*request["job"]), Path(request["prefix"]), request["threads"], request["engine"], request["against"],
        request["seconds"],
    )  # fmt: skip


def main() -> int:
    options = arguments()
    if options.one:
        print(json.dumps(_asked(options.one)))
        return 0
    out = options.out or ROOT / "reports" / ("speed-quick.json" if options.quick else "speed.json")
    document = stored(out, options)
    wanted = [job for job in jobs(options.quick) if re.search(options.only, str(job))]
    known = {_job_of(row): row for row in document["measured"]}
    if options.draw:
        return write(out, document)
    left = [job for job in wanted if job not in known or "error" in known[job]]
    print(f"{len(left)} of {len(wanted)} to measure, about {minutes(left, out)} minutes", flush=True)
    if options.list:
        print("\n".join(f"{job}{'' if job in left else '  (stored)'}" for job in wanted))
        return 0
    begin, load = time.monotonic(), os.getloadavg()[0]
    if load > 1:
        print(f"the machine is busy (load {load:.1f}): threads that wait for each other lose more than they should")
    for number, job in enumerate(left):
        spent = time.monotonic() - begin
        if spent > options.minutes * 60:
            print(f"{options.minutes:.0f} minutes are over; the same command measures the other {len(left) - number}")
            break
        known[job] = one(job, options)
        document["measured"] = [known[job] for job in jobs(options.quick) if job in known]
        write(out, document)
        print(f"[{number + 1}/{len(left)}, {minutes(left[number + 1 :], out)} min left] {said(known[job])}", flush=True)
    return int(any("error" in known.get(job, {"error": ""}) for job in wanted))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seven networks")
    parser.add_argument("--list", action="store_true", help="only say what would be measured")
    parser.add_argument("--draw", action="store_true", help="only write table and picture again")
    parser.add_argument("--again", action="store_true", help="forget what is stored")
    parser.add_argument("--only", default="", help="a regular expression that 'NETWORK xBATCH PRECISION' must match")
    parser.add_argument("--seconds", type=float, default=8, help="of measuring, for each network")
    parser.add_argument("--minutes", type=float, default=40, help="after which no other network is begun")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--against", action="append", default=[], metavar="PEER", help="mx2onnx, torch, ...")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def stored(out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The document to go on with: what is stored if it is of this commit, machine and setting, else an empty one."""
    from harness.benchmark import machine

    setting = {
        "engine": options.engine,
        "threads": options.threads,
        "seconds": options.seconds,
        "against": options.against,
    }
    begun = {
        "command": f"python scripts/bench_zoo.py{' --quick' if options.quick else ''}",
        "what": f"MXNet 1.9.1's time over that of the compiled model ({options.engine}, {options.threads} threads)",
        "commit": (machine.commit(ROOT) or "unknown").rstrip("+"), "setting": setting, "machine": machine.record(),
        "measured": [],
    }  # fmt: skip
    if options.again or not out.is_file():
        return begun
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    same = found["setting"] == setting and not machine.differences(found["machine"], begun["machine"])
    if options.draw or (same and found["commit"] == begun["commit"]):
        return found
    print("what is stored is of another commit, machine or setting: everything is measured again")
    return begun


def _job_of(row: Mapping[str, Any]) -> Job:
    return Job(row["network"], row["batch"], row["precision"])


def minutes(left: Sequence[Job], out: Path) -> int:
    """What these will take, by what they, or the others, took the last time."""
    rows = json.loads(out.read_text("utf-8"))["measured"] if out.is_file() else []
    taken = {_job_of(row): float(row["seconds"]) for row in rows}
    usual = sum(taken.values()) / len(taken) if taken else A_JOB
    return -(-round(sum(taken.get(job, usual) for job in left)) // 60)


def said(row: Mapping[str, Any]) -> str:
    """A row for the terminal."""
    if "error" in row:
        return f"{_job_of(row)}: {row['error']}"
    first = row[REFERENCES[0]]
    others = ", ".join(f"{name} {value['ratio']:.2f}x" for name, value in row.items() if isinstance(value, dict))
    return f"{_job_of(row)}: {others} [{first['low']:.2f}, {first['high']:.2f}], {row['memory'] / 2**20:.0f} MiB"


def table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The stored result as a table."""
    lines = []
    for row in rows:
        over = [f"{row[name]['ratio']:.2f} ({row[name]['low']:.2f} to {row[name]['high']:.2f})" for name in REFERENCES]
        memory = f"{row['memory'] / 2**20:.0f} / {row['mxnet_memory'] / 2**20:.0f}"
        lines.append(
            [row["network"], str(row["batch"]), row["precision"], *over, memory, f"{row['compile_seconds']:.1f}"]
        )
    return lines


COLUMNS = ["network", "batch", "precision", "MXNet's executor over ours", "Gluon over ours", "peak memory, MiB: ours / MXNet's", "build, s"]  # fmt: skip


def write(out: Path, document: dict[str, Any]) -> int:
    """The result with its table, and the picture beside it."""
    from harness.report.charts import speed_picture

    right = [row for row in document["measured"] if "error" not in row]
    content = {**document, "columns": COLUMNS, "rows": table(right)}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    temporary.replace(out)
    if right:
        out.with_suffix(".svg").write_text(speed_picture(content), "utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
