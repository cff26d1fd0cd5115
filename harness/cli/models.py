"""Commands that read a model: compile, explain, run, convert, check."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Blocked, OptionError, UnsupportedOperator
from .app import NO, OK, app
from .arguments import (
    AsJson,
    Build,
    Data,
    ModelArgument,
    OutFolder,
    Precision,
    Source,
    SourceArgument,
    Target,
    read_arrays,
    takes,
)
from .output import busy, console, print_json, show_table

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..engines.tensorrt import Refusal
    from ..model import Model
    from ..plan import Plan

TARGETS = ("SM89", "SM120")


@app.command("compile", short_help="Compile a model and save it as a folder.")
@takes(Build)
def compile_command(model: ModelArgument, out: OutFolder, given: Build, as_json: AsJson = False) -> None:
    """Compile a model and save it as a folder that loads without MXNet."""
    compiled = open_model(model, given)
    with busy(f"saving {out}"):
        compiled.save(out)
    _show_plan(compiled.plan, as_json)


@app.command(short_help="Who runs which part, and why; nothing is built.")
@takes(Build)
def explain(
    model: ModelArgument,
    given: Build,
    layers: Annotated[
        bool, typer.Option("--layers", help="build it: each engine's layers, and MXNet's nodes in each")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="measure each layer, too")] = False,
    runs: Annotated[int, typer.Option("--runs", min=1, help="how often, with --profile")] = 20,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Which engine runs which part, what MXNet runs and why, what was removed; nothing is built, but for --layers."""
    if layers or profile:
        _show_layers(model, given, runs if profile else 0, data, as_json)
    else:
        _show_plan(plan_model(model, given), as_json)


def _show_layers(model: str, given: Build, runs: int, data: list[str] | None, as_json: bool) -> None:
    from .. import layers as listing

    arrays = read_arrays(data)
    compiled = open_model(model, given)
    with busy("measuring" if runs else "asking the engines"):
        rows = listing.layers(compiled, runs, arrays)
    if as_json:
        print_json(listing.as_json(rows))
    else:
        console().print(listing.as_table(rows))


@app.command(short_help="Run a model once and describe its outputs.")
@takes(Build)
def run(
    model: ModelArgument,
    given: Build,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="write the outputs as this .npz file")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a model once and describe its outputs."""
    import numpy as np

    from ..proof import random_samples

    arrays = read_arrays(data)
    compiled = open_model(model, given)
    ((_, drawn),) = random_samples(compiled.inputs, 1, 0)
    outputs = dict(zip(compiled.output_names, compiled(**{**drawn, **arrays})))
    if out is not None:
        try:
            with out.open("wb") as file:
                np.savez(file, **outputs)
        except (OSError, ValueError) as error:
            raise OptionError(f"--out: {out} cannot be written: {error}") from None
    rows = [_describe_array(name, array) for name, array in outputs.items()]
    show_table("Outputs", ("name", "dtype", "shape", "min", "max", "mean"), rows, as_json)


@app.command(short_help="Write the whole model as one typed ONNX file.")
@takes(Source)
def convert(
    model: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="the file to write")],
    given: Source,
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16 or bf16")] = "fp32",
) -> None:
    """Write the whole model as one typed ONNX file."""
    from ..compiler import to_onnx

    refuse_saved(model)
    with busy(f"converting {model}"):
        written = to_onnx(model, given.arrays, given.shapes, precision, out)
    print(written)


# --- the check -------------------------------------------------------------------------------------------------------


@app.command(short_help="Have TensorRT-RTX build every part, without a GPU.")
@takes(Source)
def check(
    model: ModelArgument,
    given: Source,
    precision: Precision = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", metavar="SM", help=f"GPUs to build for [default: {', '.join(TARGETS)}]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Parse and build every part with TensorRT-RTX ahead of time, which needs no GPU.

    Nodes that TensorRT-RTX cannot run, and that MXNet would run, are listed with the reason; what its parser or its
    builder refuses beyond those, in its own words.
    """
    from ..engines.tensorrt import check_model
    from ..engines.tensorrt.judge import Judge

    judge, targets = Judge(), tuple(target or TARGETS)
    blocked: tuple[Blocked, ...]
    try:
        planned = plan_model(model, Target(given.params, given.inputs, precision=precision), judge)
        parts, blocked = list(planned.models), planned.fallbacks
    except UnsupportedOperator as refusal:  # MXNet, which would run these nodes and tell their types, is not installed
        parts, blocked = [], refusal.blocked
    refusals: dict[int, list[Refusal]] = {}
    for number, part in enumerate(parts):
        if part is not None:
            with busy(f"building part {number} of {len(parts)}"):
                refusals[number] = check_model(part, f"segment{number}", targets, planned.profile)
    ok = not blocked and not any(refusals.values())
    show = _print_check if as_json else _show_check
    show(judge.library.label, targets, refusals, blocked, ok)
    raise typer.Exit(OK if ok else NO)


def _print_check(
    library: str, targets: tuple[str, ...], refusals: dict[int, list[Refusal]], blocked: tuple[Blocked, ...], ok: bool
) -> None:
    findings = [{"segment": n, **dataclasses.asdict(item)} for n, found in refusals.items() for item in found]
    print_json({
        "ok": ok, "library": library, "compute_capabilities": targets, "parts": len(refusals),
        "fallbacks": [item._asdict() for item in blocked], "findings": findings,
    })  # fmt: skip


def _show_check(
    library: str, targets: tuple[str, ...], refusals: dict[int, list[Refusal]], blocked: tuple[Blocked, ...], ok: bool
) -> None:
    from ..explain import fallback_table, table

    if refusals:
        built = sum(not found for found in refusals.values())
        print(f"{library} builds {built} of {len(refusals)} part(s) for {', '.join(targets)}")
    else:
        print(f"{library} has nothing to build: there is no part that it could run")
    rows = [
        (number, item.stage, item.owner or "?", f"{item.operator}({item.signature})" if item.node else "", item.reason)
        for number, found in refusals.items()
        for item in found
    ]
    if rows:
        console().print(table("Refused", ("part", "by the", "node", "as", "its own words"), rows))
    if blocked:
        console().print(fallback_table(blocked))


# --- models ----------------------------------------------------------------------------------------------------------


def open_model(model: str, given: Build) -> Model:
    """A saved model loaded, or another one compiled."""
    from ..artifact import load
    from ..compiler import compile

    settings = given.settings
    with busy(f"compiling {model}"):
        if _is_saved(model):
            return load(model, given.engine, given.precision, **_of_saved(model, given, settings))
        return compile(model, given.arrays, given.shapes, **settings)


def plan_model(model: str, given: Target, engine: Engine | None = None) -> Plan:
    """The same without building; ``engine`` is a judge in place of the engine that was asked for."""
    from ..artifact import read_plan
    from ..compiler import plan

    settings = given.settings
    with busy(f"reading {model}"):
        if _is_saved(model):
            return read_plan(model, given.engine, given.precision, **_of_saved(model, given, settings))
        settings.pop("cache_dir", None)
        return plan(
            model, given.arrays, given.shapes, **(settings if engine is None else {**settings, "engine": engine})
        )


def _is_saved(model: str) -> bool:
    from ..manifest import MANIFEST

    try:
        return (Path(model) / MANIFEST).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _of_saved(model: str, given: Target, settings: dict[str, Any]) -> dict[str, Any]:
    """The options that loading takes."""
    if given.params is not None or given.inputs:
        raise OptionError(f"{model} is a saved model: --params and --input are part of it")
    return {
        name: value for name, value in settings.items() if name not in ("engine", "precision", "fallback", "cache_dir")
    }


def refuse_saved(model: str) -> None:
    """OptionError for a saved model where the model that it was made from is wanted."""
    if _is_saved(model):
        raise OptionError(f"{model} is a saved model; this command takes the MXNet model that it was made from")


def _show_plan(plan: Plan, as_json: bool) -> None:
    from .. import explain as explaining

    if as_json:
        print_json(explaining.as_json(plan))
    else:
        console().print(explaining.report(plan))


def _describe_array(name: str, array: Any) -> dict[str, Any]:
    row = {"name": name, "dtype": array.dtype.name, "shape": str(array.shape)}
    numbers = array.astype("float64") if array.size else None
    for key in ("min", "max", "mean"):
        row[key] = None if numbers is None else float(f"{getattr(numbers, key)():.6g}")
    return row
