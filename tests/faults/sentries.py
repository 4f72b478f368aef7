"""Orchestrations that wait, on several hosts, one of which is killed: how long until each answers again.

::

    python -m tests.faults.sentries --count 1000 --hosts 4

Most wait for an event with a timer of an hour beside it; every tenth has nothing but a short timer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lungfish
from lungfish.runtime.ids import ORCHESTRATION, ActorId, partition_of
from lungfish.runtime.store.store import Store

from .app import app, sentry
from .harness import Cluster, owners, running

HOUR_S = 3_600.0
#: How long those wait to whom no event is sent (s): their timers fall into the takeover.
SHORT_S = 8.0
TIMER_EVERY = 10


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it: seconds from the kill to each answer, sorted; answers that are wrong.

    Attributes:
        orphans_s: of those that the killed host ran.
        others_s: of those on the hosts that live.
        timers: how many had nothing but a timer.
    """

    orphans_s: list[float]
    others_s: list[float]
    timers: int
    wrong: list[Any]

    def __str__(self) -> str:
        def told(times_s: list[float]) -> str:
            at = {part: times_s[int(part * (len(times_s) - 1))] for part in (0.5, 0.99, 1.0)}
            return f"{len(times_s)}: p50 {at[0.5]:.2f} s, p99 {at[0.99]:.2f} s, max {at[1.0]:.2f} s"

        return (
            f"orphans {told(self.orphans_s)}; others {told(self.others_s)}; "
            f"{self.timers} timers; wrong: {self.wrong}"
        )


async def _all_own(cluster: Cluster, store: Store) -> None:
    """Return when every host owns something: the first takes all, and gives away as others come."""
    async with asyncio.timeout(60):
        while {row.host for row in await owners(store)} != {host.id for host in cluster.hosts}:
            await asyncio.sleep(0.05)


async def _all_wait(client: lungfish.Client, count: int) -> None:
    """Return when that many instances have begun to wait."""
    async with asyncio.timeout(120):
        while await client.count_instances(status="Running") < count:
            await asyncio.sleep(0.05)


async def _answers(
    handle: lungfish.OrchestrationHandle[list[int]], number: int, began_s: float
) -> tuple[float, list[int]]:
    if number % TIMER_EVERY:
        while True:
            try:
                await handle.raise_event("go", number)
                break
            except (lungfish.StoreUnavailable, lungfish.DeadlineExceeded):
                continue  # a second event of that name would stay unread
    result = await handle.result(timeout=60)
    return time.monotonic() - began_s, result


async def _of_victim(cluster: Cluster, names: list[str]) -> tuple[Any, set[str]]:
    """Return the host that owns most, and which instances are its."""
    store = cluster.open_store()
    await store.open()
    try:
        rows = await owners(store)
    finally:
        await store.close()
    owned = {
        host.id: {
            name
            for name in names
            if rows[partition_of(ActorId(ORCHESTRATION, "", name), len(rows))].host == host.id
        }
        for host in cluster.hosts
    }
    victim = max(cluster.hosts, key=lambda host: len(owned[host.id]))
    return victim, owned[victim.id]


async def stand(folder: Path, count: int, hosts: int) -> Found:
    """Post them, kill a host, raise an event for each."""
    async with running(folder, hosts=hosts, workers=0) as cluster:
        async with lungfish.connect(app, url=cluster.store.url) as client:
            store = cluster.open_store()
            await store.open()
            await _all_own(cluster, store)
            await store.close()
            patience_s = [HOUR_S if n % TIMER_EVERY else SHORT_S for n in range(count)]
            handles = await asyncio.gather(
                *(client.start(sentry, n, patience_s[n], id=f"sentry{n}") for n in range(count))
            )
            await _all_wait(client, sum(wait_s == HOUR_S for wait_s in patience_s))
            victim, orphans = await _of_victim(cluster, [handle.id for handle in handles])
            cluster.hosts.remove(victim)
            await victim.kill()
            killed_s = time.monotonic()
            answers = await asyncio.gather(
                *(_answers(handle, n, killed_s) for n, handle in enumerate(handles))
            )
    return _judge(answers, orphans)


def _judge(answers: list[tuple[float, list[int]]], orphans: set[str]) -> Found:
    by_event = [(took_s, n) for n, (took_s, _) in enumerate(answers) if n % TIMER_EVERY]
    return Found(
        sorted(took_s for took_s, n in by_event if f"sentry{n}" in orphans),
        sorted(took_s for took_s, n in by_event if f"sentry{n}" not in orphans),
        len(answers) - len(by_event),
        [result for n, (_, result) in enumerate(answers) if result != ([n, n] if n % TIMER_EVERY else [n])],
    )


def main() -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sentries")
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--hosts", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sentries-") as folder:
        found = asyncio.run(stand(Path(folder), options.count, options.hosts))
    print(found, "load", os.getloadavg(), flush=True)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
