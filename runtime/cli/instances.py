"""``lungfish instances …``: what can be seen of orchestration instances, and done with them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import click

from lungfish.runtime.client.batch_steps import BatchVerb
from lungfish.runtime.client.client import Client
from lungfish.runtime.client.instance_handle import OrchestrationHandle
from lungfish.runtime.errors import LungfishError, OrchestrationFailed, UsageError
from lungfish.runtime.messages.status import OrchestrationStatus

from .batches import for_all
from .chosen import ask_each, chosen, heading, instance_argument, tell
from .group import Commands
from .hub import at_hub, hub_options
from .output import Form, counted, output_option, show_json, show_rows
from .select import SHOWN, Query, confirm, dry_run_option, named, one_of, query_options, yes_option
from .where import Where

#: How often a history is looked at that is followed (s).
_FOLLOW_S: Final = 0.3
#: Longest text of an event's field.
_SHOWN_MAX: Final = 60
#: Instances that one command acts on at the same time.
_AT_ONCE: Final = 50


@click.group(cls=Commands)
def instances() -> None:
    """Orchestration instances: look at them, wait for them, steer them."""


# --- looking ---


@instances.command("list")
@query_options
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Print at most so many.")
@click.option("--oldest", is_flag=True, help="The oldest first, not the newest.")
@output_option
@hub_options
def list_(*, where: Where, query: Query, limit: int, oldest: bool, form: Form) -> None:
    """List orchestration instances, the newest first."""

    async def work(client: Client) -> None:
        filters = await query.filters(client)
        rows: list[dict[str, Any]] = []
        more = False
        async for found in client.instances(order="oldest" if oldest else "newest", **filters):
            more = len(rows) >= limit
            if more:
                break
            rows.append(row_of(found))
        show_rows(form, rows, empty=f"no such instances in hub {client.hub}")
        if more:
            click.echo(f"and more: --limit {limit * 10}", err=form != "table")

    at_hub(where, work)


def row_of(found: OrchestrationStatus) -> dict[str, Any]:
    """Return what a list tells of an instance."""
    return {
        "instance": found.instance_id,
        "orchestration": found.name,
        "status": found.runtime_status.value,
        "created": found.created_at,
        "updated": found.updated_at,
    }


@instances.command()
@instance_argument
@query_options
@output_option
@hub_options
def show(*, where: Where, instance: str | None, query: Query, form: Form) -> None:
    """Print status, what it waits for, and history of INSTANCE, or of each that a query finds."""

    async def work(client: Client) -> int:
        which = await chosen(client, instance, query)
        return await tell(which, form, lambda one: _look(client, one, form), _Seen.document, _Seen.show)

    raise SystemExit(at_hub(where, work))


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """What is shown of an instance."""

    status: OrchestrationStatus
    history: Sequence[Any]
    #: What it waits for; nothing for an end, and where nobody reads it.
    why: str
    form: Form

    def document(self) -> dict[str, Any]:
        return {**_fields(self.status), "history": [_json_event(event) for event in self.history]}

    def show(self) -> None:
        if self.form == "ids":
            click.echo(self.status.instance_id)
            return
        _print_status(self.status)
        if self.why:
            click.echo(f"why: {self.why}")
        click.echo(f"history: {counted(len(self.history), 'event')}")
        _print_events(self.history, 0)


async def _look(client: Client, id: str, form: Form) -> _Seen:
    handle = client.orchestration(id)
    found, history = await handle.status(), await handle.history()
    asked = form == "table" and not found.runtime_status.is_terminal
    return _Seen(found, history, (await handle.why()).text if asked else "", form)


def _fields(found: OrchestrationStatus) -> dict[str, Any]:
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}


def _print_status(found: OrchestrationStatus) -> None:
    click.echo(f"{found.instance_id}  {found.name}  {found.runtime_status.value}")
    click.echo(f"created {found.created_at.isoformat()}, updated {found.updated_at.isoformat()}")
    for what, value in (
        ("started by", found.parent_id),
        ("failed:", found.failure),
        ("warning:", found.warning),
    ):
        if value:
            click.echo(f"{what} {value}")
    for name, shown in (
        ("input", found.input),
        ("custom status", found.custom_status),
        ("output", found.output),
        ("tags", dict(found.tags) or None),
    ):
        if shown is not None:
            click.echo(f"{name}:")
            show_json(shown)


@instances.command()
@instance_argument
@query_options
@output_option
@hub_options
def history(*, where: Where, instance: str | None, query: Query, form: Form) -> None:
    """Print the events of INSTANCE's present execution, oldest first; with -o ids, their kinds.

    With a query in the place of INSTANCE, of each that it finds.
    """

    def show(found: Sequence[Any]) -> None:
        if form == "ids":
            for event in found:
                click.echo(type(event).__name__)
        else:
            _print_events(found, 0)

    async def work(client: Client) -> int:
        which = await chosen(client, instance, query)
        return await tell(
            which,
            form,
            lambda one: client.orchestration(one).history(),
            lambda found: [_json_event(event) for event in found],
            show,
            under="history",
        )

    raise SystemExit(at_hub(where, work))


@instances.command()
@instance_argument
@query_options
@hub_options
def events(*, where: Where, instance: str | None, query: Query) -> None:
    """Print the events of INSTANCE as they come, until it has ended.

    With a query in the place of INSTANCE, of each that it finds, one after the other.
    """

    async def work(client: Client) -> int:
        which, code = await chosen(client, instance, query), 0
        for number, id in enumerate(which.ids):
            if which.many:
                heading(id, "table", first=number == 0)
            try:
                await _follow(client.orchestration(id))
            except LungfishError as error:
                if not which.many:
                    raise
                click.echo(f"{id}: {error}", err=True)
                code = 1
        return code

    raise SystemExit(at_hub(where, work))


async def _follow(handle: OrchestrationHandle[Any]) -> None:
    shown, execution = 0, ""
    while True:
        status, found = await handle.status(), await handle.history()
        if status.execution_id != execution:
            execution, shown = status.execution_id, 0
        _print_events(found[shown:], shown)
        shown = len(found)
        if status.runtime_status.is_terminal and len(found) >= status.history_events:
            return
        await asyncio.sleep(_FOLLOW_S)


def _print_events(found: Sequence[Any], before: int) -> None:
    for number, event in enumerate(found, before + 1):
        click.echo(f"{number:>5}  {_event(event)}")


def _event(event: Any) -> str:
    """Return an event on one line: its class and those fields that say something."""
    parts = []
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if value not in (None, "", b"", 0, ()):
            text = f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
            parts.append(f"{field.name}={text[:_SHOWN_MAX]}{'…' if len(text) > _SHOWN_MAX else ''}")
    return f"{type(event).__name__}  {'  '.join(parts)}"


def _json_event(event: Any) -> dict[str, Any]:
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    return {"event": type(event).__name__, **fields}


@instances.command()
@instance_argument
@query_options
@click.option("--timeout", type=click.FloatRange(0), metavar="S", help="Longest wait (s), for all of them.")
@hub_options
def wait(*, where: Where, instance: str | None, query: Query, timeout: float | None) -> None:
    """Wait for the end of INSTANCE and print its result; exit code 1 if it did not complete.

    With a query in the place of INSTANCE, for all that it finds when this begins: each result is printed as
    it comes, one per line; exit code 1 if any did not complete, or not in time.
    """

    async def work(client: Client) -> int:
        which = await chosen(client, instance, query)
        end = None if timeout is None else time.monotonic() + timeout

        async def result(id: str) -> Any:
            left = None if end is None else max(0.0, end - time.monotonic())
            return await client.orchestration(id).result(left)

        if which.many:
            return await ask_each(which, result, "result")
        try:
            show_json(await result(which.ids[0]))
        except OrchestrationFailed as error:
            click.echo(str(error), err=True)
            return 1
        return 0

    raise SystemExit(at_hub(where, work))


# --- steering: one or many ---


def _verb(
    name: BatchVerb,
    help: str,
    act: Callable[[OrchestrationHandle[Any], str], Awaitable[object]],
    *,
    asks: bool,
) -> None:
    """Make a command that does something to instances that are named or found."""

    @instances.command(name, help=help)
    @click.argument("ids", nargs=-1, metavar="[ID]...")
    @query_options
    @click.option("--reason", default="", help="Why, for whoever reads the history.")
    @dry_run_option
    @yes_option
    @hub_options
    def command(
        *, where: Where, ids: tuple[str, ...], query: Query, reason: str, dry_run: bool, yes: bool
    ) -> None:
        async def work(client: Client) -> int:
            one_of(ids, query, dry_run=dry_run)
            if query:
                return await for_all(client, name, query, reason=reason, dry_run=dry_run, yes=yes)
            found = await named(client, ids)
            if asks:
                await asyncio.to_thread(confirm, name, "instance", found, yes=yes)
            return await each(name, found, lambda one: act(client.orchestration(one), reason))

        raise SystemExit(at_hub(where, work))

    command.__doc__ = help


async def each(verb: str, names: Sequence[str], act: Callable[[str], Awaitable[object]]) -> int:
    """Do something to each, print how it went, and return the exit code: 1 if any failed."""
    failed = 0
    for at in range(0, len(names), _AT_ONCE):
        part = names[at : at + _AT_ONCE]
        outcomes = await asyncio.gather(*map(act, part), return_exceptions=True)
        for name, outcome in zip(part, outcomes, strict=True):
            if isinstance(outcome, LungfishError):
                failed += 1
                click.echo(f"{name}: {outcome}", err=True)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                click.echo(name)
    click.echo(f"{verb}: {len(names) - failed} done" + (f", {failed} failed" if failed else ""), err=True)
    return 1 if failed else 0


_verb(
    "terminate",
    "End instances now, and their sub-orchestrations.",
    lambda h, why: h.terminate(why),
    asks=True,
)
_verb("cancel", "Ask instances to end: their cleanup code runs.", lambda h, why: h.cancel(why), asks=True)
_verb(
    "suspend",
    "Let instances take nothing in until they are resumed.",
    lambda h, why: h.suspend(why),
    asks=False,
)
_verb("resume", "Undo a suspension.", lambda h, why: h.resume(why), asks=False)
_verb(
    "rewind", "Let failed instances go on from where they failed.", lambda h, why: h.rewind(why), asks=False
)
_verb(
    "restart",
    "Start ended instances once more, with their input; their histories go.",
    lambda h, _: h.restart(),
    asks=True,
)


@instances.command()
@instance_argument
@query_options
@click.option(
    "--at", type=click.IntRange(1), required=True, help="How many events of the history it begins with."
)
@click.option("--id", "new_id", help="Its id; default: a new one.")
@hub_options
def fork(*, where: Where, instance: str | None, query: Query, at: int, new_id: str | None) -> None:
    """Start a new instance with the beginning of INSTANCE's history, and print its id.

    A query in the place of INSTANCE must find just one.
    """

    async def work(client: Client) -> None:
        which = await chosen(client, instance, query)
        if len(which.ids) != 1:
            shown = ", ".join(which.ids[:SHOWN]) or "none"
            raise UsageError(
                f"fork is about one instance, and the query finds {len(which.ids)}: {shown}"
                f"{' ...' if len(which.ids) > SHOWN else ''}; nothing was done. Name one, or ask for less"
            )
        made = await client.orchestration(which.ids[0]).fork(at=at, id=new_id)
        click.echo(made.id)

    at_hub(where, work)


@instances.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@query_options
@click.option("--recursive/--alone", default=True, help="Also purge sub-orchestrations that have ended.")
@dry_run_option
@yes_option
@hub_options
def purge(
    *, where: Where, ids: tuple[str, ...], query: Query, recursive: bool, dry_run: bool, yes: bool
) -> None:
    """Delete ended instances for good: rows, histories, everything."""

    async def work(client: Client) -> int:
        one_of(ids, query, dry_run=dry_run)
        if query:
            return await for_all(client, "purge", query, recursive=recursive, dry_run=dry_run, yes=yes)
        found = await named(client, ids)
        await asyncio.to_thread(confirm, "purge", "instance", found, yes=yes)
        return await each("purge", found, lambda one: client.purge(one, recursive=recursive))

    raise SystemExit(at_hub(where, work))
