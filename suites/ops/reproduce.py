"""``python -m suites.ops.reproduce 'JSON'`` checks one case and exits with 0 if it is right, 1 if it is not."""

from __future__ import annotations

import argparse
import os
import sys

from .check import ISOLATE, check
from .written import from_json


def main() -> int:
    """The command line."""
    import conftest  # noqa: F401  the environment that MXNet's own kernels need

    os.environ.pop(ISOLATE, None)
    parser = argparse.ArgumentParser(description="check one case again")
    parser.add_argument("case", help="the case as JSON")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--dynamic", action="store_true")
    given = parser.parse_args()
    try:
        headroom = check(from_json(given.case), given.engine, given.precision, given.dynamic)
    except Exception as error:  # noqa: BLE001  the command reports it
        print(f"{type(error).__name__}: {error}")
        return 1
    print(f"right; the largest error over its bound is {headroom:.3g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
