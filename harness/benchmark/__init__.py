"""Measuring and deciding: clocks, statistics, verdicts, change points, LoadGen."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["bench", "compare"]


def bench(arguments: Sequence[str]) -> int:
    """``mxtrt bench``: measure one side, or compare two; see ``harness.benchmark.command``."""
    from .command import bench as run

    return run(arguments)


def compare(arguments: Sequence[str]) -> int:
    """``mxtrt compare``: hold stored figures against each other; see ``harness.benchmark.command``."""
    from .command import compare as run

    return run(arguments)
