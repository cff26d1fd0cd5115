"""MXNet's operator registry as data: which operators exist, under which names, with which attributes.

``schema.json`` is a dump of MXNet 1.9.1's own registry (``scripts/dump_schema.py``). Attribute values arrive as text
and are parsed here, once, by the type text that MXNet itself prints.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

from ..errors import ModelError


class AttributeType(NamedTuple):
    """How one attribute is written: its kind, whether None is allowed, its choices, and its default."""

    kind: str
    optional: bool
    choices: tuple[str, ...]
    required: bool
    default: Any


@dataclass(frozen=True, slots=True)
class Schema:
    """One operator: canonical name, tensor inputs ("data[]" where it takes any number), attributes, aliases."""

    name: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, AttributeType]
    aliases: tuple[str, ...]
    variadic: str | None


_SWITCH = "boolean, optional, default=0"
_CALIBRATED = dict.fromkeys(("min_calib_range", "max_calib_range"), "float or None, optional, default=None")

# MXNet's registry lists other attributes for these, none, or ones without defaults; this is what its parser reads and accepts.
_READ_ATTRIBUTES = {
    "_npi_concatenate": {"num_args": "int, required", "axis": "int or None, optional, default='0'"},
    "_linspace": {
        "start": "double, required",
        "stop": "double, required",
        "num": "int, required",
        "endpoint": "boolean, optional, default=1",
        "ctx": "string, optional, default=''",
        "dtype": "{'bfloat16', 'float16', 'float32', 'float64', 'int32', 'int64', 'int8', 'uint8'},"
        "optional, default='float32'",
    },
    "_npi_boolean_mask_assign_scalar": {"value": "double, required", "start_axis": "int, optional, default=0"},
    "_npi_boolean_mask_assign_tensor": {"start_axis": "int, optional, default=0"},
    "smooth_l1": {"scalar": "double, optional, default=1"},
    "_sg_mkldnn_conv": {
        **dict.fromkeys(("with_bn", "with_act", "with_sum", "with_postsum_act", "quantized"), _SWITCH),
        **dict.fromkeys(("with_relu", "with_postsum_relu"), _SWITCH),  # MXNet 1.5 wrote these for the two "act"
        **_CALIBRATED,
    },
    "_sg_mkldnn_fully_connected": {
        **dict.fromkeys(("quantized", "enable_float_output", "with_eltwise"), _SWITCH),
        "with_relu": _SWITCH,  # MXNet 1.5's word for with_eltwise
        "channel_wise_quantize": "boolean or None, optional, default=None",
        **_CALIBRATED,
    },
}


@functools.cache
def schemas() -> dict[str, Schema]:
    """Canonical name -> schema, for all forward operators of MXNet 1.9.1."""
    entries = json.loads(resources.files(__package__).joinpath("schema.json").read_text())
    for name, attributes in _READ_ATTRIBUTES.items():
        entries[name] = {**entries[name], "attributes": attributes}
    return {
        name: Schema(
            name,
            tuple(entry["inputs"]),
            {attribute: _attribute_type(text) for attribute, text in entry["attributes"].items()},
            tuple(entry["aliases"]),
            entry.get("variadic"),
        )
        for name, entry in entries.items()
    }


@functools.cache
def canonical_names() -> dict[str, str]:
    """Every name an operator is known by -> its canonical name."""
    names = {alias: name for name, schema in schemas().items() for alias in schema.aliases}
    return names | {name: name for name in schemas()}


def parse(kind: AttributeType, text: str) -> Any:
    """The typed value of an attribute written as ``text``; ValueError if it is not one."""
    if kind.optional and text in ("None", ""):
        return None
    if kind.choices:
        if text not in kind.choices:
            raise ValueError(f"{text!r} is none of {', '.join(kind.choices)}")
        return text
    return _PARSERS[kind.kind](text)


class Attributes:
    """The attributes of one node, typed; reading one is recorded.

    ``a.kernel`` or ``a["lambda"]``. What a lowering has not read, and what differs from its default, makes the node
    unsupported (:meth:`unread`), so that no attribute is dropped in silence.
    """

    def __init__(self, schema: Schema, raw: Mapping[str, str], node: str) -> None:
        self._types = schema.attributes
        self._raw = raw
        self._where = f"node {node!r} ({schema.name})"
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        kind = self._types[name]
        self._read.add(name)
        text = self._raw.get(name)
        if text is None:
            if kind.required:
                raise ModelError(f"{self._where}: the attribute {name!r} is required and missing")
            return kind.default
        try:
            return parse(kind, text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, OverflowError):
            wanted = " or ".join(kind.choices) or kind.kind
            raise ModelError(f"{self._where}: the attribute {name}={text[:80]!r} is not {wanted}") from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._types:
            raise AttributeError(name)
        return self[name]

    def __contains__(self, name: str) -> bool:
        """Whether the node sets this attribute."""
        return name in self._raw

    def peek(self, name: str) -> Any:
        """The value of an attribute, without recording that it was read."""
        before = name in self._read
        value = self[name]
        if not before:
            self._read.discard(name)
        return value

    def ignore(self, *names: str) -> None:
        """Declare that these attributes cannot change the answer."""
        self._read.update(names)

    def unread(self) -> dict[str, Any]:
        """Attributes that are set, were not read, and differ from their default."""
        left = {}
        for name in self._raw:
            if name in self._types and name not in self._read:
                value = self[name]
                self._read.discard(name)
                if value != self._types[name].default:
                    left[name] = value
        return left


_SMALLEST_FLOAT = 2.0**-126
_TYPE = re.compile(
    r"\s*(?P<kind>\{.*?\}|.*?)\s*(?:,\s*(?:(?P<required>required)|optional,\s*default=(?P<default>.*)))?$"
)


def _attribute_type(text: str) -> AttributeType:
    match = _TYPE.match(text)
    assert match, text
    kind, default = match["kind"], match["default"]
    choices: tuple[str, ...] = ()
    optional = kind.endswith(" or None")
    if kind.startswith("{"):
        options = [option.strip().strip("'") for option in kind[1:-1].split(",")]
        optional = "None" in options
        choices = tuple(option for option in options if option != "None")
        kind = "enum"
    kind = kind.removesuffix(" or None").removesuffix(" (non-negative)") or "string"
    plain = AttributeType(kind, optional, choices, bool(match["required"]), None)
    if default is None:
        return plain
    return plain._replace(default=parse(plain, default.strip("'")))


def _boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("1", "true"):
        return True
    if lowered in ("0", "false"):
        return False
    raise ValueError(text)


def _integer(text: str) -> int:
    text = text.strip().removesuffix("L")
    try:
        return int(text)
    except ValueError:
        value = float(text)  # "1.0" and "True" were written by old front ends
        if value != int(value):
            raise
        return int(value)


def _float32(item: Any) -> float:
    """MXNet's ``float`` is C's: 0.1 is 0.10000000149, in its float64 kernels too; what C's strtof refuses is refused."""
    value = float(item)
    if math.isfinite(value) and 0 < abs(value) < _SMALLEST_FLOAT:
        raise ValueError(item)
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _literal(text: str) -> Any:
    """A Python literal as dmlc writes it: long suffixes, and brackets of either kind."""
    return ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text.strip() or "()"))


def _tuple(element: Callable[[Any], Any]) -> Callable[[str], tuple[Any, ...]]:
    def read(text: str) -> tuple[Any, ...]:
        value = _literal(re.sub(r"\b(inf|nan)\b", "None", text)) if "None" not in text else _literal(text)
        items = value if isinstance(value, (tuple, list)) else (value,)
        return tuple(None if item is None else element(item) for item in items)

    return read


def _size(item: Any) -> int:
    if isinstance(item, bool) or int(item) != item:
        raise ValueError(item)
    return int(item)


def _shape(item: Any) -> tuple[int, ...]:
    return tuple(_size(part) for part in item)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "boolean": _boolean,
    "int": _integer,
    "long": _integer,
    "ptr": _integer,
    "float": _float32,
    "double": float,
    "real_t": _float32,
    "string": str,
    "enum": str,
    "NDArray": str,
    "Shape(tuple)": _tuple(_size),
    "Shape": _tuple(_size),
    "tuple of <long>": _tuple(_size),
    "tuple of <int>": _tuple(_size),
    "tuple of <float>": _tuple(_float32),
    "tuple of <double>": _tuple(float),
    "tuple of <Shape(tuple)>": _tuple(_shape),
}
