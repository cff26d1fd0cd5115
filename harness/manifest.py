"""The manifest of a saved model: what is in the folder, and the seals that tell whether it is still the same."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .errors import ArtifactError

Document = dict[str, Any]

FORMAT = 1
MANIFEST = "manifest.json"
CONSTANTS = "constants.params"


def read_manifest(folder: str | Path, verify: bool = True) -> Document:
    """The manifest of an artifact, after checking it and (with ``verify``) every file it names.

    Raises:
        ArtifactError: the folder is no saved model, a file is missing, truncated or altered, or the format is newer.
    """
    place = folder_path(folder)
    path = place / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except (OSError, RecursionError, MemoryError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); {place} is not a saved model") from None
    except ValueError as error:
        raise ArtifactError(f"{path}: truncated or altered: not JSON: {error}") from None
    _check_manifest(document, path)
    if verify:
        for name, sealed in document["files"].items():
            _check_file(place, name, sealed)
    return dict(document)


def write_manifest(folder: Path, document: Document) -> None:
    """Write the manifest of a folder, with the seals of the files that are in it."""
    sealed = {name: _seal(folder / name) for name in _files(folder) if name != MANIFEST}
    whole = {**document, "files": sealed}
    whole["digest"] = digest(whole)
    (folder / MANIFEST).write_text(json.dumps(whole, indent=1) + "\n")


def folder_path(folder: str | Path) -> Path:
    """A caller's argument as the path of a folder; ArtifactError if it cannot be one."""
    if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder) or "\0" in str(folder):
        raise ArtifactError(f"folder: {folder!r} is not the path of a folder")
    return Path(folder)


# --- seals -----------------------------------------------------------------------------------------------------------


def _files(place: Path) -> list[str]:
    """The files of a folder, by their paths in it, in order."""
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


def _seal(path: Path) -> Document:
    """Size and SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": found.hexdigest()}


def digest(document: Document) -> str:
    """The SHA-256 of a manifest without its own field ``digest``."""
    body = {key: value for key, value in document.items() if key != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _check_manifest(document: Any, path: Path) -> None:
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise ArtifactError(f"{path}: not the manifest of a saved model: it has no 'format'")
    if document["format"] > FORMAT:
        raise ArtifactError(
            f"{path}: format {document['format']}, and this version of mxtrt reads up to {FORMAT}; "
            f"update mxtrt (it was written by {document.get('versions')})"
        )
    if document.get("digest") != digest(document):
        raise ArtifactError(f"{path}: altered since it was written: its digest does not match")
    files = document.get("files")
    if not isinstance(files, dict) or not all(_is_seal(name, sealed) for name, sealed in files.items()):
        raise ArtifactError(f"{path}: its list of files is not valid")


def _is_seal(name: str, sealed: Any) -> bool:
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name
    return inside and isinstance(sealed, dict) and {"bytes", "sha256"} <= set(sealed)


def _check_file(place: Path, name: str, sealed: Document) -> None:
    path = place / name
    try:
        found = _seal(path)
    except OSError as error:
        raise ArtifactError(f"{path}: missing or unreadable: {error}") from None
    if found["bytes"] != sealed["bytes"]:
        raise ArtifactError(
            f"{path}: has {found['bytes']} bytes, had {sealed['bytes']} when it was saved; truncated or altered"
        )
    if found["sha256"] != sealed["sha256"]:
        raise ArtifactError(f"{path}: altered since it was saved: its SHA-256 does not match the manifest's")
