"""Speed on GPUs, interleaved in one process per cell: mxtrt in FP16 and INT8, torch.compile, eager PyTorch, raw enqueue.

    python -m scripts.gpu_speed --out reports/gpu [--cells resnet50_v1:1,128 vgg16:128] [--resume] [--limit SECONDS]
                                [--precisions fp16 fp16@5 int8]     # @5: TensorRT's builder optimization level
    python -m scripts.gpu_speed --join NIGHT1.json NIGHT2.json --out reports/gpu      # later cells replace earlier ones

Plans are built first, at most four at a time on each GPU and every tactic timed four times, into a cache, and
torch.compile fills its own, a mode each; then every cell is measured, alone on its GPU, in a process of its own,
without what could not be built ("builds" has the reason). All contenders have
the same weights (the PyTorch module is made from MXNet's own graph, its BatchNorms folded into its convolutions as ours
are, in channels-last FP16) and the same input on the GPU, float32 as MXNet's models have it: all convert it within what
is timed, PyTorch in its compiled graph. A round is every contender once, in an order that turns each round; a turn is a
block of calls between two CUDA events. The figure of a contender is the median of its blocks; ratios are of those, and
the goal is against whichever of PyTorch's ways is fastest: torch.compile in each mode, compiled and captured as a CUDA
graph by hand, or eager.

Writes OUT/speed.json after each cell: the machine, the cells, and in "results" the goals with what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from scripts.gpu_networks import export
from scripts.gpu_queue import Row, smi, spread
from scripts.gpu_speed_table import document, join, joined, ratios

WORK = Path("/tmp/mxtrt-speed")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(WORK / "inductor"))
os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")

CELLS: dict[str, tuple[int, ...]] = {
    "resnet50_v1": (1, 8, 32, 128, 256), "vgg16": (1, 8, 32, 128), "mobilenetv2_1.0": (1, 8, 32, 128),
    "ssd_heads": (1, 8, 32), "ssd": (1, 8, 32),
}  # fmt: skip
WITHOUT_TORCH = ("ssd",)  # PyTorch has no twin of MXNet's box_nms
PRECISIONS = ("fp16", "int8")  # with "@N": builder optimization level N
INT8: Row = {"min_channels": 1}  # the first layer too
OF_TORCH = "torch "
TORCH_MODES = ("reduce-overhead", "max-autotune")  # the second takes minutes to tune for each batch
ROUNDS, WARM_SECONDS, TURN_SECONDS = 9, 0.05, 0.1  # of each turn: first untimed, because the one before leaves its mark
BUILDS = 4  # at a time on a GPU: most of a build is the processor's work
CLOCKS = "clocks.sm,clocks.mem,temperature.gpu,power.draw"
LAYERS = 20  # the slowest layers of a profile that are kept
# --- contenders ------------------------------------------------------------------------------------------------------


def compile_engine(name: str, batch: int, precision: str) -> tuple[Any, float]:
    """The compiled model and the seconds it took, from the plan cache where it is there."""
    import harness

    size = export(name, WORK / name)
    options: Row = {"avg_timing_iterations": 4}
    precision, _, level = precision.partition("@")
    if level:
        options["optimization_level"] = int(level)
    if precision == "int8":
        options |= {"base_precision": "fp16", **INT8, "calibration_table": str(ranges_table(name, size))}
    started = time.perf_counter()
    model = harness.compile(
        str(WORK / name / "net"), inputs={"data": (batch, 3, size, size)}, engine="tensorrt", precision=precision,
        fallback="error", cache_dir=str(WORK / "plans"), **options,
    )  # fmt: skip
    return model, time.perf_counter() - started


def ranges_table(name: str, size: int) -> Path:
    """Activation ranges of eight random images, by largest magnitude: enough for speed; accuracy is another run's."""
    import harness
    from harness.precision.calibration import collect, save_table
    from harness.precision.fold import fold_batch_norm
    from harness.precision.quantize import find_possible_sites

    path = WORK / name / "ranges.json"
    with filelock.FileLock(f"{path}.lock"):
        if not path.exists():
            shape = (2, 3, size, size)
            rng = np.random.default_rng(5)
            samples = [{"data": rng.uniform(-1, 1, shape).astype(np.float32)} for _ in range(4)]
            model = harness.compile(
                str(WORK / name / "net"), inputs={"data": shape}, engine="onnxruntime", fallback="error"
            )
            part = model.plan.models[0]
            fold_batch_norm(part)
            names = [site.tensor for site in find_possible_sites(part, INT8) if site.weight_axis is None]
            found = collect(part, list(dict.fromkeys(names)), samples)
            save_table(path, {key: histogram.amax for key, histogram in found.items()}, "minmax")
    return path


def twin(name: str) -> Any:
    """The network as a PyTorch module, float32, on the GPU."""
    import torch

    from harness.benchmark.torch_twin import make_twin
    from harness.frontend.mxnet import read_model

    export(name, WORK / name)
    graph, params = read_model(str(WORK / name / "net"), None, [])
    module = make_twin(graph, params, fold=True).cuda()
    for buffer in module.buffers():
        if buffer.dim() == 4:  # module.to() stumbles over SSD's anchors, which have five axes
            buffer.data = buffer.data.to(memory_format=torch.channels_last)
    return module


def half_twin(name: str) -> Any:
    """It in FP16 and channels last, but for its input and answers: float32, as all contenders have them."""
    import torch

    class Half(torch.nn.Module):  # type: ignore[misc]  # torch has no annotations where it is not installed
        def __init__(self) -> None:
            super().__init__()
            self.inner = twin(name).half()

        def forward(self, x: Any) -> Any:
            answer = self.inner(x.to(torch.float16, memory_format=torch.channels_last))
            return tuple(a.float() for a in answer) if isinstance(answer, tuple) else answer.float()

    return Half().eval()


def compiled_twin(module: Any, x: Any, mode: str) -> Any:
    import torch

    torch._dynamo.reset()
    fast = torch.compile(module, mode=mode, dynamic=False, fullgraph=True)
    with torch.inference_mode():
        for _ in range(3):
            fast(x)
    torch.cuda.synchronize()
    return fast


def set_torch() -> None:
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def prepare(kind: str, name: str, batch: int) -> Row:
    """Fill a cache: the plans' (a precision) or torch.compile's (``OF_TORCH`` and a mode). The seconds it took, and
    whether the plan was there."""
    if not kind.startswith(OF_TORCH):
        model, seconds = compile_engine(name, batch, kind)
        (step,) = model._program.steps
        return {"seconds": round(seconds, 2), "hit": step.session.outcome == "hit"}

    set_torch()
    started = time.perf_counter()
    compiled_twin(half_twin(name), image(batch, export(name, WORK / name)), kind.removeprefix(OF_TORCH))
    return {"seconds": round(time.perf_counter() - started, 2)}


def image(batch: int, size: int) -> Any:
    import torch

    generator = torch.Generator("cuda").manual_seed(batch)
    return torch.rand((batch, 3, size, size), generator=generator, device="cuda") * 2 - 1


# --- measuring -------------------------------------------------------------------------------------------------------


class Contender:
    """Something that enqueues one batch on a stream."""

    def __init__(self, call: Callable[[], Any], stream: Any) -> None:
        self.call, self.stream = call, stream
        self.blocks: list[float] = []
        self.walls: list[float] = []
        self.count = self.warm = 1

    def calibrate(self) -> None:
        import torch

        for _ in range(5):
            self.call()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            self.call()
        torch.cuda.synchronize()
        each = (time.perf_counter() - started) / 5
        self.count, self.warm = max(3, int(TURN_SECONDS / each)), max(3, int(WARM_SECONDS / each))

    def turn(self) -> None:
        import torch

        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        for _ in range(self.warm):
            self.call()
        torch.cuda.synchronize()
        started = time.perf_counter()
        begin.record(self.stream)
        for _ in range(self.count):
            self.call()
        end.record(self.stream)
        end.synchronize()
        self.walls.append((time.perf_counter() - started) / self.count)
        self.blocks.append(begin.elapsed_time(end) / 1e3 / self.count)

    def row(self, batch: int) -> Row:
        wall = float(np.median(self.walls))
        return {
            "gpu_ms": round(float(np.median(self.blocks)) * 1e3, 5),
            "wall_ms": round(wall * 1e3, 5),
            "img_s": round(batch / wall, 1),
            "walls_ms": [round(block * 1e3, 5) for block in self.walls],
        }


class Cell:
    """The contenders of one network and batch, and what they hold on the GPU."""

    def __init__(self, name: str, batch: int, precisions: Sequence[str]) -> None:
        import torch

        self.name, self.batch, self.precisions = name, batch, precisions
        self.size = export(name, WORK / name)
        self.stream = torch.cuda.Stream()
        self.found: dict[str, Contender] = {}
        self.notes: Row = {key: {} for key in ("load_s", "plan_mib", "activations_mib", "sqnr_db", "layers")}
        self._keep: list[Any] = []
        self.x = image(batch, self.size)
        with torch.inference_mode():
            self.expected = None if name in WITHOUT_TORCH else first(twin(name)(self.x)).float().cpu().numpy()

    def add_engine(self, precision: str) -> None:
        """Ours, and the same plan enqueued by hand, as it is and as a CUDA graph."""
        import torch

        from harness.engines.memory import read_device_array
        from harness.numerics import sqnr

        model, seconds = compile_engine(self.name, self.batch, precision)
        (step,) = model._program.steps
        session, x, stream = step.session, self.x, self.stream
        outputs = [torch.empty(a.shape, device="cuda") for a in session.enqueue([x]).wait()]
        pending: deque[Any] = deque(maxlen=8)  # a run that is dropped is awaited: keep a few under way

        handle = stream.cuda_stream
        with torch.cuda.stream(stream):  # once, as the plan enqueued by hand has its addresses once
            fixed_x = read_device_array("data", x, handle)
            fixed_outputs = [read_device_array("output", output, handle) for output in outputs]

        def enqueue() -> None:
            pending.append(session.enqueue([fixed_x], fixed_outputs, handle))

        def enqueue_tensors() -> None:
            pending.append(session.enqueue([x], outputs, handle))

        enqueue()
        torch.cuda.synchronize()
        notes = self.notes
        notes["load_s"][precision] = round(seconds, 3)
        notes["plan_mib"][precision] = round(len(session.plan_bytes()) / 2**20, 2)
        notes["activations_mib"][precision] = round(session.device_memory / 2**20, 2)
        if self.expected is not None:
            notes["sqnr_db"][precision] = round(sqnr(outputs[0].cpu().numpy(), self.expected), 2)
        self.found[f"mxtrt {precision}"] = Contender(enqueue, stream)
        self.found[f"mxtrt {precision}, PyTorch's tensors"] = Contender(on(stream, enqueue_tensors), stream)
        # By hand, but in the session's own context: another context's activations lie elsewhere, which alone moves
        # these times by 2 or 3 %.
        (lane,) = session._lanes

        def raw() -> None:
            lane.context.execute_async_v3(handle)

        def raw_graph() -> None:
            session.cuda.launch(lane.graph, handle)

        self.found[f"raw {precision}"] = Contender(raw, stream)
        for _ in range(3):
            enqueue()  # captured by now, if this plan can be
        if lane.graph:
            self.found[f"raw graph {precision}"] = Contender(raw_graph, stream)
        host = np.ascontiguousarray(x.cpu().numpy())
        other, _ = compile_engine(self.name, self.batch, precision)  # its addresses would cost the first its graph
        self.found[f"mxtrt {precision}, host arrays"] = Contender(lambda: other(data=host), stream)
        self._keep += [model, other, outputs, pending]

    def profile(self, precision: str) -> None:
        """Where the time goes, layer by layer; after the measurement, because a profiler slows a context down."""
        model, _ = compile_engine(self.name, self.batch, precision)
        (step,) = model._program.steps
        times = sorted(step.session.profile([self.x], runs=5), key=lambda t: -t.milliseconds)
        total = sum(t.milliseconds for t in times)
        self.notes["layers"][precision] = {
            "layers": len(times), "sum_ms": round(total, 4),
            "slowest": [{"layer": t.name[:120], "nodes": list(t.nodes)[:4], "ms": round(t.milliseconds, 4)} for t in times[:LAYERS]],
        }  # fmt: skip

    def add_torch(self, modes: Sequence[str]) -> None:
        import torch

        if self.name in WITHOUT_TORCH:
            return
        module, x = half_twin(self.name), self.x
        for mode in modes:
            fast = compiled_twin(module, x, mode)
            self.found[f"torch.compile {mode}"] = Contender(inference(self.stream, fast, x), self.stream)
        plain = compiled_twin(module, x, "default")
        with torch.inference_mode():
            graph = capture(lambda: plain(x), self.stream)
        if graph is not None:  # what its kernels can do without the cost of Python between them
            self.found["torch.compile, captured"] = Contender(on(self.stream, graph.replay), self.stream)
            self._keep += [plain, graph]
        self.found["torch eager"] = Contender(inference(self.stream, module, x), self.stream)

    def measure(self) -> Row:
        for contender in self.found.values():
            contender.calibrate()
        order = list(self.found)
        for number in range(ROUNDS):
            for key in order if number % 2 == 0 else order[::-1]:
                self.found[key].turn()
            order = order[1:] + order[:1]
        rows = {key: contender.row(self.batch) for key, contender in self.found.items()}
        return {"network": self.name, "batch": self.batch, "rows": rows, "ratios": ratios(rows, self.precisions)}


def first(answer: Any) -> Any:
    return answer[0] if isinstance(answer, tuple) else answer


def capture(call: Callable[[], Any], stream: Any) -> Any:
    """The call as a CUDA graph; None where something in it cannot be captured."""
    import torch

    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            call()
    except RuntimeError:
        return None
    return graph


def on(stream: Any, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call within PyTorch's stream, as its users have it: tensors of another stream would be waited for."""
    import torch

    def run() -> None:
        with torch.cuda.stream(stream):
            call()

    return run


def inference(stream: Any, module: Any, x: Any) -> Callable[[], Any]:
    import torch

    def run() -> None:
        with torch.cuda.stream(stream), torch.inference_mode():
            module(x)

    return run


# --- the run ---------------------------------------------------------------------------------------------------------


def measure_cell(name: str, batch: int, modes: Sequence[str], precisions: Sequence[str]) -> Row:
    set_torch()
    cell = Cell(name, batch, precisions)
    for precision in precisions:
        cell.add_engine(precision)
    cell.add_torch(modes)
    result = cell.measure()
    for precision in precisions:
        cell.profile(precision)
    return {
        **result,
        **cell.notes,
        "torch_input": "float32",
        "gpu": smi("name"),
        "clocks": f"{CLOCKS}: {smi(CLOCKS)}",
    }


def machine() -> Row:
    import tensorrt
    import torch

    return {
        "gpu": f"{smi('name')}, driver {smi('driver_version')}", "tensorrt": tensorrt.__version__,
        "torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0],
        "numpy": np.__version__, "cores": os.cpu_count(),
    }  # fmt: skip


def store(out: Path, cells: Sequence[Row], failed: Sequence[Row], builds: Sequence[Row]) -> None:
    """Put them into OUT/speed.json; several commands may do so at once."""
    path = out / "speed.json"
    with filelock.FileLock(f"{path}.lock"):
        earlier = json.loads(path.read_text()) if path.exists() else document({}, [], [], [])
        path.write_text(json.dumps(joined(earlier, cells, failed, builds, machine()), indent=1) + "\n")


def run(
    cells: Mapping[str, Sequence[int]], out: Path, build_limit: float, limit: float, jobs: int, modes: Sequence[str],
    precisions: Sequence[str],
) -> int:  # fmt: skip
    began = time.monotonic()
    builds: list[Row] = []
    results: list[Row] = []
    failures: list[Row] = []

    def built(task: Sequence[str], found: Row) -> None:
        builds.append({"kind": task[1], "network": task[2], "batch": int(task[3]), **found})
        print(json.dumps(builds[-1]), flush=True)

    def measured(task: Sequence[str], found: Row) -> None:
        row = {"network": task[1], "batch": int(task[2]), **found}
        (failures if "error" in row else results).append(row)
        print(json.dumps({k: row.get(k) for k in ("network", "batch", "ratios", "error") if k in row}), flush=True)
        store(out, results, failures, builds)

    for name in cells:
        export(name, WORK / name)
    kinds = (*precisions[::-1], *(OF_TORCH + mode for mode in ("default", *modes)))
    tasks = [
        ("--build", kind, name, str(batch))
        for name, batches in cells.items() for kind in kinds for batch in batches[::-1]
        if not kind.startswith(OF_TORCH) or name not in WITHOUT_TORCH
    ]  # fmt: skip
    spread("scripts.gpu_speed", tasks, jobs, began + build_limit, built)
    missing = {(row["kind"], row["network"], row["batch"]) for row in builds if "error" in row}
    alone = [
        ("--measure", name, str(batch), "--modes", *(m for m in modes if (OF_TORCH + m, name, batch) not in missing),
         "--precisions", *(p for p in precisions if (p, name, batch) not in missing))
        for name, batches in cells.items() for batch in batches
    ]  # fmt: skip
    spread("scripts.gpu_speed", alone, 1, began + limit, measured)
    return int(bool(failures))


def read_cells(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``NETWORK:BATCH,BATCH`` each."""
    found = {}
    for text in texts:
        name, _, batches = text.partition(":")
        found[name] = tuple(int(b) for b in batches.split(",")) if batches else CELLS[name]
    return found


def read_precision(text: str) -> str:
    """``fp16`` or ``int8``, with TensorRT's builder optimization level behind an @ where it is not the default."""
    if not re.fullmatch(r"(fp16|int8)(@[0-5])?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: fp16 or int8, or one of them with @0 to @5, as fp16@5")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"))
    parser.add_argument("--cells", nargs="*", default=list(CELLS))
    parser.add_argument("--resume", action="store_true", help="keep the other cells of OUT/speed.json")
    parser.add_argument("--build-limit", type=float, default=1800, help="seconds for building")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for all")
    parser.add_argument("--jobs", type=int, default=BUILDS, help="builds at a time on each GPU")
    parser.add_argument("--modes", nargs="*", default=list(TORCH_MODES), help="of torch.compile")
    parser.add_argument(
        "--precisions", nargs="*", type=read_precision, default=list(PRECISIONS), help="fp16, int8, fp16@5, ..."
    )
    parser.add_argument("--join", nargs="+", type=Path, metavar="FILE", help="earlier speed.json: nothing is measured")
    parser.add_argument("--build", nargs=3, metavar=("KIND", "NETWORK", "BATCH"), help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, metavar=("NETWORK", "BATCH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        kind, name, batch = given.build
        print(json.dumps(prepare(kind, name, int(batch))))
        return 0
    if given.measure:
        name, batch = given.measure
        print(json.dumps(measure_cell(name, int(batch), given.modes, given.precisions)))
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    if given.join:
        (given.out / "speed.json").write_text(json.dumps(join(given.join), indent=1) + "\n")
        return 0
    if not given.resume:
        (given.out / "speed.json").unlink(missing_ok=True)
    return run(
        read_cells(given.cells), given.out, given.build_limit, given.limit, given.jobs, given.modes, given.precisions
    )


if __name__ == "__main__":
    sys.exit(main())
