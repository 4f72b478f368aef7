"""How commands print: for people as a table, for programs as JSON, for pipes as ids only."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lungfish.runtime.errors import FailureDetails

Form: TypeAlias = Literal["table", "json", "ids"]

#: Longest text in a cell of a table.
CELL_MAX: Final = 60


def output_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``-o``; it gets ``form``."""
    option = click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["table", "json", "ids"]),
        default="table",
        show_default=True,
        help="How to print.",
    )
    made: Callable[..., None] = option(command)
    return made


def show_rows(form: Form, rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    """Print rows of one shape; the first column is the id.

    Args:
        empty: what is said to people if there are none.
    """
    match form:
        case "json":
            show_json([dict(row) for row in rows])
        case "ids":
            for row in rows:
                click.echo(next(iter(row.values())))
        case "table":
            if not rows:
                click.echo(empty)
            else:
                console().print(table_of(rows))


def counted(count: int, one: str) -> str:
    """Return a number of things in words: ``1 host``, ``2 hosts``, ``2 entities``."""
    many = f"{one[:-1]}ies" if one.endswith("y") else f"{one}s"
    return f"{count:,} {one if count == 1 else many}"


def console() -> Console:
    """Return where tables go: as wide as the terminal; what goes into a pipe is never folded."""
    made = Console()
    return made if made.is_terminal else Console(width=1_000)


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return rows as a table."""
    table = Table(box=None, pad_edge=False)
    for name, value in rows[0].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # An id that is folded cannot be copied.
        first = not table.columns
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=first)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    return table


def show_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as JSON; what JSON lacks becomes text."""
    click.echo(json.dumps(value, indent=indent, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, FailureDetails):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, set | frozenset) else str(value)


def _cell(value: Any) -> Any:
    match value:
        case None:
            text = ""
        case bool():
            text = "yes" if value else ""
        case int():
            text = f"{value:,}"
        case dt.datetime():
            text = value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case str():
            text = value
        case _:
            text = json.dumps(value, ensure_ascii=False, default=_plain)
    # Brackets are the user's own, and no markup.
    short = text if len(text) <= CELL_MAX else f"{text[: CELL_MAX - 1]}…"
    return Text(short)
