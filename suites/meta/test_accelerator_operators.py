"""MXNet 1.7's tests of its TensorRT operators as data, and what its integration got wrong (facts: 14 defects).

Each case says whether the operator goes to the engine; the answer is held to MXNet's own. MXNet 1.7 drew each case three
times at random; here attributes are swept, and the inputs are fixed by the case's number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from harness.frontend import compat
from suites.meta.accelerated import SEGMENT, hold, operators_of, run

pytestmark = pytest.mark.mxnet


@dataclass(frozen=True)
class Case:
    """An operator: how its symbol is made from MXNet's module, the shape of the input, and what is expected."""

    name: str
    build: Callable[[Any], Any]
    shape: tuple[int, ...] = (2, 3, 7, 6)
    partitioned: bool = True
    terms: int = 64
    aux: dict[str, float] = field(default_factory=dict)
    reference: str = "float64"


def _sweep(**choices: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values))


def _case(operator: str, attributes: dict[str, Any], **more: Any) -> Case:
    text = ",".join(f"{key}={value}" for key, value in attributes.items())
    build = lambda mx: getattr(mx.sym, operator)(mx.sym.Variable("data"), name="op", **attributes)  # noqa: E731
    return Case(f"{operator}({text})", build, **more)


def _cases() -> Iterator[Case]:
    for swept in _sweep(kernel=((1, 1), (3, 3), (3, 2)), stride=((1, 1), (2, 1)), pad=((0, 0), (1, 1)), no_bias=(0, 1)):
        yield _case("Convolution", {**swept, "num_filter": 6})
    for group in (3,):  # drawn by MXNet 1.7, and never passed on
        yield _case("Convolution", {"kernel": (3, 3), "num_filter": 6, "num_group": group})
    for swept in _sweep(kernel=((2, 2), (3, 2)), stride=((1, 1), (2, 2)), pad=((0, 0), (1, 1)), no_bias=(0, 1)):
        yield _case("Deconvolution", {**swept, "num_filter": 4})
    yield _case("Deconvolution", {"kernel": (3, 3), "stride": (2, 2), "adj": (1, 1), "num_filter": 4})
    kinds = {
        "pool_type": ("max", "avg"),
        "kernel": ((2, 2), (3, 2)),
        "stride": ((1, 1), (2, 2)),
        "pad": ((0, 0), (1, 1)),
    }
    for swept in _sweep(**kinds, pooling_convention=("valid", "full"), count_include_pad=(True, False)):
        if swept["pool_type"] == "avg" or swept["count_include_pad"]:
            # A window that lies in the padding alone has its type's lowest number for its largest.
            yield _case("Pooling", swept, reference="float32" if swept["pool_type"] == "max" else "float64")
    for kind in ("max", "avg"):
        yield _case("Pooling", {"pool_type": kind, "kernel": (1, 1), "global_pool": True})
    for swept in _sweep(fix_gamma=(True, False), use_global_stats=(True, False), axis=(0, 1, 2, 3)):
        yield _case("BatchNorm", {**swept, "eps": 1e-3}, aux={"op_moving_var": 1.5, "op_moving_mean": 0.3})
    for swept in _sweep(no_bias=(0, 1), flatten=(True, False)):
        yield _case("FullyConnected", {**swept, "num_hidden": 5})
    for kind in ("relu", "sigmoid", "tanh"):
        yield _case("Activation", {"act_type": kind})
    for swept in _sweep(multi_output=(False, True), preserve_shape=(False, True)):
        label = lambda mx, s=swept: mx.sym.SoftmaxOutput(  # noqa: E731
            mx.sym.Variable("data"), mx.sym.Variable("softmax_label"), name="op", **s
        )
        yield Case(f"SoftmaxOutput({swept})", label, (3, 5))
    yield Case("softmax without label", lambda mx: mx.sym.softmax(mx.sym.Variable("data")), (3, 5))
    for axis in (1, 2, 3):
        yield Case(f"concat of {axis}", lambda mx, a=axis: mx.sym.concat(*[mx.sym.Variable("data")] * 3, dim=a))
    for operator in ("relu", "Flatten", "Dropout", "rsqrt", "identity"):
        yield Case(operator, lambda mx, o=operator: getattr(mx.sym, o)(mx.sym.relu(mx.sym.Variable("data")) + 1) * 2)
    yield _case("clip", {"a_min": -0.25, "a_max": 0.5})
    yield _case("Pad", {"mode": "constant", "pad_width": (0, 0, 0, 0, 1, 2, 3, 0), "constant_value": 0.5})
    yield _case("slice", {"begin": (0, 1), "end": (2, 3)})
    for operator in ("elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div"):
        yield Case(
            operator, lambda mx, o=operator: getattr(mx.sym, o)(mx.sym.Variable("data"), mx.sym.Variable("data") + 3)
        )
    # Several outputs of one node, which MXNet 1.7 could not partition; and a name that it dropped.
    yield Case("several outputs", lambda mx: mx.sym.Group(list(mx.sym.split(mx.sym.Variable("data"), 3, axis=1))))
    yield Case(
        "a label in the name", lambda mx: mx.sym.relu(mx.sym.Variable("data") * mx.sym.Variable("my_label_scale"))
    )
    yield Case("a variable", lambda mx: mx.sym.Variable("data"), partitioned=False)
    yield Case("random", lambda mx: mx.sym.sample_uniform(*[mx.sym.Variable("data")] * 2), partitioned=False)


CASES = list(_cases())


def _arrays(mx: Any, symbol: Any, case: Case, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    random = np.random.default_rng(seed)
    names = [*symbol.list_arguments()]
    if "data" not in names:
        return {}, {}
    known = {"data": case.shape, **({"my_label_scale": case.shape} if "my_label_scale" in names else {})}
    shapes, _, states = symbol.infer_shape(**known)
    args = {name: mx.nd.array(random.uniform(-1, 1, shape)) for name, shape in zip(names, shapes)}
    aux = {
        name: mx.nd.array(random.uniform(0, 1, shape) + case.aux.get(name, 1.0))
        for name, shape in zip(symbol.list_auxiliary_states(), states)
    }
    return args, aux


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_operator(number: int) -> None:
    import harness.accelerator  # noqa: F401 - registers the backends

    case, mx = CASES[number], compat.mxnet()
    symbol = case.build(mx)
    args, aux = _arrays(mx, symbol, case, number)
    partitioned = symbol.optimize_for("TensorRT", args, aux)
    assert (SEGMENT in operators_of(partitioned)) is case.partitioned
    if not case.partitioned:
        return
    assert set(operators_of(partitioned)) == {SEGMENT}, "a part was left to MXNet"
    actual = run(partitioned, args, aux)
    hold(actual, symbol, args, aux, terms=case.terms, reference=case.reference)


def test_two_variables_of_one_name() -> None:
    """MXNet allows it, and binds both to one array."""
    import harness.accelerator  # noqa: F401

    mx = compat.mxnet()
    symbol = mx.sym.elemwise_sub(mx.sym.Variable("data"), mx.sym.Variable("data") * 3)
    args = {"data": mx.nd.array(np.linspace(0.1, 1, 6))}
    (actual,) = run(symbol.optimize_for("TensorRT", args, {}), args, {})
    np.testing.assert_allclose(actual, -2 * args["data"].asnumpy(), rtol=1e-6)


# --- graphs that MXNet's own partitioner cut wrong -------------------------------------------------------------------


def _unsupported(mx: Any, x: Any) -> Any:
    """A node that no engine runs, and that passes its input on: uniform numbers from [x, x]."""
    return mx.sym.sample_uniform(x, x)


def _residual(mx: Any, x: Any) -> Any:
    left = mx.sym.relu(x)
    return _unsupported(mx, left) + left


def _two_ways(mx: Any, x: Any) -> Any:
    """Two parts that would each wait for the other."""
    a, b = mx.sym.relu(x), mx.sym.sigmoid(x)
    return mx.sym.tanh(_unsupported(mx, a) + b) * mx.sym.tanh(_unsupported(mx, b) + a)


def _pyramid(mx: Any, x: Any) -> Any:
    levels = [mx.sym.tanh(x * k) for k in (1, 2, 3)]
    return mx.sym.Group([_unsupported(mx, level) + levels[0] for level in levels] + levels)


def _one_output_twice(mx: Any, x: Any) -> Any:
    y = mx.sym.tanh(x)
    return mx.sym.Group([y, _unsupported(mx, y), y])


@pytest.mark.parametrize("build", [_residual, _two_ways, _pyramid, _one_output_twice], ids=lambda f: f.__name__[1:])
def test_parts_form_no_cycle(build: Callable[[Any, Any], Any]) -> None:
    import harness.accelerator  # noqa: F401

    mx = compat.mxnet()
    symbol = build(mx, mx.sym.Variable("data"))
    args = {"data": mx.nd.array(np.linspace(0.1, 1, 6))}
    partitioned = symbol.optimize_for("TensorRT", args, {})
    found = operators_of(partitioned)
    assert SEGMENT in found and "_sample_uniform" in found
    for got, wanted in zip(run(partitioned, args, {}), run(symbol, args, {})):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
