"""What TensorRT does with a plugin's C++ object, through its virtual functions: clone it, ask it, delete it.

    python -m suites.meta.plugin_lifetime CLONES QUESTIONS      each clone is asked so often for a capability, then deleted

Ends with a broken heap (SIGABRT) if what was deleted is deleted again. TensorRT-RTX's bindings have these classes too,
and need no GPU for them.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

from harness import plugins
from harness.engines.tensorrt import library
from harness.engines.tensorrt.plugins import _types

# The Itanium ABI's order of the virtual functions of IPluginV3 and its base (NvInferRuntimeBase.h, NvInferRuntime.h):
# API language, interface info, two destructors (the second frees), capability, clone.
DELETE, CAPABILITY, CLONE = 3, 4, 5
HEADER = 2 * ctypes.sizeof(ctypes.c_void_p)  # pybind11 keeps the addresses of an object's C++ parts behind it


def address_of(made: Any) -> int:
    """The first C++ part of an object with several: IPluginV3."""
    parts = ctypes.c_void_p.from_address(id(made) + HEADER).value
    assert parts is not None
    return int(ctypes.c_void_p.from_address(parts).value or 0)


def call(address: int, number: int, result: Any, *arguments: int) -> Any:
    table = ctypes.c_void_p.from_address(address).value or 0
    function = ctypes.c_void_p.from_address(table + number * ctypes.sizeof(ctypes.c_void_p)).value
    kinds = (ctypes.c_int for _ in arguments)
    return ctypes.CFUNCTYPE(result, ctypes.c_void_p, *kinds)(function)(address, *arguments)


def main() -> None:
    clones, questions = map(int, sys.argv[1:])
    plugin = plugins.Plugin("Custom", "mine", "1", {}, object())
    layer = _types(library.find("tensorrt_rtx").trt)[0](
        plugins.Call(plugin, "mine0", {}, (("float32", (2,)),), (("float32", (2,)),), {})
    )
    address = address_of(layer)
    for _ in range(clones):
        clone = call(address, CLONE, ctypes.c_void_p)
        for kind in range(questions):
            assert call(clone, CAPABILITY, ctypes.c_void_p, kind)
        call(clone, DELETE, None)
    gc.collect()
    shells = [made for made in gc.get_objects() if type(made) is type(layer) and not vars(made)]
    assert len(shells) == clones, "what is deleted keeps nothing alive"
    print("deleted", clones)


if __name__ == "__main__":
    main()
