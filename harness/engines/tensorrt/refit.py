"""New parameters in a plan that is already built."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from ...errors import BuildError
from .library import Library, Log, hand_over


def split_weights(model: ir.Model) -> tuple[list[str], list[str]]:
    """(fixed, refittable): the names of the initializers whose content decides the plan, and of those that may change.

    Floating-point arrays of more than one element are parameters; integers (axes, shapes, indices) and scalars are
    part of the graph.
    """
    fixed: list[str] = []
    free: list[str] = []
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        is_parameter = tensor.dtype.is_floating_point() and tensor.size > 1
        (free if is_parameter else fixed).append(name)
    return fixed, free


def refit(library: Library, engine: Any, model: ir.Model, log: Log, name: str) -> None:
    """Put the model's parameters into an engine built with ``refit`` or ``strip``.

    Raises:
        BuildError: the library cannot; the message says which parameters are missing.
    """
    trt = library.trt
    refitter = trt.Refitter(engine, log.logger)
    parser = trt.OnnxParserRefitter(refitter, log.logger)
    accepted, _payload = hand_over(
        model, lambda data, path: parser.refit_from_bytes(data, path), lambda path: parser.refit_from_file(path)
    )
    if accepted and refitter.refit_cuda_engine():
        return
    missing = ", ".join(refitter.get_missing_weights()[:5])
    said = "; ".join([parser.get_error(i).desc() for i in range(parser.num_errors)] + log.take_errors()[-3:])
    raise BuildError(
        f"{library.label} cannot put new parameters into the plan of part {name}"
        f"{f' (missing: {missing})' if missing else ''}: {said or 'no reason given'}; compile without refit and strip"
    )
