"""What the commands have in common: their options, declared once, and how their texts are read."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from ..errors import InputError, OptionError

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="path/prefix of prefix-symbol.json, a symbol.json, or a saved model's folder"),
]
SourceArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="path/prefix of prefix-symbol.json, or the path of a symbol.json")
]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="folder of the saved model")]
EngineName = Annotated[str | None, typer.Option("--engine", help="auto, onnxruntime, tensorrt or tensorrt_rtx")]
Precision = Annotated[str | None, typer.Option("--precision", help="fp32, tf32, fp16, bf16, int8 or fp8")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", metavar="KEY=VALUE", help="an option of the engine or of the precision"),
]
CacheDir = Annotated[str | None, typer.Option("--cache-dir", help="where built plans are kept")]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", "-d", metavar="NAME=FILE.npy", help="an input's array; random if not given"),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for a program")]
_OWN = {"params": "--params", "inputs": "--input", "engine": "--engine", "precision": "--precision",
        "fallback": "--fallback", "cache_dir": "--cache-dir", "calibration": "-O calibration_table=TABLE.json"}  # fmt: skip
_RESERVED = ("source", "folder", "verify", "model", "notices")  # of the Python functions
_Command = Callable[..., None]
_Record = TypeVar("_Record")


@dataclasses.dataclass(frozen=True)
class Source:
    """Which parameters and inputs."""

    params: Annotated[
        str | None, typer.Option("--params", help="a .params file, or an epoch number (default: beside the symbol)")
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="NAME=SHAPE", help="data=1,3,224,224; 1:4:8 for min:opt:max; @int32 for a type"
        ),
    ] = None

    @property
    def arrays(self) -> str | int | None:
        """``params=`` of ``harness.compile``."""
        return int(self.params) if self.params is not None and self.params.isdecimal() else self.params

    @property
    def shapes(self) -> dict[str, Any]:
        """``inputs=`` of ``harness.compile``."""
        return read_inputs(self.inputs)


@dataclasses.dataclass(frozen=True)
class Target(Source):
    """And who runs the model, in which precision."""

    engine: EngineName = None
    precision: Precision = None
    fallback: Annotated[str, typer.Option("--fallback", help="mxnet, or error: refuse what no engine can run")] = (
        "mxnet"
    )
    option: Options = None

    @property
    def settings(self) -> dict[str, Any]:
        """The other keywords of ``harness.compile``."""
        return {
            "engine": self.engine or "auto", "precision": self.precision or "fp32", "fallback": self.fallback,
            **read_options(self.option),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Build(Target):
    """And where plans are kept."""

    cache_dir: CacheDir = None

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "cache_dir": self.cache_dir}


def takes(record: type[_Record]) -> Callable[[_Command], _Command]:
    """A command whose parameter ``given`` is such a record: its fields become options of the command."""

    def decorate(function: _Command) -> _Command:
        hints = get_type_hints(record, include_extras=True)
        fields = dataclasses.fields(record)  # type: ignore[arg-type]
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "given"]
        shared = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
            for f in fields
        ]
        everything = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *shared]

        @functools.wraps(function)
        def command(**values: Any) -> None:
            given = record(**{f.name: values.pop(f.name) for f in fields})
            function(given=given, **values)

        command.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in everything}
        return command

    return decorate


def read_inputs(items: Sequence[str] | None) -> dict[str, Any]:
    """``NAME=SHAPE[@DTYPE]`` items as ``inputs=``; a size may be ``min:opt:max``.

    Raises:
        OptionError: an item is not of this form.
    """
    from ..inputs import Input

    specs = {}
    for name, text in read_pairs(items, "--input").items():
        sizes, _, dtype = text.partition("@")
        try:
            shape = tuple(map(_read_size, sizes.removesuffix(",").split(","))) if sizes.strip() else ()
        except ValueError:
            raise OptionError(
                f"--input {name}={text}: write it as {name}=1,3,224,224 or {name}=1:4:8,3,224,224@int32"
            ) from None
        try:
            specs[name] = Input(shape, dtype or "float32")  # type: ignore[arg-type]
        except OptionError as error:
            raise OptionError(f"--input {name}={text}: {error}") from None
    return specs


def _read_size(text: str) -> int | tuple[int, ...]:
    return tuple(map(int, text.split(":"))) if ":" in text else int(text)


def read_pairs(items: Sequence[str] | None, what: str) -> dict[str, str]:
    """``NAME=VALUE`` items; OptionError for one that is none, or whose name came before."""
    found: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise OptionError(f"{what} {item!r}: write it as NAME=VALUE")
        if name in found:
            raise OptionError(f"{what} {item!r}: {name!r} is given twice")
        found[name] = value
    return found


def read_options(items: Sequence[str] | None) -> dict[str, Any]:
    """KEY=VALUE items; a value that is JSON is read as such (4, true), anything else is text."""
    options: dict[str, Any] = {}
    for name, text in read_pairs(items, "--option").items():
        if name in _OWN or name in _RESERVED:
            raise OptionError(
                f"--option {name}: is not an option of an engine; use {_OWN.get(name, 'what --help says')}"
            )
        try:
            options[name] = json.loads(text)
        except (ValueError, RecursionError):
            options[name] = text
    return options


def read_arrays(items: Sequence[str] | None) -> dict[str, Any]:
    """The arrays of ``NAME=FILE.npy`` items; InputError for a file that is none."""
    return {name: _read_array(path) for name, path in read_pairs(items, "--data").items()}


def _read_array(path: str) -> Any:
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"--data: {path} cannot be read as a .npy file: {error}") from None
    if not isinstance(found, np.ndarray):
        raise InputError(f"--data: {path} holds several arrays; give a .npy file of one")
    return found
