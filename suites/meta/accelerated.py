"""What the accelerator's tests share: a symbol run as it is and partitioned, and its answers held to MXNet in float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness import numerics
from harness.frontend import compat

SEGMENT = "_mxtrt_segment"
STATIC = {"static_alloc": True, "static_shape": True}
Arrays = Mapping[str, Any]  # MXNet's, by name


def in_process(code: str, *arguments: str, timeout: int = 120, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, from this checkout."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def operators_of(symbol: Any) -> list[str]:
    """The operators of a symbol's nodes."""
    return [node["op"] for node in json.loads(symbol.tojson())["nodes"] if node["op"] != "null"]


def cast(arrays: Arrays, dtype: str) -> dict[str, Any]:
    """The floating-point arrays in another type."""
    return {name: a.astype(dtype) if a.dtype in (np.float32, np.float16) else a for name, a in arrays.items()}


def run(symbol: Any, args: Arrays, aux: Arrays) -> list[np.ndarray]:
    """The outputs, through an Executor."""
    given = set(symbol.list_arguments())
    known = {name: array for name, array in args.items() if name in given}
    bound = symbol.bind(compat.mxnet().cpu(), known, aux_states=dict(aux), grad_req="null")
    return [output.asnumpy() for output in bound.forward(is_train=False)]


def hold(
    found: Sequence[np.ndarray], symbol: Any, args: Arrays, aux: Arrays, moved: Sequence[str] = ("data",),
    terms: int = 64, reference: str = "float64", precision: str = "fp32",
) -> None:  # fmt: skip
    """AssertionError unless the answers are those of the symbol in MXNet, within the error model.

    Args:
        found: the answers.
        symbol, args, aux: what MXNet runs.
        moved: the arguments whose roundings count.
        terms: the length of the longest sum behind one element.
        reference: the type that MXNet computes in.
        precision: of the computation that gave ``found``.
    """
    mx = compat.mxnet()
    args, aux = cast(args, reference), cast(aux, reference)
    expected = run(symbol, args, aux)

    def again(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return run(symbol, {**args, **{n: mx.nd.array(a, dtype=a.dtype) for n, a in arrays.items()}}, aux)

    inputs = {name: args[name].asnumpy() for name in moved if name in args}
    bounds = numerics.response(again, inputs, expected, precision, draws=2)
    assert len(found) == len(expected)
    for got, wanted, bound in zip(found, expected, bounds):
        result = numerics.compare(got, wanted, bound, precision, terms)
        assert result, result.message
