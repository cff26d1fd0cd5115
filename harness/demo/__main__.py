from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import main

parser = argparse.ArgumentParser(prog="python -m harness.demo", description="Compile and prove a real network.")
parser.add_argument("--output", type=Path, default=Path("reports/demo"), help="folder for the page (reports/demo)")
parser.add_argument("--rounds", type=int, default=8, help="rounds of the latency comparison (8)")
arguments = parser.parse_args()
sys.exit(main(arguments.output, arguments.rounds))
