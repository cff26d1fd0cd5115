"""The command ``mxtrt``. Answers go to stdout, progress and errors to stderr; exit codes are in docs/cli.md."""

from __future__ import annotations

import os
import sys
import traceback

from ..errors import HarnessError
from . import models, proving, tools  # each adds its commands to the app
from .app import DEFECT, FAILED, INTERRUPTED, NO, OK, WRONG_USE, app, cache, exports
from .arguments import read_inputs
from .output import console

__all__ = ["DEFECT", "FAILED", "INTERRUPTED", "NO", "OK", "WRONG_USE", "app", "main", "models", "proving", "read_inputs",
           "tools"]  # fmt: skip

app.add_typer(cache)
app.add_typer(exports)
_SPELLINGS = {  # an argument of the Python API in a message -> how it is said here
    "inputs=": "-i NAME=SHAPE",
    "params=": "--params FILE",
    "fallback=": "--fallback",
    "calibration_table=": "-O calibration_table=TABLE.json, which `mxtrt calibrate` writes",
    "compute_capabilities: ": "--target",
    "unknown_sizes=": "-O unknown_sizes=[MIN,OPT,MAX]",
}


def main() -> None:
    """Entry point: a mistake of the user is one message and an exit code, never a traceback."""
    try:
        app(prog_name="mxtrt")
    except HarnessError as error:
        _fail(FAILED, f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        _fail(INTERRUPTED, "interrupted")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has no reader
        sys.exit(OK)
    except Exception:  # noqa: BLE001 - the one place where a defect of ours may end
        traceback.print_exc()
        _fail(DEFECT, "this is a defect of mxtrt; please report it with the lines above")


def _fail(code: int, message: str) -> None:
    from rich.text import Text

    said = [f"{name.rstrip(': ')} is {spelling}" for name, spelling in _SPELLINGS.items() if name in message]
    hint = f"\n(here {'; '.join(said)})" if said and code == FAILED else ""
    console(stderr=True).print(Text("error: ", style="bold red") + Text(message + hint), soft_wrap=True)
    sys.exit(code)
