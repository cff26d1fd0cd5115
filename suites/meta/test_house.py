"""The house: what is public, what an import costs, and who may import whom."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

import harness

HOME = Path(harness.__file__).parent
LIBRARY = "harness/accelerator/libmxtrt_shim.so"
MODULES = sorted(path for path in HOME.rglob("*.py"))

PUBLIC = {
    "ArtifactError", "BuildError", "CacheError", "CalibrationError", "EngineError", "EngineMissing", "ExecutionError",
    "HarnessError", "Input", "InputError", "Model", "ModelError", "OptionError", "ParameterError",
    "UnsupportedOperator", "compile", "load", "operators", "plugin", "to_onnx",
}  # fmt: skip
HEAVY = ("mxnet", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "matplotlib", "scipy")


# --- the public API --------------------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert set(harness.__all__) == PUBLIC
    assert len(harness.__all__) == len(PUBLIC)
    assert dir(harness) == list(harness.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(harness, name)
    assert found.__doc__, f"harness.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'complie'"):
        harness.complie  # noqa: B018


@pytest.mark.parametrize(
    "name", sorted(PUBLIC - {"Input", "Model", "compile", "load", "operators", "plugin", "to_onnx"})
)
def test_every_error_is_a_harness_error(name: str) -> None:
    assert issubclass(getattr(harness, name), harness.HarnessError)


def test_names_can_be_used_in_any_order() -> None:
    """``harness.operators`` is a function even after the package of that name was imported."""
    code = "import harness, harness.operators.registry; from harness import operators; assert callable(operators), operators"
    _python(code)


# --- the cost of importing -------------------------------------------------------------------------------------------


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME.parent, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _imports(code: str) -> set[str]:
    """The top-level packages that are imported after ``code``."""
    text = _python(f"{code}\nimport sys, json; print(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))")
    found: list[str] = json.loads(text.splitlines()[-1])
    return set(found)


def test_import_harness_imports_no_library() -> None:
    extra = _imports("import harness") - _imports("pass")
    assert extra <= {"harness"} | set(sys.stdlib_module_names), f"import harness also imports {sorted(extra)}"


@pytest.mark.parametrize(
    "code",
    [
        "from harness import compile, load, to_onnx, operators, Model, Input",
        "import harness.errors, harness.frontend.mxnet",
    ],
)
def test_the_compiler_needs_no_engine_until_it_builds(code: str) -> None:
    heavy = _imports(code) & set(HEAVY)
    assert not heavy, f"imports {sorted(heavy)}"


def test_the_command_line_starts_without_libraries() -> None:
    if importlib.util.find_spec("harness.cli") is None:
        pytest.skip("no command line yet")
    heavy = _imports("import harness.cli") & {*HEAVY, "numpy", "onnx", "onnx_ir"}
    assert not heavy, f"import harness.cli imports {sorted(heavy)}"


def _seconds(code: str) -> float:
    """The fastest of five fresh processes: what the machine does beside it can only add."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        _python(code)
        taken.append(time.perf_counter() - start)
    return min(taken)


def test_import_harness_is_quick() -> None:
    assert _seconds("import harness") - _seconds("pass") < 0.3


# --- what is installed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", [True, False], ids=["compiler", "no compiler"])
def test_the_wheel_is_whole(tmp_path: Path, compiler: bool) -> None:
    """Every file of the package is in it, tables and templates too, and the command; the C library if one can be made."""
    variables = {name: value for name, value in os.environ.items() if name not in ("CC", "MXTRT_PURE_WHEEL")}
    if not compiler:
        variables["PATH"] = str(tmp_path)
    elif not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler here")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=HOME.parent, check=True, capture_output=True, timeout=120, env=variables)
    (path,) = tmp_path.glob("mxtrt-*.whl")
    platforms = {tag.platform for tag in parse_wheel_filename(path.name)[3]}
    assert platforms == {"any"} or compiler
    assert all(name.startswith(("manylinux", "linux")) for name in platforms) or not compiler
    wheel = zipfile.ZipFile(path)
    inside = set(wheel.namelist())
    assert (LIBRARY in inside) is compiler
    files = {
        p.relative_to(HOME.parent).as_posix() for p in HOME.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    }
    assert not {name for name in files if not Path(name).name.startswith(".")} - inside - {LIBRARY}
    (points,) = (name for name in inside if name.endswith("entry_points.txt"))
    assert "mxtrt = harness.cli:main" in wheel.read(points).decode()
    assert {name.partition("/")[0] for name in inside} == {"harness", points.partition("/")[0]}


# --- who may import whom ---------------------------------------------------------------------------------------------


def _module_name(path: Path) -> str:
    parts = path.relative_to(HOME.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, inside functions too; not what is only for types."""
    package = _module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    tree = ast.parse(path.read_text("utf-8"))
    skipped = {id(inner) for node in ast.walk(tree) if _only_for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, node.module] if node.module else base)
            yield node.lineno, origin
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _breaches(files: str, forbidden: tuple[str, ...], except_for: tuple[str, ...] = ()) -> list[str]:
    paths = [path for path in HOME.glob(files) if path.relative_to(HOME).as_posix() not in except_for]
    assert paths, f"nothing matches {files}"
    return [
        f"{path.relative_to(HOME)}:{line} imports {name}"
        for path in paths
        for line, name in _imported(path)
        if any(name == bad or name.startswith(f"{bad}.") for bad in forbidden)
    ]


# (who, may not import, why; except for)
LAYERS = [
    ("operators/**/*.py", ("harness.engines", "onnxruntime", "tensorrt", "tensorrt_rtx"), "a lowering knows no engine", ()),
    ("operators/**/*.py", ("harness.compiler", "harness.partition", "harness.executor", "harness.model"), "nothing reaches back", ()),
    ("frontend/*.py", ("harness.engines", "harness.lowering", "harness.compiler", "harness.partition"), "nothing reaches back", ()),
    ("engines/**/*.py", ("mxnet", "harness.frontend"), "an engine never sees MXNet", ("engines/mxnet.py",)),
    ("engines/**/*.py", ("harness.compiler", "harness.executor", "harness.partition", "harness.model"), "nothing reaches back", ()),
    ("executor.py", ("onnx", "onnx_ir", "harness.graph", "harness.lowering", "harness.operators", "harness.engines.onnxruntime",
                     "harness.engines.tensorrt", "harness.engines.mxnet"), "the executor never sees ONNX", ()),
    ("partition.py", ("harness", "onnx", "onnx_ir"), "partitioning is about a graph, not about a model", ()),
    ("errors.py", ("harness", "numpy", "onnx"), "errors cost nothing", ()),
    ("**/*.py", ("mxnet",), "MXNet is imported by compat.mxnet() alone", ()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "forbidden", "why", "except_for"), LAYERS, ids=[f"{who}-{why}" for who, _, why, _ in LAYERS]
)
def test_layers(files: str, forbidden: tuple[str, ...], why: str, except_for: tuple[str, ...]) -> None:
    assert not _breaches(files, forbidden, except_for), why


def _graph(home: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, inside functions too; not what is only for types."""
    modules = {_module_name(path): path for path in sorted(home.rglob("*.py"))}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, path in modules.items():
        for origin, *taken in _statements(path):
            inside = {name for name in taken if name in modules}
            graph[module] |= inside  # `from . import submodule` needs nothing of the package itself
            if origin in modules and (len(inside) < len(taken) or not taken):
                graph[module].add(origin)
    return graph


def _statements(path: Path) -> Iterator[list[str]]:
    """Each import: the module, and then what is taken from it."""
    by_line: dict[int, list[str]] = {}
    for line, name in _imported(path):
        by_line.setdefault(line, []).append(name)
    yield from by_line.values()


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other."""
    reach = {module: set(wanted) for module, wanted in graph.items()}
    changed = True
    while changed:
        changed = False
        for module, known in reach.items():
            more = set().union(*(reach[name] for name in known)) - known if known else set()
            changed |= bool(more)
            known |= more
            reach[module] = known
    groups = {tuple(sorted(n for n in reach[m] if m in reach[n])) for m in reach if m in reach[m]}
    return [list(group) for group in sorted(groups)]


def test_no_import_circles() -> None:
    assert not _circles(_graph(HOME))


def test_circles_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that go through a function, or through a package; not those that are only for types."""
    house = tmp_path / "harness"
    (house / "sub").mkdir(parents=True)
    files = {
        "a.py": "from .b import x\n",
        "b.py": "def f():\n    from . import c\n",
        "c.py": "from .a import y\n",
        "d.py": "if TYPE_CHECKING:\n    from .e import z\n",
        "e.py": "from .d import z\n",
        "sub/__init__.py": "def f():\n    from .inner import z\n",
        "sub/inner.py": "from . import other, value\n",
        "sub/other.py": "from . import inner2\n",
        "sub/inner2.py": "",
    }
    for name, text in files.items():
        (house / name).write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "HOME", house)
    assert _circles(_graph(house)) == [["harness.a", "harness.b", "harness.c"], ["harness.sub", "harness.sub.inner"]]


def test_breaches_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above finds imports in functions and relative ones, and leaves those for types."""
    house = tmp_path / "harness"
    (house / "operators").mkdir(parents=True)
    (house / "operators" / "a.py").write_text("def f():\n    from ..engines import base\n    import onnxruntime.capi\n")
    (house / "operators" / "b.py").write_text("if TYPE_CHECKING:\n    from ..engines import base\n")
    monkeypatch.setattr(sys.modules[__name__], "HOME", house)
    found = _breaches("operators/*.py", ("harness.engines", "onnxruntime"))
    assert {line.partition(" ")[0] for line in found} == {"operators/a.py:2", "operators/a.py:3"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(HOME).as_posix())
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    if path.name != "__main__.py":
        assert ast.get_docstring(tree), f"{path.name} has no docstring"
    future = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    assert future or not tree.body[1:], "from __future__ import annotations is missing"
