"""All 34 networks of Gluon's zoo, one process each: one engine, MXNet's numbers, accepted by TensorRT-RTX's builder.

    python -m scripts.check_zoo [--quick] [--networks resnet50_v1,vgg16] [--out reports/zoo-gluon.json]

Writes the table as networks finish; ends with 1 if one of them is not right.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from scripts.rows import row
from suites.models.gluon_zoo import NAMES, examine

LIMIT = 900  # seconds a network


def _one(name: str, quick: bool) -> None:
    found = examine(name, quick, builder=True)
    print(json.dumps({**asdict(found), "ok": found.ok}))


def _in_a_process(name: str, quick: bool) -> dict[str, object]:
    command = [sys.executable, "-m", "scripts.check_zoo", "--one", name, *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"network": name, "ok": False, "problem": f"took longer than {LIMIT} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"network": name, "ok": False, "problem": f"ended with {done.returncode}: {lines[-1]}"}
    found: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """What is stored: the count against its bar, and the networks."""
    right = sum(bool(found["ok"]) for found in rows)
    what = (
        "networks of Gluon's zoo that are one engine, have MXNet's numbers on random and photographic input, and build"
    )
    return {
        "command": "python -m scripts.check_zoo", "precision": "fp32",
        "results": {"gluon-zoo": row(what, right, len(NAMES), at_least=True)}, "networks": rows,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest legal images instead of ImageNet's")
    parser.add_argument("--networks", default=",".join(NAMES))
    parser.add_argument("--out", type=Path, default=Path("reports/zoo-gluon.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _one(arguments.one, arguments.quick)
        return 0
    rows: list[dict[str, object]] = []
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.networks.split(","):
        found = _in_a_process(name, arguments.quick)
        rows.append(found)
        print(
            f"{name}: {'right' if found['ok'] else 'WRONG'}, error / bound {found.get('headroom')} {found.get('problem')}",
            flush=True,
        )
        arguments.out.write_text(json.dumps(summary(rows), indent=1) + "\n")
    return 0 if all(found["ok"] for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
