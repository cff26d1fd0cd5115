"""MXNet's answer to a case: type and shape from its own run, values in float64 where it has the kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.engines.mxnet import symbol_of
from harness.frontend.compat import mxnet
from harness.graph import Node

from .case import Case

Array = np.ndarray


class MXNetRefuses(Exception):
    """MXNet itself cannot run this case: it was drawn wrongly, or MXNet has a defect there."""


def node_of(case: Case) -> Node:
    return Node("op", case.operator, (), dict(case.attributes))


class Reference:
    """One case's operator in MXNet, callable with arrays of any float type."""

    def __init__(self, case: Case) -> None:
        mx = mxnet()
        self.case = case
        self.names = list(case.inputs)
        symbol = symbol_of([(node_of(case), self.names)], [("op", i) for i in range(case.outputs)], case.np_shape)
        self.order = symbol.list_inputs()
        self.operator = mx.ndarray.CachedOp(symbol)

    def __call__(self, arrays: Mapping[str, Array], dtype: str | None = None) -> list[Array]:
        """The outputs, with float32 inputs turned into ``dtype`` first (float64 by default where the case allows)."""
        mx = mxnet()
        wanted = np.dtype(dtype or self.case.reference_dtype)
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

    def native(self, arrays: Mapping[str, Array]) -> Sequence[Array]:
        """The outputs in the case's own types: what ours must have the type and shape of."""
        return self(arrays, "float32")
