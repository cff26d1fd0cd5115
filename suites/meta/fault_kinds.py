"""The kinds of faults, as changes of one node of a lowering's syntax tree.

They are what goes wrong when a lowering is written by hand: an attribute that is read and not used, or mistaken for
another; a default that is not MXNet's; padding, a size or an axis that is off by one; a missing epsilon; rounding the
other way; another element type; a dropped or exchanged input; another ONNX operator; a step that was left out.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from onnx import defs, helper

from harness.operators.schema import AttributeType, Schema

_COMMUTE = {
    "Add",
    "Mul",
    "Equal",
    "NotEqual",
    "And",
    "Or",
    "Xor",
    "Max",
    "Min",
    "Sum",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
}
ONNX_SWAPS = {
    "Floor": "Ceil", "Ceil": "Floor", "Max": "Min", "Min": "Max", "ReduceMax": "ReduceMin", "ReduceMin": "ReduceMax",
    "Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "Greater": "Less", "Less": "Greater", "Equal": "Greater",
    "GreaterOrEqual": "Greater", "LessOrEqual": "Less", "And": "Or", "Or": "And", "Sin": "Cos", "Cos": "Sin",
    "ReduceSum": "ReduceMean", "ReduceMean": "ReduceSum", "ReduceProd": "ReduceSum", "ReduceL2": "ReduceL1",
    "ReduceL1": "ReduceL2", "ArgMax": "ArgMin", "ArgMin": "ArgMax", "Round": "Floor", "Sqrt": "Abs", "Exp": "Abs",
    "Log": "Abs", "Abs": "Neg", "Neg": "Abs", "Relu": "Abs", "Sigmoid": "Tanh", "Tanh": "Sigmoid", "Erf": "Tanh",
    "Softmax": "LogSoftmax", "LogSoftmax": "Softmax", "MaxPool": "AveragePool", "Sign": "Abs", "Not": "Identity",
    "GlobalMaxPool": "GlobalAveragePool", "GlobalAveragePool": "GlobalMaxPool", "Reciprocal": "Neg", "Softplus": "Relu",
    "Softsign": "Tanh", "Xor": "Or", "Asin": "Atan", "Atan": "Asin", "Sinh": "Asinh", "Cosh": "Sinh", "Tan": "Sin",
    "Acos": "Asin", "Asinh": "Sinh", "Acosh": "Cosh", "Atanh": "Tanh", "ReduceSumSquare": "ReduceSum", "Pow": "Mul",
    "BitwiseAnd": "BitwiseOr", "BitwiseOr": "BitwiseXor", "BitwiseXor": "BitwiseAnd", "NotEqual": "Equal",
    "Elu": "LeakyRelu", "LeakyRelu": "Elu", "Selu": "Elu", "Gelu": "Relu",
}  # fmt: skip
_ROUNDINGS = {"Floor", "Ceil", "Round"}
_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Add, ast.Pow: ast.Mult,
}  # fmt: skip
_NUMPY_ROUNDINGS = {"floor": "ceil", "ceil": "floor", "rint": "floor", "round": "floor", "around": "floor"}
_ODD_DTYPES = {"float32": "int32", "float64": "float32", "float16": "float32"}  # any other one becomes float32
_ONNX = {schema.name: schema for schema in defs.get_all_schemas()}
_DROPPED = {"axis": "wrong axis", "epsilon": "missing eps", "pads": "wrong padding"}
_HERE = __name__

Change = tuple[str, ast.AST]


# --- one node --------------------------------------------------------------------------------------------------------


def changes(
    node: ast.AST, schemas: list[Schema], names: Mapping[str, Any], only_none: bool = False
) -> Iterator[Change]:
    """The faults that can be planted at a node: a kind, and what stands there instead.

    Args:
        schemas: those of the operators that the function serves.
        names: the function's globals.
        only_none: whether the code only asks if the node is None: then another number is no fault.
    """
    if isinstance(node, ast.Constant):
        yield from _constant(node)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        yield "wrong comparison", _with(node, ops=[_COMPARE[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "wrong condition", _with(node, op=other)
    elif isinstance(node, ast.UnaryOp):
        yield from _unary(node)
    elif isinstance(node, ast.BinOp):
        yield from _binary(node)
    elif isinstance(node, (ast.IfExp, ast.If)):
        yield "negated condition", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, (ast.Attribute, ast.Subscript)) and (name := attribute_name(node, schemas)):
        found = _attribute(name, node, schemas)
        yield from (change for change in found if not (only_none and change[0] == "attribute off by one"))
    elif isinstance(node, (ast.Attribute, ast.Name)):
        yield from _dtype(node, names)
    elif isinstance(node, ast.Call):
        yield from _call(node)
    elif isinstance(node, (ast.List, ast.Tuple)):
        yield from _listed(node)
    elif isinstance(node, (ast.Assign, ast.AugAssign)) and _is_step(node):
        yield "dropped step", ast.Pass()


def _constant(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield "flipped boolean", _with(node, value=not value)
    elif isinstance(value, int):
        yield "off by one", _with(node, value=value + 1)
        if value:
            yield "off by one", _with(node, value=value - 1)
    elif isinstance(value, float):
        yield "wrong constant", _with(node, value=other_number(value))
    elif isinstance(value, str) and value in ONNX_SWAPS:
        kind = "wrong rounding" if value in _ROUNDINGS else "wrong ONNX operator"
        yield kind, _with(node, value=ONNX_SWAPS[value])


def other_number(value: float) -> float:
    """A number that differs from ``value`` by more than any rounding."""
    return value * 1.5 + 0.1 if np.isfinite(value) else -value


def _unary(node: ast.UnaryOp) -> Iterator[Change]:
    if isinstance(node.op, ast.Not):
        yield "negated condition", node.operand
    elif isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "wrong sign", node.operand


def _binary(node: ast.BinOp) -> Iterator[Change]:
    if type(node.op) not in _BINARY or isinstance(node.left, (ast.List, ast.Tuple, ast.JoinedStr)):
        return
    yield "wrong arithmetic", _with(node, op=_BINARY[type(node.op)]())
    if isinstance(node.op, ast.FloorDiv):
        yield "wrong rounding", _expression("-((-x) // y)", x=node.left, y=node.right)


def _dtype(node: ast.Attribute | ast.Name, names: Mapping[str, Any]) -> Iterator[Change]:
    """``np.float32``, or a name of the module's for an element type."""
    if isinstance(node, ast.Attribute):
        owner = node.value
        if isinstance(owner, ast.Name) and owner.id == "np" and isinstance(node.ctx, ast.Load):
            kind = getattr(np, node.attr, None)
            if isinstance(kind, type) and issubclass(kind, np.generic):
                yield "wrong dtype", _with(node, attr=_ODD_DTYPES.get(np.dtype(kind).name, "float32"))
    elif isinstance(node.ctx, ast.Load) and isinstance(names.get(node.id), np.dtype):
        other = _ODD_DTYPES.get(names[node.id].name, "float32")
        yield "wrong dtype", _expression(f"np.dtype({other!r})")


def _listed(node: ast.List | ast.Tuple) -> Iterator[Change]:
    """``[*before, *after]`` in the other order."""
    parts = node.elts
    if len(parts) == 2 and all(isinstance(p, ast.Starred) for p in parts) and ast.dump(parts[0]) != ast.dump(parts[1]):
        yield "exchanged parts", _with(node, elts=parts[::-1])


def _is_step(node: ast.Assign | ast.AugAssign) -> bool:
    """``x = f(x)``."""
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Name)
    target = node.targets[0]
    used = {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
    return len(node.targets) == 1 and isinstance(target, ast.Name) and target.id in used


# --- calls -----------------------------------------------------------------------------------------------------------


def _call(node: ast.Call) -> Iterator[Change]:
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    place = _op_type_place(node)
    if place is not None:
        yield from _emitting(node, place)
        if method in ("op", "ops"):
            yield from _onnx_attributes(node)
    if method == "cast" and len(node.args) == 2:
        yield "wrong dtype", node.args[0]
    if method in ("transpose", "reshape", "unsqueeze", "squeeze", "expand") and len(node.args) >= 2:
        yield "dropped step", node.args[0]
    if method in _NUMPY_ROUNDINGS and isinstance(node.func.value, ast.Name) and node.func.value.id in ("np", "math"):  # type: ignore[attr-defined]
        yield "wrong rounding", _with(node, func=_with(node.func, attr=_NUMPY_ROUNDINGS[method]))
    if isinstance(node.func, ast.Name) and node.func.id == "ceil_div":
        yield "wrong rounding", _expression("x // y", x=node.args[0], y=node.args[1])
    if isinstance(node.func, ast.Name) and node.func.id == "select" and len(node.args) == 4:
        cx, condition, x, y = node.args
        yield "exchanged inputs", _with(node, args=[cx, condition, y, x])


def _op_type_place(node: ast.Call) -> int | None:
    """Where in ``cx.op("Sub", x, y)`` or ``pair(cx, "Sub", x, y)`` the ONNX operator stands."""
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("op", "ops"):
        return 0 if node.args and _is_text(node.args[0]) else None
    if isinstance(node.func, ast.Name) and len(node.args) > 1 and _is_text(node.args[1]):
        return 1 if isinstance(node.args[0], ast.Name) and node.args[0].id == "cx" else None
    return None


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _emitting(node: ast.Call, place: int) -> Iterator[Change]:
    """Exchanged and dropped inputs of an ONNX node."""
    head, values = node.args[: place + 1], node.args[place + 1 :]
    op_type = head[place].value  # type: ignore[attr-defined]
    if len(values) < 2 or any(isinstance(value, ast.Starred) for value in values):
        return
    if op_type not in _COMMUTE and ast.dump(values[0]) != ast.dump(values[1]):
        yield "exchanged inputs", _with(node, args=[*head, values[1], values[0], *values[2:]])
    if place == 0 and op_type in _ONNX and _ONNX[op_type].min_input < len(values):
        yield "dropped input", _with(node, args=node.args[:-1])


def _onnx_attributes(node: ast.Call) -> Iterator[Change]:
    op_type = node.args[0].value  # type: ignore[attr-defined]
    for position, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "type", "types", "outputs"):
            rest = [*node.keywords[:position], *node.keywords[position + 1 :]]
            yield from _onnx_attribute(node, op_type, keyword, rest)


def _onnx_attribute(node: ast.Call, op_type: str, keyword: ast.keyword, rest: list[ast.keyword]) -> Iterator[Change]:
    assert keyword.arg is not None
    if not _is_default(op_type, keyword):
        yield _DROPPED.get(keyword.arg, "dropped ONNX attribute"), _with(node, keywords=rest)
    if keyword.arg == "axis" and not isinstance(keyword.value, ast.Constant):
        other = ast.keyword("axis", _expression("(x) - 1", x=keyword.value))
        yield "wrong axis", _with(node, keywords=[*rest, other])
    if keyword.arg == "pads":
        other = ast.keyword("pads", _expression("[p + 1 for p in (x) or ()] or None", x=keyword.value))
        yield "wrong padding", _with(node, keywords=[*rest, other])


def _is_default(op_type: str, keyword: ast.keyword) -> bool:
    """Whether an ONNX attribute is written out as what it is anyway."""
    if op_type not in _ONNX or not isinstance(keyword.value, ast.Constant):
        return False
    known = _ONNX[op_type].attributes.get(keyword.arg or "")
    if known is None or not known.default_value.name:
        return False
    default = helper.get_attribute_value(known.default_value)
    return bool(keyword.value.value == (default.decode() if isinstance(default, bytes) else default))


# --- attributes of MXNet's operator ----------------------------------------------------------------------------------


def attribute_name(node: ast.AST, schemas: list[Schema]) -> str:
    """The attribute that ``a.kernel`` or ``a["lambda"]`` reads; "" if the node is something else."""
    if not isinstance(getattr(node, "ctx", None), ast.Load):
        return ""
    owner = node.value  # type: ignore[attr-defined]
    if not (isinstance(owner, ast.Name) and owner.id == "a"):
        return ""
    if isinstance(node, ast.Attribute):
        name = node.attr
    else:
        key = node.slice  # type: ignore[attr-defined]
        name = key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ""
    return name if any(name in schema.attributes for schema in schemas) else ""


def _attribute(name: str, node: ast.AST, schemas: list[Schema]) -> Iterator[Change]:
    kinds = [schema.attributes[name] for schema in schemas if name in schema.attributes]
    other = _alike(name, schemas)
    if name.startswith("eps"):
        yield "missing eps", _expression("0 * x", x=node)
    if not all(kind.required for kind in kinds):
        yield "ignored attribute", _runtime("ignored", name)
        if any(_other(kind) != kind.default for kind in kinds if not kind.required):
            yield "wrong default", _runtime("wrong_default", name)
    if other:
        yield "swapped attribute", _runtime("swapped", name, other)
    if any(_is_numeric(kind) for kind in kinds):
        yield "attribute off by one", _runtime("off_by_one", name)


def _alike(name: str, schemas: list[Schema]) -> str:
    """Another attribute of the same kind, that one could be taken for; "" if there is none."""
    for schema in schemas:
        if name in schema.attributes:
            wanted = schema.attributes[name][:3]
            names = [other for other, kind in schema.attributes.items() if kind[:3] == wanted]
            place = names.index(name)
            for other in names[place + 1 :] + names[:place]:
                if other != name and not other.startswith("cudnn") and other != "workspace":
                    return other
    return ""


def _is_numeric(kind: AttributeType) -> bool:
    return kind.kind in ("int", "long") or "Shape" in kind.kind or kind.kind in ("tuple of <int>", "tuple of <long>")


def _runtime(function: str, *arguments: str) -> ast.expr:
    """A call of one of the functions below."""
    quoted = "".join(f", {argument!r}" for argument in arguments)
    return _expression(f"__import__({_HERE!r}, fromlist=['x']).{function}(a{quoted})")


def ignored(a: Any, name: str) -> Any:
    """The attribute's default, whatever its value is."""
    value, kind = a[name], a._types[name]
    return value if kind.required else kind.default


def wrong_default(a: Any, name: str) -> Any:
    """The attribute's value where it is set, another than MXNet's default where it is not."""
    value, kind = a[name], a._types[name]
    return value if name in a or kind.required else _other(kind)


def swapped(a: Any, name: str, other: str) -> Any:
    """The value of another attribute."""
    value = a[name]
    return a[other] if other in a._types else value


def off_by_one(a: Any, name: str) -> Any:
    """One more: the number, or each number of a tuple."""
    return _one_more(a[name])


def _one_more(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_one_more(item) for item in value)
    return value + 1 if isinstance(value, int) and not isinstance(value, bool) else value


def _other(kind: AttributeType) -> Any:
    """A value of the kind that is not the default."""
    default = kind.default
    if kind.choices:
        choices = [choice for choice in kind.choices if choice != default]
        return choices[0] if choices else default
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return 0.0 if default else 1.0
    if isinstance(default, tuple):
        return tuple((item or 0) + 1 for item in default) or (2,)
    others = {"int": 1, "long": 1, "float": 1.5, "double": 1.5, "boolean": True}
    return others.get(kind.kind, (1,) if "tuple" in kind.kind or "Shape" in kind.kind else default)


# --- tools -----------------------------------------------------------------------------------------------------------


def _with(node: Any, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _expression(text: str, **parts: ast.AST) -> Any:
    """The syntax tree of an expression, with nodes in the places of names."""

    class Put(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return parts.get(node.id, node)

    return Put().visit(ast.parse(text, mode="eval").body)


def untouched(node: ast.AST) -> bool:
    """Messages, guards against what is not supported, annotations: nothing that a supported case can tell apart."""
    if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.arguments)):
        return True
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "ignore":
        return True
    return isinstance(node, ast.If) and not node.orelse and is_guard(node.body)


def is_guard(body: list[ast.stmt]) -> bool:
    """Whether statements only refuse: they end in an error, or call what checks."""
    if isinstance(body[-1], ast.Raise):
        return all(isinstance(step, ast.Assign) for step in body[:-1])
    calls = [step.value for step in body if isinstance(step, ast.Expr) and isinstance(step.value, ast.Call)]
    return len(calls) == len(body) and all(ast.unparse(call.func).lstrip("_").startswith("check_") for call in calls)


def used_names(node: ast.AST) -> set[str]:
    """The names that code reads elsewhere than in what is not touched."""
    found = {node.id} if isinstance(node, ast.Name) else set()
    inside = [part for part in ast.iter_child_nodes(node) if not untouched(part)]
    return found.union(*map(used_names, inside))


Kind = Callable[[ast.AST], Iterator[Change]]
