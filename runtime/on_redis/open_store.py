"""A store by its address, and the embedded one. Who looks for a hub's: ``where``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lungfish.runtime.errors import UsageError
from lungfish.runtime.store.store import Store

from .link import Address
from .store import RedisStore

URL_VARIABLE: Final = "LUNGFISH_REDIS_URL"
DATA_FOLDER: Final = ".lungfish"


def open_store(url: str, hub: str, *, replicas: int = 0) -> Store:
    """Return a store handle for an address; nothing is connected yet."""
    return RedisStore(url, hub, replicas=replicas)


def check_url(url: str | None) -> None:
    """Raise ``UsageError`` for what is no store's address; None is one that is looked for."""
    if url is None:
        return
    if not isinstance(url, str):
        raise UsageError(f"url is an address such as redis://host:6379, not {url!r}")
    Address.of(url)


def embedded_url(folder: Path | None = None) -> str:
    """Return the address of the embedded server on ``folder``, after starting it if need be."""
    from .embedded import start_daemon

    return start_daemon(folder or Path(DATA_FOLDER)).url
