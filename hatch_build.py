"""The wheel's build hook: compiles the library of harness.accelerator, so that who installs the wheel needs no compiler.

Without a compiler, or with MXTRT_PURE_WHEEL=1, the wheel is pure Python, for every platform, and the library is compiled
on first use. An editable install and a source distribution are not touched.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "harness/accelerator"


class ShimHook(BuildHookInterface[Any]):
    """Hatchling's name for it is "custom"."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or sys.platform != "linux" or os.environ.get("MXTRT_PURE_WHEEL") == "1":
            return
        shim = _shim(Path(self.root))
        self._folder = tempfile.TemporaryDirectory(prefix="mxtrt-wheel-")
        library = Path(self._folder.name) / shim.BUILT.name
        try:
            shim.compile_shim(library)
        except shim.CompileError as error:
            self.app.display_warning(f"The wheel is without the compiled library, which is made on first use: {error}")
            return
        build_data["force_include"][str(library)] = f"{FOLDER}/{library.name}"
        build_data["pure_python"] = False
        build_data["tag"] = shim.wheel_tag(library)


def _shim(root: Path) -> ModuleType:
    """harness/accelerator/shim.py by its path: what the package itself imports is not there when it is built."""
    spec = importlib.util.spec_from_file_location("mxtrt_shim", root / FOLDER / "shim.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
