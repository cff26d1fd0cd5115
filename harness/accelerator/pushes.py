"""One thread at a time hands operators to MXNet's engine.

MXNet 1.9.1 does not make that safe: its engine enters an operator into the queues of the arrays that it reads and writes
one after the other, without a lock over all of them (``ThreadedEngine::Push``). Two operators of two threads that both
write the same two arrays can end up each behind the other, and wait forever. BatchNorm is enough, since each call counts
as a write of both its statistics; it happens to plain hybridized networks too (measured), and a segment writes all the
statistics of its part. So the two functions through which networks are called take turns.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from ..frontend.compat import mxnet

_FUNCTIONS = ("MXInvokeCachedOpEx", "MXExecutorForward")
_PATIENCE = 1.0  # seconds; handing over takes microseconds, except where it waits for something that may wait for us

_turn = threading.RLock()


def _renew() -> None:
    """In a forked child: the thread that had the turn is not there."""
    global _turn
    _turn = threading.RLock()


@functools.cache
def take_turns() -> None:
    """From now on in this process, for all networks of MXNet."""
    library = mxnet().base._LIB
    for name in _FUNCTIONS:
        setattr(library, name, _in_turn(getattr(library, name)))
    os.register_at_fork(after_in_child=_renew)


def _in_turn(call: Callable[..., int]) -> Callable[..., int]:
    def wrapped(*arguments: Any) -> int:
        turn = _turn
        is_ours = turn.acquire(timeout=_PATIENCE)
        try:
            return call(*arguments)
        finally:
            if is_ours:
                turn.release()

    return wrapped
