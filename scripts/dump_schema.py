"""Write harness/operators/schema.json: every forward operator of the installed MXNet, its inputs and attributes.

    python scripts/dump_schema.py [--check]

With --check nothing is written, and the exit status is 1 if the file differs from the installed MXNet.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from pathlib import Path
from typing import Any

from harness.frontend.compat import mxnet

TARGET = Path(__file__).resolve().parents[1] / "harness" / "operators" / "schema.json"
TENSORS = ("NDArray-or-Symbol", "Symbol")


def operators() -> dict[str, dict[str, Any]]:
    """Canonical name -> inputs, variadic attribute, attributes (type text as MXNet words it), aliases."""
    mx = mxnet()
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(mx.base._list_all_op_names() if hasattr(mx.base, "_list_all_op_names") else list_names(mx)):
        canonical, inputs, attributes, variadic = describe(mx, name)
        if "backward" in canonical.lower():
            continue
        entry = found.setdefault(canonical, {"inputs": inputs, "attributes": attributes, "aliases": []})
        if variadic:
            entry["variadic"] = variadic
        if name != canonical:
            entry["aliases"].append(name)
    return dict(sorted(found.items()))


def list_names(mx: Any) -> list[str]:
    size, names = ctypes.c_uint(), ctypes.POINTER(ctypes.c_char_p)()
    mx.base.check_call(mx.base._LIB.MXListAllOpNames(ctypes.byref(size), ctypes.byref(names)))
    return [names[i].decode() for i in range(size.value)]


def describe(mx: Any, name: str) -> tuple[str, list[str], dict[str, str], str]:
    lib, check, text = mx.base._LIB, mx.base.check_call, ctypes.c_char_p
    handle = ctypes.c_void_p()
    check(lib.NNGetOpHandle(text(name.encode()), ctypes.byref(handle)))
    canonical, description, variadic, returns = text(), text(), text(), text()
    count = ctypes.c_uint()
    names, types, words = (ctypes.POINTER(text)() for _ in range(3))
    check(
        lib.MXSymbolGetAtomicSymbolInfo(
            handle, *map(ctypes.byref, (canonical, description, count, names, types, words, variadic, returns))
        )
    )
    arguments = [(names[i].decode(), types[i].decode()) for i in range(count.value)]
    inputs = [n + ("[]" if t.endswith("[]") else "") for n, t in arguments if t.startswith(TENSORS)]
    attributes = {n: t for n, t in arguments if not t.startswith(TENSORS)}
    return (canonical.value or b"").decode(), inputs, attributes, (variadic.value or b"").decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    entries = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in operators().items())
    text = "{\n" + ",\n".join(entries) + "\n}\n"
    if check:
        return int(TARGET.read_text() != text)
    TARGET.write_text(text)
    print(f"{TARGET}: {len(json.loads(text))} operators")
    return 0


if __name__ == "__main__":
    sys.exit(main())
