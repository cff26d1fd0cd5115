"""A case on its own: as text, as one command, and as a program that needs nothing of the suites.

``python -m suites.ops.reproduce 'JSON'`` checks one case and exits with 0 if it is right, 1 if it is not.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, Tensor

ROOT = Path(__file__).parents[2]


def to_json(case: Case) -> str:
    """A case as one line of JSON; defaults are left out."""
    whole = _set_fields(case)
    whole["inputs"] = {name: _tensor(tensor) for name, tensor in case.inputs.items()}
    return json.dumps(whole)


def from_json(text: str) -> Case:
    """The case that :func:`to_json` wrote."""
    whole = json.loads(text)
    whole["inputs"] = {name: _read_tensor(entry) for name, entry in whole["inputs"].items()}
    whole["subgraphs"] = tuple(whole.get("subgraphs", ()))
    return Case(**whole)


def command(case: Case, engine: str = "onnxruntime", precision: str = "fp32", dynamic: bool = False) -> str:
    """One line for a shell that checks the case again."""
    options = [
        *(["--engine", engine] if engine != "onnxruntime" else []),
        *(["--precision", precision] if precision != "fp32" else []),
        *(["--dynamic"] if dynamic else []),
    ]
    return shlex.join(["python", "-m", "suites.ops.reproduce", *options, to_json(case)])


SNIPPET = """\
import numpy as np
import harness
from harness.frontend.compat import mxnet

mx = mxnet()
nan, inf = np.nan, np.inf
symbol = mx.sym.load_json({symbol!r})
arrays = {{
{arrays}}}
with mx.util.np_shape({np_shape}):
    tensors = [mx.nd.array(arrays[name], dtype=arrays[name].dtype) for name in symbol.list_inputs()]
    expected = mx.nd.CachedOp(symbol)(*tensors)
    expected = [x.asnumpy() for x in (expected if isinstance(expected, (list, tuple)) else [expected])]
    model = harness.compile(
        symbol,
        {{name: array for name, array in arrays.items() if name in {constants!r}}},
        {{name: harness.Input({shapes}, array.dtype) for name, array in arrays.items() if name not in {constants!r}}},
        engine={engine!r}, precision={precision!r}, fallback="error",
    )
actual = model(**{{name: arrays[name] for name in model.input_names}})
for x, y in zip(actual, expected):
    print("actual  ", x.dtype, x.shape, x.ravel()[:8].tolist())
    print("expected", y.dtype, y.shape, y.ravel()[:8].tolist())
"""


def snippet(case: Case, engine: str = "onnxruntime", precision: str = "fp32", dynamic: bool = False) -> str:
    """A program that runs the case in MXNet and compiled, and prints both answers."""
    from .check import DYNAMIC_SPAN, symbol_json

    arrays = case.arrays()
    shapes = "array.shape"
    if dynamic:
        axes = {name: tensor.dynamic for name, tensor in case.inputs.items()}
        size = f"(1, s, s + {DYNAMIC_SPAN}) if i in {axes!r}[name] and s else s"
        shapes = f"tuple({size} for i, s in enumerate(array.shape))"
    return SNIPPET.format(
        symbol=symbol_json(case),
        arrays="".join(
            f"    {name!r}: np.array({array.ravel().tolist()!r}, {array.dtype.name!r}).reshape({array.shape}),\n"
            for name, array in arrays.items()
        ),
        np_shape=case.np_shape,
        constants=[name for name, tensor in case.inputs.items() if tensor.const],
        shapes=shapes,
        engine=engine,
        precision=precision,
    )


def explain(case: Case, engine: str = "onnxruntime", precision: str = "fp32", dynamic: bool = False) -> str:
    """The command, and the program, indented."""
    program = "".join(f"    {line}\n" for line in snippet(case, engine, precision, dynamic).splitlines())
    return f"  again:\n    {command(case, engine, precision, dynamic)}\n  or on its own:\n{program}"


def isolated(case: Case, engine: str, precision: str, dynamic: bool) -> float:
    """Check a case in a process of its own, so that a crash of an engine is one failed case.

    Raises:
        AssertionError: with what the process wrote, or the signal that ended it.
    """
    arguments = shlex.split(command(case, engine, precision, dynamic))[1:]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise AssertionError(f"the process died of {name}: {case}\n{explain(case, engine, precision, dynamic)}")
    assert done.returncode == 0, done.stdout + done.stderr
    return float(done.stdout.split()[-1])


def _set_fields(item: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    found = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, np.ndarray) or value != field.default:
            found[field.name] = value
    return found


def _tensor(tensor: Tensor) -> dict[str, Any]:
    entry = _set_fields(tensor)
    if isinstance(entry.get("values"), np.ndarray):
        entry["values"] = {"array": entry["values"].tolist(), "dtype": entry["values"].dtype.name}
    elif entry.get("values") is not None:
        entry["values"] = np.asarray(entry["values"]).tolist()
    return entry


def _read_tensor(entry: dict[str, Any]) -> Tensor:
    values = entry.get("values")
    if isinstance(values, dict):
        entry["values"] = np.array(values["array"], values["dtype"]).reshape(entry["shape"])
    for name in ("shape", "avoid", "dynamic"):
        if name in entry:
            entry[name] = tuple(entry[name])
    return Tensor(**entry)


def main() -> int:
    """The command line."""
    import conftest  # noqa: F401  the environment that MXNet's own kernels need

    from .check import ISOLATE, check

    os.environ.pop(ISOLATE, None)
    parser = argparse.ArgumentParser(description="check one case again")
    parser.add_argument("case", help="the case as JSON")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--dynamic", action="store_true")
    given = parser.parse_args()
    try:
        headroom = check(from_json(given.case), given.engine, given.precision, given.dynamic)
    except Exception as error:  # noqa: BLE001  the command reports it
        print(f"{type(error).__name__}: {error}")
        return 1
    print(f"right; the largest error over its bound is {headroom:.3g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
