"""MXNet's side of the demo: the network as its users run it, and in float64 as the reference of the error model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import numerics
from ..frontend import compat

Array = npt.NDArray[Any]


class MXNetNetwork:
    """A network loaded from its two files and bound once, with everything MXNet does for speed by itself."""

    def __init__(self, prefix: Path, shape: Sequence[int], dtype: str = "float32") -> None:
        self._mx = mx = compat.mxnet()
        self._dtype = dtype
        symbol, arguments, auxiliary = mx.model.load_checkpoint(str(prefix), 0)
        self.parameters = {name: array.asnumpy() for name, array in {**arguments, **auxiliary}.items()}
        self._executor = symbol.bind(
            mx.cpu(),
            {**{k: v.astype(dtype) for k, v in arguments.items()}, "data": mx.nd.zeros(tuple(shape), dtype=dtype)},
            aux_states={k: v.astype(dtype) for k, v in auxiliary.items()},
            grad_req="null",
        )

    def __call__(self, data: Array) -> Array:
        """The network's first output."""
        (answer,) = self._executor.forward(is_train=False, data=self._mx.nd.array(data, dtype=self._dtype))
        found: Array = answer.asnumpy()
        return found

    def with_parameters(self, values: Mapping[str, Array]) -> Array:
        """The answer to other inputs and parameters, all by name."""
        mx = self._mx
        for states in (self._executor.arg_dict, self._executor.aux_dict):
            for name, array in states.items():
                if name in values:
                    array[:] = mx.nd.array(values[name], dtype=self._dtype)
        return self(values["data"])


def exact_answers(prefix: Path, data: Array) -> tuple[Array, Array]:
    """MXNet's answers in float64, and how far they move when inputs and parameters are rounded to float32."""
    network = MXNetNetwork(prefix, data.shape, "float64")
    inputs = {name: array.astype(np.float64) for name, array in {**network.parameters, "data": data}.items()}
    answers = network(inputs["data"])
    moved = numerics.response(lambda values: [network.with_parameters(values)], inputs, [answers], "fp32")
    return answers, moved[0]
