"""``lungfish check``: what is wrong with orchestrations, by their source alone."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from lungfish.runtime.errors import UsageError

from .loading import load_app
from .output import counted

#: Loaded by name: the runtime imports nothing of the orchestrations.
_CHECKING: Final = "lungfish.orchestrations.checking"


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(targets: Sequence[str], form: str) -> None:
    """Find code in orchestrations that replay cannot repeat.

    A TARGET is a file, a folder, or MODULE:APP. Files are only read; an app is imported, and the files of its
    orchestrations are read. Exit code 0: nothing found; 1: something; 2: a target that cannot be checked.

    Silence a line with "# lungfish: ignore[rule]".
    """
    check_file = importlib.import_module(_CHECKING).check_file
    files = list(dict.fromkeys(file for target in targets for file in _files(target)))
    findings = [finding for file in files for finding in check_file(file)]
    if form == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(str(finding))
        click.echo(f"{counted(len(files), 'file')} checked, {counted(len(findings), 'finding')}", err=True)
    raise SystemExit(1 if findings else 0)


def _files(target: str) -> Iterator[Path]:
    path = Path(target)
    if path.is_dir():
        yield from sorted(path.rglob("*.py"))
    elif path.suffix == ".py" or path.is_file():
        if not path.is_file():
            raise UsageError(f"there is no file {target!r}")
        yield path
    else:
        yield from _files_of(load_app(target).orchestrations.values())


def _files_of(orchestrations: Any) -> Iterator[Path]:
    for orchestration in orchestrations:
        file = inspect.getsourcefile(inspect.unwrap(orchestration.function))
        if file is None:
            raise UsageError(f"there is no source file of orchestration {orchestration.name!r}")
        found = Path(file)
        yield found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found
