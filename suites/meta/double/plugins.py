"""The double of what TensorRT does with plugins: its registry, and the order in which it calls their V3 interfaces.

The classes that plugins derive from, their fields and descriptors are TensorRT-RTX's real ones. RTX itself takes no
plugins: its parser and builder judge the network cut at them, where a plugin's outputs become inputs.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, utils

DOMAIN = "mxtrt.plugins"
KINDS = {1: "FLOAT", 10: "HALF", 16: "BF16", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 2: "UINT8"}
# What TensorRT 10.6's registry holds of those that the parser builds operators from (read from it).
SHIPPED = ("ROIAlign_TRT", "InstanceNormalization_TRT", "EfficientNMS_TRT", "ScatterElements")
Shape = tuple[int, ...]


@dataclass
class Shipped:
    name: str
    plugin_version: str = "1"
    plugin_namespace: str = ""


class Registry:
    """Creators by name, version and namespace."""

    def __init__(self, shipped: Sequence[str]) -> None:
        self.all_creators: list[Any] = [Shipped(name) for name in shipped]

    def register_creator(self, creator: Any, plugin_namespace: str = "") -> bool:
        assert plugin_namespace == creator.plugin_namespace and len(creator.field_names) > 0
        if self.get_creator(creator.name, creator.plugin_version, plugin_namespace) is not None:
            return False
        self.all_creators.append(creator)
        return True

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        wanted = (type, version, plugin_namespace)
        found = (c for c in self.all_creators if (c.name, c.plugin_version, c.plugin_namespace) == wanted)
        return next(found, None)

    def load_library(self, path: str) -> Any:
        return object() if path.endswith(".so") else None


class Expression:
    """A size: a constant, or something that follows from the sizes of the network's inputs."""

    def __init__(self, evaluate: Callable[[], int], constant: bool) -> None:
        self.evaluate, self._constant = evaluate, constant

    def is_constant(self) -> bool:
        return self._constant

    def get_constant_value(self) -> int:
        assert self._constant, "the size is not constant"
        return self.evaluate()


class Expressions:
    """IExprBuilder."""

    def constant(self, value: int) -> Expression:
        assert isinstance(value, int) and value >= 0
        return Expression(lambda: value, True)

    def operation(self, operation: Any, first: Expression, second: Expression) -> Expression:
        compute = {"SUM": int.__add__, "PROD": int.__mul__, "SUB": int.__sub__, "FLOOR_DIV": int.__floordiv__}
        function = compute[operation.name]
        return Expression(
            lambda: function(first.evaluate(), second.evaluate()), first.is_constant() and second.is_constant()
        )


class Dimensions(list):  # type: ignore[type-arg]
    """DimsExprs."""

    def __init__(self, given: int | Sequence[Any] = ()) -> None:
        super().__init__([None] * given if isinstance(given, int) else given)


@dataclass
class Layer:
    """A plugin's place in a network."""

    node: onnx.NodeProto
    plugin: Any
    inputs: list[str]
    outputs: list[str]
    workspace: int = 0  # what it wants at the largest sizes


# --- the parser ----------------------------------------------------------------------------------------------------------


def plugin_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == DOMAIN]


def create(trt: Any, registry: Registry, node: onnx.NodeProto) -> tuple[Any, str]:
    """The plugin of an ONNX node, made as the parser makes it; or what it says."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    key = (node.op_type, attributes["plugin_version"].decode(), attributes["plugin_namespace"].decode())
    creator = registry.get_creator(*key)
    if creator is None:
        return None, "Plugin not found, are the plugin name, version, and namespace correct?"
    content = {field.name: np.frombuffer(attributes[field.name] + b"\0", np.int8) for field in creator.field_names}
    try:
        made = creator.create_plugin(node.name, fields(trt, content), trt.TensorRTPhase.BUILD)
    except Exception as error:  # noqa: BLE001 - C++ prints it, and tells only that there is no plugin
        return None, f"Could not create the plugin. ({type(error).__name__})"
    return made, ""


def fields(trt: Any, content: Mapping[str, np.ndarray]) -> Any:
    """Fields that point to these arrays: whoever calls keeps them."""
    return trt.PluginFieldCollection(
        [trt.PluginField(name, data, trt.PluginFieldType.CHAR) for name, data in content.items()]
    )


def cut(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its plugins: what they compute is an input, what they read an output."""
    known = {info.name: info for info in (*model.graph.value_info, *model.graph.output, *model.graph.input)}
    nodes = plugin_nodes(model)
    computed = {name for node in model.graph.node if node.domain != DOMAIN for name in node.output}
    made = [name for node in nodes for name in node.output]
    present = {info.name for info in model.graph.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name in computed and name not in present)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for field, items in (
        (graph.node, [node for node in model.graph.node if node.domain != DOMAIN]),
        (graph.input, [*model.graph.input, *(known[name] for name in made)]),
        (graph.output, [*(o for o in model.graph.output if o.name not in made), *(known[name] for name in read)]),
    ):
        del field[:]
        field.extend(items)
    return result


def parts(model: onnx.ModelProto) -> Iterator[onnx.NodeProto | onnx.ModelProto]:
    """What runs one after the other: plugins, and models between them."""
    levels: dict[str, int] = {}
    groups: dict[int, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        before = max((levels.get(name, 0) for name in node.input), default=0)
        level = before + (before % 2 != (node.domain == DOMAIN))
        levels.update(dict.fromkeys(node.output, level))
        groups.setdefault(level, []).append(node)
    constants = {tensor.name for tensor in model.graph.initializer}
    results = {info.name for info in model.graph.output}
    extractor = utils.Extractor(model)
    for level in sorted(groups):
        if level % 2:
            yield from groups[level]
            continue
        made = {name for node in groups[level] for name in node.output}
        read = dict.fromkeys(
            name for node in groups[level] for name in node.input if name and name not in made | constants
        )
        needed = {name for node in model.graph.node if node not in groups[level] for name in node.input} | results
        yield extractor.extract_model(list(read), [name for name in dict.fromkeys(made) if name in needed])


# --- the builder ---------------------------------------------------------------------------------------------------------


def output_shapes(layer: Layer, inputs: Sequence[Shape], trt: Any) -> list[Shape]:
    """The outputs' shapes for known ones of the inputs, by the plugin's own expressions."""
    given = [Dimensions([Expression(lambda size=size: size, False) for size in shape]) for shape in inputs]
    found = layer.plugin.get_output_shapes(given, [], Expressions())
    assert all(isinstance(shape, Dimensions) for shape in found)
    return [tuple(size.evaluate() for size in shape) for shape in found]


def descriptor(trt: Any, shape: Shape, kind: int) -> Any:
    desc = trt.PluginTensorDesc()
    desc.dims, desc.format, desc.type = trt.Dims(shape), trt.TensorFormat.LINEAR, getattr(trt.DataType, KINDS[kind])
    return desc


def dynamic(trt: Any, shapes: Sequence[Shape], kind: int) -> Any:
    desc = trt.DynamicPluginTensorDesc()
    desc.desc = descriptor(trt, shapes[1], kind)
    desc.min, desc.opt, desc.max = (trt.Dims(shape) for shape in shapes)
    return desc


def configure(trt: Any, layer: Layer, types: Mapping[str, int], points: Sequence[Mapping[str, Shape]]) -> str:
    """Call a plugin's build interface in the builder's order; what is wrong, "" if nothing.

    ``points``: the shapes of all tensors at the smallest, best and largest sizes.
    """
    names = [*layer.inputs, *layer.outputs]
    build = layer.plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
    assert layer.plugin.num_outputs == len(layer.outputs)
    kinds = build.get_output_data_types([getattr(trt.DataType, KINDS[types[name]]) for name in layer.inputs])
    wanted = [getattr(trt.DataType, KINDS[types[name]]) for name in layer.outputs]
    if list(kinds) != wanted:
        return f"the outputs have the types {kinds}, declared as {wanted}"
    both = [dynamic(trt, [point[name] for point in points], types[name]) for name in names]
    if not all(build.supports_format_combination(pos, both, len(layer.inputs)) for pos in range(len(names))):
        return f"could not find any supported formats consistent with input/output data types for {layer.node.name}"
    other = [dynamic(trt, [point[name] for point in points], 2) for name in names]
    if any(build.supports_format_combination(pos, other, len(layer.inputs)) for pos in range(len(names))):
        return "another type is taken as well"
    count = len(layer.inputs)
    build.configure_plugin(both[:count], both[count:])
    layer.workspace = max(layer.workspace, int(build.get_workspace_size(both[:count], both[count:])))
    return ""


def serialized(layer: Layer) -> dict[str, Any]:
    held = {f.name: base64.b64encode(bytes(f.data)).decode() for f in layer.plugin.get_fields_to_serialize()}
    plugin = layer.plugin
    return {
        "name": plugin.plugin_name, "version": plugin.plugin_version, "namespace": plugin.plugin_namespace,
        "fields": held, "node": layer.node.name, "workspace": layer.workspace,
    }  # fmt: skip


# --- the runtime ---------------------------------------------------------------------------------------------------------


def deserialized(trt: Any, registry: Registry, about: Mapping[str, Any]) -> Any:
    """The plugin again, None if nobody makes it."""
    creator = registry.get_creator(about["name"], about["version"], about["namespace"])
    if creator is None:
        return None
    content = {name: np.frombuffer(base64.b64decode(data), np.int8) for name, data in about["fields"].items()}
    return creator.create_plugin(about["name"], fields(trt, content), trt.TensorRTPhase.RUNTIME)
