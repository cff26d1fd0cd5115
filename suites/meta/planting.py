"""Faults in the lowerings: where they can be planted, which ones are chosen, and planting them.

A fault is one change of one place: of the syntax tree of a function (:mod:`suites.meta.fault_kinds`), of an entry of a
table, of a constant of a module, or of what a function that was made by another one was made for. The changed code
replaces the functions' own in memory. Guards against what is not supported, and messages, are not touched: the cases
that judge are supported ones.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import copy
import dis
import functools
import hashlib
import inspect
import linecache
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from harness.operators import registry
from harness.operators.schema import Schema, schemas

from .fault_kinds import ONNX_SWAPS, changes, is_guard, other_number, untouched, used_names

HOME = Path(__file__).parents[2]
_INFRASTRUCTURE = ("context", "registry", "schema")


Span = tuple[str, int, int]


@dataclass(frozen=True)
class Fault:
    """One change of one place.

    Attributes:
        module, function, first_line: where; for a table or a constant of a module, ``function`` is its name.
        place: its number among the places of the function; or the key of the table, or the name of the variable.
        kind: what kind of fault it is.
        spans: the lines that are changed, or that read what is: (file name, first, last).
        change: the old text and the new one.
        operator: the operator whose function alone is changed, where several share one code; "" is all of them.
    """

    module: str
    function: str
    first_line: int
    place: int | str
    kind: str
    spans: tuple[Span, ...]
    change: str
    operator: str = ""

    @property
    def file(self) -> str:
        return f"{self.module.replace('.', '/')}.py"

    @property
    def line(self) -> int:
        return self.spans[0][1]

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line} {self.function}"

    @property
    def text(self) -> str:
        """Its line."""
        return linecache.getline(str(HOME / self.file), self.line).strip()

    @property
    def key(self) -> str:
        """What tells it from every other fault, wherever in its file the code is."""
        line = self.text if self.function.endswith(">") else ""
        return "|".join(map(str, (self.file, self.function, line, self.place, self.kind, self.change, self.operator)))


# --- functions -------------------------------------------------------------------------------------------------------


@functools.cache
def functions_of(operator: str) -> tuple[FunctionType, ...]:
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
        reached = [item.__globals__.get(name) for name in sorted(_names(item.__code__))]
        reached += [cell.cell_contents for cell in item.__closure__ or ()]
        pending += [other for value in reached for other in _functions_in(value)]
    return tuple(found.values())


@functools.cache
def _names(code: CodeType) -> frozenset[str]:
    """The globals that a function reads."""
    steps = (step for part in _codes(code) for step in dis.get_instructions(part))
    return frozenset(step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _functions_in(value: Any) -> list[Any]:
    """The functions and classes of the families' files in a value, which may be a table of them."""
    if isinstance(value, dict):
        return [function for item in value.values() for function in _functions_in(item)]
    if isinstance(value, (tuple, list)):
        return [function for item in value for function in _functions_in(item)]
    module = getattr(value, "__module__", "") or ""
    ours = module.startswith("harness.operators.") and module.rpartition(".")[2] not in _INFRASTRUCTURE
    return [value] if ours and (inspect.isclass(value) or isinstance(value, FunctionType)) else []


# --- places ----------------------------------------------------------------------------------------------------------


@functools.cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


@functools.cache
def _inside(module: ModuleType, line: int) -> ast.Module:
    """The statement of the module that a line is in, as a module of its own: walking and compiling it is quick."""
    for step in _tree(module).body:
        if _first_line(step) <= line <= (step.end_lineno or line):
            return ast.Module([step], [])
    raise LookupError(f"{module.__name__} has no line {line}")


Definition = ast.FunctionDef | ast.Lambda


def _definition(tree: ast.AST, name: str, first_line: int) -> Definition | None:
    """The definition of a function; None if two lambdas begin on one line."""
    found = [node for node in _definitions(tree) if getattr(node, "name", "<lambda>") == name]
    found = [node for node in found if _first_line(node) == first_line]
    return found[0] if len(found) == 1 else None


def _definitions(tree: ast.AST) -> list[Definition]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.Lambda))]


class _Planter(ast.NodeTransformer):
    """Counts the places in one function in order, and plants one fault."""

    def __init__(self, operators: list[Schema], names: Mapping[str, Any], wanted: int = -1) -> None:
        self.operators, self.names, self.wanted = operators, names, wanted
        self.count = 0
        self.places: list[tuple[int, str, int, int, str]] = []
        self.lines = (0, 0)
        self.asked: set[ast.AST] = set()  # what is only compared with None

    def visit(self, node: ast.AST) -> Any:
        if untouched(node):
            return node
        if isinstance(node, ast.If) and is_guard(node.body):  # what comes else is none
            node.orelse = [self.visit(step) for step in node.orelse]
            return node
        if isinstance(node, ast.stmt):
            self.lines = _header(node)
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            self.asked.add(node.left)
        for kind, changed in changes(node, self.operators, self.names, node in self.asked):
            place, self.count = self.count, self.count + 1
            self.places.append((place, kind, *self.lines, _difference(node, changed)))
            if place == self.wanted:
                return ast.copy_location(changed, node)
        return self.generic_visit(node)

    def visit_body(self, function: Definition) -> None:
        """Everything but the docstring, the decorators and the annotations."""
        if isinstance(function, ast.Lambda):
            self.lines = (function.lineno, function.end_lineno or function.lineno)
            function.body = self.visit(function.body)
            return
        start = 1 if ast.get_docstring(function) is not None else 0
        function.body[start:] = [self.visit(step) for step in function.body[start:]]


def _header(node: ast.stmt) -> tuple[int, int]:
    """The lines of a statement, without those of the statements inside."""
    inside = [step.lineno for name in ("body", "handlers") for step in getattr(node, name, [])]
    last = min(inside) - 1 if inside else node.end_lineno or node.lineno
    return node.lineno, max(last, node.lineno)


def _difference(node: ast.AST, changed: ast.AST) -> str:
    old, new = (ast.unparse(_without_body(side)) for side in (node, changed))
    return f"{old} -> {new}".replace("__import__('suites.meta.fault_kinds', fromlist=['x']).", "")


def _without_body(node: ast.AST) -> ast.AST:
    return node.test if isinstance(node, (ast.If, ast.IfExp)) else node


def _in_code(function: FunctionType, operators: Sequence[str]) -> list[Fault]:
    """The faults of a function's own code."""
    module, code = sys.modules[function.__module__], function.__code__
    node = _definition(_inside(module, code.co_firstlineno), code.co_name, code.co_firstlineno)
    if node is None:
        return []
    planter = _Planter([schemas()[name] for name in operators], vars(module))
    planter.visit_body(copy.deepcopy(node))
    name, file = module.__name__, _file_name(module)
    return [
        Fault(name, function.__qualname__, code.co_firstlineno, place, kind, ((file, line, last),), change)
        for place, kind, line, last, change in planter.places
    ]


def _file_name(module: ModuleType) -> str:
    return Path(module.__file__ or "").name


@functools.cache
def _used(code: CodeType, module: ModuleType) -> frozenset[str] | None:
    """The names that a function's code reads elsewhere than in guards and messages; None if it has no text."""
    if Path(code.co_filename) != Path(module.__file__ or ""):
        return None
    node = _definition(_inside(module, code.co_firstlineno), code.co_name, code.co_firstlineno)
    return None if node is None else frozenset().union(*map(used_names, _body(node)))


def _body(node: Definition) -> list[ast.AST]:
    body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
    return [step for step in body if not untouched(step)]


def _is_used(function: FunctionType, name: str) -> bool:
    used = _used(function.__code__, sys.modules[function.__module__])
    return used is None or name in used


def _span(function: FunctionType) -> Span:
    """The lines of a whole function."""
    lines = [line for part in _codes(function.__code__) for *_, line in part.co_lines() if line]
    return _file_name(sys.modules[function.__module__]), function.__code__.co_firstlineno, max(lines)


def _in_closure(function: FunctionType, operator: str) -> list[Fault]:
    """The faults of what a function was made for by the function around it: an ONNX operator, a flag, a number."""
    found = []
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or ()):
        other = _other_constant(cell.cell_contents)
        if other is not None and _is_used(function, name):
            change = f"{name}={cell.cell_contents!r} -> {name}={other!r}"
            where = (function.__module__, function.__qualname__, code.co_firstlineno)
            found.append(Fault(*where, name, "wrong table entry", (_span(function),), change, operator))
    return found


def _other_constant(value: Any) -> Any:
    """Another value for a constant of a table; None if there is none that means something."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1 if isinstance(value, int) else other_number(value)
    if isinstance(value, np.dtype):
        return np.dtype("int32" if value == np.float32 else "float32")
    return ONNX_SWAPS.get(value) if isinstance(value, str) else None


def _in_globals(readers: Mapping[FunctionType, Sequence[str]]) -> dict[Fault, tuple[str, ...]]:
    """The faults of the tables and numbers that functions read from their modules, and the operators they serve."""
    reading: dict[
        tuple[int, str], list[FunctionType]
    ] = {}  # a table is one, whoever imports it; a number is a module's
    for function in readers:
        for name in sorted(_names(function.__code__)):
            value = function.__globals__.get(name)
            if not _is_used(function, name):
                continue
            if isinstance(value, dict):
                reading.setdefault((id(value), name), []).append(function)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                reading.setdefault((id(function.__globals__), name), []).append(function)
    found: dict[Fault, tuple[str, ...]] = {}
    for (_, name), functions in reading.items():
        served = tuple(sorted({operator for function in functions for operator in readers[function]}))
        spans = tuple(dict.fromkeys(_span(function) for function in functions))
        for key, kind, change in _in_global(name, functions[0].__globals__[name]):
            found[Fault(functions[0].__module__, name, 0, key, kind, spans, change)] = served
    return found


def _in_global(name: str, value: Any) -> Iterator[tuple[str, str, str]]:
    if not isinstance(value, dict):
        yield "", "wrong constant", f"{name}={value!r} -> {_other_constant(value)!r}"
        return
    for key, entry in value.items():
        if (other := _neighbour(value, key)) is not None:
            yield key, "wrong table entry", f"{name}[{key!r}]={_short(entry)} -> {_short(other)}"


def _short(value: Any) -> str:
    return getattr(value, "__qualname__", None) or repr(value)


def _neighbour(table: Mapping[Any, Any], key: Any) -> Any:
    """The next other value of the same type in a table."""
    keys = list(table)
    place = keys.index(key)
    for other in keys[place + 1 :] + keys[:place]:
        value = table[other]
        if type(value) is type(table[key]) and value != table[key]:
            return value
    return None


def all_faults(operators: Sequence[str] | None = None) -> dict[Fault, tuple[str, ...]]:
    """All faults in a fixed order, and the operators whose lowerings each changes."""
    users: dict[FunctionType, list[str]] = {}
    for operator in sorted(registry.definitions()):
        for function in functions_of(operator):
            users.setdefault(function, []).append(operator)
    by_code: dict[CodeType, list[FunctionType]] = {}
    for function in users:
        by_code.setdefault(function.__code__, []).append(function)
    found: dict[Fault, tuple[str, ...]] = {}
    for functions in by_code.values():
        served = tuple(sorted({operator for function in functions for operator in users[function]}))
        found |= dict.fromkeys(_in_code(functions[0], served), served)
    for function, serving in users.items():
        found |= dict.fromkeys(_in_closure(function, serving[0]), tuple(serving))
    found |= _in_globals(users)
    return {fault: names for fault, names in found.items() if operators is None or set(names) & set(operators)}


# --- choosing --------------------------------------------------------------------------------------------------------


def choose(
    faults: Mapping[Fault, Sequence[str]], count: int, seed: int, operators: Sequence[str] | None = None
) -> list[tuple[str, Fault]]:
    """A sample, the same for a seed: one fault of each function and one of each kind in turn, then a second one, ...

    Which ones comes from hashes alone: a change of the code elsewhere changes nothing of the order.

    Args:
        faults: all of them, with the operators that each concerns.
        count, seed: how many, and which ones.
        operators: who they are to be chosen for; by default all.

    Returns:
        Pairs of an operator that the fault concerns, and the fault.
    """
    ordered = sorted(faults, key=lambda fault: _random(seed, fault.key))
    turns = [_in_turn(ordered, lambda f: (f.module, f.function, f.first_line)), _in_turn(ordered, lambda f: f.kind)]
    chosen = list(dict.fromkeys(fault for pair in zip(*turns, strict=True) for fault in pair))[:count]
    used: Counter[str] = Counter()
    found = []
    for fault in chosen:
        served = [
            (used[name], _random(seed, name), name) for name in faults[fault] if operators is None or name in operators
        ]
        *_, operator = min(served)
        used[operator] += 1
        found.append((operator, fault))
    return found


def _random(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed} {text}".encode()).digest()


def _in_turn(faults: Sequence[Fault], group: Callable[[Fault], Any]) -> list[Fault]:
    """The first one of each group, then the second one of each, ..."""
    seen: Counter[Any] = Counter()
    ranks = []
    for fault in faults:
        seen[group(fault)] += 1
        ranks.append(seen[group(fault)])
    return [fault for _, fault in sorted(zip(ranks, faults, strict=True), key=lambda pair: pair[0])]


# --- planting --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def planted(fault: Fault, operators: Sequence[str]) -> Iterator[None]:
    """Within it, the lowerings of ``operators`` have the fault."""
    undo: list[Callable[[], None]] = []
    try:
        _plant(fault, operators, undo)
        yield
    finally:
        for step in undo:
            step()


def _plant(fault: Fault, operators: Sequence[str], undo: list[Callable[[], None]]) -> None:
    module = sys.modules[fault.module]
    if not fault.first_line:
        _plant_global(fault, vars(module), undo)
        return
    for function in _targets(fault, operators):
        if isinstance(fault.place, str):
            cell = (function.__closure__ or ())[function.__code__.co_freevars.index(fault.place)]
            undo.append(functools.partial(setattr, cell, "cell_contents", cell.cell_contents))
            cell.cell_contents = _other_constant(cell.cell_contents)
        else:
            undo.append(functools.partial(setattr, function, "__code__", function.__code__))
            function.__code__ = code_with(fault, operators)
    if not undo:
        raise LookupError(f"nothing of {fault.where} is there to be changed")


def _plant_global(fault: Fault, names: dict[str, Any], undo: list[Callable[[], None]]) -> None:
    value = names[fault.function]
    if isinstance(value, dict):
        undo.append(functools.partial(value.__setitem__, fault.place, value[fault.place]))
        value[fault.place] = _neighbour(value, fault.place)
    else:
        undo.append(functools.partial(names.__setitem__, fault.function, value))
        names[fault.function] = _other_constant(value)


def _targets(fault: Fault, operators: Sequence[str]) -> list[FunctionType]:
    """The functions that a fault changes: all that share the code, or one operator's."""
    found: dict[int, FunctionType] = {}
    for operator in [fault.operator] if fault.operator else operators:
        for function in functions_of(operator):
            same = function.__module__ == fault.module and function.__qualname__ == fault.function
            if same and function.__code__.co_firstlineno == fault.first_line:
                found[id(function)] = function
    return list(found.values())


@functools.lru_cache(maxsize=8)
def _code_with(fault: Fault, operators: tuple[str, ...]) -> CodeType:
    module = sys.modules[fault.module]
    tree = copy.deepcopy(_inside(module, fault.first_line))
    name = fault.function.rpartition(".")[2]
    node = _definition(tree, name, fault.first_line)
    assert node is not None, fault
    own = next(f for operator in operators for f in functions_of(operator) if is_of(f, fault))
    _Planter([schemas()[o] for o in operators], vars(module), int(fault.place)).visit_body(node)
    if isinstance(node, ast.FunctionDef):  # the same free variables, whether the changed code uses them or not
        kept = ast.Tuple([ast.Name(variable, ast.Load()) for variable in own.__code__.co_freevars], ast.Load())
        node.body.append(ast.If(ast.Constant(False), [ast.Expr(kept)], []))
    flags = __future__.annotations.compiler_flag
    whole = compile(ast.fix_missing_locations(tree), module.__file__ or "", "exec", flags, dont_inherit=True)
    return next(c for c in _codes(whole) if c.co_name == name and c.co_firstlineno == fault.first_line)


def _first_line(node: ast.stmt | ast.Lambda) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def is_of(function: FunctionType, fault: Fault) -> bool:
    same = function.__module__ == fault.module and function.__qualname__ == fault.function
    return same and function.__code__.co_firstlineno == fault.first_line


def code_with(fault: Fault, operators: Sequence[str]) -> CodeType:
    """A function's code with the fault in it."""
    return _code_with(fault, tuple(operators))
