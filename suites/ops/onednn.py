"""MXNet with oneDNN, in a process of its own: what of its INT8 graphs runs nowhere else.

The suites' own MXNet has oneDNN switched off, and the switch is read once, when a process first computes.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from unittest import mock

import numpy as np

from .case import Case

Array = np.ndarray
ANSWER = f"{__name__}:answer"
_workers: list[Connection] = []


def answer(case: Case, arrays: Mapping[str, Array]) -> list[Array]:
    """MXNet's answer to a case.

    Raises:
        MXNetRefuses: MXNet cannot run it, or ends the process.
    """
    from .reference import MXNetRefuses

    if not _workers:
        _start()
    try:
        _workers[0].send((replace(case, reference=""), dict(arrays)))
        found = _workers[0].recv()
    except (EOFError, OSError):
        _workers.clear()
        raise MXNetRefuses(f"MXNet ends its process on {case}") from None
    if isinstance(found, str):
        raise MXNetRefuses(found)
    return found


def _start() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    with mock.patch.dict(os.environ, {"MXNET_MKLDNN_ENABLED": "1"}):
        process.start()
    theirs.close()
    _workers.append(ours)
    atexit.register(process.kill)


def _work(connection: Connection) -> None:
    from .reference import MXNetRefuses, Reference

    while True:
        try:
            case, arrays = connection.recv()
        except EOFError:
            return
        try:
            connection.send(Reference(case).native(arrays))
        except MXNetRefuses as refusal:
            connection.send(str(refusal))
