"""The command line of ``mxtrt sweep``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .cells import CHOSEN
from .report import Report


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments of :func:`harness.fleet.cluster.sweep`."""
    parser = argparse.ArgumentParser(
        "mxtrt sweep", description="Run suites over a Ray cluster; the same command resumes."
    )
    parser.add_argument("paths", nargs="+", metavar="SUITE", help="files or folders of suites, as for pytest")
    parser.add_argument(
        "--ray", default="local", metavar="ADDRESS", help="the cluster, or local: start one here (default)"
    )
    parser.add_argument("--output", default="reports/sweep", help="folder of the results (default: reports/sweep)")
    parser.add_argument("--engine", help="engine of the GPU cells, in place of tensorrt")
    parser.add_argument(
        "--gpu", action="append", default=[], metavar="KIND", help="a GPU kind, as Ray names it (default: all)"
    )
    parser.add_argument(
        "-m", dest="marker", default=CHOSEN, help=f"as for pytest (default: {CHOSEN}); '' is every cell"
    )
    parser.add_argument("-k", dest="keyword", default="", help="as for pytest")
    parser.add_argument("--batch", type=int, default=32, help="cells to a worker at a time (default: 32)")
    return parser.parse_args(arguments)


def show(report: Report) -> None:
    """Counts, what failed, and where the files are, on stdout."""
    for kind, counts in report.counts.items():
        print(f"{kind}: " + ", ".join(f"{number} {state}" for state, number in sorted(counts.items())))
    for line in report.failed:
        print(f"FAILED {line}")
    print(f"{report.ran} cells were run, {report.resumed} were known; {report.folder / 'junit.xml'}")
