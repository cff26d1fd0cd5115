"""MXNet's exact answers, and how far roundings move them: what a proof holds a compiled model to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import numerics
from .engines.mxnet import as_function, first_line, graph_json
from .errors import ExecutionError
from .frontend import compat
from .graph import Entry, Graph
from .numerics.network import with_roundings

Array = npt.NDArray[Any]
Sample = Mapping[str, Array]
_JUMPS = re.compile(  # operators, by parts of their names, whose answer may move by a whole step
    r"arg|sort|topk|nms|detection|proposal|matching|round|rint|ceil|floor|fix|trunc|sign|equal|greater|less|mod|mask"
    r"|roipooling|quantize|unique|nonzero|histogram|digitize|searchsorted|^cast$|_cast$"
)
_HINTS = ("__dtype__", "__shape__")  # on variables; they would hold a float64 run to float32


class Reference:
    """A model in MXNet, in float64 where all its operators have that kernel, else in float32.

    Args:
        graph, params: the model.
        sample: any inputs.

    Raises:
        EngineMissing: MXNet is not installed.
        ExecutionError: MXNet cannot run the model.
    """

    def __init__(self, graph: Graph, params: Mapping[str, Array], sample: Sample) -> None:
        names = {node.name for node in graph.variables}
        self.params = {name: np.asarray(array) for name, array in params.items() if name in names}
        self.terms = max((math.prod(a.shape[1:]) for a in self.params.values() if a.ndim > 1), default=1)
        self._rounded: dict[tuple[str, float], _Function] = {}
        for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
            try:
                self.dtype, self._graph = dtype, _computed_in(dtype, graph)
                self._plain = _Function(self._graph)
                self(sample)
                return
            except ExecutionError as error:
                failure = error
        raise failure

    def __call__(self, sample: Sample) -> list[Array]:
        """MXNet's answers, in the reference's precision; integer answers as they are."""
        return self._plain({**self.params, **sample}, self.dtype)

    def response(self, sample: Sample, answers: Sequence[Array], precision: str) -> list[Array]:
        """How far the answers move when inputs, parameters and intermediate results are rounded (docs/error-model.md).

        Inputs that are whole numbers stay: rounding does not move them, and token ids, lengths and masks are such. In a
        graph that orders, selects or rounds, the bound's own number of roundings is tried too: the answer may jump.
        """
        found = self._moved(sample, answers, precision, 1.0)
        if not any(_JUMPS.search(node.operator.lower()) for node in self._graph.nodes):
            return found
        jumped = self._moved(sample, answers, precision, numerics.accumulation_constant(self.terms))
        return [np.maximum(one, other) for one, other in zip(found, jumped)]

    def _moved(self, sample: Sample, answers: Sequence[Array], precision: str, times: float) -> list[Array]:
        key = precision, times
        if key not in self._rounded:
            self._rounded[key] = self._with_roundings(precision, times, sample)
        function = self._rounded[key]
        whole = {name: array for name, array in sample.items() if np.array_equal(array, np.rint(array))}
        moving = {**self.params, **{name: array for name, array in sample.items() if name not in whole}}
        widened = {name: a.astype(self.dtype) if a.dtype.kind == "f" else a for name, a in moving.items()}

        def run(moved: Mapping[str, Array]) -> list[Array]:
            return function({**moved, **whole}, self.dtype)

        return numerics.response(run, widened, answers, precision, times=times)

    def unreached(self, samples: Sequence[Sample]) -> list[str]:
        """The float parameters on which no answer depends: each is changed alone, and every answer stays bit for bit."""
        left = [name for name, array in self.params.items() if array.dtype.kind == "f" and array.size]
        for sample in samples:
            known = self._plain.to_mxnet({**self.params, **sample}, self.dtype)
            before = self._plain.run(known, self.dtype)
            still = []
            for name in left:
                array = np.asarray(self.params[name], np.float64)
                moved = self._plain.to_mxnet({name: array * 1.5 + max(np.abs(array).max(), 1.0)}, self.dtype)
                after = self._plain.run({**known, **moved}, self.dtype)
                if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after)):
                    still.append(name)
            left = still
        return left

    def describe(self) -> dict[str, Any]:
        return {"reference": self.dtype.name, "mxnet": compat.mxnet().__version__, "terms": self.terms}

    def _with_roundings(self, precision: str, times: float, sample: Sample) -> _Function:
        """The graph whose intermediate results are rounded, where MXNet can round them; else the graph (less response)."""
        everything = {**self.params, **sample}
        try:
            floats = float_entries(self._graph, everything, self.dtype)
            function = _Function(with_roundings(self._graph, precision, floats.__contains__, times))
            function(everything, self.dtype)
        except ExecutionError:
            function = self._plain
        return function


def float_entries(graph: Graph, arrays: Mapping[str, Array], dtype: np.dtype[Any]) -> set[Entry]:
    """The outputs of nodes that are floats where the graph's own floats are of ``dtype``.

    Raises:
        ExecutionError: MXNet cannot load the graph, or infer its types.
    """
    entries = sorted({entry for node in graph.nodes for entry in node.inputs} | set(graph.heads))
    kinds = _Function(replace(graph, heads=tuple(entries))).types(arrays, dtype)
    return {entry for entry, kind in zip(entries, kinds, strict=True) if kind is not None and kind.kind == "f"}


class _Function:
    """A graph in MXNet, called with arrays by name; ExecutionError for whatever MXNet cannot."""

    def __init__(self, graph: Graph) -> None:
        self._np_shape = graph.np_shape
        try:
            self._symbol = compat.mxnet().sym.load_json(json.dumps(graph_json(graph)))
            self._call = as_function(self._symbol)
        except Exception as error:  # noqa: BLE001 - MXNetError, and what its Python layer raises
            raise ExecutionError(f"MXNet cannot load the model: {first_line(error)}") from None
        self._order = self._symbol.list_inputs()

    def __call__(self, arrays: Mapping[str, Array], dtype: np.dtype[Any]) -> list[Array]:
        """The answers with all floats in ``dtype``."""
        return self.run(self.to_mxnet(arrays, dtype), dtype)

    def to_mxnet(self, arrays: Mapping[str, Array], dtype: np.dtype[Any]) -> dict[str, Any]:
        """MXNet's arrays, all floats in ``dtype``."""
        mx = compat.mxnet()
        try:
            with mx.util.np_shape(self._np_shape):
                return {
                    name: mx.nd.array(a.astype(_kind(a, dtype)), dtype=_kind(a, dtype)) for name, a in arrays.items()
                }
        except Exception as error:  # noqa: BLE001 - as below
            raise ExecutionError(f"MXNet cannot give the reference in {dtype.name}: {first_line(error)}") from None

    def run(self, arrays: Mapping[str, Any], dtype: np.dtype[Any]) -> list[Array]:
        """The answers to MXNet's arrays."""
        mx = compat.mxnet()
        try:
            with mx.util.np_shape(self._np_shape):
                filled = {**arrays, **self._unvalued(arrays, dtype)}
                found = self._call(*(filled[name] for name in self._order))
                return [a.asnumpy() for a in (found if isinstance(found, (list, tuple)) else [found])]
        except Exception as error:  # noqa: BLE001 - MXNetError, and what its Python layer raises for a type it lacks
            raise ExecutionError(f"MXNet cannot give the reference in {dtype.name}: {first_line(error)}") from None

    def types(self, arrays: Mapping[str, Array], dtype: np.dtype[Any]) -> list[np.dtype[Any] | None]:
        """The types of the answers, None where MXNet cannot tell."""
        wanted = set(self._order)
        known = {name: _kind(array, dtype) for name, array in arrays.items() if name in wanted}
        try:
            _, found, _ = self._symbol.infer_type_partial(**known)
        except Exception as error:  # noqa: BLE001 - MXNetError
            raise ExecutionError(f"MXNet cannot tell types: {first_line(error)}") from None
        return [None if kind is None else np.dtype(kind) for kind in found]

    def _unvalued(self, arrays: Mapping[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
        """Zeros for variables without a value (labels of loss layers), which the answer does not depend on."""
        missing = [name for name in self._order if name not in arrays]
        if not missing:
            return {}
        shapes = {name: arrays[name].shape for name in self._order if name in arrays}
        known, _, auxiliary = self._symbol.infer_shape_partial(**shapes)
        names = [*self._symbol.list_arguments(), *self._symbol.list_auxiliary_states()]
        found = dict(zip(names, [*(known or ()), *(auxiliary or ())]))
        return {name: compat.mxnet().nd.zeros(found.get(name) or (1,), dtype=dtype) for name in missing}


def _kind(array: Array, dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if array.dtype.kind == "f" else array.dtype


def _computed_in(dtype: np.dtype[Any], graph: Graph) -> Graph:
    """The graph without hints on its variables, and with ``dtype`` where a node names float32."""
    nodes = []
    for node in graph.nodes:
        attributes = {key: value for key, value in node.attributes.items() if key not in _HINTS}
        if not node.is_variable and attributes.get("dtype") == "float32":
            attributes["dtype"] = dtype.name
        nodes.append(replace(node, attributes=attributes))
    return replace(graph, nodes=tuple(nodes))
