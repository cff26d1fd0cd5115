"""Control flow against MXNet: bodies with free variables and constants, nested, with and without outputs."""

from __future__ import annotations

import numpy as np
import pytest

import harness
from harness import numerics
from harness.engines.base import get_engine
from harness.frontend.compat import mxnet

STATE = {"s": (3,), "w": (3,)}
LOOP = {"data": (4, 3), **STATE}


def _foreach(F, data, s, w):
    out, last = F.contrib.foreach(lambda x, states: (x + states[0] * w, [x * 2 + states[0]]), data, [s])
    return [out, *last]


def _foreach_two(F, data, s, w):
    body = lambda xs, states: ([F.tanh(xs[0] * states[1]), xs[1]], [states[1], xs[0] - states[0]])  # noqa: E731
    outs, last = F.contrib.foreach(body, [data, data * 3], [s, w])
    return [*outs, *last]


def _foreach_dense(F, data, s, w):
    def step(x, h):
        y = F.FullyConnected(F.expand_dims(x + h, 0), F.diag(w), no_bias=True, num_hidden=3)
        return (y.reshape((3,)),) * 2

    out, last = F.contrib.foreach(step, data, s)
    return [out, last]


def _nested(F, data, s, w):
    def outer(x, total):
        inner, _ = F.contrib.foreach(lambda y, z: (F.broadcast_mul(y, x) + z, z * 2), w, total)
        return F.sum(inner, axis=0) + total, total + x

    out, last = F.contrib.foreach(outer, data, s)
    return [out, last]


def _while(F, i, s, w):
    outs, last = F.contrib.while_loop(
        lambda i, s: F.sum(i) <= 5, lambda i, s: ([i + s, s], [i + 1, s + i * w]), [i, s], max_iterations=7
    )
    return [*outs, *last]


def _while_swapped(F, i, s, w):
    outs, last = F.contrib.while_loop(
        lambda s, i: F.sum(s) + F.sum(i) < 1e6, lambda s, i: (w * i - s, [w + s, i * 2]), [s, i], max_iterations=3
    )
    return [*(outs if isinstance(outs, list) else [outs]), *last]


def _while_never(F, i, s, w):
    _, last = F.contrib.while_loop(
        lambda i, s: F.sum(i) < -100, lambda i, s: (s, [i + 1, s * w]), [i, s], max_iterations=3
    )
    return list(last)


def _while_limit(F, i, s, w):
    outs, last = F.contrib.while_loop(
        lambda i, s: F.sum(i) < 1e6, lambda i, s: (s + w, [i + 1, s * 2]), [i, s], max_iterations=4
    )
    return [*(outs if isinstance(outs, list) else [outs]), *last]


def _cond(F, i, s, w):
    return [F.contrib.cond(F.sum(i) < F.sum(s), lambda: (i + w) * 2, lambda: s * w)]


def _loop_in_cond(F, data, s, w):
    def walk():
        out, last = F.contrib.foreach(lambda x, h: (x * h, h + w), data, s)
        return out + F.expand_dims(last, 0).broadcast_like(out)

    return [F.contrib.cond(F.sum(s) > 0, walk, lambda: data * 2)]


CASES = [
    (_foreach, LOOP),
    (_foreach_two, LOOP),
    (_foreach_dense, LOOP),
    (_nested, LOOP),
    (_while, {"i": (3,), **STATE}),
    (_while_swapped, {"i": (3,), **STATE}),
    (_while_never, {"i": (3,), **STATE}),
    (_while_limit, {"i": (3,), **STATE}),
    (_cond, {"i": (3,), **STATE}),
    (_loop_in_cond, LOOP),
]


def _arrays(shapes, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def _options(engine):
    if engine == "onnxruntime":
        return {"threads": 1}
    try:
        get_engine(engine)
    except harness.EngineMissing as error:
        pytest.skip(str(error))
    return {"optimization_level": 0, "plan_cache": False}


@pytest.mark.parametrize("constant", [False, True], ids=["input", "parameter"])
@pytest.mark.parametrize("build, shapes", CASES, ids=lambda item: getattr(item, "__name__", "").strip("_"))
@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("tensorrt", marks=pytest.mark.gpu)])
def test_control_flow(engine, build, shapes, constant):
    options = _options(engine)
    mx = mxnet()
    symbol = mx.sym.Group(build(mx.sym, *(mx.sym.var(name) for name in shapes)))
    params = {"w": np.array([0.5, -1.5, 0.25], np.float32)} if constant else {}
    inputs = {name: shape for name, shape in shapes.items() if name not in params}
    model = harness.compile(symbol, params, inputs, engine=engine, fallback="error", **options)

    def reference(arrays):
        executor = symbol.bind(mx.cpu(), {n: mx.nd.array(v, dtype="float32") for n, v in {**arrays, **params}.items()})
        return [array.asnumpy() for array in executor.forward()]

    for seed in range(4):
        arrays = _arrays(inputs, seed)
        expected = reference(arrays)
        bounds = numerics.response(reference, arrays, expected, "fp32", seed=seed)
        outputs = model(**arrays)
        for found, wanted, bound in zip(outputs, expected, bounds, strict=True):
            if build is _while and len(found) == 7:  # MXNet leaves the steps that were not taken uninitialized
                taken = int(np.round(outputs[2][0] - arrays["i"][0]))
                assert 0 < taken < 7 and not found[taken:].any()
                found, wanted, bound = found[:taken], wanted[:taken], bound[:taken]
            result = numerics.compare(found, wanted, bound, "fp32", terms=16)
            assert result, result.message


@pytest.mark.parametrize("length", [1, 6])
def test_length_of_a_loop_may_vary(length):
    mx = mxnet()
    symbol = mx.sym.Group(_foreach(mx.sym, *(mx.sym.var(name) for name in LOOP)))
    model = harness.compile(
        symbol, {}, {**LOOP, "data": ((1, 4, 8), 3)}, engine="onnxruntime", fallback="error", threads=1
    )
    arrays = _arrays({**LOOP, "data": (length, 3)}, 1)
    expected = [a.asnumpy() for a in symbol.bind(mx.cpu(), {n: mx.nd.array(v) for n, v in arrays.items()}).forward()]
    for found, wanted in zip(model(**arrays), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_node_inside_that_cannot_be_lowered_is_named():
    mx = mxnet()
    body = lambda x, s: (mx.sym.random.uniform(shape=(3,)) + x, s)  # noqa: E731
    out, _ = mx.sym.contrib.foreach(body, mx.sym.var("data"), mx.sym.var("s"))
    with pytest.raises(harness.UnsupportedOperator, match="in its body.*uniform"):
        harness.compile(out, {}, {"data": (4, 3), "s": (3,)}, engine="onnxruntime", fallback="error")
