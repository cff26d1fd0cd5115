"""Clean environments of the lock for every Python that MXNet supports, and one compiled library for all of them.

    python -m scripts.pythons [--folder FOLDER]

The library of harness.accelerator is compiled once. Each environment is made by scripts/install, runs the same program
with that file and without a compiler, and is deleted. Ends with 1 if one of them fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.accelerator.shim import compile_shim
from scripts.rows import ROOT, environment

VERSIONS = ("3.10", "3.11", "3.12")
PROGRAM = """
import hashlib, json, platform
import numpy as np
from harness.frontend.compat import mxnet
mx = mxnet()
import harness.accelerator
from harness.accelerator import library
mx.random.seed(1)
net = mx.gluon.nn.HybridSequential()
net.add(mx.gluon.nn.Conv2D(8, 3), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Activation("relu"), mx.gluon.nn.Dense(4))
net.initialize(mx.init.Xavier())
x = mx.nd.random.uniform(-1, 1, (2, 3, 8, 8))
expected = net(x).asnumpy()
net.optimize_for(x, backend="TensorRT", static_alloc=True, static_shape=True)
operators = [node["op"] for node in json.loads(net._cached_graph[1].tojson())["nodes"] if node["op"] != "null"]
found = [net(x).asnumpy() for _ in range(3)]
right = all(np.allclose(one, expected, rtol=1e-4, atol=1e-6) for one in found) and operators == ["_mxtrt_segment"]
print(json.dumps({
    "ok": bool(right), "python": platform.python_version(), "numpy": np.__version__, "mxnet": mx.__version__,
    "library": hashlib.sha256(library.library_path().read_bytes()).hexdigest(),
}))
"""


def run_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Python version -> what the program said in an environment of its own: ``ok``, versions, the library's digest."""
    from harness.accelerator.library import cached

    library = folder / "cache" / "mxtrt" / cached().name
    compile_shim(library)
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    found = {}
    for version in VERSIONS:
        result = run_one(version, folder)
        if result.get("library", digest) != digest:
            result |= {"ok": False, "error": "it did not use the library that was compiled for all"}
        found[version] = result
    return found


def run_one(version: str, folder: Path) -> dict[str, Any]:
    """The program in a clean environment of this Python, with the library from ``folder``/cache and no compiler."""
    python = _output(["scripts/find-python", version])
    if not python:
        return {"ok": False, "error": f"there is no Python {version} here"}
    place = folder / version
    nothing = folder / "no-programs"
    nothing.mkdir(exist_ok=True)
    try:
        made = _run(["scripts/install", python, str(place), "dev", str(place / "installed")], environment())
        if made.returncode:
            return {"ok": False, "error": f"scripts/install: {made.stderr.strip()[-500:]}"}
        bare = {"PATH": str(nothing), "XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)}
        done = _run([str(place / "bin" / "python"), "-c", PROGRAM], bare)
        if done.returncode:
            return {"ok": False, "error": done.stderr.strip()[-500:]}
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


def _output(command: list[str]) -> str:
    return _run(command, dict(os.environ)).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the environments are made (default: a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = run_all(Path(folder))
    for version, result in found.items():
        print(version, json.dumps(result))
    return 0 if all(result["ok"] for result in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
