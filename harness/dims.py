"""Symbolic dimensions: integer polynomials over named sizes, with floor division.

A dimension that is not known at compile time is a :class:`Dim`. Arithmetic keeps a normal form, so that two branches
of a network that shrink an image in the same way end in *equal* dimensions, which is all that shape checks need.
(sympy, which onnx-ir offers for this, takes 9 ms for one convolution's output size and does not find
``(h-1)//2//2 == (h-1)//4``; a network has hundreds.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from math import gcd
from typing import NamedTuple, TypeGuard, Union

Size = Union[int, "Dim"]
Shape = tuple[Size, ...]


class FloorDiv(NamedTuple):
    """An indivisible ``numerator // denominator``."""

    numerator: Dim
    denominator: Size

    def __str__(self) -> str:
        return f"({_parenthesised(self.numerator)}//{_parenthesised(self.denominator)})"


Atom = str | FloorDiv
Monomial = tuple[Atom, ...]


class Dim:
    """An immutable sum of integer multiples of products of names and floor divisions."""

    __slots__ = ("_hash", "_text", "terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms: dict[Monomial, int] = dict(sorted(terms.items(), key=lambda item: _key(item[0])))
        self._text = " + ".join(_term_text(m, c) for m, c in self.terms.items()).replace("+ -", "- ")
        self._hash = hash(self._text)

    @staticmethod
    def symbol(name: str) -> Dim:
        return Dim({(name,): 1})

    @property
    def symbols(self) -> frozenset[str]:
        found: set[str] = set()
        for monomial in self.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    found.add(atom)
                else:
                    found |= atom.numerator.symbols
                    if isinstance(atom.denominator, Dim):
                        found |= atom.denominator.symbols
        return frozenset(found)

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The dimension's value where each name has the given size; KeyError if one has none."""
        total = 0
        for monomial, coefficient in self.terms.items():
            for atom in monomial:
                if isinstance(atom, str):
                    coefficient *= sizes[atom]
                else:
                    coefficient *= atom.numerator.evaluate(sizes) // evaluate(atom.denominator, sizes)
            total += coefficient
        return total

    def __add__(self, other: Size) -> Size:
        terms = dict(self.terms)
        for monomial, coefficient in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _normal(terms)

    def __mul__(self, other: Size) -> Size:
        terms: dict[Monomial, int] = {}
        for left, a in self.terms.items():
            for right, b in _terms(other).items():
                product = tuple(sorted(left + right, key=str))
                terms[product] = terms.get(product, 0) + a * b
        return _normal(terms)

    def __floordiv__(self, divisor: Size) -> Size:
        if isinstance(divisor, Dim):
            return _divide_by_dim(self, divisor)
        if divisor == 0:
            raise ZeroDivisionError("a symbolic dimension divided by 0")
        if divisor < 0:
            return (self * -1) // -divisor
        return _divide_by_int(self, divisor)

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + (other * -1)

    def __rsub__(self, other: int) -> Size:
        return (self * -1) + other

    def __rfloordiv__(self, other: int) -> Size:
        return _divide_by_dim(Dim({(): other}), self) if other else 0

    __radd__ = __add__
    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self._text == other._text

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Dim({self._text!r})"


def evaluate(size: Size, sizes: Mapping[str, int]) -> int:
    """``size`` itself if it is an integer, else its value for the given sizes."""
    return size.evaluate(sizes) if isinstance(size, Dim) else size


def product(sizes: Iterable[Size]) -> Size:
    """The product of sizes; 1 for none."""
    result: Size = 1
    for size in sizes:
        result = result * size
    return result


def is_static(shape: Sequence[Size]) -> TypeGuard[Sequence[int]]:
    """Whether every size is known."""
    return all(isinstance(size, int) for size in shape)


def ceil_div(numerator: Size, denominator: int) -> Size:
    """The quotient rounded up."""
    return -((-numerator) // denominator)


def _terms(size: Size) -> dict[Monomial, int]:
    return size.terms if isinstance(size, Dim) else {(): size}


def _normal(terms: Mapping[Monomial, int]) -> Size:
    kept = {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    return Dim(kept)


def _divide_by_int(dim: Dim, k: int) -> Size:
    whole = {m: c // k for m, c in dim.terms.items()}
    rest = {m: c % k for m, c in dim.terms.items() if c % k}
    constant = rest.pop((), 0)
    if not rest:
        return _normal(whole)
    shared = reduce(gcd, rest.values(), k)
    rest, constant, k = {m: c // shared for m, c in rest.items()}, constant // shared, k // shared
    if k == 1:
        return _normal(whole) + _normal({**rest, (): constant})
    if len(rest) == 1:
        ((monomial, coefficient),) = rest.items()
        atom = monomial[0] if len(monomial) == 1 else None
        if coefficient == 1 and isinstance(atom, FloorDiv) and isinstance(atom.denominator, int):
            inner = atom.numerator + constant * atom.denominator  # (a//m + c)//k == (a + c*m)//(m*k)
            return _normal(whole) + inner // (atom.denominator * k)
    numerator = _normal({**rest, (): constant})
    assert isinstance(numerator, Dim)
    return _normal(whole) + Dim({(FloorDiv(numerator, k),): 1})


def _divide_by_dim(dim: Dim, divisor: Dim) -> Size:
    if dim == divisor:
        return 1
    if len(divisor.terms) == 1:
        ((monomial, coefficient),) = divisor.terms.items()
        quotient: dict[Monomial, int] = {}
        for term, count in dim.terms.items():
            left = list(term)
            if count % coefficient or any(monomial.count(atom) > left.count(atom) for atom in monomial):
                break
            for atom in monomial:
                left.remove(atom)
            quotient[tuple(left)] = count // coefficient
        else:
            return _normal(quotient)
    return Dim({(FloorDiv(dim, divisor),): 1})


def _key(monomial: Monomial) -> tuple[bool, str]:
    return (not monomial, str([str(atom) for atom in monomial]))


def _term_text(monomial: Monomial, coefficient: int) -> str:
    if not monomial:
        return str(coefficient)
    text = "*".join(str(atom) for atom in monomial)
    return text if coefficient == 1 else f"-{text}" if coefficient == -1 else f"{coefficient}*{text}"


def _parenthesised(size: Size) -> str:
    text = str(size)
    return text if isinstance(size, int) or text.isidentifier() else f"({text})"
