"""Where ended instances are kept after they were purged: a folder, or an object store.

Rules:

* A record is there whole or not at all: a file is written beside its place, made durable and renamed. Object
  stores do so by themselves.
* Writing again is harmless: the name of a record follows from what it holds.
* All of this blocks; whoever has an event loop calls it in a thread.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import uuid
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from lungfish.runtime.errors import UsageError

#: Longest part of a file name that is made of an id; longer ones end in a digest.
_NAME_LENGTH_MAX: Final = 150


class Archive(Protocol):
    """Keeps records of instances."""

    def write(self, hub: str, instance: str, edition: str, record: str) -> None:
        """Keep a record; it is durable when this returns. Raises ``OSError`` and what the store raises."""
        ...

    def read(self, hub: str, instance: str) -> str | None:
        """Return the latest record of an instance; None: there is none."""
        ...


def open_archive(place: str | os.PathLike[str]) -> Archive:
    """Return the archive at a path, or at an address such as ``s3://bucket/path``; nothing is touched yet.

    Raises:
        UsageError: an address, and fsspec, or its driver for this sort of address, is not installed.
    """
    if isinstance(place, os.PathLike) or "://" not in place:
        return FolderArchive(Path(place))
    try:
        fsspec: Any = importlib.import_module("fsspec")
        system, root = fsspec.core.url_to_fs(place)
    except ImportError as error:
        raise UsageError(f"an archive at {place} needs 'pip install lungfish[archive]': {error}") from error
    except ValueError as error:
        raise UsageError(f"not an address of an archive: {place!r}: {error}") from error
    return ObjectArchive(system, str(root))


class FolderArchive:
    """See ``Archive``; in a folder of a file system."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, hub: str, instance: str, edition: str, record: str) -> None:
        """See ``Archive.write``."""
        folder = self._root / hub / file_name(instance)
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / f".{uuid.uuid4().hex}"
        try:
            with written.open("w", encoding="utf-8") as file:
                file.write(record)
                file.flush()
                os.fsync(file.fileno())
            written.replace(folder / f"{file_name(edition)}.json")
        except BaseException:
            written.unlink(missing_ok=True)
            raise
        _sync_folder(folder)

    def read(self, hub: str, instance: str) -> str | None:
        """See ``Archive.read``."""
        records = sorted((self._root / hub / file_name(instance)).glob("[!.]*.json"))
        return records[-1].read_text("utf-8") if records else None


class ObjectArchive:
    """See ``Archive``; in whatever fsspec has a driver for."""

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    def write(self, hub: str, instance: str, edition: str, record: str) -> None:
        """See ``Archive.write``."""
        folder = self._folder(hub, instance)
        self._system.makedirs(folder, exist_ok=True)
        self._system.pipe_file(f"{folder}/{file_name(edition)}.json", record.encode())

    def read(self, hub: str, instance: str) -> str | None:
        """See ``Archive.read``."""
        self._system.invalidate_cache()
        try:
            names = self._system.ls(self._folder(hub, instance), detail=False)
        except FileNotFoundError:
            return None
        records = sorted(name for name in names if name.endswith(".json"))
        return bytes(self._system.cat_file(records[-1])).decode() if records else None

    def _folder(self, hub: str, instance: str) -> str:
        return f"{self._root}/{hub}/{file_name(instance)}"


def file_name(text: str) -> str:
    """Return a name that any file system takes, another one for every text."""
    quoted = quote(text, safe="")
    if quoted.strip(".") == "":  # '.' and '..' are names of folders
        quoted = quoted.replace(".", "%2E")
    if len(quoted) <= _NAME_LENGTH_MAX:
        return quoted
    return f"{quoted[:_NAME_LENGTH_MAX]}~{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
