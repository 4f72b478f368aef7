"""What all commands have in common: errors of Lungfish become one line, names may be mistyped."""

from __future__ import annotations

import difflib
from typing import IO, Any

import click

from .errors import LungfishError


class Refused(click.ClickException):
    """What a command could not do."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        label = click.style("error: ", fg="red", bold=True)
        click.echo(f"{label}{self.format_message()}", file=file, err=True)


class Commands(click.Group):
    """Turns the errors that Lungfish raises on purpose into messages, and names what was meant."""

    #: Groups within groups are of this class, too.
    group_class = type

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LungfishError as error:
            raise Refused(str(error)) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            path = ctx.command_path
            raise Refused(f"{path}: no command {args[0]!r}{did_you_mean(args[0], known)}; see {path} --help")
        return super().resolve_command(ctx, args)


def did_you_mean(given: str, known: list[str]) -> str:
    """Return ``; did you mean …?`` if something is near, else nothing."""
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
