"""Kill a process that fills a plan cache, at a random moment, many times: no cache may be damaged.

    python -m suites.meta.kill_trials 200

Prints one line of JSON and exits 1 if any trial left a cache that is not usable.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.engines.plan_cache import PlanCache, verify

PLANS = 6
SIZE = 3 << 20


def plan_of(number: int) -> bytes:
    """A plan that tells which it is, in every part of it."""
    return f"{number:08d}".encode() * (SIZE // 8)


def builder(number: int) -> Callable[[], tuple[bytes, dict[str, Any]]]:
    return lambda: (plan_of(number), {"number": number})


def fill(folder: Path) -> None:
    """Build plans for ever: what the killed process does."""
    cache = PlanCache(folder)
    for turn in range(10_000):
        number = turn % PLANS
        cache.find_or_build({"plan": number, "turn": turn // PLANS}, builder(number))
        if turn % PLANS == PLANS - 1:
            for entry in list(cache.entries())[:3]:
                cache.remove(entry.key)


def trial(folder: Path, seconds: float) -> dict[str, Any]:
    """Kill a filling process after some time; what is then wrong with the cache, and whether it can be used."""
    child = os.fork()
    if child == 0:
        try:
            fill(folder)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    damaged = [f"{checked.entry.key}: {checked.problem}" for checked in verify(folder) if checked.problem]
    cache = PlanCache(folder)
    built = []
    for number in range(PLANS):
        found = cache.find_or_build({"plan": number, "turn": 0}, builder(number))
        if (
            bytes(found.plan) != plan_of(found.manifest["notes"]["number"])
            or found.manifest["notes"]["number"] != number
        ):
            damaged.append(f"plan {number} holds something else")
        built.append(found.outcome)
    return {"damaged": damaged, "hits": built.count("hit"), "left": len(list((folder / "plans").glob(".*")))}


def main(trials: int, seed: int = 0) -> dict[str, Any]:
    """All trials, each in a cache of its own that a first kill has already touched."""
    draw = random.Random(seed)
    results = []
    for _ in range(trials):
        with tempfile.TemporaryDirectory() as folder:
            results.append(trial(Path(folder), draw.uniform(0.001, 0.12)))
    return {
        "trials": trials,
        "damaged": sum(bool(result["damaged"]) for result in results),
        "problems": [problem for result in results for problem in result["damaged"]][:5],
        "killed_while_writing": sum(bool(result["left"]) for result in results),
        "plans_found_again": sum(result["hits"] for result in results),
    }


if __name__ == "__main__":
    report = main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    print(json.dumps(report))
    sys.exit(bool(report["damaged"]))
