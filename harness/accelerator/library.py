"""The C library between MXNet and Python: found beside this file, or compiled on first use, and loaded once."""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import logging
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import platformdirs

from ..errors import EngineMissing
from ..frontend.compat import mxnet
from .shim import BUILT, FLAGS, SOURCE, CompileError, compile_shim

_log = logging.getLogger("mxtrt")
_ABI = 3


def cached() -> Path:
    """The place of the library that was compiled from this source for this machine, in the user's cache."""
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("mxtrt")) / f"shim-{digest}-{sysconfig.get_platform()}.so"


def library_path() -> Path:
    """The library: the wheel's, or the one in the user's cache, compiled if it is not there yet.

    Where the cache cannot be written, it is compiled for this process alone.

    Raises:
        EngineMissing: it has to be compiled, and there is no C compiler, or it fails.
    """
    if BUILT.exists():
        return BUILT
    target = cached()
    return target if target.exists() else _compiled(target)


def _compiled(target: Path) -> Path:
    try:
        try:
            compile_shim(target)
        except OSError as error:
            folder = tempfile.mkdtemp(prefix="mxtrt-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            _log.warning("%s cannot be written (%s): the library is compiled for this process alone", target, error)
            target = Path(folder) / target.name
            compile_shim(target)
    except (CompileError, OSError) as error:
        raise EngineMissing(str(error)) from None
    return target


@functools.cache
def load() -> ctypes.CDLL:
    """The library, known to MXNet. MXNet refuses to load one twice, hence the cache.

    Raises:
        EngineMissing: MXNet is missing or refuses the library; or there is no library, see ``library_path``.
    """
    mx: Any = mxnet()
    path = library_path()
    try:
        library = _open(path)
    except EngineMissing:
        if path != cached():
            raise
        path = _compiled(path)  # what lay in the cache was damaged
        library = _open(path)
    library.mxtrt_hash.restype = ctypes.c_uint64
    # mx.library.load would also rebuild all operator modules, which takes 0.3 s and overwrites mx.nd.__name__.
    if mx.base._LIB.MXLoadLib(ctypes.c_char_p(str(path).encode()), ctypes.c_uint(0)):
        raise EngineMissing(f"MXNet {mx.__version__} refuses {path}: {mx.base.py_str(mx.base._LIB.MXGetLastError())}")
    return library


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        abi = library.mxtrt_abi()
    except (OSError, AttributeError) as error:
        raise EngineMissing(
            f"{path} cannot be loaded as the library of harness.accelerator ({error}); delete it, and if the folder is "
            f"mounted noexec, choose another with XDG_CACHE_HOME"
        ) from None
    if abi != _ABI:
        raise EngineMissing(f"{path}: its interface is {abi}, not {_ABI}; delete it")
    return library
