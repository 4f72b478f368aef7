"""``lungfish export`` and ``lungfish replay``: a history in a file, and today's code against it."""

from __future__ import annotations

import importlib
import inspect
import json
import pdb
from pathlib import Path
from typing import Any, Final

import click

from lungfish.runtime.client.client import Client
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import LungfishError, NonDeterminism, UsageError

from .chosen import chosen, instance_argument
from .hub import at_hub, hub_options
from .loading import load_app
from .select import Query, query_options
from .where import Where

#: Loaded by name: the runtime imports nothing of the orchestrations.
_EXPORTING: Final = "lungfish.orchestrations.exporting"
_REPLAYER: Final = "lungfish.orchestrations.replayer"


@click.command()
@instance_argument
@query_options
@click.option(
    "-f", "--file", type=click.Path(dir_okay=False, path_type=Path), help="Default: standard output."
)
@hub_options
def export(*, where: Where, instance: str | None, query: Query, file: Path | None) -> None:
    """Write the history of INSTANCE as JSON, for lungfish replay.

    With a query in the place of INSTANCE, of each that it finds, one per line; replay takes them all.
    """

    async def work(client: Client) -> tuple[str, int]:
        which, texts = await chosen(client, instance, query), []
        exporting = importlib.import_module(_EXPORTING)
        for id in which.ids:
            try:
                texts.append(await exporting.export_history(client.orchestration(id)))
            except LungfishError as error:
                if not which.many:
                    raise
                click.echo(f"{id}: {error}", err=True)
        lines = [json.dumps(json.loads(text)) for text in texts] if which.many else texts
        return "\n".join(lines), 0 if len(texts) == len(which.ids) else 1

    text, code = at_hub(where, work)
    if file is not None:
        file.write_text(text, "utf-8")
        click.echo(f"{file}: {len(text):,} bytes", err=True)
    elif text:
        click.echo(text)
    raise SystemExit(code)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", metavar="MODULE:APP")
@click.option("--pdb", "debug", is_flag=True, help="Stop in the debugger where the orchestration begins.")
def replay(file: Path, target: str, debug: bool) -> None:
    """Replay the history in FILE against an app's code; exit code 1 if that takes another path.

    Runs no activity and changes nothing. With --pdb the code can be walked through, as it was.
    """
    app, texts = load_app(target), _histories(file.read_text("utf-8"))
    replayer = importlib.import_module(_REPLAYER).Replayer(app)
    other = 0
    for text in texts:
        try:
            if debug:
                _debugger(app, text).runcall(replayer.replay, text)
            else:
                replayer.replay(text)
        except NonDeterminism as error:
            click.echo(str(error), err=True)
            other += 1
    if other:
        raise SystemExit(1)
    count = f" ({len(texts)} histories)" if len(texts) > 1 else ""
    click.echo(f"{file}: today's code does what the history says{count}", err=True)


def _histories(text: str) -> list[str]:
    """Return the histories of a file: one, or one per line, as ``export`` writes those of a query."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 and lines[0].rstrip().endswith("}") else [text]


def _debugger(app: App, text: str) -> pdb.Pdb:
    """Return a debugger that stops where the orchestration of a history begins."""
    debugger = pdb.Pdb()
    recorded = importlib.import_module(_EXPORTING).ExportedHistory.from_json(text).events
    began = next((event for event in recorded if type(event).__name__ == "ExecutionStarted"), None)
    if began is None:
        raise UsageError("the history has no beginning: the instance had not begun")
    code: Any = inspect.unwrap(app.code_of(began.name, began.version, pinned=began.pinned).function).__code__
    first = min(line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno)
    problem = debugger.set_break(code.co_filename, first)
    if problem:
        raise UsageError(f"cannot stop in {code.co_filename}:{first}: {problem}")
    debugger.rcLines.append("continue")  # past the first stop, which is ours
    return debugger
