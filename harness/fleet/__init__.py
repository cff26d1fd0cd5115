"""Past one machine: the suites over a Ray cluster, and offline inference over a saved artifact.

Ray distributes and retries, pytest collects and judges; this package only passes cells from the one to the other.
"""

from __future__ import annotations

import sys


def sweep(arguments: list[str]) -> int:
    """The command ``mxtrt sweep``; the exit code: 0 if nothing failed, 1 if a cell did."""
    from .cluster import sweep as run
    from .command import parse, show

    options = parse(arguments)
    report = run(**vars(options), progress=lambda text: print(text, file=sys.stderr))
    show(report)
    return 0 if report.ok else 1


__all__ = ["sweep"]
