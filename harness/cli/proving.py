"""Commands about numbers: migrate, verify, calibrate."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import NO, OK, app
from .arguments import (
    AsJson,
    Build,
    EngineName,
    Options,
    OutFolder,
    Precision,
    Source,
    SourceArgument,
    read_options,
    takes,
)
from .models import refuse_saved
from .output import console, print_json, progress, show_table

if TYPE_CHECKING:
    from ..proof import Verdict


@app.command(short_help="Save a model with MXNet's answers to test vectors.")
@takes(Build)
def migrate(
    model: SourceArgument,
    out: OutFolder,
    given: Build,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="folder of .npz or .npy inputs (default: random)")
    ] = None,
    vectors: Annotated[int, typer.Option("--vectors", min=1, help="how many test vectors")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of random vectors")] = 0,
    as_json: AsJson = False,
) -> None:
    """Save a model with test vectors and MXNet's answers, so that it can prove itself where MXNet is no more."""
    from .. import proof

    refuse_saved(model)
    with progress("test vectors") as step:
        _, verdicts = proof.migrate(
            model, out, given.arrays, given.shapes, samples, vectors, seed, step, **given.settings
        )
    _show_verdicts(verdicts, proof.unreached(out), as_json)


@app.command(short_help="Does a saved model still give MXNet's numbers?")
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="what `mxtrt migrate` wrote")],
    engine: EngineName = None,
    precision: Precision = None,
    option: Options = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a saved model still gives MXNet's numbers, on this machine, engine and precision. Needs no MXNet."""
    from .. import proof

    with progress("test vectors") as step:
        verdicts = proof.verify(folder, engine, precision, progress=step, **read_options(option))
    _show_verdicts(verdicts, proof.unreached(folder), as_json)


@app.command(short_help="Find the ranges that int8 or fp8 needs, from samples.")
@takes(Source)
def calibrate(
    model: SourceArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="the calibration table to write (JSON)")],
    samples: Annotated[Path, typer.Option("--samples", help="folder of .npy or .npz files, one sample each")],
    given: Source,
    precision: Annotated[str, typer.Option("--precision", help="int8 or fp8")] = "int8",
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="quantize each layer alone too: slow")] = False,
    option: Options = None,
    as_json: AsJson = False,
) -> None:
    """Find the ranges that int8 or fp8 needs, from samples; --sensitivity says what each layer loses.

    Compile with the table: mxtrt compile MODEL --precision int8 -O calibration_table=TABLE.json
    """
    from ..precision.tool import calibrate as run_calibration
    from ..proof import SampleFolder

    refuse_saved(model)
    folder = SampleFolder(samples, given.shapes)
    with progress("calibrating") as step:
        found = run_calibration(
            model, given.arrays, given.shapes, folder, precision, sensitivity,
            lambda count: step(count, len(folder)), **read_options(option),
        )  # fmt: skip
    found.save(out)
    rows = [{"layer": layer, "SQNR alone (dB)": round(value, 2)} for layer, value in found.layers]
    if as_json:
        print_json({"table": str(out), "tensors": len(found.ranges), "sqnr": found.sqnr, "layers": rows})
        return
    console().print(f"{len(found.ranges)} ranges ({found.calibrator}) written to {out}")
    if rows:
        show_table("Layers, the most sensitive first", ["layer", "SQNR alone (dB)"], rows, False)
        for name, value in found.sqnr.items():
            console().print(f"{name}: {value:.2f} dB with all layers quantized")


def _show_verdicts(verdicts: Sequence[Verdict], unreached: Sequence[str], as_json: bool) -> None:
    """The verdicts as a table, and exit code 1 if one of them is no."""
    from ..proof import passed

    yes = passed(verdicts)
    rows = [dataclasses.asdict(verdict) for verdict in verdicts]
    if as_json:
        print_json({"ok": yes, "verdicts": rows, "unreached": unreached})
    else:
        shown = [
            {
                "ok": "yes" if verdict.ok else "NO", "vector": verdict.vector, "output": verdict.output,
                "max_error": f"{verdict.max_error:.3g}", "headroom": f"{verdict.headroom:.3g}",
            }
            for verdict in verdicts
        ]  # fmt: skip
        show_table("Is it MXNet's answer?", list(shown[0]) if shown else (), shown, False)
        for verdict in verdicts:
            if verdict.message:
                print(f"{verdict.vector}, {verdict.output}: {verdict.message}")
        print("every answer is MXNet's" if yes else "NOT every answer is MXNet's")
        if unreached:
            named = ", ".join(unreached[:3]) + (", ..." if len(unreached) > 3 else "")
            print(f"No answer depends on {len(unreached)} parameter(s), so a change there is not found: {named}")
    raise typer.Exit(OK if yes else NO)
