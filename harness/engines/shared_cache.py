"""A plan cache that several hosts share: any store that fsspec knows (object store, NFS, memory), behind a local folder.

A plan is looked for in the local folder, then in the store; one that is built goes to both. In the store an entry is
one object: a digest, the manifest and the plan. It is committed whole, and on arrival its digest, the plan's size and
SHA-256, and the key that the manifest's fields give are all checked, so an entry that was cut, altered or put under
another's name is as good as none. Whatever the store does, the answer is a plan: found, or built here.

Two hosts that build the same at once both succeed, and the later one's entry stays: there is no lock across hosts.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CacheError, EngineMissing
from .plan_cache import FORMAT, Buffer, Found, PlanCache, default_folder, key_of

_LOG = logging.getLogger("harness.plan_cache")
_MAGIC = b"mxtrt-entry-1\n"
_DIGEST = 32  # bytes of a SHA-256
_LENGTH = 8  # bytes of the manifest's length
PATIENCE = 300.0  # seconds for one operation of the store; the variable MXTRT_STORE_TIMEOUT changes it
PAUSE = 60.0  # seconds for which a store that failed is left alone
T = TypeVar("T")


def open_cache(cache_dir: str | Path | None = None) -> PlanCache:
    """The cache of a folder, or of an fsspec address such as ``s3://bucket/plans`` or ``memory://plans``.

    Raises:
        CacheError: the folder's place is taken by a file, or the address is not one.
        EngineMissing: fsspec, or what it needs for this kind of address, is not installed.
    """
    address = str(cache_dir) if cache_dir is not None else os.environ.get("MXTRT_CACHE_DIR", "")
    return SharedPlanCache(address) if "://" in address else PlanCache(cache_dir)


def import_fsspec(address: str) -> Any:
    """fsspec, if it can open addresses of this kind.

    Raises:
        CacheError: there is no such kind.
        EngineMissing: a package is not installed.
    """
    protocol = address.partition("://")[0]
    try:
        fsspec = importlib.import_module("fsspec")
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise EngineMissing(
            f"{address}: cannot be opened ({error}); pip install 'mxtrt[store]' and what the message names"
        ) from None
    except ValueError as error:
        raise CacheError(
            f"{address}: {error}; fsspec knows addresses such as s3://, gs://, file:// and memory://"
        ) from None
    return fsspec


class SharedPlanCache(PlanCache):
    """See the module. Safe between threads and processes.

    Args:
        address: of the store.
        folder: the local folder (default: one for this address in the user's cache).
    """

    def __init__(self, address: str, folder: str | Path | None = None) -> None:
        self._fsspec = import_fsspec(address)
        _patience()
        self.address = address.rstrip("/")
        name = hashlib.sha256(self.address.encode()).hexdigest()[:16]
        super().__init__(folder if folder is not None else _local_home() / "shared" / name)

    def get(self, key: str) -> Found | None:
        """The plan of a key from the local folder, else from the store; what is damaged is left or removed."""
        found = super().get(key)
        if found is not None:
            return found
        data = self._attempt("reading", lambda: self._read(key))
        if not data:
            return None
        entry = unpack(data, key)
        if isinstance(entry, str):
            _LOG.warning("the plan %s is not what was stored (%s) and is built again", self._path(key), entry)
            return None
        manifest, plan = entry
        with contextlib.suppress(OSError):  # a local folder that cannot be written costs the next download, no more
            super().put(key, plan, manifest)
        return Found(plan, manifest, "hit")

    def put(self, key: str, plan: Buffer, manifest: Mapping[str, Any]) -> None:
        """Write an entry to the store and to the local folder; OSError if the local folder cannot be written."""
        self._attempt("writing", lambda: self._write(key, pack(plan, manifest)))
        super().put(key, plan, manifest)

    def remove(self, key: str) -> None:
        """Remove the local entry; the store's is written over by the next build."""
        super().remove(key)

    def _path(self, key: str) -> str:
        return f"{self.address}/{key}.entry"

    def _read(self, key: str) -> bytes:
        system, path = self._fsspec.core.url_to_fs(self._path(key))
        try:
            return bytes(system.cat_file(path))
        except FileNotFoundError:
            return b""

    def _write(self, key: str, data: bytes) -> None:
        """Put an object in its place at once: the commit of an upload, or the renaming of a file."""
        system, path = self._fsspec.core.url_to_fs(self._path(key))
        system.makedirs(system._parent(path), exist_ok=True)
        file = system.open(path, "wb", autocommit=False)
        try:
            file.write(data)
            file.close()
            file.commit()
        except BaseException:
            with contextlib.suppress(Exception):
                file.discard()
            raise

    def _attempt(self, what: str, action: Callable[[], T]) -> T | None:
        """The result of something done with the store, or None and a warning if it fails or takes too long."""
        if _paused(self.address):
            return None
        try:
            return _within(_patience(), action)
        except Exception as error:  # noqa: BLE001 - every store has exceptions of its own, and none may end an inference
            _pause(self.address)
            _LOG.warning(
                "%s the shared plan cache %s failed (%s: %s); plans are built here, and the store is left alone for %g s",
                what, self.address, type(error).__name__, error, PAUSE,
            )  # fmt: skip
            return None


def _local_home() -> Path:
    """The user's cache folder, also where the variable that moves it names the store."""
    if "://" not in os.environ.get("MXTRT_CACHE_DIR", ""):
        return default_folder()
    platformdirs = importlib.import_module("platformdirs")
    return Path(platformdirs.user_cache_dir("mxtrt", appauthor=False))


# --- entries ---------------------------------------------------------------------------------------------------------


def pack(plan: Buffer, manifest: Mapping[str, Any]) -> bytes:
    """An entry as one object."""
    text = json.dumps(manifest, sort_keys=True).encode()
    body = b"".join((len(text).to_bytes(_LENGTH, "big"), text, bytes(plan)))
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack(data: bytes, key: str) -> tuple[dict[str, Any], Buffer] | str:
    """Manifest and plan of an entry; or what is wrong with it."""
    start = len(_MAGIC) + _DIGEST
    if not data.startswith(_MAGIC):
        return "it is not an entry of this format"
    body = memoryview(data)[start:]
    if hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        return f"its digest does not match its {len(data)} bytes"
    length = int.from_bytes(body[:_LENGTH], "big")
    plan = body[_LENGTH + length :]
    try:
        manifest = json.loads(bytes(body[_LENGTH : _LENGTH + length]))
        if manifest["format"] != FORMAT or key_of(manifest["fields"]) != key:
            return "it is the plan of something else"
        if manifest["size"] != plan.nbytes or manifest["sha256"] != hashlib.sha256(plan).hexdigest():
            return "its plan is not the one of its manifest"
    except (ValueError, KeyError, TypeError, CacheError) as error:
        return f"its manifest cannot be read: {type(error).__name__}: {error}"
    return manifest, plan


# --- patience --------------------------------------------------------------------------------------------------------

_failed: dict[str, float] = {}


def _paused(address: str) -> bool:
    return time.monotonic() - _failed.get(address, float("-inf")) < PAUSE


def _pause(address: str) -> None:
    _failed[address] = time.monotonic()


def _patience() -> float:
    text = os.environ.get("MXTRT_STORE_TIMEOUT", str(PATIENCE))
    try:
        return float(text)
    except ValueError:
        raise CacheError(f"MXTRT_STORE_TIMEOUT: {text!r} is not a number of seconds") from None


def _within(seconds: float, action: Callable[[], T]) -> T:
    """The action's result; TimeoutError after so long, and the thread that hangs is left behind."""
    outcome: list[Callable[[], T]] = []

    def work() -> None:
        try:
            value = action()
            outcome.append(lambda: value)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcome.append(lambda error=error: _raise(error))  # type: ignore[misc]

    thread = threading.Thread(target=work, name="mxtrt-store", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return outcome[0]()


def _raise(error: BaseException) -> Any:
    raise error
