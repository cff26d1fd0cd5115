"""What the commands print: answers to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..jsontext import finite

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 160  # of tables that do not go to a terminal


def console(stderr: bool = False) -> Console:
    """Rich on stdout or stderr; wide where it is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _PIPE_WIDTH)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A spinner on a terminal's stderr while something is done."""
    from rich.text import Text

    with console(stderr=True).status(Text(what)):
        yield


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's stderr; gives what is called with (done, in all)."""
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def step(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield step


def show_table(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Rows as a table, or as JSON."""
    if as_json:
        print_json(list(rows))
        return
    from ..explain import table

    cells = [[", ".join(v) if isinstance(v := row[column], list) else v for column in columns] for row in rows]
    console().print(table(title, columns, cells))


def print_json(value: Any) -> None:
    """A value as JSON."""
    print(json.dumps(finite(value), indent=2, default=str))
