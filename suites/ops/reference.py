"""MXNet's answer to a case: type and shape from its own run, values in float64 where it has the kernel."""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import numerics
from harness.engines.mxnet import symbol_of
from harness.frontend.compat import mxnet
from harness.frontend.symbol import parse_symbol
from harness.graph import Node

from .case import Case

Array = np.ndarray


class MXNetRefuses(Exception):
    """MXNet itself cannot run this case: it was drawn wrongly, or MXNet has a defect there."""


def node_of(case: Case) -> Node:
    return Node("op", case.operator, (), dict(case.attributes), tuple(map(parse_symbol, case.subgraphs)))


IN_PLACE = ("_npi_boolean_mask_assign_scalar", "_npi_boolean_mask_assign_tensor", "_scatter_set_nd")


def _callable(case: Case, symbol: Any) -> Callable[..., Any]:
    """The operator as a function of arrays. MXNet's CachedOp wants inputs, and a gradient, which not every one has.

    What oneDNN fused keeps the weights of its first call, so it is bound anew each time.
    """
    mx = mxnet()
    if case.subgraphs:
        return functools.partial(_bound, symbol)
    if case.operator not in IN_PLACE:
        try:
            return mx.ndarray.CachedOp(symbol)
        except mx.MXNetError:
            pass
    handle = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.NNGetOpHandle(mx.base.c_str(case.operator), ctypes.byref(handle)))
    keys, values = list(case.attributes), [str(value) for value in case.attributes.values()]

    def invoke(*arrays: Any) -> Any:
        out = arrays[0] if case.operator in IN_PLACE else None
        return mx._ctypes.ndarray._imperative_invoke(handle.value, arrays, keys, values, out, False, False)

    return invoke


def _bound(symbol: Any, *arrays: Any) -> Any:
    """The outputs of a symbol for the arrays of ``symbol.list_inputs()``."""
    given, states = dict(zip(symbol.list_inputs(), arrays)), set(symbol.list_auxiliary_states())
    arguments = {name: array for name, array in given.items() if name not in states}
    aux = {name: array for name, array in given.items() if name in states}
    return symbol.bind(mxnet().cpu(), arguments, aux_states=aux, grad_req="null").forward(is_train=False)


class Reference:
    """One case's operator in MXNet, callable with arrays of any float type."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.substitute: Callable[[Case, Mapping[str, Array]], list[Array]] | None = None
        if case.reference:
            module, function = case.reference.split(":")
            self.substitute = getattr(importlib.import_module(module), function)
            return
        self.names = list(case.inputs)
        symbol = symbol_of([(node_of(case), self.names)], [("op", i) for i in range(case.outputs)], case.np_shape)
        self.order = symbol.list_inputs()
        self.operator = _callable(case, symbol)

    def __call__(self, arrays: Mapping[str, Array], dtype: str | None = None) -> list[Array]:
        """The outputs, with float32 inputs turned into ``dtype`` first (float64 by default where the case allows)."""
        mx = mxnet()
        wanted = np.dtype(dtype or self.case.reference_dtype)
        if self.substitute is not None:
            return self.substitute(
                self.case, {name: a.astype(wanted) if a.dtype == np.float32 else a for name, a in arrays.items()}
            )
        try:
            with mx.util.np_shape(self.case.np_shape):
                inputs = []
                for name in self.order:
                    array = arrays[name]
                    kind = wanted if array.dtype == np.float32 else array.dtype
                    inputs.append(mx.nd.array(array.astype(kind), dtype=kind))
                found = self.operator(*inputs)
                return [array.asnumpy() for array in (found if isinstance(found, (list, tuple)) else [found])]
        except Exception as error:
            raise MXNetRefuses(f"{self.case}: {error}") from error

    def widened(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """float32 inputs in the reference's type, so that moving them by less than their own roundoff moves them."""
        kind = np.dtype(self.case.reference_dtype)
        return {name: array.astype(kind) if array.dtype == np.float32 else array for name, array in arrays.items()}

    def native(self, arrays: Mapping[str, Array]) -> Sequence[Array]:
        """The outputs in the case's own types: what ours must have the type and shape of."""
        return self(arrays, "float32")


@dataclass(frozen=True)
class Answers:
    """What an answer to a case is held to.

    Attributes:
        native: MXNet's outputs in the case's own types.
        exact: MXNet's outputs in float64, or ``native`` where it cannot.
        bounds: how far each of ``exact`` moves when the inputs, or results of steps, are rounded.
    """

    native: Sequence[Array]
    exact: Sequence[Array]
    bounds: Sequence[Array]


def answers(case: Case, arrays: Mapping[str, Array], precision: str) -> Answers:
    """MXNet's answers to a case.

    Raises:
        MXNetRefuses: it has none.
    """
    reference = Reference(case)
    native = reference.native(arrays)
    moving = "fp64" if {a.dtype.name for a in arrays.values() if a.dtype.kind == "f"} == {"float64"} else precision
    try:
        exact = reference(arrays)
    except MXNetRefuses:
        return Answers(native, native, numerics.response(reference.native, arrays, native, moving, seed=case.seed))
    bounds = numerics.response(reference, reference.widened(arrays), exact, moving, seed=case.seed)
    for i, (own, wide) in enumerate(zip(native, exact)):
        if own.dtype == np.float32 and wide.dtype == np.float64:
            bounds[i] = np.maximum(bounds[i], numerics.step_error(own, wide, precision))
    return Answers(native, exact, bounds)
