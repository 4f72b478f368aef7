"""``python -m tests.golden.record``: record histories that every later release must replay.

What is recorded already is left alone: it is what an earlier release made. ``--replace NAME`` throws it away.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import click

import lungfish
from lungfish.testing import environment, export_history

from . import features

FOLDER = Path(__file__).parent / "histories"

#: The examples whose ``main`` ends by itself and starts orchestrations.
EXAMPLES = (
    "approval",
    "bank",
    "chaining",
    "fan_out",
    "hello_cities",
    "monitor",
    "order_processing",
    "travel_saga",
)

NAMES = (*features.SCENARIOS, *(f"example-{name}" for name in EXAMPLES))


def app_of(file: Path) -> lungfish.App:
    """Return the app whose code made a recorded history."""
    example = next((name for name in EXAMPLES if file.stem.startswith(f"example-{name}-")), None)
    return features.app if example is None else _module(example).app


def _module(example: str) -> ModuleType:
    return importlib.import_module(f"examples.{example}")


async def histories_of(name: str) -> dict[str, str]:
    """Play a scenario, or an example; return the histories that it made, by file name."""
    example = name.removeprefix("example-")
    if example != name:
        return await _histories_of_example(_module(example), name)
    orchestration, args, play = features.SCENARIOS[name]
    app = features.app
    if name in features.OFFLOADED:
        app = app.with_hub(app.hub)
        app.payloads = lungfish.PayloadSettings(offload_bytes=features.OFFLOADED[name])
    async with environment(app, always_replay=False) as env:
        handle = await env.client.start(orchestration, *args, id=f"golden-{name}")
        await play(env.client, handle)
        recorded = env.client.orchestration(handle.id + features.HISTORY_OF.get(name, ""))
        return {f"{name}.json": await export_history(recorded)}


async def _histories_of_example(module: ModuleType, name: str) -> dict[str, str]:
    async with environment(module.app, always_replay=False) as env:
        await module.main(env.client)
        found = [instance async for instance in env.client.instances()]
        found.sort(key=lambda each: (each.name, each.created_at, each.instance_id))
        kept: dict[str, str] = {}
        for instance in found:
            numbers = (f"{name}-{instance.name}-{number}.json" for number in range(len(found)))
            file = next(file for file in numbers if file not in kept)
            kept[file] = await export_history(env.client.orchestration(instance.instance_id))
        # Of many of a kind, two will do.
        return {file: text for file, text in kept.items() if file.endswith(("-0.json", "-1.json"))}


@click.command(help=__doc__)
@click.option("--replace", multiple=True, metavar="NAME", help="Record this one anew.")
def main(replace: Sequence[str]) -> None:
    """Record what is not there yet."""
    unknown = set(replace) - set(NAMES)
    if unknown:
        raise click.BadParameter(f"there is no {', '.join(sorted(unknown))}", param_hint="--replace")
    FOLDER.mkdir(exist_ok=True)
    for name in NAMES:
        pattern = f"{name}-*.json" if name.startswith("example-") else f"{name}.json"
        if name not in replace and any(FOLDER.glob(pattern)):
            click.echo(f"{name}: kept")
            continue
        for file, text in asyncio.run(histories_of(name)).items():
            (FOLDER / file).write_text(text, "utf-8")
            click.echo(f"{file}: recorded")


if __name__ == "__main__":
    main()
