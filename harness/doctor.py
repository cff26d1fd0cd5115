"""What is installed, what of it works, and what to do about the rest."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .errors import HarnessError

OK, MISSING, BROKEN = "ok", "missing", "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``advice`` is empty where nothing needs doing.

    Attributes:
        needed: whether mxtrt is of no use without it.
    """

    what: str
    state: str
    detail: str
    advice: str = ""
    needed: bool = False


def examine() -> Iterator[Finding]:
    """Look at everything, one finding at a time; nothing is changed."""
    yield _python()
    for name in ("numpy", "onnx", "onnx-ir", "ml_dtypes", "typer", "rich"):
        yield _package(name)
    yield _works("ONNX Runtime", _run_onnxruntime, "pip install onnxruntime", needed=True)
    yield _works(
        "MXNet (reference, and parts nothing lowers)", _run_mxnet, "pip install 'mxtrt[mxnet]' on Python 3.10 to 3.12"
    )
    yield _works("NVIDIA GPU", _find_gpu, "TensorRT needs an NVIDIA GPU and its driver; ONNX Runtime runs on the CPU")
    yield _library("TensorRT", "tensorrt", "pip install 'mxtrt[tensorrt]'")
    yield _library("TensorRT-RTX (checks networks without a GPU too)", "tensorrt_rtx", "pip install 'mxtrt[rtx]'")
    yield _works("plan cache", _write_cache, "set MXTRT_CACHE_DIR to a folder that can be written, or pass cache_dir=")


def healthy(findings: list[Finding]) -> bool:
    """Whether models can be compiled and run on this machine at all."""
    return all(finding.state == OK for finding in findings if finding.needed)


def _python() -> Finding:
    version, supported = platform.python_version(), sys.version_info >= (3, 10)
    detail = f"{version}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Finding("Python", OK if supported else BROKEN, detail, "" if supported else "use 3.10 or later", True)


def _package(name: str) -> Finding:
    try:
        return Finding(name, OK, metadata.version(name), needed=True)
    except metadata.PackageNotFoundError:
        return Finding(name, MISSING, "", f"pip install {name}", True)


def _works(what: str, probe: Callable[[], str], advice: str, needed: bool = False) -> Finding:
    try:
        return Finding(what, OK, probe(), needed=needed)
    except ImportError as error:
        return Finding(what, MISSING, str(error), advice, needed)
    except HarnessError as error:
        return Finding(what, MISSING, str(error), advice, needed)
    except Exception as error:  # noqa: BLE001 - a broken library may fail in any way; that is what is asked here
        return Finding(what, BROKEN, f"{type(error).__name__}: {error}", advice, needed)


def _run_onnxruntime() -> str:
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ones(2, np.float32)})
    if found.tolist() != [-1.0, -1.0]:
        raise RuntimeError(f"-1 came out as {found}")
    return f"{onnxruntime.__version__}, runs"


def _run_mxnet() -> str:
    from .frontend.compat import mxnet

    mx = mxnet()
    if (mx.nd.ones((2,)) + 1).asnumpy().tolist() != [2.0, 2.0]:
        raise RuntimeError("1 + 1 is not 2")
    return f"{mx.__version__}, runs"


def _find_gpu() -> str:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise ImportError("no NVIDIA driver") from None
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise ImportError("the NVIDIA driver is there, and no GPU")
    driver.cuDriverGetVersion(ctypes.byref(version))
    name = ctypes.create_string_buffer(128)
    driver.cuDeviceGetName(name, len(name), 0)
    return f"{count.value} x {name.value.decode()}, CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def _library(what: str, name: str, advice: str) -> Finding:
    """In a process of its own: TensorRT 10.6 ends the one that it finds no GPU in."""
    code = (
        "import sys; from harness.errors import EngineMissing; from harness.engines.tensorrt import library\n"
        f"try: print(library.find({name!r}).label)\n"
        "except EngineMissing as error: print(error, file=sys.stderr); sys.exit(3)"
    )
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return Finding(what, OK, done.stdout.strip())
    said = (done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"])[-1]
    if done.returncode == 3 and "No module named" in said:
        return Finding(what, MISSING, "", advice)
    return Finding(what, BROKEN, said, advice)


def _write_cache() -> str:
    from .engines.plan_cache import default_folder

    folder = existing = default_folder()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    with tempfile.TemporaryFile(dir=existing):
        pass
    plans = len(list(Path(folder).glob("*.plan"))) if folder.exists() else 0
    return f"{folder}, {plans} plans"
