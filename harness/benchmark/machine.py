"""What a measurement was made on: processor, GPU, driver, clocks, libraries. Decides which times can be compared."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

# Times are comparable only where all of these are equal; the rest of the record is for the reader.
DECISIVE = (
    "cpu", "cores", "architecture", "gpu", "gpu_count", "driver", "cuda", "tensorrt", "tensorrt_rtx", "onnxruntime",
    "clocks", "mig", "timing_cache",
)  # fmt: skip
PACKAGES = {
    "harness": "mxtrt", "numpy": "numpy", "onnx": "onnx", "mxnet": "mxnet", "onnxruntime": "onnxruntime", "scipy": "scipy",
    "pytest-benchmark": "pytest-benchmark", "torch": "torch", "tensorrt_rtx": "tensorrt-rtx-cu13-bindings",
}  # fmt: skip
TENSORRT = ("tensorrt-cu12", "tensorrt-cu13", "tensorrt", "tensorrt-cu12-bindings", "tensorrt-cu13-bindings")
_GPU_FIELDS = {
    "gpu": "name", "gpu_uuid": "uuid", "driver": "driver_version", "gpu_memory": "memory.total", "mig": "mig.mode.current",
    "compute_capability": "compute_cap", "power_limit": "power.limit", "persistence": "persistence_mode",
}  # fmt: skip
_CLOCKS = ("clocks.applications.graphics", "clocks.applications.memory", "clocks.max.sm")


def record(timing_cache: str | Path | None = None) -> dict[str, Any]:
    """The machine record; what is not there is None.

    Args:
        timing_cache: TensorRT's timing cache, of which the digest is kept: other tactics are another measurement.
    """
    versions = {name: _version(package) for name, package in PACKAGES.items()}
    found: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "architecture": platform.machine(),
        "memory_gb": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **_gpu(),
        **{name: versions.pop(name) for name in ("tensorrt_rtx", "onnxruntime")},
        "timing_cache": _digest(timing_cache),
        "packages": versions,
    }
    found["tensorrt"] = _imported_version("tensorrt") or next(filter(None, map(_version, TENSORRT)), None)
    return found


def hardware(found: Mapping[str, Any] | None = None) -> str:
    """A folder's name for this hardware: its GPU, or its processor and number of cores."""
    found = record() if found is None else found
    name = f"{found['gpu']} x{found['gpu_count']}" if found.get("gpu") else f"{found['cpu']} {found['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("(r)", "").replace("(tm)", "")).strip("-")


def differences(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """What makes times of the two machines incomparable, in words; empty if nothing does."""
    return [
        f"{key} was {baseline.get(key)!r}, is {candidate.get(key)!r}"
        for key in DECISIVE
        if baseline.get(key) != candidate.get(key)
    ]


def commit(folder: str | Path = ".") -> str | None:
    """The commit of a checkout, with ``+`` where files of it are changed; None outside of one."""
    head = _output(["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"])
    if head is None:
        return None
    return head + ("+" if _output(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"]) else "")


def _cpu() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):  # the second on some ARM boards
            return value.strip()
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    found = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    return round(int(found[1]) / 2**20, 1) if found else None


@functools.cache
def _gpu() -> dict[str, Any]:
    """The first visible GPU as nvidia-smi describes it; clocks and MIG may be unknown to it (Jetson)."""
    found: dict[str, Any] = dict.fromkeys((*_GPU_FIELDS, "gpu_count", "clocks", "cuda"))
    query = ",".join((*_GPU_FIELDS.values(), *_CLOCKS))
    text = _output(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"])
    lines = (text or "").splitlines()
    if not lines:
        return found
    values = [value.strip() for value in lines[0].split(",")]
    found |= dict(zip(_GPU_FIELDS, values))
    found |= {"gpu_count": len(lines), "clocks": ", ".join(values[len(_GPU_FIELDS) :]), "cuda": _cuda()}
    return found


def _cuda() -> str | None:
    found = re.search(r"CUDA[^:]*Version:\s*([\d.]+)", _output(["nvidia-smi"]) or "")
    return found[1] if found else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _imported_version(module: str) -> str | None:
    """The version of a library that is in use: TensorRT comes from wheels of several names, or from a tarball."""
    return getattr(sys.modules.get(module), "__version__", None)


def _digest(path: str | Path | None) -> str | None:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path and Path(path).is_file() else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
