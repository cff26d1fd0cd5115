"""Bad input by the hundred, in a process that may die of it: python -m suites.meta.fuzz KIND FIRST COUNT

runs cases FIRST to FIRST + COUNT of a kind and prints one JSON line per case that ended in anything but an answer or a
HarnessError that says something, and a last line with the tally. The process has a memory limit and each case a limit
of processor time, so that a blow-up and a hang are found too. :func:`run` starts such processes, and goes on behind a
case that ended one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
from harness.errors import HarnessError
from harness.frontend import compat
from harness.frontend.params import read_params

from . import bad_arguments, bad_files, bad_input
from .bad_files import call

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 5  # of processor time, which a busy machine does not stretch
PATIENCE = 120  # seconds in which a process must come to its next case, for hangs that take no processor time
MEMORY = 6 << 30  # of address space; the libraries alone map about two


def run_json(rng: random.Random, folder: Path) -> None:
    path = folder / "m-symbol.json"
    path.write_bytes(bad_input.mutated_json(rng))
    fallback = "mxnet" if rng.random() < 0.2 else "error"
    params, inputs = bad_input.parameters(), bad_input.INPUTS
    model = harness.compile(str(path), params, inputs, "onnxruntime", fallback=fallback, threads=1)
    if not model.fallbacks:  # what MXNet's own kernels do to absurd values is not ours
        call(model)


def _compile_params(folder: Path, data: bytes) -> None:
    symbol = folder / "p-symbol.json"
    if not symbol.exists():
        symbol.write_text(json.dumps(bad_input.good_model()))
    path = folder / "p-0000.params"
    path.write_bytes(data)
    read_params(path)  # most end here
    call(harness.compile(str(folder / "p"), None, bad_input.INPUTS, "onnxruntime", fallback="error", threads=1))


def run_params(rng: random.Random, folder: Path) -> None:
    _compile_params(folder, bad_input.mutated_params(rng, bad_input.good_params()[0]))


def run_operator(rng: random.Random, folder: Path) -> None:
    document, inputs = bad_input.odd_operator(rng)
    path = folder / "op.json"
    path.write_bytes(json.dumps(document).encode("utf-8", "surrogatepass"))
    call(harness.compile(str(path), None, inputs, "onnxruntime", fallback="error", threads=1))


def run_planted(rng: random.Random, folder: Path) -> None:
    """What the loop is there to find, one after the other; the last is well."""
    number = len(list(folder.glob("planted*")))
    (folder / f"planted{number}").touch()
    if number == 0:
        raise ValueError("a foreign exception")
    if number == 1:
        raise HarnessError("no")
    if number == 2:
        bytearray(2 * MEMORY)
    while number == 3:
        pass


KINDS: dict[str, Callable[[random.Random, Path], None]] = {
    "json": run_json,
    "params": run_params,
    "operator": run_operator,
    **bad_files.KINDS,
    "planted": run_planted,
}
ARGUMENTS = bad_arguments.cases()
EXHAUSTIVE = {"header": bad_input.HEADERS, "argument": len(ARGUMENTS)}  # kinds with a last case


def run_case(kind: str, number: int, folder: Path) -> None:
    """One case; returns if it ends in an answer."""
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV if number == 1 else 0)
    elif kind == "header":
        _compile_params(folder, bad_input.wrong_header(number))
    elif kind == "argument":
        name = list(ARGUMENTS)[number]
        if not (folder / "saved").exists():
            bad_arguments.make_files(folder)
        ARGUMENTS[name](str(folder / "m"))
        raise AssertionError(f"{name} was accepted")
    else:
        KINDS[kind](random.Random(f"{kind} {number}"), folder)


def failures(kind: str, first: int, count: int, tally: Counter[str]) -> Iterator[dict[str, Any]]:
    """Run cases; one record per case that ended in anything but an answer or a HarnessError.

    The good model runs first: what is imported at first use is not the first case's fault.
    """
    if kind in ("json", "argument") and compat.available():
        compat.mxnet()
    signal.signal(signal.SIGPROF, _too_late)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
            _compile_params(folder, bad_input.good_params()[0])
            for number in range(first, first + count):
                print(f"case {number}", file=sys.stderr, flush=True)
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    run_case(kind, number, folder)
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


# --- from outside ----------------------------------------------------------------------------------------------------


def run(kind: str, first: int, count: int) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Cases in processes of their own: how they ended, and those that did not end well.

    A case that ends its process (a crash, the memory limit of a library, a hang) is one of the latter, and a new process
    goes on behind it.
    """
    tally: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    last = first + count
    while first < last:
        done, found, reached, said = _process(kind, first, last - first)
        bad += [{"kind": kind, **record} for record in found]
        tally.update(done)
        if said:
            bad.append({"kind": kind, "case": reached, "error": said})
            tally["process ended"] += 1
        first = reached + 1
    return tally, bad


def _process(kind: str, first: int, count: int) -> tuple[dict[str, int], list[dict[str, Any]], int, str]:
    """The tally, the bad cases, the last case, and how the process ended ("" if as it should)."""
    command = [sys.executable, "-m", "suites.meta.fuzz", kind, str(first), str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    reached = first
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr is not None
        last_words = ""
        signal.signal(signal.SIGALRM, lambda *_: process.kill())
        signal.alarm(PATIENCE)
        for line in process.stderr:
            if line.startswith("case "):
                reached = int(line.split()[1])
                signal.alarm(PATIENCE)
            elif line.strip():
                last_words = line.strip()
        code = process.wait()
        signal.alarm(0)
        output.seek(0)
        lines = [json.loads(line) for line in output if line.startswith("{")]
    tallies = [line["tally"] for line in lines if "tally" in line]
    found = [line for line in lines if "tally" not in line]
    if code == 0 and tallies:
        return tallies[-1], found, first + count - 1, ""
    ended = {"process of": reached - first} if reached > first else {}
    return ended, found, reached, f"the process ended with {code}: {last_words[:200]}"


def main() -> None:
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    tally: Counter[str] = Counter()
    for record in failures(kind, first, count, tally):
        print(json.dumps(record), flush=True)
    print(json.dumps({"tally": tally}))


if __name__ == "__main__":
    main()
