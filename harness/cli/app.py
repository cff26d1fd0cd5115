"""The command itself: its groups, and what its exit codes mean."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

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
) -> None:
    """What comes before a command."""
