"""Reminders, schedules and topics in the simulation: bells that strike at times, and an ear that hears them.

Rules:

* A bell that was wound strikes as often as it was told to, at nominal times one period apart, never early.
* A schedule starts as many runs as it may, or sends as many signals.
* Whoever subscribed hears each strike once, in order.
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import lungfish
from lungfish.runtime.client.client import Client
from lungfish.runtime.declared.schedule_plan import OVERLAPS
from tests.simulation.app import app
from tests.simulation.world import world

TOPIC: Final = "bells"
#: How the ids of runs begin that schedules start.
PREFIX: Final = "bell-"
MS: Final = dt.timedelta(milliseconds=1)
SECOND: Final = dt.timedelta(seconds=1)


@app.entity
class Bell(lungfish.Entity):
    """Strikes at times, by name of who wound it."""

    strikes: dict[str, list[int]] = {}

    def wind(self, name: str, period_ms: int, count: int) -> None:
        """Strike so often, from one period from now on."""
        self.strikes[name] = []
        period = period_ms * MS
        self.context.set_reminder(
            name, period, period, operation="strike", args=[name, count], catch_up="all"
        )

    def strike(self, name: str, count: int) -> None:
        """Strike once; the last time, stop."""
        due_ms = self.context.reminders()[name].due_ms
        world().fired(f"bell {name}", due_ms)
        struck = self.strikes[name]
        struck.append(due_ms)
        self.context.topic(TOPIC).publish([name, len(struck)])
        if len(struck) == count:
            self.context.cancel_reminder(name)

    def toll(self, name: str) -> None:
        """Strike because a schedule says so."""
        self.strikes.setdefault(name, []).append(0)


@app.entity
class Ear(lungfish.Entity):
    """Hears every bell."""

    heard: list[tuple[str, int]] = []

    def hear(self, strike: tuple[str, int]) -> None:
        """Remember a strike."""
        self.heard.append(strike)


@app.orchestration
async def tolling(ctx: lungfish.OrchestrationContext, ms: int) -> int:
    """Run for a while."""
    await ctx.sleep(ms / 1_000)
    return ms


@dataclass(slots=True)
class Wound:
    """A bell that a client wound, or a schedule that it made.

    Attributes:
        heard: the ear was subscribed before.
        outcome: ``ok``, ``fail`` or ``unknown``.
    """

    name: str
    sort: str
    count: int
    period_ms: int
    heard: bool
    outcome: str = "unknown"


class Ringing:
    """What one client does with bells."""

    def __init__(self, name: str, wound: list[Wound]) -> None:
        self._name = name
        self._wound = wound
        self._subscribed = False

    async def ring(self, client: Client, rng: random.Random, patience_s: float) -> str:
        """Wind a bell, or make a schedule; return how that ended."""
        sort, count = rng.choice(("remind", "remind", "signal", "start")), rng.randint(1, 4)
        overlap: Any = rng.choice(OVERLAPS)
        ms, period_ms = rng.choice((0, 700, 1_700)), rng.choice((100, 400))
        if not self._subscribed:
            await client.topic(TOPIC).subscribe(client.entity(Ear, "ear"), Ear.hear)
            self._subscribed = True
        # Only now: another lane may have wound one while this one waited.
        wound = Wound(f"{PREFIX}{self._name}-{len(self._wound)}", sort, count, period_ms, self._subscribed)
        self._wound.append(wound)
        options: Any = {"runs": count, "catch_up": dt.timedelta(days=1)}
        create, every = client.schedules.create, lungfish.every(SECOND)
        match sort:
            case "remind":
                ref = client.entity(Bell, wound.name[-1]).options(timeout=patience_s)
                await ref.call(Bell.wind, wound.name, period_ms, count)
            case "signal":
                await create(wound.name, every, (Bell, wound.name[-1], Bell.toll), [wound.name], **options)
            case _:
                await create(wound.name, every, tolling, [ms], overlap=overlap, **options)
        wound.outcome = "ok"
        return wound.outcome


def check(
    wound: list[Wound], bells: Mapping[str, Bell], ear: Ear | None, runs: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what was lost, doubled, or came at a wrong time."""
    strikes = {name: struck for bell in bells.values() for name, struck in bell.strikes.items()}
    started: dict[str, int] = defaultdict(int)
    for run in runs:
        if run.startswith(PREFIX):
            started[run[: -len("-2023-11-14T22:13:21Z")]] += 1
    for one in wound:
        yield from _check_one(one, strikes.pop(one.name, None), started.pop(one.name, 0))
    yield from (f"unexpected: bell {name} was wound by nobody" for name in (*strikes, *started))
    if ear is not None:
        yield from _check_ear(wound, ear)


def _check_one(one: Wound, struck: list[int] | None, started: int) -> Iterator[str]:
    done = started if one.sort == "start" else len(struck or ())
    if done != one.count and (one.outcome == "ok" or done or struck is not None):
        yield f"{one.name} ({one.sort}, {one.outcome}) came {done} times, not {one.count}"
    if struck and one.sort == "remind":
        gaps = {later - earlier for earlier, later in itertools.pairwise(struck)}
        if gaps - {one.period_ms}:
            yield f"{one.name} struck at {struck}, not every {one.period_ms} ms"


def _check_ear(wound: list[Wound], ear: Ear) -> Iterator[str]:
    heard: dict[str, list[int]] = defaultdict(list)
    for name, number in ear.heard:
        heard[name].append(number)
    for one in wound:
        found = heard.pop(one.name, [])
        if one.sort != "remind":
            continue
        whole = list(range(1, one.count + 1))
        if found != whole and (one.outcome == "ok" or found):
            yield f"of {one.name} the ear heard {found}, not {whole}"
    yield from (f"unexpected: the ear heard {name}" for name in heard)
