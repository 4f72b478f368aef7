"""``lungfish queues …``: what activity queues do, and their limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import EllipsisType
from typing import Any

import click

from lungfish.runtime.client.client import Client
from lungfish.runtime.client.queue_handle import QueueHandle
from lungfish.runtime.errors import UsageError
from lungfish.runtime.store.queues import QueueInfo

from .group import Commands
from .hub import at_hub, hub_options
from .output import Form, output_option, show_rows
from .where import Where


@click.group(cls=Commands)
def queues() -> None:
    """Activity queues: backlog, limits, pauses."""


@queues.command("list")
@output_option
@hub_options
def list_(*, where: Where, form: Form) -> None:
    """List the queues that workers serve, and those of the app (--app)."""

    async def work(client: Client) -> None:
        served = {queue for worker in (await client.hub_status()).workers for queue in worker.queues}
        declared = set(client.app.queues()) if client.app is not None else set()
        rows = [_row(await client.queue(name).info()) for name in sorted(served | declared)]
        show_rows(form, rows, empty=f"no worker serves a queue of hub {client.hub}")

    at_hub(where, work)


def _row(info: QueueInfo) -> dict[str, Any]:
    return {
        "queue": info.name,
        "waiting": info.backlog,
        "running": info.running,
        "paused": info.paused,
        "concurrency": info.limits.concurrency,
        "per worker": info.limits.worker_concurrency,
        "rate": info.limits.rate,
    }


@queues.command()
@click.argument("name")
@output_option
@hub_options
def show(*, where: Where, name: str, form: Form) -> None:
    """Print what queue NAME does now, and what holds it up."""

    async def work(client: Client) -> None:
        queue = client.queue(name)
        show_rows(form, [_row(await queue.info())], empty="")
        if form == "table":
            click.echo((await queue.why()).text)

    at_hub(where, work)


@queues.command("set")
@click.argument("name")
@click.option("--concurrency", metavar="N", help="Attempts that run at once; 'none' is unlimited.")
@click.option("--worker-concurrency", metavar="N", help="The same for each worker.")
@click.option("--rate", metavar="N", help="Attempts that begin per second.")
@output_option
@hub_options
def set_(
    *,
    where: Where,
    name: str,
    concurrency: str | None,
    worker_concurrency: str | None,
    rate: str | None,
    form: Form,
) -> None:
    """Change limits of queue NAME for good, whatever the app declares."""
    if concurrency is worker_concurrency is rate is None:
        raise UsageError("say what to set: --concurrency, --worker-concurrency, --rate")
    limits = (_limit(concurrency, int), _limit(worker_concurrency, int), _limit(rate, float))

    async def change(queue: QueueHandle) -> QueueInfo:
        return await queue.set(concurrency=limits[0], worker_concurrency=limits[1], rate=limits[2])

    _change(where, name, form, change)


def _limit(text: str | None, kind: Callable[[str], Any]) -> Any | EllipsisType:
    if text is None:
        return ...
    try:
        return None if text == "none" else kind(text)
    except ValueError:
        raise UsageError(f"a limit is a number, or 'none', not {text!r}") from None


def _change(
    where: Where, name: str, form: Form, change: Callable[[QueueHandle], Awaitable[QueueInfo]]
) -> None:
    async def work(client: Client) -> None:
        show_rows(form, [_row(await change(client.queue(name)))], empty="")

    at_hub(where, work)


def _verb(verb: str, help: str, change: Callable[[QueueHandle], Awaitable[QueueInfo]]) -> None:
    @queues.command(verb, help=help)
    @click.argument("name")
    @output_option
    @hub_options
    def command(*, where: Where, name: str, form: Form) -> None:
        _change(where, name, form, change)


_verb("pause", "Begin nothing more from queue NAME; what runs goes on.", lambda queue: queue.pause())
_verb("resume", "End a pause.", lambda queue: queue.resume())
_verb("reset", "Forget what was set: what the app declares counts again.", lambda queue: queue.reset())
