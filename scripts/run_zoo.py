"""Compile the networks of GluonCV's model zoo and hold them to MXNet.

    python -m scripts.run_zoo [--no-compare] [--only REGEX] [--limit N] [--minutes N] [--timeout SECONDS] [--again]
    python -m scripts.run_zoo --locate NETWORK       the first node whose output differs from MXNet's
    python -m scripts.run_zoo --builder              what TensorRT-RTX's builder says of the smallest of each family
    python -m scripts.run_zoo --page                 only write docs/networks.md again

Writes ``reports/zoo.json``, ``reports/zoo.csv`` and ``docs/networks.md`` after each network, so that it goes on where
it was stopped. Every network runs in a process of its own; families take turns, their smallest networks first.
``--no-compare`` reads, lowers and cuts only; without it, networks that have not been compared yet are.

Weights are random and fixed, inputs the smallest that the network takes. An answer is right under the error model
(docs/error-model.md): the reference is MXNet in float64, or in float32 where it has no such kernel. Detectors sort and
suppress boxes, and random weights give scores so close that a rounding changes their order; what comes after is
another answer altogether. So they are judged with the outputs of those nodes, and of comparisons and floors, replaced
by MXNet's: on what goes into the nodes and on the final outputs. That is everything but the sorting itself, which
suites/ops holds to MXNet.

MXNet's own INT8 networks are judged layer by layer (scripts/int8_zoo.py): one integer that a rounding moves by a step
grows through fifty layers of random weights to another answer. The noise of the whole network is beside it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from . import int8_zoo
from .zoo_networks import Array, NotTraceable, build, family_of, networks, no_weights, prepare, random_weights
from .zoo_reference import DRAWS, compiled, held_to_mxnet, past_sorting, reference
from .zoo_report import read, write

LAST = ("int8", "custom classes", "frames of videos", "others")


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
    model = compiled(symbol, params, {"data": data})
    row = _row(symbol, params, data, len(model.segments), [(b.operator, b.reason) for b in model.fallbacks])
    row["compile_seconds"] = round(time.perf_counter() - start, 2)
    if family_of(name)[0] == "int8":
        return {**row, **int8_zoo.comparison(symbol, params, data, model)}
    cut = past_sorting(symbol, params, data)
    draws = DRAWS if cut is None else DRAWS[:1]  # what is not judged is not worth more
    row["reference"], row["headroom"], row["difference"] = held_to_mxnet(symbol, {"data": data}, params, model, draws)
    if cut is not None:
        rest, inputs = cut
        inner = compiled(rest, params, inputs)
        row["headroom_whole"] = row["headroom"]
        row["reference"], row["headroom"], row["difference"] = held_to_mxnet(rest, inputs, params, inner)
    row["status"] = "agrees" if row["headroom"] <= 1 else "differs"
    return row


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


def locate(name: str) -> None:
    """Print the nodes whose output is not MXNet's, the first ones."""
    from harness import numerics

    symbol, params, data = build(name, random_weights)
    symbol, inputs = past_sorting(symbol, params, data) or (symbol, {"data": data})
    arrays = {**params, **inputs}
    graph = json.loads(symbol.tojson())
    inner = symbol.get_internals()
    variables = {node["name"] for node in graph["nodes"] if node["op"] == "null"}
    outputs = inner.list_outputs()
    chosen = [i for i, name in enumerate(outputs) if name not in variables]
    names = [outputs[i] for i in chosen]
    mx = prepare()
    every = mx.sym.Group([inner[i] for i in chosen])  # by number: GluonCV gives some outputs one name
    model = compiled(every, params, inputs)
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
