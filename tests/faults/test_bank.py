"""Hosts are killed while money moves and registers are written: the sum stays, some order explains it all.

``LUNGFISH_BANK=1000,64,60`` makes it 1,000 accounts, 64 clients and 60 kills. Groups of accounts are audited
under locks, all accounts together by a cut through the transfers, which holds nothing up (``app.census``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lungfish
from tests.linearizability import UNKNOWN, Operation, explains

from .app import Account, app, audit, census, transfer
from .harness import Cluster, running

ACCOUNTS, CLIENTS, KILLS = map(int, os.environ.get("LUNGFISH_BANK", "12,6,8").split(","))
#: Longest wait for one of them (s): while hosts die, and many wait before it.
WAIT_S = 120 + ACCOUNTS
#: Who writes registers: the search for an order that explains them takes long with many at once.
WRITERS = min(CLIENTS, 6)
#: Money moves inside of groups of so many accounts, so that each group can be audited.
GROUP = 6
REGISTERS = 3


class Bank:
    """Clients that transfer between few accounts, so that most of them wait for one another."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.moves: dict[str, tuple[int, int, int]] = {}
        self.audits: list[str] = []
        self.censuses: list[str] = []
        self.histories: dict[str, list[Operation]] = {}
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._transfer(n)) for n in range(CLIENTS)]
        self._tasks += [asyncio.create_task(self._write(n)) for n in range(WRITERS)]
        self._tasks += [asyncio.create_task(self._audit()), asyncio.create_task(self._count())]

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _transfer(self, teller: int) -> None:
        rng = random.Random(teller)
        async with lungfish.connect(app, url=self.cluster.store.url) as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                first = GROUP * rng.randrange(ACCOUNTS // GROUP)
                source, target = rng.sample(range(first, first + GROUP), 2)
                name, amount = f"t{teller}-{number}", rng.randint(1, 9)
                await _started(client, transfer, f"a{source}", f"a{target}", amount, id=name)
                self.moves[name] = (source, target, amount)
                if number % 10 == 0:  # a busy machine must not be asked for more than it can do
                    await _ended(client, name)
                await asyncio.sleep(0.01)

    async def _audit(self) -> None:
        async with lungfish.connect(app, url=self.cluster.store.url) as client:
            while not self._stop.is_set():
                first = GROUP * (len(self.audits) % (ACCOUNTS // GROUP))
                name = f"audit-{len(self.audits)}"
                accounts = [f"a{number}" for number in range(first, first + GROUP)]
                await _started(client, audit, accounts, id=name)
                self.audits.append(name)
                await _ended(client, name)
                await asyncio.sleep(0.05)

    async def _count(self) -> None:
        async with lungfish.connect(app, url=self.cluster.store.url) as client:
            while not self._stop.is_set():
                name = f"census-{len(self.censuses) + 1}"
                await _started(client, census, ACCOUNTS, len(self.censuses) + 1, id=name)
                self.censuses.append(name)
                await _ended(client, name)
                await asyncio.sleep(0.05)

    async def _write(self, writer: int) -> None:
        rng, number = random.Random(f"w{writer}"), writer + 1
        async with lungfish.connect(app, url=self.cluster.store.url) as client:
            while not self._stop.is_set():
                key = f"r{rng.randrange(REGISTERS)}"
                ref = client.entity(Account, key).options(timeout=rng.choice((0.5, 20.0)))
                number += WRITERS
                value = number  # nobody else writes it
                writes = rng.random() < 0.6
                began = time.monotonic()
                try:
                    told: Any = await (ref.call(Account.put, value) if writes else ref.call(Account.look))
                except (lungfish.DeadlineExceeded, lungfish.StoreUnavailable):
                    told = UNKNOWN
                self._note(key, began, told, value if writes else None)
                await asyncio.sleep(0.02)

    def _note(self, key: str, began: float, told: Any, value: int | None) -> None:
        ended = time.monotonic() if told is not UNKNOWN else float("inf")
        step = (lambda state: (state, state)) if value is None else (lambda state: (value, state))
        self.histories.setdefault(key, []).append(Operation(f"put {value}", step, told, began, ended))


async def _started(client: lungfish.Client, orchestration: Any, *args: Any, id: str) -> None:
    """Start it, once."""
    while True:
        try:
            await client.start(orchestration, *args, id=id)
            return
        except (lungfish.DeadlineExceeded, lungfish.StoreUnavailable):
            continue  # unknown: started again under the same id, which starts it once


async def _ended(client: lungfish.Client, name: str) -> None:
    """Wait until it has ended, whatever is killed meanwhile."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await client.orchestration(name).result(timeout=30)
                return
            except (lungfish.DeadlineExceeded, lungfish.StoreUnavailable):
                continue


async def _check(bank: Bank, client: lungfish.Client) -> None:
    handles = {name: client.orchestration(name) for name in bank.moves}
    results = await asyncio.gather(*(handle.result(timeout=60) for handle in handles.values()))
    assert results == [amount for _, _, amount in bank.moves.values()], "somebody came between"
    audits = [client.orchestration(name) for name in bank.audits]
    sums = await asyncio.gather(*(handle.result(timeout=60) for handle in audits))
    assert set(sums) == {0}, "an audit saw money on its way"
    counts = [client.orchestration(name).result(timeout=60) for name in bank.censuses]
    assert set(await asyncio.gather(*counts)) == {0}, "a cut went through a transfer"
    expected: dict[int, int] = dict.fromkeys(range(ACCOUNTS), 0)
    seen: Counter[tuple[int, str]] = Counter()
    for source, target, amount in bank.moves.values():
        expected[source] -= amount
        expected[target] += amount
    for number in range(ACCOUNTS):
        ref = client.entity(Account, f"a{number}")
        assert await ref.call(Account.look) == expected[number]
        status = await ref.inspect()
        assert (status.holder, status.waiting, status.operations) == (None, (), 0), "a lock was left"
        state = await ref.state()
        seen.update((number, name) for name in (state.transfers if state is not None else ()))
    assert seen == Counter(
        (end, name) for name, (source, target, _) in bank.moves.items() for end in (source, target)
    ), "every transfer is there once"
    for key, history in bank.histories.items():
        assert explains(_observed(history), 0), f"no order explains what clients were told of {key}"


def _observed(history: list[Operation]) -> list[Operation]:
    """Leave out what nobody can have noticed: on a busy machine so much of it that a search would not end.

    An operation of which nothing is known, and whose value nobody was told, may as well not have been.
    """
    told = {f"put {one.result}" for one in history if one.result is not UNKNOWN}
    return [one for one in history if one.result is not UNKNOWN or one.name in told]


@pytest.mark.slow
async def test_kills_neither_make_money_nor_leave_locks(tmp_path: Path) -> None:
    async with running(tmp_path, hosts=3, workers=1) as cluster:
        store = cluster.open_store()
        await store.open()
        await cluster.wait_owned(store)
        bank = Bank(cluster)
        bank.start()
        began_s = time.monotonic()
        rng = random.Random(2)
        for _ in range(KILLS):
            await asyncio.sleep(0.5)  # under load: kills must hit locks that are held
            victim = rng.choice(cluster.hosts)
            cluster.hosts.remove(victim)
            await victim.kill()
            await cluster.add("host")
            await cluster.wait_owned(store)
        async with asyncio.timeout(WAIT_S):  # a busy machine gets there later
            while len(bank.moves) <= 100 or len(bank.censuses) < 2:
                await asyncio.sleep(0.05)
        await bank.stop()
        took_s = time.monotonic() - began_s
        async with lungfish.connect(app, url=cluster.store.url) as client:
            assert bank.audits  # few: each needs six accounts whose hosts live
            await _check(bank, client)
            told = len(bank.moves), took_s, len(bank.audits), len(bank.censuses)
            logging.getLogger("bank").warning("%d transfers in %.0f s, %d audits, %d censuses", *told)
        await store.close()
