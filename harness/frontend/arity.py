"""How many inputs an operator takes and what MXNet calls its outputs, which depends on its attributes.

``arity.json`` holds what MXNet 1.9.1 itself answers (``scripts/dump_arity.py``); operators that are not in it take
their schema's inputs and have one output, called "output".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from ..graph import Node
from ..operators.schema import Schema, parse, schemas


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads(resources.files(__package__).joinpath("arity.json").read_text())
    return table


def input_names(operator: str, attributes: Mapping[str, str]) -> tuple[str, ...] | None:
    """The inputs of a node of this canonical operator; None where it takes any number, or is not known."""
    schema = schemas().get(operator)
    entry = _table().get(operator, {})
    if (
        schema is None
        or schema.variadic
        or "num_arrays" in schema.attributes
        or ("counted" in entry and "inputs" in entry)
    ):
        return None
    names = _variant(schema, entry, attributes, 1)
    if names is None:
        names = entry.get("inputs", schema.inputs)
    return None if any(name.endswith("[]") or name == "arg0" for name in names) else tuple(names)


def output_name(node: Node, output: int) -> str:
    """The name MXNet gives an output: a variable's own, or the node's with a suffix."""
    if node.is_variable:
        return node.name
    suffix = _output_suffix(node, output)
    return f"{node.name}_{suffix}" if node.name else suffix


def _output_suffix(node: Node, output: int) -> str:
    schema, entry = schemas().get(node.operator), _table().get(node.operator, {})
    if schema is None:
        return "output"
    count = _count(schema, entry, node.attributes)
    names = _variant(schema, entry, node.attributes, 2) or entry.get("outputs") or ("output",)
    if count is not None and not _is_single(entry, names, count):
        return f"output{output}"
    if output < len(names):
        return str(names[output])
    return f"output{output}"


def _is_single(entry: Mapping[str, Any], names: Any, count: int) -> bool:
    """Whether the only output of a counted operator is called "output", not "output0"."""
    return count == 1 and entry.get("outputs") != ["output0"] and len(names) <= 1


def _count(schema: Schema, entry: Mapping[str, Any], attributes: Mapping[str, str]) -> int | None:
    """How many outputs an operator has that counts them in an attribute."""
    for name in entry.get("counted", ()):
        count = _value(schema, name, attributes)
        if isinstance(count, int) and count > 0:
            return count
    if "counted" in entry and "indices" in schema.attributes:
        indices = _value(schema, "indices", attributes)
        return len(indices) if isinstance(indices, tuple) and len(indices) > 1 else None
    return None


def _variant(schema: Schema, entry: Mapping[str, Any], attributes: Mapping[str, str], place: int) -> list[str] | None:
    """The names of the most specific variant that the attributes ask for; ``place`` 1 is inputs, 2 is outputs."""
    best: tuple[int, list[str] | None] = (0, None)
    for variant in entry.get("variants", ()):
        wanted, names = variant[0], variant[place]
        fits = names is not None and len(wanted) >= best[0]
        if fits and all(_is(schema, name, text, attributes) for name, text in wanted.items()):
            best = (len(wanted), names)
    return best[1]


def _is(schema: Schema, name: str, text: str, attributes: Mapping[str, str]) -> bool:
    """Whether an attribute has the value that a variant asks for; "*" asks for any but None."""
    value = _value(schema, name, attributes)
    return bool(value is not None if text == "*" else value == parse(schema.attributes[name], text))


def _value(schema: Schema, name: str, attributes: Mapping[str, str]) -> Any:
    """The typed value of an attribute; None for one that cannot be read, which the lowering will refuse."""
    kind = schema.attributes[name]
    if name not in attributes:
        return kind.default
    try:
        return parse(kind, attributes[name])
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, OverflowError):
        return None
