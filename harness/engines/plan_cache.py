"""Built plans on disk, found by a digest of everything that could change them.

An entry is two files: ``KEY.plan``, the engine's own bytes, and ``KEY.json``, a manifest that a person can read: the
fields behind the key, the plan's size and checksums. Both are written beside their place, flushed and renamed, the
manifest last, so that a process killed at any moment leaves either a whole entry or none. A lock per key lets one of
several processes build while the others wait and then read. What does not match its manifest is built again.

The key is a SHA-256 of the fields' canonical JSON. Contents (weights, plans) are hashed with XXH3-128, which keeps pace
with memory: SHA-256 over a ResNet-50's weights and plan takes a seventh of a small builder's time, on processors without
instructions for it. Each manifest holds the plan's SHA-256 too, and ``verify`` checks both.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import onnx_ir as ir
import platformdirs
import xxhash

from ..errors import CacheError

FORMAT = 1  # raised when the meaning of a field changes: every older entry is then never found again
_LOG = logging.getLogger("harness.plan_cache")
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

Fields = Mapping[str, Any]
Buffer = Any  # anything with the buffer protocol


def default_folder() -> Path:
    """Where plans are kept unless ``cache_dir=`` says otherwise; the variable MXTRT_CACHE_DIR moves it."""
    return Path(os.environ.get("MXTRT_CACHE_DIR") or platformdirs.user_cache_dir("mxtrt", appauthor=False))


# --- digests ---------------------------------------------------------------------------------------------------------


def key_of(fields: Fields) -> str:
    """The digest of named fields; their order does not matter.

    Raises:
        CacheError: a field's value is not plain data (text, numbers, booleans, None, lists and mappings of them).
    """
    return hashlib.sha256(canonical({"format": FORMAT, "fields": fields}).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys: one text for one value."""
    try:
        return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CacheError(f"a plan's key needs plain data: {error}") from None


def _plain(value: Any) -> Any:
    """The value as it would be read back from a manifest; anything that JSON would change is refused."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"the keys {list(value)} are not all text")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def content_digest(*parts: Buffer) -> str:
    """The XXH3-128 of bytes: against accidents, not against forgers."""
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def structure_digest(model: ir.Model) -> str:
    """The digest of a model without the content of its initializers: nodes, attributes, names, types and shapes."""
    digest = hashlib.sha256(repr((model.ir_version, sorted(model.opset_imports.items()))).encode())
    graph = model.graph
    for value in (*graph.inputs, *graph.outputs):
        digest.update(ir.serde.serialize_value(value).SerializeToString(deterministic=True))
    for name, value in graph.initializers.items():
        digest.update(repr((name, str(value.dtype), str(value.shape))).encode())
    for node in graph:
        digest.update(ir.serde.serialize_node(node).SerializeToString(deterministic=True))
    return digest.hexdigest()


def weights_digest(model: ir.Model, names: Sequence[str] | None = None) -> str:
    """The digest of the initializers' content, or of those named."""
    chosen = model.graph.initializers
    parts: list[Buffer] = []
    for name in sorted(chosen) if names is None else sorted(names):
        tensor = chosen[name].const_value
        if tensor is None:
            continue
        parts.append(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        parts.append(_bytes_of(tensor))
    return content_digest(*parts)


def _bytes_of(tensor: ir.TensorProtocol) -> Buffer:
    array = np.ascontiguousarray(tensor.numpy())
    return array.reshape(-1).view(np.uint8) if array.nbytes else b""


def file_digest(path: str | Path) -> str:
    """The digest of a file's content.

    Raises:
        CacheError: it cannot be read.
    """
    try:
        return content_digest(Path(path).read_bytes())
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error}") from None


# --- entries ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One plan on disk.

    Attributes:
        manifest: ``fields``, ``size``, ``xxh3_128``, ``sha256``, ``created``, and what the builder noted.
    """

    key: str
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def plan_path(self) -> Path:
        return self.folder / f"{self.key}.plan"

    @property
    def manifest_path(self) -> Path:
        return self.folder / f"{self.key}.json"

    @property
    def size(self) -> int:
        size = self.manifest.get("size")
        return size if isinstance(size, int) and size > 0 else 0

    @property
    def last_used(self) -> float:
        """Seconds since 1970: a hit touches the manifest."""
        with contextlib.suppress(OSError):
            return self.manifest_path.stat().st_mtime
        return 0.0


@dataclass(frozen=True, slots=True)
class Found:
    """A plan, and how it was come by: "hit", "built", or "built, not kept: REASON"."""

    plan: Buffer
    manifest: Mapping[str, Any]
    outcome: str


class PlanCache:
    """The plans of one folder. Safe between threads and processes.

    Raises:
        CacheError: the folder's place is taken by a file.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        if "://" in str(folder):
            raise CacheError(f"cache_dir: {folder} is a store's address; here the path of a folder is needed")
        self.folder = (Path(folder) if folder is not None else default_folder()) / "plans"
        for part in (self.folder, *self.folder.parents):
            if part.exists():
                if not part.is_dir():
                    raise CacheError(f"cache_dir: {part} is a file; name a folder")
                break

    def get(self, key: str) -> Found | None:
        """The plan of a key if its files are whole; what is damaged is removed."""
        entry = self._entry(key)
        if entry is None:
            return None
        plan = _map(entry.plan_path)
        problem = _problem(entry, plan)
        if problem or plan is None:
            _LOG.warning("the plan %s is damaged (%s) and is built again", entry.plan_path, problem)
            self.remove(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(entry.manifest_path)
        return Found(plan, entry.manifest, "hit")

    def find_or_build(self, fields: Fields, build: Callable[[], tuple[Buffer, Mapping[str, Any]]]) -> Found:
        """The plan of these fields, built by ``build`` if it is not there; it returns the plan and notes to keep.

        Of several processes one builds, the others wait for it. A folder that cannot be written is no failure: the
        plan is built and used, and a warning says that it is not kept.
        """
        key = key_of(fields)
        found = self.get(key)
        if found is not None:
            return found
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / f"{key}.lock")
            lock.acquire()
        except OSError as error:
            return self._unkept(build, error)
        try:
            found = self.get(key)  # another process may have built it meanwhile
            return found or self._build(key, fields, build)
        finally:
            lock.release()

    def _build(self, key: str, fields: Fields, build: Callable[[], tuple[Buffer, Mapping[str, Any]]]) -> Found:
        plan, notes = build()
        manifest = {
            "format": FORMAT, "fields": fields, "notes": notes, "size": memoryview(plan).nbytes,
            "xxh3_128": content_digest(plan), "sha256": hashlib.sha256(plan).hexdigest(), "created": time.time(),
        }  # fmt: skip
        try:
            self.put(key, plan, manifest)
        except OSError as error:
            return self._not_kept(plan, manifest, error)
        return Found(plan, manifest, "built")

    def _unkept(self, build: Callable[[], tuple[Buffer, Mapping[str, Any]]], error: OSError) -> Found:
        plan, notes = build()
        return self._not_kept(plan, {"notes": notes}, error)

    def _not_kept(self, plan: Buffer, manifest: Mapping[str, Any], error: OSError) -> Found:
        return Found(plan, manifest, f"built, not kept: {note_unkept('a plan', self.folder, error)}")

    def put(self, key: str, plan: Buffer, manifest: Mapping[str, Any]) -> None:
        """Write an entry; OSError if the folder cannot be written, and then nothing of it is left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"{key}.plan", plan)
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        write_whole(self.folder / f"{key}.json", text)

    def remove(self, key: str) -> None:
        """Remove an entry, the manifest first, so that no manifest is without its plan."""
        for suffix in (".json", ".plan"):
            with contextlib.suppress(OSError):
                (self.folder / (key + suffix)).unlink()

    def _entry(self, key: str) -> Entry | None:
        path = self.folder / f"{key}.json"
        try:
            manifest = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            _LOG.warning("the manifest %s is damaged (%s) and its plan is built again", path, error)
            self.remove(key)
            return None
        return Entry(key, self.folder, manifest if isinstance(manifest, dict) else {})

    def timing_path(self, platform: Fields) -> Path:
        """The file of measured tactics for one library on one GPU."""
        return self.folder.parent / "timing" / f"{key_of(platform)[:32]}.timing"

    def entries(self) -> Iterator[Entry]:
        """All entries with a manifest, in the order of their keys."""
        for path in sorted(self.folder.glob("*.json")):
            entry = self._entry(path.stem)
            if entry is not None:
                yield entry


def note_unkept(what: str, path: Path, error: OSError) -> str:
    """Warn that something built is used and not kept; the reason."""
    reason = f"{path}: {os.strerror(error.errno) if error.errno else error}"
    advice = "; make room or name another cache_dir" if error.errno in _UNWRITABLE else ""
    _LOG.warning("%s is not kept (%s)%s", what, reason, advice)
    return reason


def _map(path: Path) -> Buffer | None:
    """The file's bytes, mapped and not copied."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # ValueError: the file is empty
        return None


def _problem(entry: Entry, plan: Buffer | None) -> str:
    manifest = entry.manifest
    if plan is None:
        return "the plan is missing, empty or unreadable"
    if not isinstance(manifest.get("fields"), dict) or manifest.get("format") != FORMAT:
        return "the manifest has no fields of this format"
    if plan.nbytes != manifest.get("size"):
        return f"the plan has {plan.nbytes} bytes, the manifest says {manifest.get('size')}"
    return "" if content_digest(plan) == manifest.get("xxh3_128") else "the plan's checksum differs"


def write_whole(path: Path, data: Buffer) -> None:
    """Write a file so that its name stands for the whole content at any moment, power cuts included."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot; the rename itself stays atomic
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --- for the command line --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """An entry and what is wrong with it ("" if nothing is)."""

    entry: Entry
    problem: str


def list_entries(cache_dir: str | Path | None = None) -> list[Entry]:
    """All plans of a cache folder."""
    return list(PlanCache(cache_dir).entries())


def verify(cache_dir: str | Path | None = None) -> list[Checked]:
    """Every plan with what is wrong with it: its size, both checksums, and whether the fields give the key."""
    return [Checked(entry, _thorough_problem(entry)) for entry in list_entries(cache_dir)]


def _thorough_problem(entry: Entry) -> str:
    plan = _map(entry.plan_path)
    problem = _problem(entry, plan)
    if problem or plan is None:
        return problem
    if hashlib.sha256(plan).hexdigest() != entry.manifest.get("sha256"):
        return "the plan's SHA-256 differs"
    try:
        known = key_of(entry.manifest["fields"])
    except CacheError as error:
        return f"the manifest's fields: {error}"
    return "" if known == entry.key else "the manifest's fields do not give its name"


def prune(
    cache_dir: str | Path | None = None,
    older_than: float | None = None,
    max_bytes: int | None = None,
    damaged: bool = True,
) -> list[Entry]:
    """Remove plans and what killed processes left behind; the entries removed.

    Args:
        cache_dir: the cache's folder.
        older_than: seconds since the last use.
        max_bytes: remove the plans used longest ago until no more than this many bytes are left.
        damaged: remove what ``verify`` finds wrong.
    """
    cache = PlanCache(cache_dir)
    entries = sorted(cache.entries(), key=lambda entry: entry.last_used)
    total = sum(entry.size for entry in entries)
    removed = []
    for entry in entries:
        stale = older_than is not None and time.time() - entry.last_used > older_than
        if stale or (max_bytes is not None and total > max_bytes) or (damaged and _thorough_problem(entry)):
            cache.remove(entry.key)
            total -= entry.size
            removed.append(entry)
    _sweep(cache.folder)
    return removed


def _sweep(folder: Path, age: float = 3600.0) -> None:
    """Remove plans without a manifest, unfinished files and locks that nobody has used for an hour."""
    for path in folder.glob("*") if folder.is_dir() else ():
        orphan = path.suffix == ".plan" and not path.with_suffix(".json").exists()
        if orphan or path.suffix == ".lock" or path.name.startswith("."):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > age:
                    path.unlink()
