"""What a compiled model is measured against, beside itself; the one place that knows the peers.

Each reads the same MXNet files, gets its input as NumPy arrays in host memory and gives NumPy arrays back, as the
compiled model does. A peer is an ``engine`` of :class:`harness.benchmark.sides.Side`.

MXNet's exporter needs mending before anything can run what it writes: MXNet 1.9.1 came out in 2022, and onnx has moved
on. :func:`export_by_mxnet` says what is mended; the graph is the exporter's own.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import ExecutionError  # absolute: the worker runs this file under the harness that it measures

Call = Callable[[], Sequence[Any]]
Open = Callable[[Mapping[str, Any], Mapping[str, Any], Any], Call]

EXPORT_IR_VERSION = 8  # onnx would stamp its newest, which older versions of ONNX Runtime refuse
EXPORT_OPSET = 13  # the newest for which MXNet 1.9.1 has converters; it would stamp its nodes with onnx's newest


@dataclass(frozen=True, slots=True)
class Peer:
    """Something else that runs the same model.

    Attributes:
        what: in a few words, for help and reports.
        open: (request, arrays by name, compiled model or None) -> a call that gives the outputs.
        packages: that it needs.
        precisions: that it has; empty if it runs the files' own types.
        prepare: writes what it runs to a path, once and untimed: (request, path).
        compiles: whether it is given the compiled model.
    """

    what: str
    open: Open
    packages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    prepare: Callable[[Mapping[str, Any], str], None] | None = None
    compiles: bool = False

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]


def files(request: Mapping[str, Any]) -> tuple[str, str]:
    """The symbol's and the parameters' file of a request.

    Raises:
        ExecutionError: the model is not MXNet's files.
    """
    prefix = str(request["model"]).removesuffix("-symbol.json")
    found = sorted(Path(prefix).parent.glob(f"{Path(prefix).name}-????.params"))
    given = request["params"]
    if isinstance(given, int):
        given = f"{prefix}-{given:04d}.params"
    if not Path(f"{prefix}-symbol.json").is_file() or not (given or found):
        raise ExecutionError(f"{request['engine']} needs MXNet's files, and {request['model']} has none beside it")
    return f"{prefix}-symbol.json", str(given or found[-1])


# --- MXNet -----------------------------------------------------------------------------------------------------------


def mxnet_environment() -> None:
    """MXNet as it comes: with oneDNN, and with its own graph passes. Before it is imported."""
    for name in ("MXNET_MKLDNN_ENABLED", "MXNET_SUBGRAPH_BACKEND"):
        os.environ.pop(name, None)


def _mxnet(request: Mapping[str, Any], arrays: Mapping[str, Any], _: Any) -> Call:
    """Symbol.bind, as Module has it: oneDNN's fusions are on by default there."""
    from harness.frontend.compat import mxnet

    mx = mxnet()
    symbol_file, params_file = files(request)
    symbol = mx.sym.load(symbol_file)
    saved = {name.partition(":")[2]: array for name, array in mx.nd.load(params_file).items()}
    given = {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}
    names, states = set(symbol.list_arguments()), set(symbol.list_auxiliary_states())
    bound = symbol.bind(
        mx.cpu(),
        {name: array for name, array in {**saved, **given}.items() if name in names},
        aux_states={name: array for name, array in saved.items() if name in states},
        grad_req="null",
    )

    def call() -> list[Any]:
        fresh = {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}
        return [array.asnumpy() for array in bound.forward(is_train=False, **fresh)]

    return call


def _gluon(request: Mapping[str, Any], arrays: Mapping[str, Any], _: Any) -> Call:
    """SymbolBlock.imports, hybridized with static memory and shapes."""
    from harness.frontend.compat import mxnet

    mx = mxnet()
    symbol_file, params_file = files(request)
    block = mx.gluon.SymbolBlock.imports(symbol_file, list(arrays), params_file)
    block.hybridize(static_alloc=True, static_shape=True)

    def call() -> list[Any]:
        found = block(*(mx.nd.array(array, dtype=array.dtype) for array in arrays.values()))
        return [array.asnumpy() for array in (found if isinstance(found, (list, tuple)) else [found])]

    return call


def export_by_mxnet(request: Mapping[str, Any], path: str) -> None:
    """``mx.onnx.export_model``, and what it takes to run the result today.

    Mended: ``onnx.mapping``, which onnx has dropped; the opset, for which the exporter takes onnx's newest although its
    nodes are of opset 13 at most; nodes without a name, which ONNX Runtime's fusions trip over; and parameters that are
    declared as inputs, which keeps ONNX Runtime from folding them (it says so itself).

    Raises:
        ExecutionError: the exporter refuses the model.
    """
    import numpy as np
    import onnx

    from harness.frontend.compat import mxnet

    mx = mxnet()
    _restore_mapping(onnx, np)
    exporter = import_module("mxnet.onnx")
    symbol_file, params_file = files(request)
    inputs = request["inputs"]
    # the exporter wants shapes in the order of the graph's inputs
    order = [name for name in mx.sym.load(symbol_file).list_inputs() if name in inputs]
    shapes = [tuple(inputs[name][0]) for name in order]
    types = [np.dtype(inputs[name][1]) for name in order]
    try:
        exporter.export_model(symbol_file, params_file, shapes, types, path)
    except Exception as error:  # noqa: BLE001 - the exporter raises whatever it likes
        raise ExecutionError(
            f"MXNet's exporter: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from None
    _mend(path, onnx)


def _restore_mapping(onnx: Any, np: Any) -> None:
    mapping: Any = types.ModuleType("onnx.mapping")
    kinds = [kind for kind in onnx.TensorProto.DataType.values() if kind]
    mapping.TENSOR_TYPE_TO_NP_TYPE = {kind: onnx.helper.tensor_dtype_to_np_dtype(kind) for kind in kinds}
    plain = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool")
    mapping.NP_TYPE_TO_TENSOR_TYPE = {
        np.dtype(name): onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in plain
    }
    sys.modules["onnx.mapping"] = onnx.mapping = mapping
    onnx.defs.onnx_opset_version = lambda: EXPORT_OPSET


def _mend(path: str, onnx: Any) -> None:
    model = onnx.load(path)
    model.ir_version = EXPORT_IR_VERSION
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.name or node.op_type}_{number}"
    onnx.save(model, path)


def _mx2onnx(request: Mapping[str, Any], arrays: Mapping[str, Any], _: Any) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = request["options"].get("threads", 0)
    session = onnxruntime.InferenceSession(request["file"], options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return lambda: session.run(names, dict(arrays))


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def _torch(request: Mapping[str, Any], arrays: Mapping[str, Any], _: Any, compiled: bool = False) -> Call:
    import torch

    from harness.benchmark.torch_twin import make_twin, unsupported
    from harness.frontend.mxnet import read_model

    symbol_file, params_file = files(request)
    if "threads" in request["options"]:
        torch.set_num_threads(request["options"]["threads"])
    graph, params = read_model(symbol_file, params_file, [])
    if reason := unsupported(graph):
        raise ExecutionError(f"the PyTorch twin: {reason}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(request["precision"], torch.float32)
    module = make_twin(graph, dict(params), fold=True).to(device, kind)
    module = module.to(memory_format=torch.channels_last)
    if compiled:
        module = torch.compile(module, mode="max-autotune" if device == "cuda" else "default", fullgraph=True)
    (array,) = arrays.values()

    def call() -> list[Any]:
        with torch.inference_mode():
            x = torch.from_numpy(array).to(device, kind)
            x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
            found = module(x)
            return [one.float().cpu().numpy() for one in (found if isinstance(found, tuple) else (found,))]

    return call


def _torch_compile(request: Mapping[str, Any], arrays: Mapping[str, Any], model: Any) -> Call:
    return _torch(request, arrays, model, compiled=True)


# --- the engine alone ------------------------------------------------------------------------------------------------


def _bare(_: Mapping[str, Any], arrays: Mapping[str, Any], model: Any) -> Call:
    """ONNX Runtime's ``session.run``, or for TensorRT what trtexec does: copy in, enqueue the plan, copy out."""
    steps: Any = getattr(getattr(model, "_program", None), "steps", ())
    if len(steps) != 1:
        raise ExecutionError(f"bare needs a model of one part, this one has {len(steps)}")
    session = steps[0].session
    if hasattr(session, "cuda"):
        from harness.benchmark.clocks import PhaseTimer

        timer = PhaseTimer(session, [arrays[name] for name in session.input_names])

        def enqueue() -> list[Any]:
            timer()
            return timer.results()

        return enqueue
    bare = session.session
    names, given = list(session.output_names), {name: arrays[name] for name in session.input_names}
    return lambda: bare.run(names, given)


PEERS: Mapping[str, Peer] = {
    "mxnet": Peer("MXNet's executor (Symbol.bind, Module), oneDNN's fusions on", _mxnet, ("mxnet",)),
    "gluon": Peer("MXNet's Gluon block, hybridized with static memory", _gluon, ("mxnet",)),
    "mx2onnx": Peer(
        "MXNet's own ONNX exporter, mended, on ONNX Runtime", _mx2onnx, ("mxnet", "onnx"), prepare=export_by_mxnet
    ),
    "torch": Peer("PyTorch with the same parameters, batch norms folded", _torch, ("torch",), ("fp32", "fp16", "bf16")),
    "torch.compile": Peer("the same, compiled by PyTorch", _torch_compile, ("torch",), ("fp32", "fp16", "bf16")),
    "bare": Peer("the compiled model's own session or plan, called directly", _bare, compiles=True),
}
