"""What a worker of the cluster does: ask pytest which cells there are, and have pytest run some of them.

A cell is one test of pytest. Its answer is the ``<testcase>`` that pytest itself writes, so the answer of a sweep is
pytest's by construction.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ExecutionError, OptionError

LIMIT = 1800  # seconds after which a test that hangs is ended, with its process
CHOSEN = "not slow"  # by default; with the cells for a GPU, which plain pytest leaves out
_ALL = "gpu or not gpu"  # given always: without -m, a conftest may leave cells out
_QUIET = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly")
_SOURCES = (".py", ".json", ".toml", ".params", ".csv")


@dataclass(frozen=True, slots=True)
class Cell:
    """One test.

    Attributes:
        id: pytest's node id.
        group: cells of one group share engines, and so run in one process; "" if it needs no company.
        gpu: whether it is run on each kind of GPU.
    """

    id: str
    group: str
    gpu: bool


@dataclass(slots=True)
class _Collector:
    """A plugin of pytest that notes what was collected, and writes each test's id into its record.

    With ``wanted`` it leaves the other cells out: pytest would compare each id on its command line with every test.
    """

    wanted: frozenset[str] | None = None
    cells: list[Cell] = field(default_factory=list)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.wanted is not None:
            items[:] = [item for item in items if item.nodeid in self.wanted]

    def pytest_collection_finish(self, session: Any) -> None:
        for item in session.items:
            item.user_properties.append(("cell", item.nodeid))
            group = item.get_closest_marker("xdist_group")
            name = str(group.args[0]) if group and group.args else ""
            self.cells.append(
                Cell(item.nodeid, name and f"{item.path.name}:{name}", bool(item.get_closest_marker("gpu")))
            )


def collect(paths: Sequence[str], markers: str, keyword: str) -> list[Cell]:
    """The cells that pytest finds, in its order.

    Raises:
        OptionError: pytest finds none, or cannot read a suite.
    """
    collector = _Collector()
    code, said = _pytest(["--collect-only", "-m", markers or _ALL, "-k", keyword, *paths], collector)
    if code != 0:
        raise OptionError(f"pytest finds no cells in {', '.join(paths)} (exit code {code}): {said}")
    return collector.cells


def run(ids: Sequence[str]) -> dict[str, list[str]]:
    """Cell -> the ``<testcase>`` elements that pytest wrote of it (two where its clean-up failed too).

    Raises:
        ExecutionError: pytest did not come to run them.
    """
    with tempfile.TemporaryDirectory(prefix="mxtrt-cells-") as folder:
        path = Path(folder) / "junit.xml"
        ends = ["-o", f"faulthandler_timeout={LIMIT}", "-o", "faulthandler_exit_on_timeout=true"]
        files = dict.fromkeys(cell.partition("::")[0] for cell in ids)
        code, said = _pytest([f"--junitxml={path}", "-m", _ALL, *ends, *files], _Collector(frozenset(ids)))
        if code not in (0, 1):
            raise ExecutionError(f"pytest ended with exit code {code}: {said}")
        found: dict[str, list[str]] = {}
        for case in ElementTree.parse(path).iter("testcase"):
            cell = next(p.get("value", "") for p in case.iter("property") if p.get("name") == "cell")
            found.setdefault(cell, []).append(ElementTree.tostring(case, "unicode"))
    return found


def _pytest(arguments: Sequence[str], plugin: object) -> tuple[int, str]:
    """Exit code, and the last of what it printed."""
    import pytest

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = pytest.main([*_QUIET, *arguments], plugins=[plugin])
    return int(code), printed.getvalue().strip()[-500:]


def fingerprint(names: Sequence[str]) -> str:
    """The digest of these files and all sources under these folders: results of other code are not mixed in."""
    digest = hashlib.sha256()
    found = {path for name in names for path in (Path(name), *Path(name).rglob("*"))}
    for path in sorted(path for path in found if path.suffix in _SOURCES and path.is_file()):
        digest.update(path.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
