"""Operators whose implementation is a user's plugin: how their cases are drawn. Tested as any other operator is.

The list is not called SPECS: the plugins are registered only while their own tests run, and the operators stay refused
for everybody else. ``Custom`` has MXNet's own Custom operator of the same definition as its reference.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import harness
from harness import plugins
from harness.frontend import compat

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor


class Softened:
    """x * alpha / (1 + |x|) by rows, and the sum of each row: two inputs, two outputs, all kinds of attributes."""

    def infer(self, a: dict[str, Any], x: Any, shift: Any) -> list[Any]:
        return [x, (x.dtype, (x.shape[0],))]

    def numpy(self, a: dict[str, Any], x: np.ndarray, shift: np.ndarray) -> list[np.ndarray]:
        y = soften(x, shift, **a)
        return [y, y.sum(axis=1, dtype=x.dtype)]


def soften(x: Any, shift: Any, alpha: float, power: int, signed: bool, mode: str, window: tuple[int, ...]) -> Any:
    """The definition, for arrays of any float type: NumPy's, or MXNet's Custom operator's."""
    kind = x.dtype.type
    y = (x + shift) * kind(alpha)
    y = y / (kind(1) + abs(y)) if mode == "soft" else y
    y = y**power
    y = y if signed else abs(y)
    return y * kind(window[0]) + kind(window[-1])


class LogGamma:
    """What ONNX has no operator for, and Python's library has."""

    def infer(self, a: dict[str, Any], x: Any) -> Any:
        return x

    def numpy(self, a: dict[str, Any], x: np.ndarray) -> np.ndarray:
        return np.vectorize(math.lgamma, otypes=[np.float64])(x.astype(np.float64)).astype(x.dtype)


class LeastCommonMultiple:
    """An operator whose attributes MXNet's registry describes; its types are left to MXNet."""

    def numpy(self, a: dict[str, Any], x: np.ndarray) -> np.ndarray:
        return np.lcm(x, x.dtype.type(int(a["scalar"])))


KINDS: dict[str, Any] = {"alpha": 1.0, "power": 1, "signed": True, "mode": "soft", "window": (1, 0)}


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """The plugins, while the block runs; and MXNet's Custom operator, which cannot be taken back."""
    harness.plugin("Custom", op_type="softened", attributes=KINDS)(Softened)
    harness.plugin("gammaln")(LogGamma)
    harness.plugin("_npi_lcm_scalar")(LeastCommonMultiple)
    _register_with_mxnet()
    try:
        yield
    finally:
        plugins.unregister("Custom", "softened")
        plugins.unregister("gammaln")
        plugins.unregister("_npi_lcm_scalar")


def _register_with_mxnet() -> None:
    mx = compat.mxnet()
    found = plugins.find("Custom", {"op_type": "softened"})

    class Operator(mx.operator.CustomOp):  # type: ignore[misc]
        def __init__(self, **attributes: Any) -> None:
            super().__init__()
            self.attributes = attributes

        def forward(self, is_train: bool, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
            y = soften(*(array.asnumpy() for array in in_data), **self.attributes)
            self.assign(out_data[0], req[0], mx.nd.array(y, dtype=y.dtype))
            self.assign(out_data[1], req[1], mx.nd.array(y.sum(axis=1), dtype=y.dtype))

        def backward(self, *_: Any) -> None:
            raise AssertionError("nobody asks for gradients")

    class Properties(mx.operator.CustomOpProp):  # type: ignore[misc]
        def __init__(self, **texts: str) -> None:
            super().__init__(need_top_grad=False)
            self.attributes = found.read(texts, "reference")  # type: ignore[union-attr]

        def list_arguments(self) -> list[str]:
            return ["data", "shift"]

        def list_outputs(self) -> list[str]:
            return ["output", "sum"]

        def infer_shape(self, shapes: Any) -> Any:
            return shapes, [shapes[0], shapes[0][:1]], []

        def infer_type(self, types: Any) -> Any:
            return types, [types[0]] * 2, []

        def create_operator(self, context: Any, shapes: Any, dtypes: Any) -> Any:
            return Operator(**self.attributes)

    mx.operator.register("softened")(Properties)


# --- how cases are drawn -------------------------------------------------------------------------------------------------


def softened(d: Draw, a: Attributes) -> Inputs:
    a["op_type"] = "softened"
    shape = d.sizes(2, 1, 5)
    return {"data": Tensor(shape, dynamic=(0,)), "shift": Tensor((1, shape[1]), const=d.boolean())}


PLUGIN_SPECS = [
    Spec(
        "Custom",
        {
            "alpha": [DEFAULT, 0.5, 2.0], "power": [DEFAULT, 2, 3], "signed": [DEFAULT, True, False],
            "mode": [DEFAULT, "soft", "plain"], "window": [DEFAULT, (2, 1), (3,)],
        },
        softened,
        outputs=2,
        terms=lambda a, i: i["data"].shape[1],
    ),
    Spec("gammaln", {}, lambda d, a: {"data": Tensor(d.shape((1, 3)), low=0.5, high=20.0, dynamic=(0,))}),
    Spec(
        "_npi_lcm_scalar",
        {"scalar": [2, 3, 12], "is_int": [True]},
        lambda d, a: {"data": Tensor(d.shape((1, 3)), "int32", low=1, high=30)},
        reference="suites.ops.plugin:least_common_multiple",
        np_shape=True,
    ),
]  # fmt: skip


def least_common_multiple(case: Any, arrays: Any) -> list[np.ndarray]:
    """MXNet's own operator of two arrays: the scalar one's attributes do not reach its kernel from a symbol."""
    mx = compat.mxnet()
    with mx.util.np_shape(True):
        x = mx.np.array(arrays["data"], dtype="int32")
        scalar = mx.np.full(x.shape, int(float(case.attributes["scalar"])), dtype="int32")
        return [mx.np.lcm(x, scalar).asnumpy()]
