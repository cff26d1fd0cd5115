"""MXNet's own objects at the door: turned into JSON text and arrays, after which MXNet is not needed.

Nothing here imports MXNet: an object that comes from it proves that the caller has.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..collection import without_collection
from ..errors import ModelError, OptionError, ParameterError
from ..graph import MOST_ELEMENTS, Graph
from .params import read_params, strip_prefix
from .symbol import parse_symbol, read_symbol

Array = npt.NDArray[Any]


@without_collection
def read_model(source: Any, params: Any, notices: list[str]) -> tuple[Graph, dict[str, Array]]:
    """The graph and the parameters of anything ``harness.compile`` accepts as a model.

    Args:
        source: a Symbol, a HybridBlock (SymbolBlock included), a Module, ``"path/prefix"``, or a path of a JSON file.
        params: name -> array, a path of a ``.params`` file, an epoch number (with a prefix), or None.
        notices: receives sentences about choices made for the caller.

    Raises:
        ModelError, ParameterError: the model cannot be read.
        OptionError: ``source`` or ``params`` is of a kind that is not supported.
    """
    if isinstance(source, Graph):  # read already
        return source, as_arrays(params)
    if isinstance(source, (str, Path)):
        return _read_files(str(source), params, notices)
    if hasattr(source, "tojson") and hasattr(source, "list_arguments"):
        return _read_symbol_object(source, params)
    if hasattr(source, "hybrid_forward") or hasattr(source, "_cached_graph") or hasattr(source, "collect_params"):
        return _read_block(source, params)
    if hasattr(source, "symbol") and hasattr(source, "get_params"):
        graph, _ = _read_symbol_object(source.symbol, None)
        return graph, as_arrays(params) if params is not None else _module_params(source)
    raise OptionError(
        f"source: {type(source).__name__} is not a model; give a Symbol, a HybridBlock, a Module, "
        f"the path/prefix of prefix-symbol.json, or the path of a symbol.json"
    )


def as_arrays(params: Any) -> dict[str, Array]:
    """name -> array of anything ``params=`` accepts, without ``arg:`` and ``aux:``."""
    if params is None:
        return {}
    if isinstance(params, (str, Path)):
        return read_params(params)
    if isinstance(params, (tuple, list)) and all(isinstance(part, Mapping) for part in params):
        return {name: value for part in params for name, value in as_arrays(part).items()}
    if not isinstance(params, Mapping):
        raise OptionError(f"params: {type(params).__name__} is neither a mapping nor the path of a .params file")
    _settle(params.values())
    return {name: to_array(value, name) for name, value in strip_prefix(params).items()}


def _settle(values: Iterable[Any]) -> None:
    """Wait for what MXNet has under way: oneDNN's kernels turn weights into a layout of their own, in place and while
    others may read them, so a copy that is made meanwhile holds bytes of both (measured on MXNet 1.9.1).
    """
    mx: Any = sys.modules.get("mxnet")
    if mx is not None and any(hasattr(value, "asnumpy") or hasattr(value, "list_data") for value in values):
        with contextlib.suppress(mx.base.MXNetError):  # of an operator that failed before: its own readers get it
            mx.nd.waitall()


def to_array(value: Any, name: str) -> Array:
    """A NumPy array of an array-like (MXNet's NDArray and Gluon's Parameter included)."""
    try:
        if hasattr(value, "list_data"):
            value = value.data(value.list_ctx()[0])
        array = np.asarray(value.asnumpy() if hasattr(value, "asnumpy") else value)
    except Exception as error:  # noqa: BLE001 - whatever MXNet raises here (a deferred parameter, a failed kernel) is one kind to us
        raise ParameterError(f"the parameter {name!r} has no value: {error}") from None
    if array.size >= MOST_ELEMENTS:
        raise ParameterError(f"the parameter {name!r} has {array.size} elements; MXNet's tensors have fewer than 2^31")
    if array.dtype.hasobject or array.dtype.kind in "USMmc":
        raise ParameterError(f"the parameter {name!r} has the type {array.dtype}, which MXNet does not have")
    return array


def _read_files(source: str, params: Any, notices: list[str]) -> tuple[Graph, dict[str, Array]]:
    path = Path(source)
    if _is_file(path):
        graph = read_symbol(path)
        prefix = str(path).removesuffix("-symbol.json") if source.endswith("-symbol.json") else None
    else:
        prefix = source
        symbol = Path(source + "-symbol.json")
        if not _is_file(symbol):
            raise ModelError(f"{source}: neither a file, nor is there {symbol}")
        graph = read_symbol(symbol)
    if isinstance(params, int) and not isinstance(params, bool):
        if prefix is None:
            raise OptionError("params: an epoch number needs a source like path/prefix")
        params = f"{prefix}-{params:04d}.params"
    elif params is None and prefix is not None:
        params = _newest_params(Path(prefix), notices)
    return graph, as_arrays(params)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or no name
        return False


def _newest_params(prefix: Path, notices: list[str]) -> Path | None:
    found = [file for file in prefix.parent.glob("*.params") if file.name.startswith(prefix.name + "-")]
    epochs = sorted(
        (int(file.stem[len(prefix.name) + 1 :]), file)
        for file in found
        if file.stem[len(prefix.name) + 1 :].isdecimal() and len(file.stem) - len(prefix.name) - 1 >= 4
    )
    if not epochs:
        return None
    if len(epochs) > 1:
        notices.append(f"{len(epochs)} epochs of {prefix} are there; {epochs[-1][1].name} is used")
    return epochs[-1][1]


def _read_symbol_object(symbol: Any, params: Any) -> tuple[Graph, dict[str, Array]]:
    name = f"the symbol {getattr(symbol, 'name', None) or ''}".strip()
    try:
        text, names = symbol.tojson(), tuple(symbol.list_outputs())
    except Exception as error:  # noqa: BLE001 - MXNet's own error, of no fixed type
        raise ModelError(f"{name} cannot be written as JSON: {error}") from None
    graph = parse_symbol(text, name)
    np_shape = graph.np_shape or _np_shape_is_on()
    return Graph(graph.nodes, graph.heads, names if len(names) == len(graph.heads) else graph.output_names, np_shape), (
        as_arrays(params)
    )


def _np_shape_is_on() -> bool:
    module = sys.modules.get("mxnet")
    return bool(module and module.util.is_np_shape())


def _read_block(block: Any, params: Any) -> tuple[Graph, dict[str, Array]]:
    symbol = _trace(block)
    graph, _ = _read_symbol_object(symbol, None)
    if params is not None:
        return graph, as_arrays(params)
    values = {}
    for name, parameter in block.collect_params().items():
        values[getattr(parameter, "name", name)] = parameter
    wanted = {node.name for node in graph.variables}
    _settle(values.values())
    return graph, {name: to_array(value, name) for name, value in values.items() if name in wanted}


def _trace(block: Any) -> Any:
    """The symbol of a HybridBlock: the graph it was hybridized with, or a new trace with one input, ``data``."""
    cached = getattr(block, "_cached_graph", None)
    if cached:
        symbol = cached[1]
        return symbol if hasattr(symbol, "tojson") else symbol[0]
    mx = sys.modules.get("mxnet")
    if mx is None or not isinstance(block, mx.gluon.HybridBlock):
        raise OptionError(
            f"source: a {type(block).__name__} is not hybridizable; only a HybridBlock has a graph: "
            f"export it as a Symbol, or derive it from HybridBlock"
        )
    count = _count_inputs(block)
    names = [f"data{number}" for number in range(count)] if count > 1 else ["data"]  # as MXNet names them
    variables = [mx.sym.var(name) for name in names]
    if mx.util.is_np_array():
        variables = [variable.as_np_ndarray() for variable in variables]
    try:
        traced = block(*variables)
        return mx.sym.Group(_flatten(traced)) if isinstance(traced, (list, tuple)) else traced
    except Exception as error:  # noqa: BLE001 - the user's own forward may raise anything
        raise ModelError(
            f"{type(block).__name__} cannot be traced with inputs named {', '.join(names)} ({error}); "
            f"call net.hybridize() and run it once on real inputs, then compile it"
        ) from None


def _count_inputs(block: Any) -> int:
    """How many positional inputs without a default ``hybrid_forward`` takes, its parameters not counted."""
    own = set(getattr(block, "_reg_params", ()))
    try:
        arguments = list(inspect.signature(block.hybrid_forward).parameters.values())[1:]  # the first is F
    except (AttributeError, TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(a.kind in positional and a.default is a.empty and a.name not in own for a in arguments)


def _flatten(values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)):
        return [leaf for value in values for leaf in _flatten(value)]
    return [values]


def _module_params(module: Any) -> dict[str, Array]:
    try:
        arguments, auxiliary = module.get_params()
    except Exception as error:  # noqa: BLE001 - an assertion without words, or MXNet's own error
        cause = str(error) or "it is not bound"
        raise ParameterError(f"the Module has no parameters ({cause}); bind and load it first") from None
    return as_arrays({**arguments, **auxiliary})
