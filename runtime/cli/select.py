"""Which instances a command is about: ids, or a query wherever ids may stand."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from lungfish.runtime.client.client import Client
from lungfish.runtime.client.queries import InstanceFilters
from lungfish.runtime.errors import UsageError
from lungfish.runtime.messages.status import RuntimeStatus, from_ms

from .hub import existing
from .output import counted

_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}
#: Ids that are shown before somebody confirms.
SHOWN: Final = 5

_OPTIONS: Final = (
    click.option(
        "--status",
        type=click.Choice([each.value for each in RuntimeStatus], case_sensitive=False),
        multiple=True,
        help="Those with this status; may be repeated.",
    ),
    click.option("--name", help="Those of this orchestration."),
    click.option("--tag", metavar="NAME=VALUE", multiple=True, help="Those with this tag; may be repeated."),
    click.option("--since", metavar="WHEN", help="Those created since: 30s, 10m, 2h, 7d, or an ISO time."),
    click.option("--prefix", default="", help="Those whose id begins with this."),
)


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked for on the command line."""

    status: tuple[str, ...] = ()
    name: str | None = None
    tag: tuple[str, ...] = ()
    since: str | None = None
    prefix: str = ""

    def __bool__(self) -> bool:
        return bool(self.status or self.name or self.tag or self.since or self.prefix)

    async def filters(self, client: Client) -> InstanceFilters:
        """Return the client's filters; raises ``UsageError``."""
        found = InstanceFilters(name=self.name, id_prefix=self.prefix)
        if self.status:
            found["status"] = [RuntimeStatus(each) for each in self.status]
        if self.tag:
            found["tags"] = dict(map(tag_of, self.tag))
        if self.since:
            found["created_after"] = when(self.since, (await client.hub_status()).now_ms)
        return found


def when(text: str, now_ms: int) -> dt.datetime:
    """Return a time: so long ago (``2h``), or an ISO time (local, unless it says otherwise).

    Raises:
        UsageError: neither of them.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h|d)", text)
    if ago:
        return from_ms(now_ms) - dt.timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    try:
        return dt.datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise UsageError(f"a time is 30s, 10m, 2h, 7d ago, or 2026-01-31T09:00, not {text!r}") from None


def tag_of(text: str) -> tuple[str, str]:
    """Return ``name=value`` as a pair; raises ``UsageError``."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"--tag is name=value, not {text!r}")
    return name, value


def query_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a query; it gets them as ``query``."""

    @functools.wraps(command)
    def call(
        *,
        status: tuple[str, ...],
        name: str | None,
        tag: tuple[str, ...],
        since: str | None,
        prefix: str,
        **others: Any,
    ) -> None:
        command(query=Query(status, name, tag, since, prefix), **others)

    made: Callable[..., None] = call
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def yes_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--yes``."""
    made: Callable[..., None] = click.option("--yes", "-y", is_flag=True, help="Do not ask first.")(command)
    return made


def dry_run_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--dry-run``."""
    made: Callable[..., None] = click.option(
        "--dry-run", is_flag=True, help="Of a query: count, and do nothing."
    )(command)
    return made


def one_of(ids: Sequence[str], query: Query, *, dry_run: bool) -> None:
    """Raise ``UsageError`` unless either ids are given, or a query, which alone can be tried out."""
    if ids and dry_run:
        raise UsageError("--dry-run counts what a query finds; it takes no instance ids")
    if bool(ids) == bool(query):
        raise UsageError("say which: instance ids, or a query (--status, --name, --tag, --since, --prefix)")


async def named(client: Client, ids: Sequence[str]) -> list[str]:
    """Return the ids that were named; raises ``InstanceNotFound``: nothing was done to any."""
    return [(await existing(client, each)).id for each in ids]


def confirm(verb: str, what: str, names: Sequence[str], *, yes: bool, count: int | None = None) -> None:
    """Ask before something that cannot be undone; ``names`` are some where ``count`` says how many it is.

    Raises:
        UsageError: nobody is there to ask.
    """
    if yes or not names:
        return
    count = len(names) if count is None else count
    shown = ", ".join(names[:SHOWN]) + (f" and {count - SHOWN} more" if count > SHOWN else "")
    click.echo(f"{verb} {counted(count, what)}: {shown}", err=True)
    try:
        agreed = click.confirm("Go on?", err=True)
    except click.Abort:
        raise UsageError(f"nobody confirmed; to {verb} without being asked, add --yes") from None
    if not agreed:
        raise UsageError("nothing was done")
