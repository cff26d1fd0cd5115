"""Does the suite stay quiet without a fault? Repeats it with fresh seeds and counts the failures.

``python -m suites.meta.false_alarms --count 1000 --json reports/false_alarms.json``

A repetition draws cases of one operator from a seed that no other repetition has, and checks them. Each failure is an
error of the suite or of a lowering; none in n repetitions bounds their rate by 3/n (95 % confidence).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from suites.ops.case import Spec, all_specs
from suites.ops.check import check
from suites.ops.coverage import drawn


def repetition(spec: Spec, seed: int, cases: int) -> Iterator[str]:
    """The messages of the cases that fail."""
    for case in drawn(spec.cases(), cases, seed):
        try:
            check(case)
        except Exception as error:  # noqa: BLE001  whatever it is, it is a failure
            yield f"{type(error).__name__}: {error}"


def main() -> int:
    """The command line; exits with 1 if anything fails."""
    parser = argparse.ArgumentParser(description="repeat the operator cases with fresh seeds and count the failures")
    parser.add_argument("--count", type=int, default=1000, help="repetitions")
    parser.add_argument("--cases", type=int, default=3, help="cases in each")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--operators", nargs="*", help="only these")
    parser.add_argument("--json", type=Path, help="where the result is written")
    given = parser.parse_args()
    specs = [spec for spec in all_specs() if not given.operators or spec.operator in given.operators]
    failures = []
    for number in range(given.count):
        spec, seed = specs[number % len(specs)], given.seed + number
        for message in repetition(spec, seed, given.cases):
            failures.append({"operator": spec.operator, "seed": seed, "message": message})
            print(f"failed: {spec.operator}, seed {seed}: {message.splitlines()[0][:300]}", flush=True)
    failed = len({failure["seed"] for failure in failures})
    bound = f", at most {300 / given.count:.2g} % with 95 % confidence" if not failed else ""
    print(f"{failed} of {given.count} repetitions failed{bound}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"repetitions": given.count, "failed": failed, "failures": failures, "seed": given.seed}
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    import conftest  # noqa: F401  the environment that MXNet's own kernels need

    sys.exit(main())
