"""Operators that a user implements: a NumPy function for the CPU, a kernel for the GPU, for one MXNet operator.

    @harness.plugin("Custom", op_type="capped_swish", attributes={"beta": 1.0, "cap": float})
    class CappedSwish:
        def infer(self, attributes, x):                                    # types and shapes of the outputs
            return x
        def numpy(self, attributes, x):                                    # on the CPU
            return np.minimum(x / (1 + np.exp(-attributes["beta"] * x)), np.float32(attributes["cap"]))
        def cuda(self, attributes, inputs, outputs, stream, workspace):    # on the GPU, if there is one
            launch_my_kernel(inputs[0].address, outputs[0].address, inputs[0].shape, stream)

In ONNX such a node stands in a domain of its own, with everything that is needed to find its plugin again. TensorRT
runs the GPU's implementation as a layer of its network; where there is none, and on ONNX Runtime, the node becomes a
part of its own that the NumPy function runs. See docs/plugins.md.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from .dims import Dim
from .errors import EngineMissing, ExecutionError, ModelError, OptionError
from .graph import Graph, TensorType
from .operators.schema import Attributes, canonical_names, schemas

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from .operators.context import Value

Array = npt.NDArray[Any]
Class = TypeVar("Class", bound=type)

DOMAIN = "mxtrt.plugins"  # of the ONNX nodes
NAMESPACE = "mxtrt"  # of TensorRT's registry
CUSTOM = "Custom"
_READERS: dict[type, Callable[[str], Any]] = {
    float: float,
    int: int,
    str: str,
    bool: lambda text: {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()],
    tuple: lambda text: tuple(ast.literal_eval(text)),
}


@dataclass(frozen=True, eq=False)
class Plugin:
    """One registered implementation.

    Attributes:
        operator: MXNet's operator, by its canonical name.
        op_type: which ``Custom`` operator, "" for any other operator.
        version: what tells one implementation from the next: the caller's word for it, or a digest of the source.
        attributes: of operators that MXNet's registry does not describe: name -> type, or default value.
        implementation: an object of the decorated class.
    """

    operator: str
    op_type: str
    version: str
    attributes: Mapping[str, Any]
    implementation: Any

    @property
    def name(self) -> str:
        """The ONNX operator, and the name in TensorRT's registry: no operator of theirs is called so."""
        return f"MXNet_{self.operator}" + (f"_{self.op_type}" if self.op_type else "")

    @property
    def label(self) -> str:
        return f"the plugin of {self.operator}" + (f" ({self.op_type})" if self.op_type else "")

    @property
    def has_cuda(self) -> bool:
        return hasattr(self.implementation, "cuda")

    @property
    def has_infer(self) -> bool:
        return hasattr(self.implementation, "infer")

    def read(self, raw: Mapping[str, str], node: str) -> dict[str, Any]:
        """The typed attributes of a node, defaults included.

        Raises:
            ModelError: one is missing, unknown, or not of its type; the message names it.
        """
        if self.operator in schemas() and self.operator != CUSTOM:
            typed = Attributes(schemas()[self.operator], raw, node)
            return {name: typed[name] for name in schemas()[self.operator].attributes}
        where = f"node {node!r} ({self.operator})"
        given = {name: text for name, text in raw.items() if name != "op_type" and not name.startswith("__")}
        unknown = sorted(set(given) - set(self.attributes))
        if unknown:
            raise ModelError(f"{where}: {self.label} does not know the attribute {unknown[0]!r}; add it to attributes=")
        found = {}
        for name, kind in self.attributes.items():
            if name not in given:
                if isinstance(kind, type):
                    raise ModelError(f"{where}: the attribute {name!r} is required and missing")
                found[name] = kind
                continue
            wanted = kind if isinstance(kind, type) else type(kind)
            try:
                found[name] = _READERS[wanted](given[name])
            except (ValueError, SyntaxError, KeyError, TypeError):
                text = given[name][:80]
                raise ModelError(f"{where}: the attribute {name}={text!r} is not {wanted.__name__}") from None
        return found


@dataclass(frozen=True, eq=False)
class Call:
    """A node that a plugin runs.

    Attributes:
        node: MXNet's node.
        raw: its attributes as text.
        inputs: the types of its inputs, as far as they are known; sizes that vary are -1.
        outputs: likewise.
        attributes: typed.
    """

    plugin: Plugin
    node: str
    raw: Mapping[str, str]
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    attributes: Mapping[str, Any] = field(repr=False)

    @property
    def where(self) -> str:
        return f"{self.plugin.label} failed at node {self.node!r}"

    def infer(self, inputs: Sequence[TensorType]) -> list[TensorType]:
        """The types of the outputs, by the plugin's own ``infer``.

        Raises:
            ModelError: it fails, or gives something else than types.
        """
        return infer(self.plugin, self.node, self.attributes, inputs)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Fresh arrays, by the plugin's NumPy function.

        Raises:
            ExecutionError: the function fails, or its answer has other types or shapes than was inferred.
        """
        given = [_locked(array) for array in inputs]
        try:
            found = self.plugin.implementation.numpy(self.attributes, *given)
        except Exception as error:
            raise ExecutionError(f"{self.where}: numpy: {type(error).__name__}: {error}") from error
        arrays = [np.asarray(array) for array in (found if isinstance(found, (tuple, list)) else [found])]
        wanted = self.outputs
        if self.plugin.has_infer:
            types = self.infer([TensorType(array.dtype, array.shape) for array in given])
            wanted = tuple((kind.dtype.name, tuple(map(int, kind.shape))) for kind in types)  # type: ignore[arg-type]
        if len(arrays) != len(wanted):
            raise ExecutionError(f"{self.where}: numpy gives {len(arrays)} outputs, should be {len(wanted)}")
        for array, (dtype, shape) in zip(arrays, wanted):
            fits = len(shape) == array.ndim and all(a == b or b < 0 for a, b in zip(array.shape, shape))
            if array.dtype.name != dtype or not fits:
                raise ExecutionError(
                    f"{self.where}: numpy gives {array.dtype.name}{list(array.shape)}, should be {dtype}{list(shape)}"
                )
        return [np.array(a) if any(np.may_share_memory(a, x) for x in given) else a for a in arrays]

    def text(self) -> str:
        """What the ONNX node holds, as JSON: the same for the same call."""
        document = {
            "operator": self.plugin.operator, "node": self.node, "attributes": dict(self.raw), "inputs": self.inputs,
            "outputs": self.outputs,
        }  # fmt: skip
        return json.dumps(document, sort_keys=True)


def plugin(
    operator: str,
    *,
    op_type: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    version: str | None = None,
) -> Callable[[Class], Class]:
    """Register a class as the implementation of an MXNet operator; it takes the place of any other implementation.

    The class is constructed once, without arguments, and used from any thread. Its methods:

    * ``numpy(attributes, *arrays)``: the outputs as arrays (one, or a list). Required; inputs are read-only.
    * ``infer(attributes, *types)``: the output's type, or a list of several. A type has ``dtype`` and ``shape``; sizes
      that vary are symbolic and take ``+``, ``-``, ``*`` and ``//``. Given back are such types, or pairs (dtype, shape).
      Without it MXNet is asked, if it is there.
    * ``cuda(attributes, inputs, outputs, stream, workspace)``: enqueue the work on a CUDA stream (a handle) and return
      without waiting. Inputs and outputs are contiguous :class:`~harness.engines.memory.DeviceArray`, which CuPy,
      PyTorch and Numba read in place; ``workspace`` is an address.
    * ``workspace(attributes, *types)``: how many bytes ``cuda`` needs there, for types of known sizes.

    Args:
        operator: MXNet's name, an operator of a custom library included.
        op_type: with ``"Custom"``: which one.
        attributes: of operators that MXNet's registry does not describe: name -> float, int, bool, str or tuple where it
            is required, or its default value.
        version: tells one implementation from the next in plans and saved models; without it a digest of the class's
            source, which does not see what the class calls elsewhere.

    Raises:
        OptionError: an argument, or the class, cannot be used.
    """
    operator = _check_operator(operator, op_type)
    _check_attributes(operator, attributes)
    if version is not None and (not isinstance(version, str) or not version or "\0" in version):
        raise OptionError(f"plugin: version={version!r} is not a text")

    def register(cls: Class) -> Class:
        where = f"plugin({operator!r})"
        for method in ("numpy", "infer", "cuda", "workspace"):
            if not callable(getattr(cls, method, None)) and (method == "numpy" or hasattr(cls, method)):
                raise OptionError(f"{where}: {cls.__name__} has no method {method!r}")
        try:
            made = cls()
        except Exception as error:
            raise OptionError(f"{where}: {cls.__name__}() fails: {type(error).__name__}: {error}") from error
        name = version if version is not None else _digest(cls, where)
        _registered[operator, op_type or ""] = Plugin(operator, op_type or "", name, dict(attributes or {}), made)
        return cls

    return register


_registered: dict[tuple[str, str], Plugin] = {}


def unregister(operator: str, op_type: str | None = None) -> None:
    """Forget a plugin; models that are compiled keep it."""
    _registered.pop((canonical_names().get(operator, operator), op_type or ""), None)


def find(operator: str, attributes: Mapping[str, str]) -> Plugin | None:
    """The plugin of a node, None if there is none."""
    return _registered.get((operator, attributes.get("op_type", "") if operator == CUSTOM else ""))


def asks_mxnet(graph: Graph) -> bool:
    """Whether a node's plugin leaves the types of its outputs to MXNet."""
    found = (find(node.operator, node.attributes) for node in graph.nodes)
    return any(plugin is not None and not plugin.has_infer for plugin in found)


def infer(found: Plugin, node: str, attributes: Mapping[str, Any], inputs: Sequence[TensorType]) -> list[TensorType]:
    """See :meth:`Call.infer`."""
    try:
        given = found.implementation.infer(attributes, *inputs)
        kinds = given if isinstance(given, list) else [given]
        return [_as_type(kind) for kind in kinds]
    except Exception as error:
        types = ", ".join(map(str, inputs))
        raise ModelError(
            f"{found.label} failed at node {node!r}: infer({types}): {type(error).__name__}: {error}"
        ) from error


def _as_type(kind: Any) -> TensorType:
    dtype, shape = (kind.dtype, kind.shape) if hasattr(kind, "dtype") else kind
    sizes = tuple(size if isinstance(size, Dim) else int(size) for size in shape)
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise ValueError(f"the shape {sizes} has a negative size")
    return TensorType(np.dtype(dtype), sizes)


# --- nodes -----------------------------------------------------------------------------------------------------------


def call(
    found: Plugin, node: str, raw: Mapping[str, str], inputs: Sequence[TensorType], outputs: Sequence[TensorType]
) -> Call:
    """A node's call. ModelError if its attributes cannot be read."""
    written = [tuple((kind.dtype.name, _sizes(kind)) for kind in kinds) for kinds in (inputs, outputs)]
    return Call(found, node, dict(raw), written[0], written[1], found.read(raw, node))


def _sizes(kind: TensorType) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in kind.shape)


def node_of(made: Call, inputs: Sequence[Value], outputs: Sequence[str], name: str) -> onnx.NodeProto:
    """The ONNX node of a call."""
    from onnx import helper

    return helper.make_node(
        made.plugin.name, [value.name for value in inputs], list(outputs), name=name, domain=DOMAIN, call=made.text(),
        plugin_version=made.plugin.version, plugin_namespace=NAMESPACE,
    )  # fmt: skip


def is_plugin(node: onnx.NodeProto | ir.Node) -> bool:
    return node.domain == DOMAIN


def in_model(model: ir.Model) -> list[ir.Node]:
    """The nodes of a model that plugins run."""
    return [node for node in model.graph if node.domain == DOMAIN]


def read_node(node: ir.Node) -> Call:
    """The call that a node of a model stands for; see ``read_call``."""
    return read_call(node.attributes["call"].as_string(), node.attributes["plugin_version"].as_string())


def read_call(text: str, version: str, found: Plugin | None = None) -> Call:
    """A call from what its node holds; ``found`` is its plugin, if it is at hand.

    Raises:
        EngineMissing: its plugin is not registered here, or in another version.
    """
    document = json.loads(text)
    operator, raw, node = document["operator"], document["attributes"], document["node"]
    found = found or find(operator, raw)
    wanted = f"plugin({operator!r}" + (f", op_type={raw['op_type']!r})" if operator == CUSTOM else ")")
    if found is None:
        raise EngineMissing(
            f"node {node!r} ({operator}) is run by a plugin, which is not registered here: import the module with "
            f"@harness.{wanted} first"
        )
    if found.version != version:
        raise EngineMissing(
            f"node {node!r} ({operator}) was compiled with version {version} of {found.label}, and {found.version} is "
            f"registered here: compile the model again, or give both the same version="
        )
    types = [tuple((dtype, tuple(shape)) for dtype, shape in document[key]) for key in ("inputs", "outputs")]
    return Call(found, node, raw, types[0], types[1], found.read(raw, node))


# --- checks ----------------------------------------------------------------------------------------------------------


def _check_operator(operator: Any, op_type: Any) -> str:
    if not isinstance(operator, str) or not operator or "\0" in operator:
        raise OptionError(f"plugin: {operator!r} is not the name of an operator")
    name = canonical_names().get(operator, operator)
    if (name == CUSTOM) != (op_type is not None):
        raise OptionError(f"plugin({operator!r}): op_type= names a Custom operator, and only that; found {op_type!r}")
    if op_type is not None and (not isinstance(op_type, str) or not op_type or "\0" in op_type):
        raise OptionError(f"plugin({operator!r}): op_type={op_type!r} is not a name")
    return name


def _check_attributes(operator: str, attributes: Any) -> None:
    if attributes is None:
        return
    if operator in schemas() and operator != CUSTOM:
        raise OptionError(f"plugin({operator!r}): attributes= are known from MXNet's registry; leave them out")
    if not isinstance(attributes, Mapping) or not all(isinstance(name, str) for name in attributes):
        raise OptionError(f"plugin({operator!r}): attributes={attributes!r} is not a mapping of names")
    for name, kind in attributes.items():
        if (kind if isinstance(kind, type) else type(kind)) not in _READERS:
            known = ", ".join(reader.__name__ for reader in _READERS)
            raise OptionError(
                f"plugin({operator!r}): attributes[{name!r}]={kind!r} is none of {known}, nor such a value"
            )


def _digest(cls: type, where: str) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        raise OptionError(f"{where}: the source of {cls.__name__} cannot be read; give version=") from None
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _locked(array: Array) -> Array:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view
