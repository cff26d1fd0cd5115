"""How operators are tested, as data.

One operator is one :class:`Spec`: the values its attributes take, and a function that draws shapes which fit them.
Everything else is generated: a test for each value of each attribute, and tests with everything drawn.

    Spec("Pooling", {"pool_type": ["max", "avg"], "global_pool": [False, True]}, pooling)

    def pooling(d: Draw, a: Attributes) -> Inputs:
        a["kernel"] = d.sizes(2, 1, 3)                       # what depends on shapes is drawn here
        return {"data": Tensor(d.shape(4, low=3))}

A value of ``DEFAULT`` leaves the attribute out. Draws are legal by construction; ``legal`` says which combinations of
attribute values MXNet itself does not define.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import pkgutil
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st


class _Default:
    """Stands for an attribute that is left out."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT = _Default()
SUBGRAPHS = "subgraphs"  # where a build function leaves the JSON of the graphs inside of the node
Attributes = dict[str, Any]
Array = np.ndarray


@dataclass(frozen=True)
class Tensor:
    """How one input is drawn.

    Attributes:
        shape: its sizes.
        dtype: its type.
        low, high: the range values are drawn from, uniformly (integers: both ends included).
        values: or the values to draw from, each before any comes again; or an array to take as it is.
        distinct: no two elements are closer than 1e-3 of the range (for sorting and maxima).
        avoid: values around which (by 0.01 of the range) nothing is drawn: where the function jumps.
        const: a parameter of the model instead of an input.
        dynamic: axes whose size may vary in the dynamic-shape variant of the test.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float = -2.0
    high: float = 2.0
    values: Any = None
    distinct: bool = False
    avoid: tuple[float, ...] = ()
    const: bool = False
    dynamic: tuple[int, ...] = ()

    def draw(self, rng: np.random.Generator) -> Array:
        dtype = np.dtype(self.dtype)
        if isinstance(self.values, np.ndarray):
            return self.values.astype(dtype)
        if self.values is not None:
            return _each(np.asarray(self.values), self.shape, rng).astype(dtype)
        if dtype.kind == "b":
            return rng.integers(0, 2, self.shape).astype(bool)
        if dtype.kind in "iu":
            low = max(int(self.low), np.iinfo(dtype).min)
            return rng.integers(low, int(self.high) + 1, self.shape).astype(dtype)
        span = self.high - self.low
        if self.distinct:
            count = int(np.prod(self.shape))
            steps = rng.permutation(count) + rng.uniform(0.25, 0.75, count)
            return (self.low + span * steps / max(count, 1)).reshape(self.shape).astype(dtype)
        array = rng.uniform(self.low, self.high, self.shape)
        for value in self.avoid:
            near = np.abs(array - value) < 0.01 * span
            array = np.where(near, value + np.where(array < value, -0.02, 0.02) * span, array)
        return array.astype(dtype)


def _each(values: Array, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Values at random places, each of them before any occurs again: a tensor that has the room holds all."""
    count = math.prod(shape)
    rounds = [rng.permutation(values) for _ in range(-(-count // len(values)))]
    return np.concatenate([*rounds, values[:0]])[:count].reshape(shape)


Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One operator with all its attributes and inputs settled."""

    operator: str
    attributes: Mapping[str, str]
    inputs: Mapping[str, Tensor]
    seed: int = 0
    np_shape: bool = False
    terms: int = 1
    outputs: int = 1
    reference_dtype: str = "float64"
    reference: str = ""
    subgraphs: tuple[str, ...] = ()

    def arrays(self) -> dict[str, Array]:
        rng = np.random.default_rng(self.seed)
        return {name: tensor.draw(rng) for name, tensor in self.inputs.items()}

    def __str__(self) -> str:
        attributes = ", ".join(f"{k}={v}" for k, v in self.attributes.items())
        inputs = ", ".join(f"{n}: {t.dtype}{list(t.shape)}" for n, t in self.inputs.items())
        return f"{self.operator}({inputs}; {attributes}) seed={self.seed}"


class Draw:
    """Draws sizes and choices; a thin cover of Hypothesis, so that a spec reads like a sentence."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self._draw = draw

    def integer(self, low: int, high: int, label: str | None = None) -> int:
        return int(self._draw(_around(low, high, low + 1) if high - low < 100 else st.integers(low, high)))

    def boolean(self) -> bool:
        return bool(self._draw(st.booleans()))

    def pick(self, choices: Sequence[Any]) -> Any:
        return self._draw(st.sampled_from(list(choices)))

    def sizes(self, count: int, low: int = 1, high: int = 5) -> tuple[int, ...]:
        return tuple(self._draw(_around(low, high, 2 + axis % 3)) for axis in range(count))

    def shape(self, rank: int | tuple[int, int] = (1, 4), low: int = 1, high: int = 5) -> tuple[int, ...]:
        """Sizes; ``rank`` is a number or a range."""
        count = rank if isinstance(rank, int) else self.integer(*rank)
        return self.sizes(count, low, high)

    def broadcastable(self, rank: tuple[int, int] = (1, 4), low: int = 1, high: int = 4) -> tuple[tuple[int, ...], ...]:
        """Two shapes of equal rank that broadcast together."""
        shape = self.shape(rank, low, high)
        masks = [self._draw(st.sampled_from((0, 0, 1, 2))) for _ in shape]
        left = tuple(1 if mask == 1 else size for size, mask in zip(shape, masks))
        right = tuple(1 if mask == 2 else size for size, mask in zip(shape, masks))
        return left, right


@functools.cache
def _around(low: int, high: int, first: int) -> st.SearchStrategy[int]:
    """Integers whose simplest one is ``first``: what Hypothesis tries first then is no array of sizes 1, in which a
    wrong axis or an exchanged size does not show.
    """
    first = min(max(first, low), high)
    return st.sampled_from([first, *(value for value in range(low, high + 1) if value != first)])


Build = Callable[[Draw, Attributes], Inputs]


@dataclass(frozen=True)
class Spec:
    """One operator: what its attributes take, and how its inputs are drawn.

    Attributes:
        operator: MXNet's canonical name.
        attributes: attribute -> the values it takes; DEFAULT leaves it out.
        build: draws the inputs; may add attributes that depend on shapes, and the node's subgraphs.
        legal: whether MXNet defines a combination of attribute values.
        terms: the length of the longest sum behind one output element, from the drawn inputs.
        outputs: how many outputs to compare, from the attributes (a number or a function).
        np_shape: whether NumPy shape semantics are on.
        reference_dtype: float32 where MXNet has no float64 kernel.
        reference: "module:function" of what answers where MXNet's CPU has no kernel at all: it takes the case and its
            arrays, and runs MXNet's own operators around the gap.
        examples: how many fully drawn cases the quick suite runs.
        varying: how many of them with sizes that vary.
        also: other operators that are drawn in the same way.
    """

    operator: str
    attributes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    build: Build = lambda d, a: {"data": Tensor(d.shape((1, 4)))}
    legal: Callable[[Attributes], bool] = lambda a: True
    terms: Callable[[Attributes, Inputs], int] = lambda a, i: 1
    outputs: int | Callable[[Attributes], int] = 1
    np_shape: bool = False
    reference_dtype: str = "float64"
    reference: str = ""
    examples: int = 8
    varying: int = 4
    also: tuple[str, ...] = ()

    def named(self) -> list[Spec]:
        """This spec and those of the operators that are drawn in the same way."""
        return [replace(self, operator=name, also=()) for name in (self.operator, *self.also)]

    def pairs(self) -> list[tuple[str, Any]]:
        """Every (attribute, value) that must be seen; a value that is legal in no combination is another spec's."""
        every = [(name, value) for name, values in self.attributes.items() for value in values]
        return [pair for pair in every if next(self._legal(pair), None) is not None]

    def _legal(self, pinned: tuple[str, Any] | None) -> Iterator[Attributes]:
        """The legal combinations, DEFAULT included, with one attribute pinned to a value."""
        values = [[pinned[1]] if pinned and name == pinned[0] else list(v) for name, v in self.attributes.items()]
        for chosen in _combinations(values):
            choice = dict(zip(self.attributes, chosen))
            if self.legal({name: value for name, value in choice.items() if value is not DEFAULT}):
                yield choice

    def cases(self, pinned: tuple[str, Any] | None = None) -> st.SearchStrategy[Case]:
        """Cases with everything drawn, or with one attribute pinned to a value."""
        legal = list(itertools.islice(self._legal(pinned), _LEGAL_ENOUGH))
        assert legal, f"{self.operator}: no legal combination of attributes with {pinned}"

        @st.composite
        def case(draw: Any) -> Case:
            chosen = draw(st.sampled_from(legal))
            attributes = {name: value for name, value in chosen.items() if value is not DEFAULT}
            inputs = self.build(Draw(draw), attributes)
            subgraphs = attributes.pop(SUBGRAPHS, ())
            count = self.outputs if isinstance(self.outputs, int) else self.outputs(attributes)
            return Case(
                self.operator,
                {name: text(value) for name, value in attributes.items()},
                inputs,
                draw(st.integers(0, 2**16)),
                self.np_shape,
                self.terms(attributes, inputs),
                count,
                self.reference_dtype,
                self.reference,
                subgraphs,
            )

        return case()


def text(value: Any) -> str:
    """An attribute's value as MXNet's JSON writes it."""
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(text(item) for item in value) + ("," if len(value) == 1 else "") + ")"
    return str(value)


_LEGAL_ENOUGH = 500
_ALL_UP_TO = 4000
_TRIES = 20_000


def _combinations(lists: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """All combinations in a fixed random order; where there are too many, a fixed random sample."""
    rng = random.Random(0)
    if math.prod(len(values) for values in lists) <= _ALL_UP_TO:
        combinations = list(itertools.product(*lists))
        rng.shuffle(combinations)
        yield from combinations
        return
    for _ in range(_TRIES):
        yield tuple(rng.choice(values) for values in lists)


def all_specs() -> list[Spec]:
    """The specs of all families: every module of this package that has a list ``SPECS``."""
    package = importlib.import_module(__package__)
    found: list[Spec] = []
    for item in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        if not item.name.startswith("test_"):
            module = importlib.import_module(f"{__package__}.{item.name}")
            found += [spec for group in getattr(module, "SPECS", []) for spec in group.named()]
    assert found, "no specs: a suite without tests must not pass"
    return found
