"""The command ``mxtrt``. Answers go to stdout, progress and errors to stderr; exit codes are in docs/cli.md."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import HarnessError, InputError, OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from .model import Model
    from .proof import Verdict

OK, NO, WRONG_USE, FAILED, DEFECT, INTERRUPTED = 0, 1, 2, 3, 4, 130
_PIPE_WIDTH = 160  # of tables that do not go to a terminal

app = typer.Typer(
    name="mxtrt",
    help="MXNet models on TensorRT and ONNX Runtime, with proof that the numbers are still MXNet's.",
    epilog="Exit codes: 0 yes, 1 the answer is no, 2 wrong use, 3 it cannot be done and the message says why, 4 a defect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
cache = typer.Typer(name="cache", help="The cache of built plans.", no_args_is_help=True)
app.add_typer(cache)
exports = typer.Typer(name="export", help="A saved model in the form that a server takes.", no_args_is_help=True)
app.add_typer(exports)

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="path/prefix of prefix-symbol.json, a symbol.json, or a saved model's folder"),
]
Params = Annotated[
    str | None, typer.Option("--params", help="a .params file, or an epoch number (default: beside the symbol)")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", metavar="NAME=SHAPE", help="data=1,3,224,224; 1:4:8 for min:opt:max; @int32 for a type"
    ),
]
EngineName = Annotated[str | None, typer.Option("--engine", help="auto, onnxruntime, tensorrt or tensorrt_rtx")]
Precision = Annotated[str | None, typer.Option("--precision", help="fp32, tf32, fp16, bf16, int8 or fp8")]
Fallback = Annotated[str, typer.Option("--fallback", help="mxnet, or error: refuse what no engine can run")]
Options = Annotated[
    list[str] | None, typer.Option("--option", "-O", metavar="KEY=VALUE", help="an option of the engine")
]
CacheDir = Annotated[str | None, typer.Option("--cache-dir", help="where built plans are kept")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for a program")]


def main() -> None:
    """Entry point: a mistake of the user is one message and an exit code, never a traceback."""
    try:
        app()
    except HarnessError as error:
        _fail(FAILED, f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        _fail(INTERRUPTED, "interrupted")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(OK)
    except Exception:  # noqa: BLE001 - the one place where a defect of ours may end
        traceback.print_exc()
        _fail(DEFECT, "this is a defect of mxtrt; please report it with the lines above")


# --- compiling and running -------------------------------------------------------------------------------------------


@app.command("compile")
def compile_command(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the saved model")],
    params: Params = None,
    inputs: Inputs = None,
    engine: EngineName = None,
    precision: Precision = None,
    fallback: Fallback = "mxnet",
    option: Options = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Compile a model and save it as a folder that loads without MXNet."""
    compiled = _open(model, params, inputs, engine, precision, fallback, option, cache_dir)
    with _busy(f"saving {out}"):
        compiled.save(out)
    _show_model(compiled, as_json)


@app.command()
def explain(
    model: ModelArgument,
    params: Params = None,
    inputs: Inputs = None,
    engine: EngineName = None,
    precision: Precision = None,
    fallback: Fallback = "mxnet",
    option: Options = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Which engine runs which part, what MXNet runs and why, what was removed."""
    _show_model(_open(model, params, inputs, engine, precision, fallback, option, cache_dir), as_json)


@app.command()
def run(
    model: ModelArgument,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", metavar="NAME=FILE.npy", help="an input's array; random if not given"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="write the outputs as this .npz file")] = None,
    params: Params = None,
    inputs: Inputs = None,
    engine: EngineName = None,
    precision: Precision = None,
    fallback: Fallback = "mxnet",
    option: Options = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Run a model once and describe its outputs."""
    import numpy as np

    from .proof import random_samples

    compiled = _open(model, params, inputs, engine, precision, fallback, option, cache_dir)
    given = {name: _read_array(path) for name, path in _pairs(data, "--data").items()}
    ((_, drawn),) = random_samples(compiled.inputs, 1, 0)
    outputs = dict(zip(compiled.output_names, compiled(**{**drawn, **given})))
    if out is not None:
        try:
            np.savez(out, **outputs)
        except (OSError, ValueError) as error:
            raise OptionError(f"--out: {out} cannot be written: {error}") from None
    rows = [_describe_array(name, array) for name, array in outputs.items()]
    _show_table("Outputs", ("name", "dtype", "shape", "min", "max", "mean"), rows, as_json)


@app.command()
def convert(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="the file to write")],
    params: Params = None,
    inputs: Inputs = None,
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16 or bf16")] = "fp32",
) -> None:
    """Write the whole model as one typed ONNX file."""
    from .compiler import to_onnx

    with _busy(f"converting {model}"):
        written = to_onnx(model, _epoch(params), read_inputs(inputs), precision, out)
    print(written)


@app.command()
def check(
    model: ModelArgument,
    params: Params = None,
    inputs: Inputs = None,
    precision: Precision = None,
    as_json: AsJson = False,
) -> None:
    """Parse and build every part with TensorRT-RTX ahead of time, which needs no GPU; its own words where it refuses."""
    check_model: Callable[..., Sequence[Any]] = _part("harness.engines.tensorrt", "check_model", "TensorRT-RTX's check")
    compiled = _open(model, params, inputs, "onnxruntime", precision, "mxnet", None, None)
    findings: list[Any] = []
    for number, part in enumerate(compiled.plan.models):
        if part is not None:
            with _busy(f"building segment {number}"):
                findings += check_model(part, f"segment{number}")
    rows = [_as_mapping(finding) for finding in findings]
    if as_json:
        _print_json({"segments": len(compiled.plan.models), "fallbacks": len(compiled.fallbacks), "findings": rows})
    else:
        for row in rows:
            print("  ".join(f"{key}: {value}" for key, value in row.items()))
        print(
            f"{len(compiled.plan.models)} segment(s), {len(findings)} finding(s), {len(compiled.fallbacks)} MXNet node(s)"
        )
    refused = [row for row in rows if not row.get("ok", False)]
    raise typer.Exit(NO if refused or compiled.fallbacks else OK)


# --- proof -----------------------------------------------------------------------------------------------------------


@app.command()
def migrate(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the saved model")],
    samples: Annotated[
        Path | None, typer.Option("--samples", help="folder of .npz or .npy inputs (default: random)")
    ] = None,
    vectors: Annotated[int, typer.Option("--vectors", min=1, help="how many test vectors")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="of random vectors")] = 0,
    params: Params = None,
    inputs: Inputs = None,
    engine: EngineName = None,
    precision: Precision = None,
    fallback: Fallback = "mxnet",
    option: Options = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Save a model with test vectors and MXNet's answers, so that it can prove itself where MXNet is no more."""
    from . import proof

    with _progress("test vectors") as progress:
        _, verdicts = proof.migrate(
            model, out, _epoch(params), read_inputs(inputs), samples, vectors, seed, progress,
            engine=engine or "auto", precision=precision or "fp32", fallback=fallback, cache_dir=cache_dir,
            **_engine_options(option),
        )  # fmt: skip
    _show_verdicts(verdicts, as_json)


@app.command()
def calibrate(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="the calibration table to write (JSON)")],
    samples: Annotated[Path, typer.Option("--samples", help="folder of .npy or .npz files, one sample each")],
    params: Params = None,
    inputs: Inputs = None,
    precision: Annotated[str, typer.Option("--precision", help="int8 or fp8")] = "int8",
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="quantize each layer alone too: slow")] = False,
    option: Options = None,
    as_json: AsJson = False,
) -> None:
    """Find the ranges that int8 or fp8 needs, from samples; --sensitivity says what each layer loses."""
    from .precision.tool import calibrate as run_calibration
    from .proof import SampleFolder

    folder = SampleFolder(samples, read_inputs(inputs))
    with _progress("calibrating") as advance:
        found = run_calibration(
            model, _epoch(params), read_inputs(inputs), folder, precision, sensitivity,
            lambda count: advance(count, len(folder)), **_engine_options(option),
        )  # fmt: skip
    found.save(out)
    rows = [{"layer": layer, "SQNR alone (dB)": round(value, 2)} for layer, value in found.layers]
    if as_json:
        _print_json({"table": str(out), "tensors": len(found.ranges), "sqnr": found.sqnr, "layers": rows})
        return
    _console().print(f"{len(found.ranges)} ranges ({found.calibrator}) written to {out}")
    if rows:
        _show_table("Layers, the most sensitive first", ["layer", "SQNR alone (dB)"], rows, False)
        for name, value in found.sqnr.items():
            _console().print(f"{name}: {value:.2f} dB with all layers quantized")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="what `mxtrt migrate` wrote")],
    engine: EngineName = None,
    precision: Precision = None,
    option: Options = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a saved model still gives MXNet's numbers, on this machine, engine and precision. Needs no MXNet."""
    from . import proof

    with _progress("test vectors") as progress:
        verdicts = proof.verify(folder, engine, precision, progress=progress, **_engine_options(option))
    _show_verdicts(verdicts, as_json)


# --- looking around --------------------------------------------------------------------------------------------------


@app.command()
def operators(
    name: Annotated[str, typer.Argument(help="part of a name or alias")] = "",
    missing: Annotated[bool, typer.Option("--missing", help="only those that are not lowered")] = False,
    as_json: AsJson = False,
) -> None:
    """MXNet's operators: which are lowered, and why the others are not."""
    from .operators.registry import operators as table

    found = [
        info for info in table().values()
        if (not missing or not info.native) and any(name.lower() in n.lower() for n in (info.name, *info.aliases))
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
    _show_table(
        f"{sum(info.native for info in found)} of {len(found)} operators are lowered",
        ("name", "lowered", "family", "aliases", "reason"), rows, as_json,
    )  # fmt: skip


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What is installed, what of it works, and what to do about the rest."""
    from .doctor import examine, healthy

    with _busy("examining"):
        findings = list(examine())
    rows = [dataclasses.asdict(finding) for finding in findings]
    _show_table("mxtrt doctor", ("state", "what", "detail", "advice"), rows, as_json)
    raise typer.Exit(OK if healthy(findings) else NO)


@cache.command("list")
def cache_list(cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    """The plans that are kept."""
    entries = _part("harness.engines.plan_cache", "list_entries", "the plan cache")(cache_dir)
    _show_table(f"{len(entries)} plans", ("key", "size", "last_used"), list(map(_describe_plan, entries)), as_json)


@cache.command("verify")
def cache_verify(cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    """Check every plan against its manifest."""
    checked = _part("harness.engines.plan_cache", "verify", "the plan cache")(cache_dir)
    rows = [{"key": one.entry.key, "problem": one.problem} for one in checked]
    _show_table(f"{len(rows)} plans", ("key", "problem"), rows, as_json)
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
    prune = _part("harness.engines.plan_cache", "prune", "the plan cache")
    seconds = days * 86400 if days is not None else None
    limit = int(megabytes * 1e6) if megabytes is not None else None
    removed = [_describe_plan(entry) for entry in prune(cache_dir, seconds, limit)]
    _show_table(f"{len(removed)} plans removed", ("key", "size", "last_used"), removed, as_json)


@exports.command("triton")
def export_triton(
    artifacts: Annotated[
        list[str], typer.Argument(metavar="DIR...", help="saved models: versions 1, 2, ... of one model")
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


# --- parts with a command line of their own --------------------------------------------------------------------------


@app.command()
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
_delegate("sweep", "harness.fleet", "Run suites over a Ray cluster; the same command goes on after an interruption.")


def _part(module: str, name: str, what: str) -> Callable[..., Any]:
    """A function of a part that may not be installed; OptionError that says so."""
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OptionError(
            f"{what} is not part of this installation ({error}); `mxtrt doctor` says what is there"
        ) from None
    return function


# --- reading arguments -----------------------------------------------------------------------------------------------


def read_inputs(items: Sequence[str] | None) -> dict[str, Any]:
    """``NAME=SHAPE[@DTYPE]`` items as ``inputs=``; a size may be ``min:opt:max``.

    Raises:
        OptionError: an item is not of this form.
    """
    from .inputs import Input

    specs = {}
    for name, text in _pairs(items, "--input").items():
        sizes, _, dtype = text.partition("@")
        try:
            shape = tuple(_read_size(size) for size in sizes.split(",") if size.strip())
        except ValueError:
            raise OptionError(
                f"--input {name}={text}: write it as {name}=1,3,224,224 or {name}=1:4:8,3,224,224@int32"
            ) from None
        specs[name] = Input(shape, dtype or "float32")  # type: ignore[arg-type]
    return specs


def _read_size(text: str) -> int | tuple[int, ...]:
    return tuple(map(int, text.split(":"))) if ":" in text else int(text)


def _pairs(items: Sequence[str] | None, what: str) -> dict[str, str]:
    found = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise OptionError(f"{what} {item!r}: write it as NAME=VALUE")
        found[name] = value
    return found


def _engine_options(items: Sequence[str] | None) -> dict[str, Any]:
    """KEY=VALUE items; a value that is JSON is read as such (4, true), anything else is text."""
    options: dict[str, Any] = {}
    for name, text in _pairs(items, "--option").items():
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    reserved = {
        "source",
        "params",
        "inputs",
        "engine",
        "precision",
        "fallback",
        "cache_dir",
        "folder",
        "verify",
        "model",
    }
    for name in reserved & set(options):
        raise OptionError(f"--option {name}: is not an option of an engine; use --{name.replace('_', '-')}")
    return options


def _epoch(params: str | None) -> str | int | None:
    return int(params) if params is not None and params.isdecimal() else params


def _read_array(path: str) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"--data: {path} cannot be read as a .npy file: {error}") from None


def _open(
    model: str,
    params: str | None,
    inputs: Sequence[str] | None,
    engine: str | None,
    precision: str | None,
    fallback: str,
    option: Sequence[str] | None,
    cache_dir: str | None,
) -> Model:
    """A saved model loaded, or another one compiled."""
    from . import artifact, manifest
    from .compiler import compile as compile_model

    options = _engine_options(option)
    with _busy(f"compiling {model}"):
        if (Path(model) / manifest.MANIFEST).is_file():
            if params is not None or inputs:
                raise OptionError(f"{model} is a saved model: --params and --input are part of it")
            return artifact.load(model, engine, precision, **options)
        return compile_model(
            model, _epoch(params), read_inputs(inputs), engine or "auto", precision or "fp32", fallback,
            cache_dir=cache_dir, **options,
        )  # fmt: skip


# --- showing ---------------------------------------------------------------------------------------------------------


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _PIPE_WIDTH)


@contextmanager
def _busy(what: str) -> Iterator[None]:
    from rich.text import Text

    with _console(stderr=True).status(Text(what)):
        yield


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import Progress

    with Progress(console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def step(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield step


def _show_model(model: Model, as_json: bool) -> None:
    from . import explain as explaining

    if as_json:
        _print_json(explaining.as_json(model.plan))
    else:
        _console().print(explaining.report(model.plan))


def _show_verdicts(verdicts: Sequence[Verdict], as_json: bool) -> None:
    """The verdicts as a table, and exit code 1 if one of them is no."""
    from .proof import passed

    yes = passed(verdicts)
    rows = [dataclasses.asdict(verdict) for verdict in verdicts]
    if as_json:
        _print_json({"ok": yes, "verdicts": rows})
    else:
        shown = [{**row, "ok": "yes" if row["ok"] else "NO", "headroom": f"{row['headroom']:.3g}", "max_error": f"{row['max_error']:.3g}"} for row in rows]  # fmt: skip
        _show_table(
            "Is it MXNet's answer?", ("ok", "vector", "output", "max_error", "headroom", "message"), shown, False
        )
        print("every answer is MXNet's" if yes else "NOT every answer is MXNet's")
    raise typer.Exit(OK if yes else NO)


def _show_table(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(list(rows))
        return
    from .explain import table

    cells = [[", ".join(v) if isinstance(v := row[column], list) else v for column in columns] for row in rows]
    _console().print(table(title, columns, cells))


def _describe_array(name: str, array: Any) -> dict[str, Any]:
    row = {"name": name, "dtype": array.dtype.name, "shape": str(array.shape)}
    numbers = array.astype("float64") if array.size else None
    for key in ("min", "max", "mean"):
        row[key] = None if numbers is None else float(f"{getattr(numbers, key)():.6g}")
    return row


def _describe_plan(entry: Any) -> dict[str, Any]:
    from datetime import datetime, timezone

    used = datetime.fromtimestamp(entry.last_used, timezone.utc).isoformat(timespec="seconds")
    return {"key": entry.key, "size": entry.size, "last_used": used}


def _as_mapping(finding: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(finding) and not isinstance(finding, type):
        return dataclasses.asdict(finding)
    if hasattr(finding, "_asdict"):
        return dict(finding._asdict())
    return {"finding": str(finding)}


def _print_json(value: Any) -> None:
    print(json.dumps(_finite(value), indent=2, default=str))


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become text."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _fail(code: int, message: str) -> None:
    from rich.text import Text

    _console(stderr=True).print(Text("error: ", style="bold red") + Text(message), soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
