"""The time to the first answer: from the start of a process, over imports and compiling or loading, to the first result.

A service that starts, scales out or comes back waits for this. It depends on what the process finds: MXNet's files or
a saved model, and built plans in the cache or none. Each way is a process of its own, run after run, in turns. The
files themselves are in the operating system's memory in all of them.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import sides
from .verdict import in_turns

FILES, SAVED = "MXNet's files", "saved model"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a first answer.

    Attributes:
        side: prepared.
        tree: of its commit.
        caches: a folder of plans that an earlier run has filled; None begins each run with an empty one.
    """

    name: str
    side: sides.Side
    tree: Path
    caches: Path | None

    def run(self) -> sides.Run:
        """One process. ExecutionError if it fails."""
        if self.caches is not None:
            return sides.run(self.side, self.tree, 0, 0, 1, self.caches)
        with tempfile.TemporaryDirectory(prefix="mxtrt-empty-") as empty:
            return sides.run(self.side, self.tree, 0, 0, 1, Path(empty))


@contextmanager
def ways(side: sides.Side, against: Sequence[sides.Side] = ()) -> Iterator[list[Way]]:
    """All ways to a side's first answer, and to that of peers; caches that are to be warm are filled before.

    Raises:
        HarnessError: a side cannot be prepared or run.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mxtrt-first-")))
        ready, tree = stack.enter_context(sides.prepared(side, folder))
        found = [*_twice(FILES, ready, tree, folder)] if not (Path(ready.model) / "manifest.json").is_file() else []
        saved = sides.save(ready, tree, folder / "saved.mxtrt") if found else ready
        found += _twice(SAVED, saved, tree, folder)
        for peer in against:
            other, its_tree = stack.enter_context(sides.prepared(peer, folder))
            found.append(Way(str(peer.engine), other, its_tree, None))
        for way in found:
            if way.caches is not None:
                way.run()
        yield found
        shutil.rmtree(folder, ignore_errors=True)


def _twice(name: str, side: sides.Side, tree: Path, folder: Path) -> Iterator[Way]:
    yield Way(f"{name}, empty cache", side, tree, None)
    yield Way(f"{name}, warm cache", side, tree, folder / name.replace(" ", "-"))


def measure(found: Sequence[Way], runs: int) -> Mapping[str, list[sides.Run]]:
    """``runs`` processes of each way, in turns."""
    by_name = {way.name: way for way in found}
    taken: dict[str, list[sides.Run]] = {name: [] for name in by_name}
    for name in in_turns(list(by_name), runs):
        taken[name].append(by_name[name].run())
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return taken
