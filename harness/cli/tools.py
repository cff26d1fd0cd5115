"""Commands that look around, and those whose arguments another part reads."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OptionError
from .app import NO, OK, app, cache, exports
from .arguments import AsJson, CacheDir
from .output import busy, show_table


@app.command(short_help="Which operators are lowered, and why others are not.")
def operators(
    name: Annotated[str, typer.Argument(metavar="NAME", help="part of a name, an alias or a family")] = "",
    missing: Annotated[bool, typer.Option("--missing", help="only those that are not lowered")] = False,
    as_json: AsJson = False,
) -> None:
    """MXNet's operators: which are lowered, and why the others are not."""
    from ..operators.registry import operators as table

    found = [
        info for info in table().values()
        if (not missing or not info.native) and any(name.lower() in n.lower() for n in (info.name, info.family, *info.aliases))
    ]  # fmt: skip
    rows = [
        {
            "name": info.name,
            "lowered": info.native,
            "family": info.family,
            "aliases": list(info.aliases),
            "reason": info.reason or "",
        }
        for info in found
    ]
    title = f"{sum(info.native for info in found)} of {len(found)} operators are lowered"
    if not found:
        title = f"No operator of MXNet 1.9.1 has {name!r} in its name or family" + (
            " and is not lowered" if missing else ""
        )
    show_table(title, ("name", "lowered", "family", "aliases", "reason"), rows, as_json)
    raise typer.Exit(OK if found else NO)


@app.command(short_help="What is installed, and what to do about the rest.")
def doctor(as_json: AsJson = False) -> None:
    """What is installed, what of it works, and what to do about the rest."""
    from ..doctor import examine, healthy

    with busy("examining"):
        findings = list(examine())
    rows = [dataclasses.asdict(finding) for finding in findings]
    show_table("mxtrt doctor", ("state", "what", "detail", "advice"), rows, as_json)
    raise typer.Exit(OK if healthy(findings) else NO)


# --- plans -----------------------------------------------------------------------------------------------------------


@cache.command("list")
def cache_list(cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    """The plans that are kept."""
    from ..engines.plan_cache import list_entries

    entries = list_entries(cache_dir)
    show_table(f"{len(entries)} plans", ("key", "size", "last_used"), list(map(_describe_plan, entries)), as_json)


@cache.command("verify")
def cache_verify(cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    """Check every plan against its manifest."""
    from ..engines.plan_cache import verify

    rows = [{"key": one.entry.key, "problem": one.problem} for one in verify(cache_dir)]
    show_table(f"{len(rows)} plans", ("key", "problem"), rows, as_json)
    raise typer.Exit(NO if any(row["problem"] for row in rows) else OK)


@cache.command("prune")
def cache_prune(
    cache_dir: CacheDir = None,
    days: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="since the last use")
    ] = None,
    megabytes: Annotated[
        float | None, typer.Option("--max-size", metavar="MB", min=0, help="keep no more than this")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove damaged plans, and those that are old or too many."""
    from ..engines.plan_cache import prune

    seconds = days * 86400 if days is not None else None
    limit = int(megabytes * 1e6) if megabytes is not None else None
    removed = [_describe_plan(entry) for entry in prune(cache_dir, seconds, limit)]
    show_table(f"{len(removed)} plans removed", ("key", "size", "last_used"), removed, as_json)


def _describe_plan(entry: Any) -> dict[str, Any]:
    from datetime import datetime, timezone

    used = datetime.fromtimestamp(entry.last_used, timezone.utc).isoformat(timespec="seconds")
    return {"key": entry.key, "size": entry.size, "last_used": used}


# --- parts that may not be installed ---------------------------------------------------------------------------------


@exports.command("triton", short_help="Write an entry of a Triton model repository.")
def export_triton(
    artifacts: Annotated[
        list[str], typer.Argument(metavar="DIR", help="saved models: versions 1, 2, ... of one model")
    ],
    repository: Annotated[Path, typer.Option("--repository", help="folder of the model repository")],
    name: Annotated[str | None, typer.Option("--name", help="of the model there (default: the first folder's)")] = None,
    instances: Annotated[int, typer.Option("--instances", min=1, help="executions under way at once on each GPU")] = 1,
    queue_delay: Annotated[
        int, typer.Option("--queue-delay", min=0, help="microseconds a request may wait for others")
    ] = 100,
    onnx: Annotated[bool, typer.Option("--onnx", help="ONNX where there is a TensorRT plan")] = False,
) -> None:
    """Write an entry of a Triton model repository: the model, config.pbtxt, warm-up samples, a README."""
    export = _part("harness.serving.triton", "export", "the export to Triton")
    print(export(artifacts, repository, name, instances, queue_delay, onnx))


@app.command(short_help="The main job on real photographs, and a page about it.")
def demo(
    output: Annotated[Path, typer.Option("--output", help="folder of the page")] = Path("reports/demo"),
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="of the latency comparison")] = 8,
) -> None:
    """Real photographs through a real network, by MXNet and by the compiled model, and a page about it."""
    raise typer.Exit(_part("harness.demo", "main", "the demo")(output, rounds))


def _delegate(name: str, module: str, text: str) -> None:
    """A command whose arguments another part reads: its function of that name takes them and returns an exit code."""

    def command(context: typer.Context) -> None:
        raise typer.Exit(_part(module, name, f"`mxtrt {name}`")(list(context.args)))

    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name, help=text, context_settings=settings)(command)


_delegate("bench", "harness.benchmark", "Measure a model, and store the figures.")
_delegate("compare", "harness.benchmark", "Hold stored figures against a baseline.")
_delegate("report", "harness.report", "Write the report of stored results as pages.")
_delegate("sweep", "harness.fleet", "Run suites over a Ray cluster; goes on if interrupted.")


def _part(module: str, name: str, what: str) -> Callable[..., Any]:
    """A function of a part that may not be installed; OptionError that says so."""
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OptionError(
            f"{what} is not part of this installation ({error}); `mxtrt doctor` says what is there"
        ) from None
    return function
