"""Which store and which hub a command is about.

Rules:

* To *run* something, a store is started if need be. To *look*, only one that is there already is used, or one
  whose data is on disk: a mistyped folder or hub must not come into being by being looked at.
* What is started for looking is stopped afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import HubNotFound, UsageError
from lungfish.runtime.on_redis.embedded import running_daemon, start_child
from lungfish.runtime.on_redis.open_store import DATA_FOLDER, URL_VARIABLE
from lungfish.runtime.on_redis.view import RedisView

from .loading import load_app

_OPTIONS: Final = (
    click.option("--hub", metavar="NAME", help="The hub; default: the app's, or the only one in the store."),
    click.option(
        "--redis", metavar="URL", help=f"The store; default: ${URL_VARIABLE}, else an embedded one."
    ),
    click.option(
        "--data",
        metavar="FOLDER",
        type=click.Path(file_okay=False, path_type=Path),
        help=f"Where an embedded store has its data; default: {DATA_FOLDER}",
    ),
    click.option("--address", metavar="ADDR", help="A Ray cluster; 'auto' is the one of this machine."),
)


class StoreNotFound(UsageError):
    """There is no store where it was looked for."""


@dataclass(frozen=True, slots=True)
class Where:
    """What was given on the command line.

    Attributes:
        target: ``module:app``.
        redis: the store's address.
        data: folder of an embedded store; None is the usual one.
        address: a Ray cluster's.
    """

    target: str | None = None
    hub: str | None = None
    redis: str | None = None
    data: Path | None = None
    address: str | None = None

    def named_hub(self) -> str | None:
        """Return the hub that was named, by itself or by its app."""
        return self.hub or (self.app().hub if self.target else None)

    def app(self) -> App:
        """Return the app that was named, for the hub that was named."""
        if self.target is None:
            return App(self.hub or "")
        app = load_app(self.target)
        return app.with_hub(self.hub) if self.hub else app

    def folder(self) -> Path:
        """Return the folder of the embedded store."""
        return self.data or Path(DATA_FOLDER)

    def url(self) -> str | None:
        """Return the address that was given, here or in the environment; a folder given here comes first."""
        return self.redis or (None if self.data else os.environ.get(URL_VARIABLE) or None)

    @contextlib.contextmanager
    def existing_store(self) -> Iterator[str]:
        """Yield the address of a store that exists.

        Raises:
            StoreNotFound: there is none.
        """
        url = self.url() or (self._url_of_ray() if self.address else None)
        if url is not None:
            yield url
            return
        folder = self.folder()
        if running_daemon(folder) is None and not (folder / "appendonlydir").is_dir():
            raise StoreNotFound(
                f"no store: there is no data in {folder.resolve()}, and neither --redis URL nor "
                f"{URL_VARIABLE} is given. Go to the folder where the store was started, or say where it "
                "is: --redis, --data FOLDER, or --address of a Ray cluster"
            )
        with start_child(folder) as server:
            yield server.url

    def _url_of_ray(self) -> str:
        hub = self.named_hub()
        if hub is None:
            raise UsageError("--address finds the store of a hub: say which one, --hub NAME or MODULE:APP")
        from lungfish.runtime.on_ray.cluster import join, running_url

        join(self.address)
        url = running_url(hub)
        if url is None:
            raise StoreNotFound(f"no runtime of hub {hub!r} is up on the Ray cluster at {self.address}")
        return url

    async def existing_hub(self, view: RedisView) -> str:
        """Return the hub that was named, or the only one of the store.

        Raises:
            HubNotFound: it is not there, none is, or there are several.
        """
        hub = self.named_hub()
        if hub is not None:
            if await view.exists(hub):
                return hub
            others = _listed(await view.hubs()) if view.is_single else "those of a Cluster are not listed"
            raise HubNotFound(f"there is no hub {hub!r} in this store; {others}")
        hubs = await view.hubs()
        if len(hubs) != 1:
            raise HubNotFound(f"which hub? Say --hub NAME or MODULE:APP; {_listed(hubs)}")
        return hubs[0]


def where_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where; it gets them as one argument, ``where``."""

    @functools.wraps(command)
    def call(
        *,
        target: str | None = None,
        hub: str | None,
        redis: str | None,
        data: Path | None,
        address: str | None,
        **others: Any,
    ) -> None:
        command(where=Where(target, hub, redis, data, address), **others)

    made: Callable[..., None] = call
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def _listed(hubs: list[str]) -> str:
    return f"there are: {', '.join(hubs)}" if hubs else "there is none"
