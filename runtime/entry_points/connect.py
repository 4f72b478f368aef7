"""``connect`` and ``connect_sync``: from an app, an address, or a hub's name to a client."""

from __future__ import annotations

from lungfish.runtime.blocking.client import BlockingClient
from lungfish.runtime.client.client import Client
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import UsageError
from lungfish.runtime.ids import check_hub
from lungfish.runtime.on_ray.where import find_url
from lungfish.runtime.on_redis.open_store import check_url, open_store
from lungfish.runtime.store.existing import HUB_WAIT_S
from lungfish.runtime.store.store import Store


def connect(
    app: App | str | None = None,
    *,
    hub: str | None = None,
    url: str | None = None,
    wait_s: float = HUB_WAIT_S,
) -> Client:
    """Return a client of a hub: ``async with lungfish.connect(app) as client``.

    Where the store is: ``url``; else ``$LUNGFISH_REDIS_URL``; else the store of the runtime that is up on
    this process's Ray cluster; else an embedded server on ``.lungfish/``.

    Args:
        app: the app, or the store's address (``redis://…``; then ``hub`` is needed).
        hub: name of the hub; default is the app's.
        url: the store's address.
        wait_s: how long entering the block waits for a hub that does not exist yet (s): a client never makes
            one, since the hosts' number of partitions is fixed in it for ever.

    Raises:
        UsageError: neither an app nor a hub is given, or what is given is neither an app nor an address, or
            is no name of a hub (``InvalidId``).
        HubNotFound: on entering the block: no host has made the hub within ``wait_s``.
        StoreUnavailable, HubMismatch, UnsafeStore: on entering the block.
    """
    if isinstance(app, str):
        if "://" not in app:
            raise UsageError(f"connect takes an app or an address such as redis://host:6379, not {app!r}")
        app, url = None, app
    elif app is not None and not isinstance(app, App):
        raise UsageError(f"connect takes an app or an address such as redis://host:6379, not {app!r}")
    name = app.hub if app is not None and hub is None else hub
    if name is None:
        raise UsageError("connect needs an app, or an address and hub=…")
    hub_name = check_hub(name)
    check_url(url)

    async def open_found() -> Store:
        return open_store(await find_url(hub_name, url), hub_name)

    return Client(open_found, app, wait_s=wait_s)


def connect_sync(
    app: App | str | None = None,
    *,
    hub: str | None = None,
    url: str | None = None,
    wait_s: float = HUB_WAIT_S,
) -> BlockingClient:
    """Return a blocking client: ``with lungfish.connect_sync(app) as client``.

    The same calls as ``connect``'s client, without ``await``: for scripts, plain Ray actors and tasks.
    Arguments and errors as in ``connect``.
    """
    return BlockingClient(connect(app, hub=hub, url=url, wait_s=wait_s))
