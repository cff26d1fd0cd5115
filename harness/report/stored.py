"""Any result that is stored as JSON, as something to show: a table where it is one, else its figures by name.

Nothing here knows a file. A document with ``columns`` and ``rows`` is a table; one whose ``results`` have ``met`` holds
figures to bars; one of steps that each have a ``verdict`` is a job's state; one whose ``cells`` name an operator and a state belongs to the operators' matrix; anything else is
walked through.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OptionError

MOST_ROWS, MOST_FACTS, MOST_CHARACTERS = 400, 60, 300
_STATES = ("status", "state", "verdict", "outcome")
_SPOKEN_OF = ("command", "commit", "columns", "rows", "results", "machine")  # shown in a place of their own


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and whether it is what it has to be."""

    what: str
    met: bool


@dataclass(slots=True)
class Document:
    """One stored file.

    Attributes:
        name: its path below the folder of reports, without the ending.
        made_by: the command, and the commit and the machine as far as they are stored.
        bars: figures that are held to something.
        facts: what else is in it, by name.
        cells: rows of the operators' matrix.
    """

    name: str
    content: Any
    made_by: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    cells: list[Mapping[str, Any]] = field(default_factory=list)
    picture: str = ""

    @property
    def anchor(self) -> str:
        return "stored-" + "".join(letter if letter.isalnum() else "-" for letter in self.name)


def load(path: Path) -> Any:
    """A file's content; None if there is none.

    Raises:
        OptionError: it is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read: {error}; remove it or make it again") from None


def documents(
    folder: Path, leave_out: Iterable[str] = ("index", "baselines", "nightly", "demo/"), under: str = ""
) -> list[Document]:
    """Every JSON file below a folder but the report's own, baselines, and what is remade at each run.

    Args:
        under: what their names begin with.
    """
    skipped = tuple(leave_out)
    found = []
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if not name.startswith(skipped):
            found.append(read(f"{under}/{name}" if under else name, load(path), path.with_suffix(".svg")))
    return found


def read(name: str, content: Any, picture: Path | None = None) -> Document:
    """A document from what a file holds."""
    found = Document(name, content)
    if picture is not None and picture.is_file():
        found.picture = picture.name
    if not isinstance(content, Mapping):
        found.facts = list(_walk({"entries": content}))[:MOST_FACTS]
        return found
    if content and all(isinstance(value, Mapping) and "verdict" in value for value in content.values()):
        return _steps(found, content)
    found.made_by = _made_by(content)
    results = content.get("results")
    rows = list(results.values()) if isinstance(results, Mapping) else results if isinstance(results, list) else []
    found.bars = [
        Bar(str(row["what"]), bool(row["met"])) for row in rows if isinstance(row, Mapping) and {"what", "met"} <= set(row)
    ]  # fmt: skip
    cells = content.get("cells")
    if (
        isinstance(cells, list)
        and cells
        and all(isinstance(c, Mapping) and {"operator", "state"} <= set(c) for c in cells)
    ):
        found.cells = cells
    if isinstance(content.get("columns"), list) and isinstance(content.get("rows"), list):
        found.columns = [str(column) for column in content["columns"]]
        found.rows = [[_text(cell) for cell in row] for row in content["rows"][:MOST_ROWS]]
    else:
        rest = {key: value for key, value in content.items() if key not in _SPOKEN_OF}
        found.facts = list(_walk(rest))[:MOST_FACTS]
    return found


def _steps(found: Document, content: Mapping[str, Mapping[str, Any]]) -> Document:
    """Steps by name, each with a verdict: those that ran are bars."""
    found.columns = ["step", "verdict", "seconds", "why"]
    found.rows = [[name, *(_text(step.get(key)) for key in found.columns[1:])] for name, step in content.items()]
    ran = {name: step["verdict"] for name, step in content.items() if step["verdict"] in ("passed", "failed")}
    found.bars = [Bar(f"{found.name}: {name}", verdict == "passed") for name, verdict in ran.items()]
    return found


def _made_by(content: Mapping[str, Any]) -> str:
    machine = content.get("machine")
    if isinstance(machine, Mapping):
        machine = ", ".join(str(machine[key]) for key in ("gpu", "cpu") if machine.get(key))
    parts = [content.get("command"), f"commit {content['commit']}" if content.get("commit") else "", machine]
    return "; ".join(str(part) for part in parts if part)


def _walk(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The figures of a document by their path; a long list as the number of its entries and what became of them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, f"{path} {key}".strip())
    elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
        yield path, _summary(value)
    elif isinstance(value, list):
        yield path, _text(", ".join(map(_text, value)))
    else:
        yield path, _text(value)


def _summary(entries: list[Any]) -> str:
    rows = [entry for entry in entries if isinstance(entry, Mapping)]
    key = next((key for key in _STATES if all(key in row for row in rows)), None) if rows else None
    counts = Counter(str(row[key]) for row in rows) if key else Counter()
    return f"{len(entries)} entries" + (
        ": " + ", ".join(f"{n} {state}" for state, n in counts.most_common()) if counts else ""
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else str(value)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
