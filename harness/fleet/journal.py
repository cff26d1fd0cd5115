"""The results of a sweep as they come in: one line of JSON each, so that an interrupted sweep goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, OptionError

CPU = "cpu"  # in place of a GPU kind


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one cell on one kind of GPU.

    Attributes:
        cell: pytest's node id.
        kind: the GPU kind, or "cpu".
        cases: pytest's ``<testcase>`` elements.
        node: the cluster's node that ran it.
        batch: the run it was part of, with how long that took in seconds.
        seconds: of the batch.
    """

    cell: str
    kind: str
    cases: tuple[str, ...]
    node: str
    batch: str
    seconds: float


class Journal:
    """A file that only grows; a line that a killed process left half written is cut off.

    Args:
        path: the file; made if it is not there.
        header: what the results are results of.

    Raises:
        OptionError: the file holds results of something else.
        ArtifactError: the file is damaged or cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.results: dict[tuple[str, str], Result] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = list(self._whole_lines())
            if lines:
                self._check_header(lines[0], header)
                for line in lines[1:]:
                    self._take(Result(**{**line, "cases": tuple(line["cases"])}))
            else:
                self._write({"mxtrt sweep": 1, **header})
        except (OSError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path}: cannot be used as the journal of a sweep: {error}") from None

    def append(self, result: Result) -> None:
        """Keep a result; it is on disk when this returns."""
        self._take(result)
        self._write(asdict(result))

    def _take(self, result: Result) -> None:
        self.results[result.kind, result.cell] = result

    def _write(self, document: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _whole_lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ArtifactError(
                    f"{self.path}: line {number} is damaged ({error}); remove the file to begin anew"
                ) from None

    def _check_header(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        if "mxtrt sweep" not in found:
            raise OptionError(f"{self.path}: is not the journal of a sweep; name another --output")
        changed = [name for name, value in wanted.items() if found.get(name) != json.loads(json.dumps(value))]
        if changed:
            raise OptionError(
                f"{self.path}: holds a sweep of other {', '.join(changed)}; its results are not this sweep's: "
                f"name another --output, or remove the file to begin anew"
            )
