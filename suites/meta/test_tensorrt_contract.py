"""Every name of TensorRT that the engine uses exists in each supported version, with room for the arguments given.

The versions' interfaces were recorded by introspection (data/*.txt.gz). What the engine uses is read from its source:
attributes of ``trt``, and of objects whose variable names tell their class.
"""

from __future__ import annotations

import ast
import gzip
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.engines.tensorrt import build, options

DATA = Path(__file__).parent / "data"
SOURCES = sorted((Path(build.__file__).parent).glob("*.py"))
VERSIONS = ["tensorrt-10.6", "tensorrt-10.15", "tensorrt-11.2", "tensorrt_rtx-1.7"]

CLASSES = {  # variable or attribute -> class of what it holds
    "builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig", "runtime": "Runtime",
    "engine": "ICudaEngine", "context": "IExecutionContext", "refitter": "Refitter", "inspector": "EngineInspector",
    "registry": "IPluginRegistry", "cache": "ITimingCache", "ours": "ITimingCache",
    "parser": "OnnxParser",
}  # fmt: skip
FILES = {
    ("refit.py", "parser"): "OnnxParserRefitter", ("build.py", "profile"): "IOptimizationProfile",
    ("refusals.py", "error"): "ParserError", ("plugins.py", "builder"): "IExprBuilder",
    ("plugins.py", "desc"): "PluginTensorDesc",
}  # fmt: skip
NOT_TENSORRTS = {
    "__init__.py",
    "check.py",
    "options.py",
    "profiles.py",
    "rebuild.py",
}  # they hold no object of TensorRT's
# Used only behind hasattr, or only on RTX: name -> the versions that need not have it.
OPTIONAL = {
    "device_memory_size": {"tensorrt-11.2", "tensorrt_rtx-1.7"},
    "num_compute_capabilities": {"tensorrt-10.6", "tensorrt-10.15", "tensorrt-11.2"},
    "set_compute_capability": {"tensorrt-10.6", "tensorrt-10.15", "tensorrt-11.2"},
    "ComputeCapability": {"tensorrt-10.6", "tensorrt-10.15", "tensorrt-11.2"},
}


class Use(NamedTuple):
    """``owner`` is a class, or "" for the module; ``arguments`` is None unless it is called."""

    owner: str
    name: str
    arguments: int | None
    where: str


class Recorded(NamedTuple):
    enums: dict[str, set[str]]
    members: dict[str, dict[str, str]]


@cache
def recorded(version: str) -> Recorded:
    enums: dict[str, set[str]] = {}
    members: dict[str, dict[str, str]] = {"": {}}
    owner = ""
    for line in gzip.decompress((DATA / f"{version}.txt.gz").read_bytes()).decode().splitlines():
        if line.startswith("enum "):
            name, _, values = line[5:].partition(": ")
            enums[name] = {value.partition("=")[0] for value in values.split()}
        elif line.startswith("class "):
            owner = re.split(r"[(:\s]", line[6:])[0]
            members[owner] = {}
        elif line.startswith("def "):
            members[""][line[4:].partition("(")[0]] = line
        elif found := re.match(r"\s+\.?(\w+)\s?(\(.*)?", line):
            members.setdefault(owner, {})[found[1]] = line.strip()
    return Recorded(enums, members)


def uses() -> Iterator[Use]:
    for path in SOURCES:
        if path.name in NOT_TENSORRTS:
            continue
        tree = ast.parse(path.read_text())
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner = _owner(path.name, node.value)
                call = calls.get(id(node))
                count = None if call is None else len(call.args) + len(call.keywords)
                if owner is not None:
                    yield Use(owner, node.attr, count, f"{path.name}:{node.lineno}")


def _owner(file: str, value: ast.expr) -> str | None:
    name = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
    if name == "trt":
        return ""
    if isinstance(value, ast.Attribute) and isinstance(value.value, (ast.Name, ast.Attribute)):
        inner = value.value.attr if isinstance(value.value, ast.Attribute) else value.value.id
        if inner == "trt":
            return value.attr  # an enumeration's member
    return FILES.get((file, name), CLASSES.get(name))


def test_enough_is_seen() -> None:
    """The reader of the source sees the calls that matter, so that the tests below cannot pass on nothing."""
    seen = {(use.owner, use.name) for use in uses()}
    assert {
        ("Builder", "build_serialized_network"), ("IExecutionContext", "execute_async_v3"), ("", "OnnxParser"),
        ("IBuilderConfig", "set_memory_pool_limit"), ("ICudaEngine", "create_execution_context"),
        ("IOptimizationProfile", "set_shape"), ("ParserError", "node_name"), ("MemoryPoolType", "WORKSPACE"),
        ("OnnxParserRefitter", "refit_from_bytes"), ("ITimingCache", "combine"), ("Runtime", "deserialize_cuda_engine"),
    } <= seen  # fmt: skip
    assert len(seen) > 60


@pytest.mark.parametrize("version", VERSIONS)
def test_every_use_is_recorded(version: str) -> None:
    api = recorded(version)
    missing = [use for use in uses() if version not in OPTIONAL.get(use.name, ()) and not _exists(api, use)]
    assert not missing


def _exists(api: Recorded, use: Use) -> bool:
    if use.owner == "":
        known = use.name in api.members or use.name in api.enums or use.name in api.members[""]
        return known or use.name in ("__version__", "ILogger")
    if use.owner in api.enums:
        return use.name in api.enums[use.owner] or use.name == "__members__"
    if use.owner not in api.members:
        return use.owner in OPTIONAL
    return use.name in api.members[use.owner]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_call_fits_its_signature(version: str) -> None:
    api = recorded(version)
    wrong = [
        (use, text) for use in uses() if (text := api.members.get(use.owner, {}).get(use.name)) and not _fits(use, text)
    ]
    assert not wrong


def _fits(use: Use, text: str) -> bool:
    inside = re.search(r"\((\w+: .*)?\) -> ", text) or re.search(r"\((\w+: .*)()$", text)  # some lines were cut off
    if use.arguments is None:
        return inside is None or "(*args" in text  # a method that is read and not called is a mistake
    if inside is None:
        return "(*args" in text
    parameters = [text for text in _split(inside[1] or "") if text and not text.startswith("self: ")]
    if use.name == "__init__":  # called on the class, with self
        parameters = ["self", *parameters]
    needed = sum(" = " not in parameter for parameter in parameters)
    return needed <= use.arguments <= len(parameters)


def _split(text: str) -> list[str]:
    """The parameters of a signature; commas inside brackets do not part them."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([<{") - (letter in ")]>}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def overrides() -> Iterator[tuple[tuple[str, ...], ast.FunctionDef]]:
    """(TensorRT's classes, method) of each method of our subclasses of theirs."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = tuple(base.attr for base in node.bases if ast.unparse(base).startswith("trt."))
                methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
                yield from ((bases, method) for method in methods if bases and not method.name.startswith("_"))


# Called by TensorRT only where they are; their classes' base in Python does not list them.
NOT_LISTED = {"log", "report_layer_time", "reallocate_output", "reallocate_output_async", "notify_shape"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_method_that_tensorrt_calls_is_one_of_its_interface(version: str) -> None:
    api, seen = recorded(version), set()
    for bases, method in overrides():
        if method.name in NOT_LISTED:
            continue
        texts = [text for base in bases if (text := api.members[base].get(method.name))]
        assert texts, f"{version}: none of {bases} has a method {method.name}"
        whole = re.search(r"\((\w+: .*)\) -> ", texts[0])
        shown = whole or re.search(r"\((\w+: .*)$", texts[0])  # some lines were cut off
        assert shown, texts[0]
        wanted, given = len(_split(shown[1])), len(method.args.args)
        assert given == wanted if whole else given >= wanted, f"{version}: {method.name}, recorded as {texts[0]}"
        seen.add(method.name)
    assert {"get_output_shapes", "enqueue", "clone", "create_plugin", "supports_format_combination"} <= seen


@pytest.mark.parametrize("version", VERSIONS)
def test_enumerations_named_by_tables(version: str) -> None:
    """Members that the source takes from tables by name; those that some versions lack are looked up with a default."""
    enums = recorded(version).enums
    assert set(options.PROFILING.values()) <= enums["ProfilingVerbosity"]
    assert {"NONE", "AMPERE_PLUS"} <= enums["HardwareCompatibilityLevel"]
    lacking = {"EDITABLE_TIMING_CACHE"} if version == "tensorrt-10.6" else set()
    flags = {"TF32", "STRIP_PLAN", "REFIT", "REFIT_IDENTICAL", *build._FLAGS.values()}
    assert flags - enums["BuilderFlag"] == lacking


@pytest.mark.parametrize("version", VERSIONS)
def test_a_planted_fault_is_found(version: str) -> None:
    api = recorded(version)
    assert not _exists(api, Use("Builder", "build_cuda_engine", 1, ""))
    text = api.members["IExecutionContext"]["set_tensor_address"]
    assert _fits(Use("IExecutionContext", "set_tensor_address", 2, ""), text)
    assert not _fits(Use("IExecutionContext", "set_tensor_address", 3, ""), text)


def test_precision_flags_are_never_asked_for() -> None:
    """TensorRT 11 has no FP16, INT8 or BF16 flags: precision is in the graph's types."""
    every: dict[str, Any] = dict.fromkeys(build._FLAGS, True)
    names = set(build.flag_names({**every, "strip": True}, "tf32"))
    assert not names & {"FP16", "BF16", "INT8", "FP8", "INT4", "OBEY_PRECISION_CONSTRAINTS"}
