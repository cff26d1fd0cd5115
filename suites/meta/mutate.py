"""Does the operator suite catch faults? Plants them in the lowerings, one at a time, and runs the suite's cases.

    python -m suites.meta.mutate --count 500 --json reports/faults.json

Faults are planted in worker processes that may die or hang and are replaced: a fault that ends the process or takes for
ever is caught, by that case. It is judged by the cases that run through the changed line, those of the operator for
which it was chosen first, until one fails. The file is written row by row; a verdict that is in it already is not asked
for again while the code and the cases that it depends on are the same.

What survives and changes no answer is told apart by suites/meta/equivalent.py, with an argument for each.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from harness.frontend import compat
from suites.ops import check
from suites.ops.coverage import drawn

from .equivalent import explanation
from .isolation import Outcome, Report, each
from .known import LOOPS, Known, KnownLoop, Line, Store, code, digest, specs_of
from .planting import Fault, all_faults, choose, planted

SECONDS = 20  # for one case: a fault may loop for ever
TOGETHER = 20  # faults that one worker judges


@dataclass(frozen=True)
class Row:
    """What the suite said of one fault.

    Attributes:
        operator: the one for which it was chosen.
        file, line, function, kind, change: what was planted where.
        caught: whether a case failed.
        case, check: the case, and what failed: the number of outputs, their types, shapes or values, the model's inner
            types, an error that compiling or running raised, the end of the process, or the time limit.
        cases: how many cases were run.
        reaching: how many run through the changed line.
        changed: of a survivor, in how many of them the emitted ONNX differs.
        seconds: how long it took.
        equivalent: whether it is known to change no answer.
        refuted: whether the argument why it does not is wrong.
        why: the argument why no case catches it, if there is one.
        key: what tells the fault from every other one, wherever in the file it is.
        state: a digest of what the verdict depends on (:meth:`Judge.state`).
    """

    operator: str
    file: str
    line: int
    function: str
    kind: str
    change: str
    caught: bool
    case: str
    check: str
    cases: int
    reaching: int
    changed: int
    seconds: float
    equivalent: bool
    refuted: bool
    why: str
    key: str
    state: str


# --- judging ---------------------------------------------------------------------------------------------------------

Place = tuple[str, int]  # an operator, and the number of its case


class Judge:
    """Judges faults by the cases that reach them."""

    def __init__(self, store: Store, operators: Iterable[str]) -> None:
        self.store = store
        self.reach: dict[Line, list[Place]] = {}
        self.served: dict[str, list[Any]] = {}
        self.known: dict[str, list[tuple[str, str]]] = {}
        for operator in operators:
            cases = store.load(operator)
            self.known[operator] = [(str(known), known.digest) for known in cases]
            for number, known in enumerate(cases):
                for line in known.lines:
                    self.reach.setdefault(line, []).append((operator, number))

    def places(self, operator: str, fault: Fault, operators: Sequence[str]) -> list[Place]:
        """The cases that run through a fault: those of its operator first, then of the others in turn."""
        wanted = set(operators)
        lines = [(name, line) for name, first, last in fault.spans for line in range(first, last + 1)]
        found = dict.fromkeys(place for line in lines for place in self.reach.get(line, []) if place[0] in wanted)
        turn: Counter[str] = Counter()
        ranked = []
        for owner, number in sorted(found):
            turn[owner] += 1
            ranked.append((owner != operator, turn[owner], owner, number))
        return [(owner, number) for *_, owner, number in sorted(ranked)]

    def state(self, fault: Fault, operators: Sequence[str], case: str) -> str:
        """What a verdict depends on: the case that failed and the code it runs; if none did, all cases and their code."""
        kinds = Path(__file__).with_name("fault_kinds.py").read_text("utf-8")
        names = sorted({*operators} & {*self.known})
        used = [(name, own) for name in names for text, own in self.known[name] if case in ("", text)]
        if case:
            used = used[:1]
        codes = [code(name) for name in sorted({name for name, _ in used})]
        return digest(fault.key, kinds, *codes, *(own for _, own in used))

    def work(self, task: tuple[str, Fault, Sequence[str]], report: Report) -> dict[str, Any]:
        """In the child: what the cases say."""
        operator, fault, operators = task
        places = self.places(operator, fault, operators)
        count = 0
        with planted(fault, operators):
            for count, (owner, number) in enumerate(places, 1):
                known = self.cases(owner)[number]
                report(json.dumps([str(known), count]))
                symptom = _symptom(known)
                if symptom:
                    return {"caught": True, "case": str(known), "check": symptom, "cases": count}
        changed = 0
        for owner, number in places:
            known = self.cases(owner)[number]
            report(json.dumps([str(known), count]))  # each has the time limit anew
            if isinstance(known, Known):
                own = _emitted(known)
                with planted(fault, operators):
                    changed += own != _emitted(known)
        return {"caught": False, "case": "", "check": "", "cases": count, "changed": changed}

    def cases(self, operator: str) -> list[Known | KnownLoop]:
        """An operator's cases."""
        if operator not in self.served:
            self.served[operator] = self.store.load(operator)
        return self.served[operator]

    def run(self, chosen: Iterable[tuple[str, Fault, Sequence[str]]], workers: int) -> Iterator[Row]:
        """A row for each fault, in the order in which they end."""
        for (operator, fault, operators), outcome in each(chosen, self.work, SECONDS, workers, TOGETHER):
            yield self._row(operator, fault, operators, outcome)

    def _row(self, operator: str, fault: Fault, operators: Sequence[str], outcome: Outcome) -> Row:
        found = outcome.value
        if outcome.death:
            if not outcome.step:
                raise RuntimeError(f"the runner failed on {fault.key}: {outcome.death}")
            case, count = json.loads(outcome.step)
            death = outcome.death.strip().splitlines()[-1]
            found = {"caught": True, "case": case, "check": f"process: {death}", "cases": count}
        return Row(
            operator,
            fault.file,
            fault.line,
            fault.function,
            fault.kind,
            fault.change,
            found["caught"],
            found["case"],
            found["check"],
            found["cases"],
            len(self.places(operator, fault, operators)),
            found.get("changed", 0),
            outcome.seconds,
            key=fault.key,
            state=self.state(fault, operators, found["case"]),
            **explained(fault, found["caught"], found.get("changed", 0)),
        )


def explained(fault: Fault, caught: bool, changed: int) -> dict[str, Any]:
    """What suites/meta/equivalent.py says of a fault, and whether it holds: a caught one changes answers, whatever is
    said, and so may one that changes the ONNX of which the same was claimed.
    """
    known = explanation(fault)
    if known is None:
        return {"equivalent": False, "refuted": False, "why": ""}
    refuted = caught or (known.same_graph and changed > 0)
    return {"equivalent": known.equivalent and not refuted, "refuted": refuted, "why": known.why}


def _symptom(known: Known | KnownLoop) -> str:
    """Which check failed, and with which words; "" if none."""
    try:
        return known.wrong()[:300]
    except Exception as error:  # noqa: BLE001  a fault may raise anything
        return f"error: {type(error).__name__}: {error}"[:300]


def _emitted(known: Known) -> list[bytes] | str:
    """The ONNX of a case with its constants, or what refused it."""
    try:
        parts = [part for part in known.compiled().plan.models if part is not None]
    except Exception as error:  # noqa: BLE001  as above
        return f"{type(error).__name__}: {error}"
    found = [ir.to_proto(part).SerializeToString(deterministic=True) for part in parts]
    for part in parts:
        constants = [value.const_value for value in part.graph.initializers.values()]
        found += [constant.tobytes() for constant in constants if constant is not None]
    return found


# --- the command -----------------------------------------------------------------------------------------------------


def prepare() -> None:
    """Do once, in the process that forks, what every child would: import the libraries, draw, compile.

    MXNet is not run here, whose threads a child would lack; ONNX Runtime is, with a single thread.
    """
    compat.mxnet()
    (case,) = drawn(specs_of()["abs"][0].cases(), 1)
    check.compiled(case, case.arrays(), "onnxruntime", "fp32")
    gc.freeze()  # a collection in a child would copy all the memory that it shares


def main() -> int:
    """The command line; exits with 1 if fewer than 99 % are caught."""
    parser = argparse.ArgumentParser(description="plant faults in the lowerings and see which the suite catches")
    parser.add_argument("--count", type=int, default=600, help="how many; 0 is all that there are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--operators", nargs="*", help="only faults that their cases run through, judged by these alone"
    )
    parser.add_argument("--only", default="", help="of those chosen only these: a regular expression in their keys")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the rows are stored, and read from if they are there")
    given = parser.parse_args()
    command = f"python -m suites.meta.mutate --count {given.count} --seed {given.seed}"
    command += f" --operators {' '.join(given.operators)}" if given.operators else ""
    prepare()
    store = Store()
    faults = all_faults(given.operators)
    if given.operators:
        faults = _reached(faults, _made(store, given.operators, given.workers))
    chosen = choose(faults, given.count or len(faults), given.seed, given.operators)
    served = sorted({name for _, fault in chosen for name in faults[fault]} & {*specs_of(), *LOOPS})
    judge = _made(store, served, given.workers)
    rows = {}
    for operator, fault in chosen:
        row = _stored(given.json).get(fault.key)
        if row and row.state == judge.state(fault, faults[fault], row.case):
            rows[row.key] = replace(
                row, operator=operator, line=fault.line, **explained(fault, row.caught, row.changed)
            )
    print(f"{len(rows)} of {len(chosen)} faults are judged already", flush=True)
    left = [(operator, fault, faults[fault]) for operator, fault in chosen if fault.key not in rows]
    left = [task for task in left if re.search(given.only, task[1].key)]
    for number, row in enumerate(judge.run(left, given.workers), 1):
        rows[row.key] = row
        if not row.caught and not row.why:
            place = f"{row.file}:{row.line} {row.function}"
            print(f"survived: {place}: {row.kind}: {row.change}  [{row.operator}: {row.reaching} cases reach it, "
                  f"{row.changed} emit other ONNX]", flush=True)  # fmt: skip
        if given.json and number % 20 == 0:
            _write(given.json, [rows[fault.key] for _, fault in chosen if fault.key in rows], command)
    found = [rows[fault.key] for _, fault in chosen if fault.key in rows]
    if given.json:
        _write(given.json, found, command)
    refuted = [row for row in found if row.refuted]
    for row in refuted:
        print(f"suites/meta/equivalent.py is wrong about {row.key}: {row.case or row.changed} ({row.check})")
    caught, judged = score(found)
    print(f"{caught} of {judged} planted faults were caught ({100 * caught / max(judged, 1):.2f} %); ", end="")
    print(f"{len(found) - judged} more change no answer (suites/meta/equivalent.py)")
    return 0 if caught >= 0.99 * judged and not refuted else 1


def _made(store: Store, operators: Sequence[str], workers: int) -> Judge:
    """A judge with the cases of these operators, which are computed if they are not known."""
    for operator, outcome in store.make(operators, workers):
        print(f"without a fault: {operator}: {outcome.step}: {' '.join(outcome.death.split())[-600:]}", flush=True)
    return Judge(store, operators)


def _reached(faults: dict[Fault, tuple[str, ...]], judge: Judge) -> dict[Fault, tuple[str, ...]]:
    """The faults that the judge's cases run through, of its operators alone."""
    own = {fault: tuple(name for name in names if name in judge.known) for fault, names in faults.items()}
    return {fault: names for fault, names in own.items() if judge.places(names[0], fault, names)}


def score(rows: Sequence[Row]) -> tuple[int, int]:
    """How many faults were caught, and how many there were that change an answer."""
    return sum(row.caught for row in rows), sum(not row.equivalent for row in rows)


@functools.cache
def _stored(path: Path | None) -> dict[str, Row]:
    """The rows of a file by their faults' keys."""
    content = json.loads(path.read_text("utf-8")) if path is not None and path.exists() else {}
    return {entry["key"]: Row(**{"refuted": False, **entry}) for entry in content.get("rows", [])}


def _write(path: Path, rows: Sequence[Row], command: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    caught, judged = score(rows)
    head = {"command": command, "planted": judged, "caught": caught, "equivalent": len(rows) - judged}
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    text = f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n'
    temporary = path.with_suffix(".part")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # a process that forks may not have started threads
    import conftest  # noqa: F401  the environment that MXNet's own kernels need

    sys.exit(main())
