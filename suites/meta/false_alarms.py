"""Does the operator suite stay quiet without a fault? Repeats it with fresh seeds and counts the failures.

    python -m suites.meta.false_alarms --count 1000 --json reports/false_alarms.json

A repetition is the generated test of one operator with a seed that no other repetition has, in a worker process that is
replaced if it dies: a crash is one failed repetition. Operators have their turns one after another, and within a repetition the types of the
inputs. Each failure is an error of the suite, of the error model or of a lowering. The file is written row by row;
repetitions that are in it already are not done again, and the seeds go on behind them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from suites.ops import check
from suites.ops.case import Case, Spec
from suites.ops.coverage import drawn
from suites.ops.limitations import limitation_of
from suites.ops.written import command

from .isolation import Report, each
from .known import specs_of
from .mutate import prepare

SECONDS = 120  # for one case, MXNet's part included
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Repetition:
    """One operator's generated test with one seed.

    Attributes:
        operator, seed: what and with which seed.
        cases: how many cases were checked.
        dtypes: how many cases had inputs of each type.
        headroom: the largest error over its bound, of cases that no limitation is known of.
        alarms: what failed, with the command that repeats it.
        seconds: how long it took.
    """

    operator: str
    seed: int
    cases: int
    dtypes: dict[str, int]
    headroom: float
    alarms: tuple[str, ...]
    seconds: float


def balanced(cases: Sequence[Case], count: int) -> list[Case]:
    """``count`` of the cases, the types of their first inputs in turn."""
    by_type: dict[str, list[Case]] = {}
    for case in cases:
        by_type.setdefault(_dtype(case), []).append(case)
    turns = itertools.zip_longest(*by_type.values())
    return [case for turn in turns for case in turn if case is not None][:count]


def _dtype(case: Case) -> str:
    return next((tensor.dtype for tensor in case.inputs.values()), "none")


def repeat(task: tuple[Spec, int], report: Report) -> dict[str, Any]:
    """In the child: draw the cases of a repetition and check them; one of them also with sizes that vary."""
    spec, seed = task
    cases = balanced(drawn(spec.cases(), 3 * spec.examples, seed), spec.examples)
    varying = [case for case in cases if any(tensor.dynamic for tensor in case.inputs.values())][:1]
    alarms, headroom = [], 0.0
    for case, dynamic in [*((case, False) for case in cases), *((case, True) for case in varying)]:
        report(command(case, dynamic=dynamic))
        try:
            found = check.check(case, dynamic=dynamic)
            if limitation_of(case, "onnxruntime", "fp32") is None:
                headroom = max(headroom, found)
        except Exception as error:  # noqa: BLE001  whatever it is, it is an alarm
            alarms.append(
                f"{type(error).__name__}: {error}".split("\n  again:")[0] + f" | {command(case, dynamic=dynamic)}"
            )
    dtypes = Counter(_dtype(case) for case in cases)
    return {"cases": len(cases) + len(varying), "dtypes": dict(dtypes), "headroom": headroom, "alarms": tuple(alarms)}


def tasks(count: int, first_seed: int, operators: Sequence[str] | None = None) -> list[tuple[Spec, int]]:
    """Operators in turn, and in turn the specs of one that has several."""
    specs = {name: itertools.cycle(found) for name, found in sorted(specs_of().items())}
    names = [name for name in specs if not operators or name in operators]
    return [(next(specs[name]), first_seed + n) for n, name in zip(range(count), itertools.cycle(names))]


def run(given: Sequence[tuple[Spec, int]], workers: int) -> Iterator[Repetition]:
    """The repetitions, in the order in which they end."""
    for (spec, seed), outcome in each(given, repeat, SECONDS, workers, together=5):
        found = outcome.value
        if found is None:
            death = outcome.death.strip().splitlines()[-1]
            alarm = f"the process ended: {death} | {outcome.step or 'while drawing'}"
            found = {"cases": 0, "dtypes": {}, "headroom": 0.0, "alarms": (alarm,)}
        yield Repetition(spec.operator, seed, **found, seconds=outcome.seconds)


def upper_bound(alarms: int, count: int) -> float:
    """The largest rate of alarms that is compatible with the count (Clopper-Pearson, one-sided, 95 %)."""
    return 1.0 if alarms >= count else float(stats.beta.ppf(CONFIDENCE, alarms + 1, count - alarms))


def main() -> int:
    """The command line; exits with 1 if anything fails."""
    parser = argparse.ArgumentParser(description="repeat the operator suite with fresh seeds and count the failures")
    parser.add_argument("--count", type=int, default=1000, help="repetitions")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--operators", nargs="*", help="only these")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the repetitions are stored, and read from if they are there")
    given = parser.parse_args()
    prepare()
    rows = _stored(given.json)
    left = [task for task in tasks(given.count, given.seed, given.operators) if task[1] not in rows]
    for number, row in enumerate(run(left, given.workers), 1):
        rows[row.seed] = row
        for alarm in row.alarms:
            print(f"alarm: {row.operator}, seed {row.seed}: {alarm}", flush=True)
        if given.json and (number % 50 == 0 or number == len(left)):
            _write(given.json, list(rows.values()))
    alarms = sum(bool(row.alarms) for row in rows.values())
    bound = 100 * upper_bound(alarms, len(rows))
    print(f"{alarms} of {len(rows)} repetitions raised an alarm: at most {bound:.2g} % do, with 95 % confidence")
    return 1 if alarms else 0


def _stored(path: Path | None) -> dict[int, Repetition]:
    if path is None or not path.exists():
        return {}
    return {entry["seed"]: Repetition(**entry) for entry in json.loads(path.read_text("utf-8"))["rows"]}


def _write(path: Path, rows: list[Repetition]) -> None:
    rows.sort(key=lambda row: row.seed)
    alarms = sum(bool(row.alarms) for row in rows)
    dtypes: Counter[str] = Counter()
    for row in rows:
        dtypes.update(row.dtypes)
    head = {
        "command": f"python -m suites.meta.false_alarms --count {len(rows)} --seed {rows[0].seed}",
        "repetitions": len(rows),
        "alarms": alarms,
        "upper_bound": upper_bound(alarms, len(rows)),
        "operators": len({row.operator for row in rows}),
        "cases": sum(row.cases for row in rows),
        "dtypes": dict(sorted(dtypes.items())),
        "seeds": [rows[0].seed, rows[-1].seed],
    }
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n', "utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # a process that forks may not have started threads
    import conftest  # noqa: F401  the environment that MXNet's own kernels need

    sys.exit(main())
