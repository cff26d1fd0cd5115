"""The C library between MXNet and Python: how it is compiled, where it is kept, and what a wheel brings along."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.accelerator import library, shim

HOME = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(shim.compiler() is None, reason="no C compiler here")


# --- compiling -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "no-programs").mkdir()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))


def test_without_a_compiler_the_remedy_is_named(no_compiler: None, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "shim.so"
    with pytest.raises(harness.EngineMissing, match="apt-get install gcc"):
        library._compiled(target)
    assert not target.parent.exists()


def _script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"'{path}'"


# A compiler that is not one, and what the message says of it. {} is a folder.
BROKEN: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda folder: str(folder / "missing-cc"), "missing-cc"),
    "not a program": (lambda folder: str(_not_executable(folder / "notes.txt")), "notes.txt"),
    "fails": (lambda folder: _script(folder / "cc", "echo 'no space left' >&2; exit 1"), "no space left"),
    "fails half way": (
        lambda folder: _script(folder / "cc", 'while [ "$1" != -o ]; do shift; done; echo half > "$2"; exit 1'), "failed"),
    "says no text": (lambda folder: _script(folder / "cc", r"printf '\377\376' >&2; exit 1"), "failed"),
}  # fmt: skip


def _not_executable(path: Path) -> Path:
    path.write_text("no program")
    return path


@pytest.mark.parametrize("kind", BROKEN)
def test_a_compiler_that_fails_leaves_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, text = BROKEN[kind]
    (tmp_path / "tools").mkdir()
    monkeypatch.setenv("CC", make(tmp_path / "tools"))
    target = tmp_path / "cache" / "shim.so"
    target.parent.mkdir()
    target.write_text("what was there before")
    with pytest.raises(harness.EngineMissing, match=text):
        library._compiled(target)
    assert [path.name for path in target.parent.iterdir()] == ["shim.so"]
    assert target.read_text() == "what was there before"


@needs_compiler
@pytest.mark.parametrize("name", ["plain", "with spaces and 'quotes'", "grüße-数据", "-o"])
def test_any_path_will_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which(shim.compiler()[0])  # type: ignore[index]
    tool = tmp_path / name / "cc"
    tool.parent.mkdir()
    tool.symlink_to(str(real))
    monkeypatch.setenv("CC", f'"{tool}" -DUNUSED=1')
    target = tmp_path / name / "cache" / "shim.so"
    shim.compile_shim(target)
    assert ctypes.CDLL(str(target)).mxtrt_abi() == library._ABI
    assert os.access(target, os.R_OK | os.X_OK) and target.stat().st_mode & 0o755 == 0o755


@needs_compiler
def test_several_processes_compile_at_once(tmp_path: Path) -> None:
    code = "import runpy, sys, pathlib; runpy.run_path(sys.argv[1])['compile_shim'](pathlib.Path(sys.argv[2]))"
    target = tmp_path / "cache" / "shim.so"
    command = [sys.executable, "-c", code, shim.__file__, str(target)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(6)]
    assert [(process.wait(60), process.communicate()[1]) for process in processes] == [(0, b"")] * 6
    assert [path.name for path in target.parent.iterdir()] == ["shim.so"]
    assert ctypes.CDLL(str(target)).mxtrt_abi() == library._ABI


@needs_compiler
@pytest.mark.parametrize("kind", ["a file in its way", "a file system that cannot be written"])
def test_a_cache_that_cannot_be_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" if kind.startswith("a file in") else Path("/proc/self")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(library, "BUILT", tmp_path / "none.so")
    path = library.library_path()
    assert library._open(path).mxtrt_abi() == library._ABI
    assert folder not in path.parents
    assert "for this process alone" in caplog.text and str(folder) in caplog.text


@needs_compiler
def test_it_needs_neither_python_nor_cpp_nor_a_new_libc(tmp_path: Path) -> None:
    shim.compile_shim(tmp_path / "shim.so")
    data = (tmp_path / "shim.so").read_bytes()
    assert len(data) < 64 << 10
    assert not [word for word in (b"PyObject", b"Py_", b"libstdc++", b"GLIBCXX", b"libpython") if word in data]
    assert shim.wheel_tag(tmp_path / "shim.so").startswith("py3-none-manylinux_2_17_")


def test_a_library_of_a_newer_libc_is_not_called_manylinux(tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.38\0")
    assert "manylinux" not in shim.wheel_tag(tmp_path / "a.so")


# --- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"\x7fELF but no more", b"#!/bin/sh\n"])
def test_what_is_no_library_is_refused(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "shim.so"
    path.write_bytes(text)
    with pytest.raises(harness.EngineMissing, match=r"shim\.so cannot be loaded.*delete it"):
        library._open(path)


@needs_compiler
def test_a_library_of_another_version_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "old.c"
    source.write_text("int mxtrt_abi(void) { return 1; }")
    subprocess.run([*shim.compiler(), "-shared", "-o", str(tmp_path / "old.so"), str(source)], check=True)  # type: ignore[misc]
    with pytest.raises(harness.EngineMissing, match=r"old\.so: its interface is 1"):
        library._open(tmp_path / "old.so")


PROGRAM = """
import numpy as np
from harness.frontend.compat import mxnet
mx = mxnet()
import harness.accelerator
from harness.accelerator import library
net = mx.gluon.nn.HybridSequential()
net.add(mx.gluon.nn.Dense(8, activation="relu"), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(4))
net.initialize(mx.init.Xavier())
x = mx.nd.random.uniform(-1, 1, (2, 8))
expected = net(x).asnumpy()
net.optimize_for(x, backend="TensorRT", static_alloc=True, static_shape=True)
np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-4, atol=1e-6)
print(harness.__file__, library.library_path(), sep="\\n")
"""


@needs_compiler
@pytest.mark.mxnet
def test_a_damaged_library_in_the_cache_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "the cache of grüße"
    place = folder / "mxtrt" / library.cached().name
    place.parent.mkdir(parents=True)
    place.write_bytes(b"\x7fELF half a file")
    variables = {**os.environ, "XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(HOME)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ctypes.CDLL(str(place)).mxtrt_abi() == library._ABI


# --- from a wheel ----------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.slow
@pytest.mark.mxnet
@pytest.mark.parametrize("source", ["checkout", "source distribution"])
def test_an_installed_wheel_needs_no_compiler(source: str, tmp_path: Path) -> None:
    """In an environment of its own, with the libraries of this one, no compiler on the path, and an empty cache."""
    project = HOME
    if source == "source distribution":
        _run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], HOME)
        (archive,) = tmp_path.glob("mxtrt-*.tar.gz")
        shutil.unpack_archive(archive, tmp_path / "sdist", filter="data")
        (project,) = (tmp_path / "sdist").iterdir()
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], project)
    (wheel,) = tmp_path.glob("mxtrt-*.whl")
    place = tmp_path / "environment"
    _run([sys.executable, "-m", "venv", str(place)], tmp_path)
    python = str(place / "bin" / "python")
    _run([python, "-m", "pip", "--quiet", "install", "--no-deps", "--no-index", str(wheel)], tmp_path)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(f"import site; site.addsitedir({str(Path(np.__file__).parents[1])!r})\n")
    (tmp_path / "no-programs").mkdir()
    bare = {"PATH": str(tmp_path / "no-programs"), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([python, "-c", PROGRAM], cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    module, used = map(Path, done.stdout.splitlines()[-2:])
    assert packages in module.parents and packages in used.parents
    assert not list(tmp_path.glob("cache/mxtrt/*.so"))


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_compiler
@pytest.mark.slow
@pytest.mark.mxnet
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12"])
def test_one_library_serves_every_python(version: str, tmp_path: Path) -> None:
    """A clean environment of the lock for each; all of them: ``python -m scripts.pythons``."""
    from scripts.pythons import run_one

    path = tmp_path / "cache" / "mxtrt" / library.cached().name
    shim.compile_shim(path)
    found = run_one(version, tmp_path)
    if "there is no Python" in found.get("error", ""):
        pytest.skip(found["error"])
    assert found["ok"], found
    assert found["numpy"].startswith("1.") and found["python"].startswith(version)
