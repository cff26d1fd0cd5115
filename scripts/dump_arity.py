"""Write harness/frontend/arity.json: the inputs and output names of MXNet's operators, by their attributes.

    python scripts/dump_arity.py [--check]

MXNet's registry does not tell them; this script makes each operator with each value of the attributes that could
matter and asks the symbol. An operator is left out if all it has is its schema's inputs and one output, "output".
With --check nothing is written, and the exit status is 1 if the file differs from the installed MXNet.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.frontend.compat import mxnet
from harness.operators.schema import AttributeType, Schema, schemas

TARGET = Path(__file__).resolve().parents[1] / "harness" / "frontend" / "arity.json"
CONTROL_FLOW = ("_cond", "_foreach", "_while_loop")  # cannot be made without a body
PLAIN = {
    "float": "1.0",
    "boolean": "0",
    "Shape(tuple)": "(1,1)",
    "tuple of <int>": "(1,)",
    "tuple of <float>": "(1.0,)",
}
ANY = "*"  # in arity.json: whatever the value, if it is not None
Arity = tuple[list[str], list[str]]  # inputs, outputs


def required(schema: Schema) -> dict[str, str]:
    return {
        n: k.choices[0] if k.choices else PLAIN.get(k.kind, "1") for n, k in schema.attributes.items() if k.required
    }


def values(name: str, kind: AttributeType) -> list[str]:
    """The values of an attribute that could change inputs or outputs."""
    if kind.choices:
        return list(kind.choices)
    if kind.kind == "boolean":
        return ["0", "1"]
    if kind.optional and kind.kind in ("int", "long", "float", "double"):
        return [ANY]
    if name in ("indices", "sections"):
        return ["(0,)"] if name == "indices" else ["1", "2", "3"]
    return ["1", "2", "3"] if name.startswith("num_") else []


def arity(operator: str, attributes: Mapping[str, str]) -> Arity:
    """Names without the node's own."""
    mx = mxnet()
    lib, check, text = mx.base._LIB, mx.base.check_call, ctypes.c_char_p
    operator_handle, handle = ctypes.c_void_p(), ctypes.c_void_p()
    check(lib.NNGetOpHandle(text(operator.encode()), ctypes.byref(operator_handle)))
    size = len(attributes)
    keys, settings = (
        (text * size)(*(("1" if t == ANY else t).encode() for t in group))
        for group in (attributes, attributes.values())
    )
    check(lib.MXSymbolCreateAtomicSymbol(operator_handle, ctypes.c_uint(size), keys, settings, ctypes.byref(handle)))
    symbol = mx.sym.Symbol(handle)
    symbol._compose(name="n")
    return [n.removeprefix("n_") for n in symbol.list_inputs()], [n.removeprefix("n_") for n in symbol.list_outputs()]


def entry(schema: Schema) -> dict[str, Any] | None:
    """What arity.json says of one operator, None if it says nothing."""
    if schema.name in CONTROL_FLOW:
        return {"counted": ["num_outputs"]}
    found: dict[tuple[tuple[str, str], ...], Arity] = {}
    base = required(schema)
    choices = [[(name, value) for value in values(name, kind)] for name, kind in schema.attributes.items()]
    for combination in [(), *((one,) for group in choices for one in group)]:
        try:
            found[combination] = arity(schema.name, base | dict(combination))
        except mxnet().base.MXNetError:
            continue
    if () not in found:
        return None
    plain = found[()]
    counted = [
        n for n, k in schema.attributes.items() if found.get(((n, "3"),), plain)[1][1:] == ["output1", "output2"]
    ]
    variants = {k: v for k, v in found.items() if k and v != plain and k[0][0] not in counted and k[0][0] != "num_args"}
    single = list(variants)
    for size in (2, 3):
        for group in itertools.combinations(single, size):
            together = tuple(itertools.chain(*group))
            if len(dict(together)) == size:
                answer = arity(schema.name, base | dict(together))
                if size == 2 or answer != _most_specific(variants, dict(together), plain):
                    variants[together] = answer
    result: dict[str, Any] = {}
    if not schema.variadic and plain[0] != list(schema.inputs):
        result["inputs"] = plain[0]
    if counted:
        result["counted"] = counted
    if plain[1] != ["output"]:
        result["outputs"] = plain[1]
    changed = [[dict(k), *(a if a != b else None for a, b in zip(v, plain))] for k, v in variants.items()]
    if changed:
        result["variants"] = changed
    return result or None


def _most_specific(variants: Mapping[Any, Arity], attributes: Mapping[str, str], plain: Arity) -> Arity:
    """What a reader of arity.json takes: for either half, the last of the largest variants that fit and change it."""
    best = [(0, plain[0]), (0, plain[1])]
    for names, answer in variants.items():
        if dict(names).items() <= attributes.items():
            for half in (0, 1):
                if answer[half] != plain[half] and len(names) >= best[half][0]:
                    best[half] = (len(names), answer[half])
    return best[0][1], best[1][1]


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operator is asked in a process of its own, because some crash when made outside their use."""
    mxnet()
    for name, schema in schemas().items():
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.write(writer, json.dumps(entry(schema)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            text = pipe.read()
        os.wait()
        if text and (found := json.loads(text)):
            yield name, found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    text = "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in entries()) + "\n}\n"
    if check:
        return int(TARGET.read_text() != text)
    TARGET.write_text(text)
    print(f"{TARGET}: {len(json.loads(text))} operators")
    return 0


if __name__ == "__main__":
    sys.exit(main())
