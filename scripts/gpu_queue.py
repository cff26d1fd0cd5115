"""Tasks in processes of their own, spread over the GPUs of this host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Row = dict[str, Any]


def gpus() -> list[str]:
    """The numbers of the GPUs that may be used; [""] where there is none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen:
        return chosen.split(",")
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    except OSError:
        listed = ""
    return [str(number) for number, _ in enumerate(listed.strip().splitlines())] or [""]


def smi(fields: str) -> str:
    """What nvidia-smi says of this process's GPU, "" where there is none."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = ["nvidia-smi", f"--id={device}", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def spread(
    module: str, tasks: Sequence[Sequence[str]], each: int, end: float, take: Callable[[Sequence[str], Row], None]
) -> None:
    """Run ``python -m MODULE TASK...`` for each task, in order, at most ``each`` at a time on every GPU.

    Args:
        end: the ``time.monotonic()`` at which what still runs is stopped, and nothing more is begun.
        take: gets every task with what its last line says (JSON), or with {"error": why not}; one at a time.
    """
    free: deque[str] = deque(gpus() * each)
    taking = threading.Lock()

    def work(task: Sequence[str]) -> None:
        gpu = free.popleft()
        try:
            left = end - time.monotonic()
            found = _child(module, task, gpu, left) if left > 5 else {"error": "no time was left"}
            with taking:
                take(task, found)
        finally:
            free.append(gpu)

    with ThreadPoolExecutor(len(free)) as pool:
        list(pool.map(work, tasks))


def _child(module: str, task: Sequence[str], gpu: str, limit: float) -> Row:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu} if gpu else dict(os.environ)
    command = [sys.executable, "-m", module, *task]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=environment, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {limit:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": f"exit status {done.returncode}: {done.stderr.strip()[-1500:]}"}
    try:
        found: Row = json.loads(lines[-1])
    except ValueError:
        return {"error": f"its last line is {lines[-1][:300]!r}"}
    return found
