"""``mxtrt report``: one self-contained page of everything that is stored, with JSON, CSV, JUnit XML and a job summary."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["report"]


def report(arguments: Sequence[str]) -> int:
    """Write the report; see ``harness.report.page``. Returns 0; what failed is in the report, not in the exit code."""
    from .page import main

    return main(arguments)
