"""Does the suite catch faults? Plants them in the lowerings, one at a time, and runs the operator's generated cases.

``python -m suites.meta.mutate --count 300 --json reports/mutation.json``

A fault is a change of one place in the syntax tree of a lowering or of a helper: another constant, another ONNX
operator, exchanged or dropped arguments, an attribute read but not used, another comparison, another sign, another
type. The changed code replaces the function's own in memory; MXNet's answers are computed once per case. What only
guards against illegal input (an ``if`` that raises), and messages, are not touched: the cases are legal.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import inspect
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from onnx import defs

from harness import numerics
from harness.operators import registry
from suites.meta.equivalent import why_equivalent
from suites.ops import check
from suites.ops.case import Case, Spec, all_specs
from suites.ops.coverage import cases_of
from suites.ops.limitations import limitation_of
from suites.ops.reference import MXNetRefuses, Reference

SECONDS = 20  # for one case: a fault may loop for ever
OPERATORS_PER_FAULT = 3


# --- places and changes ----------------------------------------------------------------------------------------------

_COMMUTE = {"Add", "Mul", "Equal", "And", "Or", "Xor", "Max", "Min", "Sum"}
_SWAPS = {
    "Floor": "Ceil", "Ceil": "Floor", "Max": "Min", "Min": "Max", "ReduceMax": "ReduceMin", "ReduceMin": "ReduceMax",
    "Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "Greater": "Less", "Less": "Greater",
    "GreaterOrEqual": "Greater", "LessOrEqual": "Less", "And": "Or", "Or": "And", "Sin": "Cos", "Cos": "Sin",
    "ReduceSum": "ReduceMean", "ReduceMean": "ReduceSum", "ReduceProd": "ReduceSum", "ReduceL2": "ReduceL1",
    "ReduceL1": "ReduceL2", "ArgMax": "ArgMin", "ArgMin": "ArgMax", "Round": "Floor", "Sqrt": "Abs", "Exp": "Abs",
    "Log": "Abs", "Abs": "Neg", "Neg": "Abs", "Relu": "Abs", "Sigmoid": "Tanh", "Tanh": "Sigmoid", "Erf": "Tanh",
    "Softmax": "LogSoftmax", "LogSoftmax": "Softmax", "MaxPool": "AveragePool", "Sign": "Abs", "Not": "Identity",
    "GlobalMaxPool": "GlobalAveragePool", "GlobalAveragePool": "GlobalMaxPool", "Reciprocal": "Neg", "Softplus": "Relu",
    "Softsign": "Tanh", "Xor": "Or", "Asin": "Atan", "Atan": "Asin", "Sinh": "Asinh", "Cosh": "Sinh", "Tan": "Sin",
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Add, ast.Pow: ast.Mult,
}  # fmt: skip
_TYPES = {"int64": "float32", "int32": "float32", "float32": "int32", "float64": "float32", "bool_": "float32"}
Change = Callable[[ast.AST], Any]


@dataclass(frozen=True)
class Fault:
    """One change of one place."""

    module: str
    function: str
    first_line: int
    place: int
    kind: str
    line: int
    source: str


@dataclass(frozen=True)
class Verdict:
    """What the cases said of a fault: ``caught`` by what, after how many cases; or why it changes no answer."""

    fault: Fault
    operators: tuple[str, ...]
    caught: bool
    by: str
    cases: int
    seconds: float
    equivalent: str | None = None


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The faults that can be planted at one node: a kind, and what replaces the node."""
    if isinstance(node, ast.Constant):
        yield from _constant_changes(node)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        yield "comparison", _with(node, ops=[_COMPARE[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY and not isinstance(node.left, (ast.List, ast.Tuple)):
        yield "arithmetic", _with(node, op=_BINARY[type(node.op)]())
    elif isinstance(node, (ast.IfExp, ast.If)):
        yield "condition", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Load):
        if node.value.id == "a" and not node.attr.startswith("_") and node.attr not in ("ignore", "unread"):
            text = f"(a[{node.attr!r}], a._types[{node.attr!r}].default)[1]"
            yield "attribute read but not used", ast.parse(text, mode="eval").body
        if node.value.id == "np" and node.attr in _TYPES:
            yield "type", _with(node, attr=_TYPES[node.attr])
    elif isinstance(node, ast.Call):
        yield from _call_changes(node)


def _constant_changes(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield "boolean", _with(node, value=not value)
    elif isinstance(value, int):
        yield "constant + 1", _with(node, value=value + 1)
        if value:
            yield "constant - 1", _with(node, value=value - 1)
    elif isinstance(value, float):
        yield "constant", _with(node, value=value * 1.5 + 0.1)
    elif isinstance(value, str) and value in _SWAPS:
        yield "ONNX operator", _with(node, value=_SWAPS[value])


def _call_changes(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if method == "op" and node.args and isinstance(node.args[0], ast.Constant):
        op_type, values = node.args[0].value, node.args[1:]
        if len(values) >= 2 and op_type not in _COMMUTE and not any(isinstance(v, ast.Starred) for v in values):
            yield "exchanged inputs", _with(node, args=[node.args[0], values[1], values[0], *values[2:]])
        if len(values) >= 2 and op_type in _ONNX and _ONNX[op_type] < len(values):
            yield "dropped input", _with(node, args=node.args[:-1])
        for position, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, "type", "types"):
                rest = [*node.keywords[:position], *node.keywords[position + 1 :]]
                yield f"dropped {keyword.arg}", _with(node, keywords=rest)
    if method == "cast" and len(node.args) == 2:
        yield "dropped cast", node.args[0]
    if method == "transpose" and len(node.args) == 2:
        yield "dropped transpose", node.args[0]


_ONNX = {schema.name: schema.min_input for schema in defs.get_all_schemas()}


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _untouched(node: ast.AST) -> bool:
    """Messages, guards, annotations: nothing that a legal case can tell apart."""
    if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.arguments)):
        return True
    return isinstance(node, ast.If) and all(isinstance(step, ast.Raise) for step in node.body)


class _Planter(ast.NodeTransformer):
    """Counts the places in one function in order, and plants one fault."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted = wanted
        self.count = 0
        self.places: list[tuple[int, str, int]] = []

    def visit(self, node: ast.AST) -> Any:
        if _untouched(node):
            return node
        for kind, changed in _changes(node):
            place, self.count = self.count, self.count + 1
            self.places.append((place, kind, getattr(node, "lineno", 0)))
            if place == self.wanted:
                return ast.copy_location(changed, node)
        return self.generic_visit(node)

    def visit_body(self, function: ast.FunctionDef) -> None:
        """Everything but the docstring, the decorators and the annotations."""
        start = 1 if ast.get_docstring(function) is not None else 0
        function.body[start:] = [self.visit(step) for step in function.body[start:]]


# --- functions -------------------------------------------------------------------------------------------------------


@functools.cache
def _tree(module: ModuleType) -> tuple[ast.Module, list[str]]:
    text = inspect.getsource(module)
    return ast.parse(text), text.splitlines()


def _definitions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def faults_in(function: FunctionType) -> list[Fault]:
    """All faults that can be planted in one function."""
    module = sys.modules[function.__module__]
    tree, lines = _tree(module)
    for node in _definitions(tree):
        if node.name == function.__code__.co_name and _first_line(node) == function.__code__.co_firstlineno:
            planter = _Planter()
            planter.visit_body(copy.deepcopy(node))
            first = function.__code__.co_firstlineno
            return [
                Fault(module.__name__, function.__qualname__, first, place, kind, line, lines[line - 1].strip())
                for place, kind, line in planter.places
            ]
    return []


def code_with(fault: Fault) -> CodeType | None:
    """The function's code with the fault in it."""
    module = sys.modules[fault.module]
    tree = copy.deepcopy(_tree(module)[0])
    name = fault.function.rpartition(".")[2]
    for node in _definitions(tree):
        if node.name == name and _first_line(node) == fault.first_line:
            _Planter(fault.place).visit_body(node)
    whole = compile(ast.fix_missing_locations(tree), module.__file__ or "", "exec", dont_inherit=True)
    return next((c for c in _codes(whole) if c.co_name == name and c.co_firstlineno == fault.first_line), None)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def functions_of(operator: str) -> list[FunctionType]:
    """The lowering of an operator and the helpers that it reaches, in a fixed order."""
    found: dict[int, FunctionType] = {}
    pending: list[Any] = [registry.definitions()[operator].lower]
    while pending:
        item = pending.pop()
        if inspect.isclass(item):
            pending += [member for member in vars(item).values() if isinstance(member, FunctionType)]
            continue
        item = inspect.unwrap(item) if callable(item) else item
        if not isinstance(item, FunctionType) or id(item) in found:
            continue
        found[id(item)] = item
        names = {name for code in _codes(item.__code__) for name in code.co_names}
        reached = [item.__globals__.get(name) for name in sorted(names)]
        reached += [cell.cell_contents for cell in item.__closure__ or ()]
        pending += [other for other in reached if _is_ours(other)]
    return list(found.values())


def _is_ours(item: Any) -> bool:
    """A function or class of a family's file; the context and the registry are not lowerings."""
    module = getattr(item, "__module__", "") or ""
    infrastructure = ("context", "registry", "schema")
    return (
        (inspect.isclass(item) or isinstance(item, FunctionType))
        and module.startswith("harness.operators.")
        and module.rpartition(".")[2] not in infrastructure
    )


# --- the cases -------------------------------------------------------------------------------------------------------


@dataclass
class Known:
    """A case with MXNet's answers."""

    case: Case
    arrays: dict[str, Any]
    native: Sequence[Any]
    exact: Sequence[Any]
    bounds: Sequence[Any]

    def wrong(self, dynamic: bool) -> str:
        """What is wrong with the compiled answer; "" if nothing is."""
        case = self.case
        model = check.compiled(case, self.arrays, "onnxruntime", "fp32", dynamic)
        found = model(**{name: self.arrays[name] for name in model.input_names})
        return check.judge(case, model, found, self.native, self.exact, self.bounds, "fp32")[1]


@functools.cache
def known_cases(operator: str) -> list[tuple[Known, bool]]:
    """The quick suite's cases of an operator, each with whether its sizes vary; easy to fail ones first."""
    found = []
    for spec in _specs()[operator]:
        for case in cases_of(spec):
            known = _known(case) if limitation_of(case, "onnxruntime", "fp32") is None else None
            if known is not None:
                found.append((known, False))
                if any(tensor.dynamic for tensor in case.inputs.values()) and len(found) % 4 == 0:
                    found.append((known, True))
    return found


def _known(case: Case) -> Known | None:
    """A case with MXNet's answers; None if MXNet refuses it (a fault of its spec, which the suite itself reports)."""
    arrays = case.arrays()
    try:
        reference = Reference(case)
        native = reference.native(arrays)
    except MXNetRefuses:
        return None
    function: Any = reference
    try:
        exact: Sequence[Any] = reference(arrays)
    except MXNetRefuses:
        function, exact = reference.native, native
    try:
        bounds = numerics.response(function, arrays, exact, "fp32", seed=case.seed)
    except MXNetRefuses:
        return None
    return Known(case, arrays, native, exact, bounds)


@functools.cache
def _specs() -> dict[str, list[Spec]]:
    found: dict[str, list[Spec]] = {}
    for spec in all_specs():
        found.setdefault(spec.operator, []).append(spec)
    return found


# --- planting --------------------------------------------------------------------------------------------------------


def all_faults(operators: Sequence[str] | None = None) -> tuple[list[Fault], Mapping[Fault, tuple[str, ...]]]:
    """All faults, and the operators that reach each."""
    users: dict[Fault, list[str]] = {}
    by_function: dict[int, list[Fault]] = {}
    for operator in sorted(operators or registry.definitions()):
        if operator not in _specs():
            continue
        for function in functions_of(operator):
            if id(function) not in by_function:
                by_function[id(function)] = faults_in(function)
            for fault in by_function[id(function)]:
                users.setdefault(fault, []).append(operator)
    return list(users), {fault: tuple(names) for fault, names in users.items()}


def choose(faults: Sequence[Fault], count: int, seed: int) -> list[Fault]:
    """A sample: one of each function in turn, so that long functions do not crowd out short ones."""
    rng = random.Random(seed)
    by_function: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        by_function.setdefault((fault.module, fault.function), []).append(fault)
    groups = list(by_function.values())
    for group in groups:
        rng.shuffle(group)
    rng.shuffle(groups)
    chosen = [group[turn] for turn in range(max(map(len, groups))) for group in groups if turn < len(group)]
    return chosen[:count]


def target(fault: Fault, operators: Sequence[str]) -> FunctionType:
    """The function that a fault is planted in."""
    for operator in operators:
        for function in functions_of(operator):
            same = function.__module__ == fault.module and function.__qualname__ == fault.function
            if same and function.__code__.co_firstlineno == fault.first_line:
                return function
    raise LookupError(fault)


def judge(fault: Fault, operators: Sequence[str]) -> Verdict:
    """Plant a fault, run the cases of the operators that reach it until one fails, and take the fault out again."""
    tested = _spread(operators)
    prepared = [(operator, known_cases(operator)) for operator in tested]
    function = target(fault, operators)
    own, code = function.__code__, code_with(fault)
    assert code is not None, fault
    start, count, by = time.perf_counter(), 0, ""
    function.__code__ = code
    try:
        for _, cases in prepared:
            for known, dynamic in cases:
                count += 1
                by = _symptom(known, dynamic)
                if by:
                    break
            if by:
                break
    finally:
        function.__code__ = own
    why = None if by else why_equivalent(fault.function, fault.source, fault.kind)
    return Verdict(fault, tuple(tested), bool(by), by, count, round(time.perf_counter() - start, 3), why)


def _spread(operators: Sequence[str]) -> list[str]:
    """A few of the operators, from all over the list."""
    step = max(len(operators) // OPERATORS_PER_FAULT, 1)
    return list(operators)[::step][:OPERATORS_PER_FAULT]


def _symptom(known: Known, dynamic: bool) -> str:
    def stop(number: int, frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        return known.wrong(dynamic)
    except Exception as error:  # noqa: BLE001  a fault may raise anything
        return type(error).__name__
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(count: int, seed: int = 0, operators: Sequence[str] | None = None) -> Iterator[Verdict]:
    """Plant ``count`` faults and judge each."""
    faults, users = all_faults(operators)
    for fault in choose(faults, count, seed):
        yield judge(fault, users[fault])


def main() -> int:
    """The command line; exits with 1 if fewer than 99 % are caught."""
    parser = argparse.ArgumentParser(description="plant faults in the lowerings and see which the suite catches")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--operators", nargs="*", help="only these")
    parser.add_argument("--json", type=Path, help="where the verdicts are written")
    given = parser.parse_args()
    verdicts: list[Verdict] = []
    for verdict in run(given.count, given.seed, given.operators):
        verdicts.append(verdict)
        fault = verdict.fault
        if not verdict.caught and not verdict.equivalent:
            place = f"{fault.module.rpartition('.')[2]}.py:{fault.line} ({fault.function})"
            print(f"survived: {place}: {fault.kind}: {fault.source}  [{', '.join(verdict.operators)}]", flush=True)
        if given.json and (len(verdicts) % 20 == 0 or len(verdicts) == given.count):
            _write(given.json, verdicts, given.seed)
    if given.json:
        _write(given.json, verdicts, given.seed)
    caught, judged = _score(verdicts)
    print(f"{caught} of {judged} planted faults were caught ({100 * caught / max(judged, 1):.1f} %); ", end="")
    print(f"{len(verdicts) - judged} more change no answer (suites/meta/equivalent.py)")
    return 0 if caught >= 0.99 * judged else 1


def _score(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    """How many faults were caught, and how many there were that change an answer."""
    return sum(verdict.caught for verdict in verdicts), sum(not verdict.equivalent for verdict in verdicts)


def _write(path: Path, verdicts: Sequence[Verdict], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    caught, judged = _score(verdicts)
    entries = [asdict(verdict) for verdict in verdicts]
    content = {
        "planted": judged,
        "caught": caught,
        "equivalent": len(verdicts) - judged,
        "seed": seed,
        "verdicts": entries,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    import conftest  # noqa: F401  the environment that MXNet's own kernels need

    sys.exit(main())
