"""The C library between MXNet and Python: found beside this file, or compiled on first use, and loaded once."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import platformdirs

from ..errors import EngineMissing
from ..frontend.compat import mxnet

SOURCE = Path(__file__).with_name("shim.c")
BUILT = Path(__file__).with_name("libmxtrt_shim.so")  # in a wheel
_ABI = 2
_FLAGS = ("-std=c99", "-O2", "-fPIC", "-shared")


def compile_shim(target: Path) -> None:
    """Compile the library to ``target``; another process that does the same at once does no harm.

    Raises:
        EngineMissing: there is no C compiler, or it fails.
    """
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise EngineMissing(
            "harness.accelerator needs a C compiler once, to build its 17 kB door into MXNet: install gcc or clang "
            "(Debian: apt-get install gcc), set CC, or put the library, compiled elsewhere, to " + str(BUILT)
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        command = [*compiler.split(), *_FLAGS, "-o", partial, str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineMissing(f"harness.accelerator: {' '.join(command)} failed: {done.stderr.strip()}")
        os.replace(partial, target)
    except OSError as error:
        raise EngineMissing(f"harness.accelerator: {compiler} cannot be run: {error}") from None
    finally:
        Path(partial).unlink(missing_ok=True)


def library_path() -> Path:
    """The library: the wheel's, or one compiled for this source and machine in the user's cache."""
    if BUILT.exists():
        return BUILT
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(_FLAGS).encode()).hexdigest()[:16]
    folder = Path(platformdirs.user_cache_dir("mxtrt"))
    target = folder / f"shim-{digest}-{sysconfig.get_platform()}.so"
    if not target.exists():
        compile_shim(target)
    return target


@functools.cache
def load() -> ctypes.CDLL:
    """The library, known to MXNet. MXNet refuses to load one twice, hence the cache.

    Raises:
        EngineMissing: MXNet is missing, or refuses the library.
    """
    mx: Any = mxnet()
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
        abi = library.mxtrt_abi()
    except (OSError, AttributeError) as error:
        raise EngineMissing(f"{path}: not the library of harness.accelerator ({error}); delete it") from None
    if abi != _ABI:
        raise EngineMissing(f"{path}: its interface is {abi}, not {_ABI}; delete it")
    # mx.library.load would also rebuild all operator modules, which takes 0.3 s and overwrites mx.nd.__name__.
    if mx.base._LIB.MXLoadLib(ctypes.c_char_p(str(path).encode()), ctypes.c_uint(0)):
        raise EngineMissing(f"MXNet {mx.__version__} refuses {path}: {mx.base.py_str(mx.base._LIB.MXGetLastError())}")
    return library
