"""What all commands have in common: errors become one line, names may be mistyped, a bare group lists."""

from __future__ import annotations

import difflib
import re
from typing import IO, Any, Final

import click

from lungfish.runtime.errors import LungfishError

#: An entity as everything prints it: ``Counter/hits``. No path and no address looks like that.
_ADDRESS: Final = re.compile(r"[A-Za-z_][\w.]*/\S")


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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """A group that lists does so when it is given no command."""
        named = args and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        if "list" in self.commands and not named and not ctx.resilient_parsing:
            args = ["list", *args]
        return super().parse_args(ctx, args)

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


class EntityCommand(click.Command):
    """Its arguments NAME KEY may also be given as one word, as an entity is printed: ``Counter/hits``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._split(args))

    def _split(self, args: list[str]) -> list[str]:
        takes = {
            name
            for one in self.params
            if isinstance(one, click.Option) and not one.is_flag
            for name in (*one.opts, *one.secondary_opts)
        }
        is_value = False
        for at, word in enumerate(args):
            if not is_value and not word.startswith("-"):
                name, _, key = word.partition("/")
                return [*args[:at], name, key, *args[at + 1 :]] if _ADDRESS.match(word) else args
            is_value = word in takes
        return args


def did_you_mean(given: str, known: list[str]) -> str:
    """Return ``; did you mean …?`` if something is near, else nothing."""
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
