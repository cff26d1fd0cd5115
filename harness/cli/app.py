"""The command itself: its groups, and what its exit codes mean."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from ..errors import HarnessError, OptionError

OK, NO, WRONG_USE, FAILED, DEFECT, INTERRUPTED = 0, 1, 2, 3, 4, 130

app = typer.Typer(
    name="mxtrt",
    help="MXNet models on TensorRT and ONNX Runtime, with proof that the numbers are still MXNet's.",
    epilog="Exit codes: 0 yes, 1 the answer is no, 2 wrong use, 3 it cannot be done and the message says why, 4 a defect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
cache = typer.Typer(name="cache", help="The cache of built plans.", no_args_is_help=True, rich_markup_mode=None)
exports = typer.Typer(
    name="export", help="A saved model in the form that a server takes.", no_args_is_help=True, rich_markup_mode=None
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mxtrt {metadata.version('mxtrt')}")
        raise typer.Exit(OK)


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    modules: Annotated[
        list[str] | None, typer.Option("--import", metavar="MODULE", help="a module or file.py that registers plugins")
    ] = None,
) -> None:
    """What comes before a command."""
    for name in modules or ():
        _import(name)


def _import(name: str) -> None:
    """Import a module, or a file as a module.

    Raises:
        OptionError: it cannot be imported.
    """
    path = Path(name)
    try:
        if path.suffix != ".py":
            importlib.import_module(name)
            return
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    except HarnessError:
        raise
    except Exception as error:
        raise OptionError(f"--import {name}: {type(error).__name__}: {error}") from error
