"""Whether code has changed: an app pickled by name looks the same before and after an edit."""

from __future__ import annotations

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lungfish.runtime.declared.app import App

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_STDLIB: Final = Path(sysconfig.get_path("stdlib")).resolve()


def fingerprint(app: App) -> str:
    """Return a digest of the app's source files, and of the loaded modules beside and below them.

    Installed packages are left out: they change with an installation, for all processes at once.
    """
    digest = hashlib.sha256()
    for file in sorted(_files(app)):
        digest.update(f"{file}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(app: App) -> Iterator[Path]:
    own = {file for made in _made(app) if (file := _file_of(sys.modules.get(made.__module__))) is not None}
    folders = {file.parent for file in own if not _is_installed(file)}
    for module in list(sys.modules.values()):
        file = _file_of(module)
        beside = file is not None and not _is_installed(file) and not folders.isdisjoint(file.parents)
        if file is not None and (file in own or beside):
            yield file


def _made(app: App) -> Iterator[object]:
    for definition in app.entities.values():
        yield definition.cls
    for activity in app.activities.values():
        yield inspect.unwrap(activity.function)
    for orchestration in app.orchestrations.values():
        yield inspect.unwrap(orchestration.function)


def _file_of(module: object) -> Path | None:
    name = getattr(module, "__file__", None)
    file = Path(name) if isinstance(name, str) else None
    return file.resolve() if file is not None and file.suffix == ".py" and file.is_file() else None


def _is_installed(file: Path) -> bool:
    return not _INSTALLED.isdisjoint(file.parts) or file.is_relative_to(_STDLIB)
