"""What the parser and the builder refused, in terms of MXNet's nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ..layers import owner_of
from .library import Library, Log


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the library refused, as it said it.

    Attributes:
        node: the ONNX node's name, "" if the library named none.
        owner: the MXNet node it came from.
        operator: the ONNX operator.
        signature: its inputs' types.
        reason: the library's words.
        stage: "parser" or "builder".
    """

    node: str
    owner: str
    operator: str
    signature: str
    reason: str
    stage: str

    def __str__(self) -> str:
        if not self.node:
            return self.reason
        return f"node {self.owner!r} ({self.operator} of {self.signature}): {self.reason}"


def parser_refusals(model: ir.Model, parser: Any, log: Log) -> list[Refusal]:
    """What the parser says of each node it refused."""
    nodes = {str(node.name): node for node in model.graph}
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name = error.node_name() or ""
        found.append(_refusal(nodes, name, _parser_reason(error), "parser"))
    if not found:
        reason = "; ".join(log.take_errors()) or "it gave no reason"
        found = [Refusal("", "", "", "", reason, "parser")]
    return list(dict.fromkeys(found))


def _parser_reason(error: Any) -> str:
    """The words that matter: the parser repeats the node and its own source file around them."""
    code = str(error.code()).rpartition(".")[2].replace("_", " ").lower()
    text = " ".join(str(error.desc()).split())
    return f"{text} ({code})" if text else code


def builder_refusals(model: ir.Model, messages: Sequence[str]) -> list[Refusal]:
    """What the builder logged, with the node that each message names."""
    nodes = {str(node.name): node for node in model.graph}
    found = []
    for message in messages:
        reason = " ".join(message.split())
        named = [name for name in nodes if name in message] if len(nodes) < 5000 else _names_in(message, nodes)
        named = [n for n in named if not any(n != other and n in other for other in named)] or [""]
        found += [_refusal(nodes, name, reason, "builder") for name in named[:3]]
    return list(dict.fromkeys(found)) or [
        Refusal("", "", "", "", "the builder gave no engine and no reason", "builder")
    ]


def _names_in(message: str, nodes: Mapping[str, Any]) -> list[str]:
    return [word for word in re.split(r"[\s\[\]{}()+,]+", message) if word.rstrip(".") in nodes]


def _refusal(nodes: Mapping[str, ir.Node], name: str, reason: str, stage: str) -> Refusal:
    node = nodes.get(name)
    if node is None:
        return (
            Refusal(name, owner_of(name), "?", "?", reason, stage) if name else Refusal("", "", "", "", reason, stage)
        )
    signature = ", ".join(_type_text(value) for value in node.inputs if value is not None)
    return Refusal(name, owner_of(name), str(node.op_type), signature or "nothing", reason, stage)


def _type_text(value: ir.Value) -> str:
    shape = "?" if value.shape is None else ", ".join(str(size) for size in value.shape)
    return f"{'?' if value.dtype is None else value.dtype.name.lower()}[{shape}]"


def refusal_message(library: Library, name: str, refusals: Sequence[Refusal]) -> str:
    named = [refusal for refusal in refusals if refusal.node] or list(refusals)
    lines = [f"{library.label} refuses part {name}:", *(f"  {refusal}" for refusal in named[:8])]
    if len(named) > 8:
        lines.append(f"  and {len(named) - 8} more")
    memory = any("memory" in refusal.reason.lower() or "OutOfMemory" in refusal.reason for refusal in refusals)
    advice = "free GPU memory or give workspace=BYTES" if memory else "use engine='onnxruntime', or report the node"
    return "\n".join([*lines, f"  ({advice})"])
