"""MXNet's symbol JSON, versions 0.8 to 1.9, as a :class:`~harness.graph.Graph`.

Old files are upgraded as MXNet's own loader does (``src/nnvm/legacy_json_util.cc``): operator attributes once stood in
``param``, user attributes in ``attr``; inputs could be implicit; ``argmin`` and ``argmax`` wrote ``axis=-1`` for
"all axes".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..graph import VARIABLE, Entry, Graph, Node
from ..operators.schema import Schema, canonical_names, schemas
from .arity import input_names, output_name

_HIDDEN_KEYS = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage", "profiler_scope")
_IMPLICIT_BEFORE = 900  # 0.9.0: until then a file left out auxiliary inputs, and any other could be missing
_AXIS_ALL_BEFORE = 905  # 0.9.5
_ANY_ATTRIBUTES = ("Custom",)  # what the Python class behind it takes


def read_symbol(path: str | Path) -> Graph:
    """Read a ``-symbol.json`` file.

    Raises:
        ModelError: the file cannot be read, or is not MXNet's JSON.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: the symbol file cannot be read: {error}") from None
    return parse_symbol(text, str(path))


def parse_symbol(text: str, where: str = "the symbol") -> Graph:
    """A graph from MXNet's JSON text; ``where`` names its origin in errors.

    Raises:
        ModelError: the text is not MXNet's JSON, or describes no valid graph.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: not JSON: {error}") from None
    return _graph(data, where, depth=0)


def _graph(data: Any, where: str, depth: int) -> Graph:
    if depth > 16:
        raise ModelError(f"{where}: subgraphs are nested more than 16 deep")
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), list):
        raise ModelError(f"{where}: not an MXNet symbol: there is no list of 'nodes'")
    reader = _Reader(data, where, depth)
    heads = data.get("heads", [])
    if not isinstance(heads, list) or not heads:
        raise ModelError(f"{where}: the symbol has no outputs ('heads')")
    entries = tuple(reader.entry(head, "'heads'") for head in heads)
    nodes = tuple(reader.nodes)
    names = tuple(output_name(nodes[entry.node], entry.output) for entry in entries)
    return Graph(_with_unique_names(nodes), entries, names, _flag(data, "is_np_shape"))


class _Reader:
    """Turns the JSON's nodes into ours, one by one, in order."""

    def __init__(self, data: Mapping[str, Any], where: str, depth: int) -> None:
        self.where, self.depth = where, depth
        self.version = _version(data)
        self.nodes: list[Node] = []
        self.places: list[int] = []  # JSON position -> position in self.nodes, which implicit variables shift
        for index, item in enumerate(data["nodes"]):
            node = self._node(index, item)
            self.places.append(len(self.nodes))
            self.nodes.append(node)

    def _node(self, index: int, item: Any) -> Node:
        if not isinstance(item, dict) or not isinstance(item.get("op"), str) or not isinstance(item.get("name"), str):
            raise ModelError(f"{self.where}: node {index} has no 'op' or no 'name'")
        name, operator = str(item["name"]), str(item["op"])
        if not _is_text(name):
            raise ModelError(f"{self.where}: the name {name!r} of node {index} is not valid Unicode text")
        where = f"{self.where}: node {name!r} ({operator})"
        sources = item.get("inputs", [])
        if not isinstance(sources, list):
            raise ModelError(f"{where}: 'inputs' is not a list")
        inputs = [self.entry(source, f"the inputs of {name!r}") for source in sources]
        attributes = self._attributes(item, where)
        if operator == VARIABLE:
            if inputs:
                raise ModelError(f"{where}: a variable with inputs")
            return Node(name, VARIABLE, (), attributes)
        canonical = canonical_names().get(operator, operator)
        schema = schemas().get(canonical)
        if schema:
            attributes = self._upgraded(canonical, attributes)
            _refuse_unknown(schema, attributes, where)
            inputs += self._implicit(name, canonical, attributes, len(inputs))
            _check_count(canonical, attributes, len(inputs), where)
        subgraphs = item.get("subgraphs", [])
        if not isinstance(subgraphs, list):
            raise ModelError(f"{where}: 'subgraphs' is not a list")
        inner = tuple(_graph(sub, f"{where}, subgraph {i}", self.depth + 1) for i, sub in enumerate(subgraphs))
        return Node(name, canonical, tuple(inputs), attributes, inner)

    def entry(self, item: Any, what: str) -> Entry:
        """[node, output, version] as an entry; nodes come before their users."""
        numbers = item if isinstance(item, list) else [item, 0]
        if not 1 <= len(numbers) <= 3 or not all(type(number) is int for number in numbers):
            raise ModelError(f"{self.where}: {what}: {str(item)[:80]} is not [node, output]")
        node, output = numbers[0], numbers[1] if len(numbers) > 1 else 0
        if not 0 <= node < len(self.places) or not 0 <= output < 2**20:
            raise ModelError(f"{self.where}: {what}: there is no node {node} (output {output}) before it")
        return Entry(self.places[node], output)

    def _attributes(self, item: Mapping[str, Any], where: str) -> dict[str, str]:
        merged: dict[str, str] = {}
        for key in ("attr", "param", "attrs"):
            group = item.get(key) or {}
            if not isinstance(group, dict):
                raise ModelError(f"{where}: {key!r} is not an object")
            for name, value in group.items():
                if not isinstance(value, str):
                    raise ModelError(f"{where}: the attribute {name!r} is not text: {str(value)[:80]}")
                merged[f"__{name}__" if name in _HIDDEN_KEYS else name] = value
        return merged

    def _upgraded(self, operator: str, attributes: dict[str, str]) -> dict[str, str]:
        if operator in ("argmax", "argmin") and self.version < _AXIS_ALL_BEFORE and attributes.get("axis") == "-1":
            return {name: value for name, value in attributes.items() if name != "axis"}
        return attributes

    def _implicit(self, name: str, operator: str, attributes: Mapping[str, str], given: int) -> list[Entry]:
        """Variables for inputs that an old file left out, named as MXNet names them."""
        names = input_names(operator, attributes) if self.version < _IMPLICIT_BEFORE else None
        entries = []
        for suffix in (names or ())[given:]:
            entries.append(Entry(len(self.nodes)))
            self.nodes.append(Node(f"{name}_{suffix}" if name else suffix, VARIABLE))
        return entries


def _refuse_unknown(schema: Schema, attributes: Mapping[str, str], where: str) -> None:
    """An attribute that MXNet 1.9.1 would refuse; those in double underscores are anybody's."""
    if not schema.attributes or schema.name in _ANY_ATTRIBUTES:
        return
    for name in attributes:
        if name not in schema.attributes and not name.startswith("__") and not name.endswith(_HIDDEN_KEYS):
            raise ModelError(
                f"{where}: {name!r} is not an attribute of {schema.name} in MXNet 1.9.1; "
                f"its attributes are {', '.join(schema.attributes)}"
            )


def _check_count(operator: str, attributes: Mapping[str, str], given: int, where: str) -> None:
    """Too few or too many inputs, which MXNet itself does not survive. NumPy's operators decide by types: not here."""
    names = input_names(operator, attributes)
    if names is not None and given != len(names) and not operator.startswith("_np"):
        raise ModelError(f"{where}: has {given} inputs; with its attributes it takes {len(names)}: {', '.join(names)}")


def _with_unique_names(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Operators under names of their own: MXNet allows two of one name, and values are named after their node."""
    variables = {node.name for node in nodes if node.is_variable}
    taken = {part for name in variables for part in _prefixes(name)}
    counts: dict[str, int] = {}
    result = []
    for node in nodes:
        if not node.is_variable:
            name = wanted = node.name or node.operator
            while name in taken:
                counts[wanted] = counts.get(wanted, 0) + 1
                name = f"{wanted}__{counts[wanted]}"
            taken.add(name)
            node = node if name == node.name else replace(node, name=name)
        result.append(node)
    return tuple(result)


def _prefixes(name: str) -> Iterator[str]:
    """What stands before each "/" and ":" of a name: an operator called so would name its values alike."""
    return (name[: match.start()] for match in re.finditer("[/:]", name))


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _version(data: Mapping[str, Any]) -> int:
    graph = data.get("attrs")
    entry = graph.get("mxnet_version") if isinstance(graph, dict) else None
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], int):
        return entry[1]
    return 800  # files before 0.9 do not say


def _flag(data: Mapping[str, Any], name: str) -> bool:
    graph = data.get("attrs")
    entry = graph.get(name) if isinstance(graph, dict) else None
    return isinstance(entry, list) and len(entry) == 2 and entry[1] in (1, True)
