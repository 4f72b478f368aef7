"""A flood of signals from many processes, while hosts and the store are killed throughout.

::

    python -m tests.faults.flood --signals 1000000 --senders 8

Every sender numbers its signals to each entity. An entity notes each that is not the next one, so a lost,
doubled or reordered signal shows, whichever it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import lungfish

from .app import Tape, app
from .harness import ROOT, Cluster, running

TAPES = 64
#: Pause between a kill and the next (s), and how often it is the store's turn.
BETWEEN_KILLS_S = 1.0
STORE_EVERY = 4


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a flood.

    Attributes:
        wrong: signals that were not the next ones; (tape, sender, last number before, number).
        missing: by tape and sender, how many acknowledged signals are not there.
    """

    signals: int
    singles: int
    host_kills: int
    store_kills: int
    took_s: float
    wrong: list[tuple[str, str, int, int]]
    missing: dict[tuple[str, str], int]


async def send(url: str, sender: str, signals: int) -> dict[str, int]:
    """Send so many; return how many were acknowledged, by tape, and the number of single ones."""
    rng = random.Random(sender)
    sent: Counter[str] = Counter()
    async with lungfish.connect(app, url=url) as client:
        left = signals
        while left:
            key = f"t{rng.randrange(TAPES)}"
            count = min(left, rng.randint(1, 500))
            numbers = [(sender, sent[key] + at) for at in range(1, count + 1)]
            tape = client.entity(Tape, key)
            # Resent by the client until its outcome is known: an error here would be a finding.
            if rng.random() < 0.5:
                await tape.signal_many(Tape.note, numbers)
            else:
                await asyncio.gather(*(tape.signal(Tape.note, *number) for number in numbers))
                sent["singles"] += count
            sent[key] += count
            left -= count
    return dict(sent)


async def _sender(url: str, sender: str, signals: int) -> dict[str, int]:
    """Run ``send`` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.flood"),
        *("--url", url, "--sender", sender, "--signals", str(signals)),
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, f"{sender} was not told the outcome of all its signals"
    sent: dict[str, int] = json.loads(told)
    return sent


async def _kill_until(cluster: Cluster, over: asyncio.Event) -> tuple[int, int]:
    """Kill hosts, and now and then the store; return how many of each."""
    rng, hosts, stores = random.Random(3), 0, 0
    while not over.is_set():
        victim = rng.choice(cluster.hosts)
        cluster.hosts.remove(victim)
        await victim.kill()
        hosts += 1
        if hosts % STORE_EVERY == 0:
            cluster.store.kill()
            await asyncio.to_thread(cluster.store.start)
            stores += 1
        await cluster.add("host")
        await asyncio.sleep(BETWEEN_KILLS_S)
    return hosts, stores


async def flood(folder: Path, signals: int, senders: int) -> Found:
    """Send, kill, and compare."""
    async with running(folder, hosts=3, workers=0) as cluster:
        began_s, over = time.monotonic(), asyncio.Event()
        killing = asyncio.create_task(_kill_until(cluster, over))
        names = [f"s{n}" for n in range(senders)]
        try:
            told = await asyncio.gather(
                *(_sender(cluster.store.url, name, signals // senders) for name in names)
            )
        finally:
            over.set()
            host_kills, store_kills = await killing
        singles = sum(sent.pop("singles", 0) for sent in told)
        wrong, missing = await _compare(cluster.store.url, dict(zip(names, told, strict=True)))
        count = sum(sum(sent.values()) for sent in told)
        took_s = time.monotonic() - began_s
    return Found(count, singles, host_kills, store_kills, took_s, wrong, missing)


async def _compare(
    url: str, sent: dict[str, dict[str, int]]
) -> tuple[list[tuple[str, str, int, int]], dict[tuple[str, str], int]]:
    wrong: list[tuple[str, str, int, int]] = []
    missing: dict[tuple[str, str], int] = {}
    async with lungfish.connect(app, url=url) as client:
        for key in sorted({key for by_key in sent.values() for key in by_key}):
            ref = client.entity(Tape, key).options(timeout=120)
            await ref.call(Tape.note, "last", 1)  # it queues behind every signal acknowledged before
            state = await ref.state()
            assert state is not None
            wrong += [(key, *what) for what in state.wrong]
            for sender, by_key in sent.items():
                if lacking := by_key.get(key, 0) - state.last.get(sender, 0):
                    missing[key, sender] = lacking
    return wrong, missing


def main() -> int:
    """Run a flood and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.flood")
    parser.add_argument("--signals", type=int, default=100_000)
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument("--sender", help="be this one (for its own use)")
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    if options.sender:
        print(json.dumps(asyncio.run(send(options.url, options.sender, options.signals))), flush=True)
        return 0
    with tempfile.TemporaryDirectory(prefix="flood-") as folder:
        found = asyncio.run(flood(Path(folder), options.signals, options.senders))
    print(found, "load", os.getloadavg(), flush=True)
    return 1 if found.wrong or found.missing else 0


if __name__ == "__main__":
    sys.exit(main())
