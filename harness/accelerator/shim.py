"""Compiling shim.c. Only the standard library: hatch_build.py loads this file by its path, to compile for a wheel."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
BUILT = Path(__file__).with_name("libmxtrt_shim.so")  # in a wheel
FLAGS = ("-std=c99", "-O2", "-fPIC", "-shared")


class CompileError(Exception):
    """There is no C compiler, or it fails; the message says what to do."""


def compiler() -> list[str] | None:
    """The command of the C compiler: ``CC``, or the first of cc, gcc and clang that is there."""
    chosen = shlex.split(os.environ.get("CC", ""))
    return chosen or next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def compile_shim(target: Path) -> None:
    """Compile the library to ``target``; another process that does the same at once does no harm.

    Raises:
        CompileError: there is no C compiler, or it fails.
        OSError: the folder cannot be written.
    """
    found = compiler()
    if found is None:
        raise CompileError(
            "harness.accelerator needs a C compiler once, for the small library between MXNet and Python: install gcc or "
            "clang (Debian: apt-get install gcc), or set CC; or install mxtrt from a wheel that was built where there is "
            f"a compiler; or put the library, compiled elsewhere, to {BUILT}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    command = [*found, *FLAGS, "-o", partial, str(SOURCE)]
    try:
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise CompileError(f"harness.accelerator: {shlex.join(found)} cannot be run: {error}") from None
        if done.returncode:
            raise CompileError(f"harness.accelerator: {shlex.join(command)} failed: {done.stderr.strip()}")
        os.chmod(partial, 0o755)
        os.replace(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)


def wheel_tag(library: Path) -> str:
    """The tag of a wheel with this library: any Python 3, and the platforms that it runs on (PEP 600)."""
    machine = sysconfig.get_platform().partition("-")[2].replace("-", "_").replace(".", "_")
    needs = {(int(a), int(b)) for a, b in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", library.read_bytes())}
    if needs and max(needs) <= (2, 17):
        return f"py3-none-manylinux_2_17_{machine}.manylinux2014_{machine}"
    return f"py3-none-linux_{machine}"
