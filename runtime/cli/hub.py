"""How commands reach a hub: with a client like any other.

Rules:

* A hub that is not there does not come into being by a command; see ``cli.where``.
* An app (``--app``) is needed by nobody; it gives types to what is sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import click

from lungfish.runtime.client.client import Client
from lungfish.runtime.client.instance_handle import OrchestrationHandle
from lungfish.runtime.errors import InstanceNotFound, InvalidArguments
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.on_redis.view import RedisView

from .group import did_you_mean
from .where import Where, where_options

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., None])

#: Instances that are looked at for an id that was mistyped.
_NEAR_MAX: Final = 1_000


def hub_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where; it gets them as one argument, ``where``."""
    app = click.option(
        "--app", "target", metavar="MODULE:APP", help="The app: names its hub, types arguments."
    )
    made: Callable[..., None] = app(where_options(command))
    return made


def at_hub(where: Where, work: Callable[[Client], Awaitable[T]]) -> T:
    """Find store and hub, do some work with a client, and return what came of it."""

    async def working(url: str) -> T:
        async with RedisView(url) as view:
            hub = await where.existing_hub(view)
        app = where.app() if where.target else None
        async with Client(lambda: open_store(url, hub), app) as client:
            return await work(client)

    with where.existing_store() as url:
        return asyncio.run(working(url))


async def existing(client: Client, instance_id: str) -> OrchestrationHandle[Any]:
    """Return the handle of an instance that is there.

    Raises:
        InstanceNotFound: it is not; the message names those with a similar id.
    """
    handle = client.orchestration(instance_id)
    try:
        await handle.status()
    except InstanceNotFound:
        raise InstanceNotFound(await not_there(client, instance_id)) from None
    return handle


async def not_there(client: Client, instance_id: str) -> str:
    """Return what is said of an instance that is not there."""
    page = await client.instances_page(order="newest", page_size=_NEAR_MAX)
    near = did_you_mean(instance_id, [found.instance_id for found in page.items])
    return f"hub {client.hub!r} has no orchestration instance {instance_id!r}{near}"


def value_of(text: str) -> Any:
    """Return what a word on the command line means: JSON, or itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def arguments_of(words: tuple[str, ...], named: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Return arguments by position, and by name (``name=value``).

    Raises:
        InvalidArguments: a name without a value.
    """
    kwargs = {}
    for word in named:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise InvalidArguments(f"--named is name=value, not {word!r}")
        kwargs[name] = value_of(text)
    return [value_of(word) for word in words], kwargs


#: Gives a command arguments by name for somebody else: ``named``.
named_option: Final = click.option(
    "--named", metavar="NAME=VALUE", multiple=True, help="An argument by name; may be repeated."
)


def argument_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command arguments for somebody else: ``args`` and ``named``."""
    made: Callable[..., None] = click.argument("args", nargs=-1, metavar="[ARG]...")(named_option(command))
    return made
