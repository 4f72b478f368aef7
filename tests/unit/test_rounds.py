"""Rounds: reading ahead is bounded, and what is full holds up nobody for longer than it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.partitions import rounds as module
from lungfish.runtime.partitions.kinds import Effects, Item
from lungfish.runtime.partitions.partition import Partition
from lungfish.runtime.partitions.relay import Relay
from lungfish.runtime.partitions.rounds import Rounds
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.layout import Layout
from lungfish.runtime.store.store import Append, Entry, HubMeta, partition_target
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from tests.unit.fakes import PARTITIONS, FakeActivation, FakeKind, actor_in
from tests.virtual import virtual_server, virtually

#: One entry more than fits is read at once, and one is run per round.
NARROW = HostSettings(read_entries_max=4, buffer_entries_max=1, round_messages_max=1)


class SlowStore(MemoryStore):
    """Loads state when it is let."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, "rounds")
        self.load_gate = asyncio.Event()
        self.asked = asyncio.Event()

    async def snapshots(self, keys: Sequence[tuple[int, str, str]]) -> list[bytes | None]:
        self.asked.set()
        await self.load_gate.wait()
        return await super().snapshots(keys)


class Running:
    """The rounds of partitions 1 and 2, over a store in memory."""

    def __init__(self, kind: FakeKind | None = None) -> None:
        self.store = SlowStore(virtual_server())
        self.kind = kind or FakeKind()
        self.relay = Relay(self.store)
        self.rounds = Rounds(self.store, NARROW, lambda: 1_000, self.relay, lambda *lost: None)

    async def start(self) -> list[asyncio.Task[None]]:
        await self.store.open(HubMeta(PARTITIONS))
        for number in (1, 2):
            image = await self.store.claim(number, "host", f"token-{number}")
            partition = Partition(
                image,
                layout=Layout(HubMeta(PARTITIONS)),
                kinds={ENTITY: self.kind},
                clock=lambda: 1_000,
                wake=self.rounds.wake,
            )
            await self.rounds.add(partition)
        loops = (self.rounds.read_forever(), self.rounds.run_forever())
        return [asyncio.create_task(loop) for loop in loops]

    async def append(self, actor: ActorId, partition: int, *sequences: int) -> None:
        """Append one signal per sequence number, each an entry of its own."""
        payload = wire.pack([Signal(actor, "op", b"")])
        target = partition_target(partition)
        await self.store.append([Append(target, "test", number, (payload,)) for number in sequences])


def test_a_reader_that_waits_for_room_hears_that_what_filled_its_buffer_is_gone() -> None:
    async def run() -> None:
        here, there = actor_in(1), actor_in(2)
        running = Running()
        await running.append(here, 1, 1, 2, 3, 4)
        loops = await running.start()
        await running.store.asked.wait()
        await asyncio.sleep(1)
        full = running.rounds.get(1)
        assert full is not None
        assert full.buffered == 3, "the reader waits for room"
        # No round follows that would make any: nothing of this host is left to be run.
        running.rounds.lose(full, "another host owns it")
        running.store.load_gate.set()
        await asyncio.sleep(1)
        await running.append(there, 2, 1)
        await asyncio.sleep(1)
        assert [item.message.target for item in running.kind.made[there].seen] == [there]
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await running.rounds.close()
        await running.store.close()

    virtually(run)


def test_no_more_than_a_read_beyond_the_bound_is_read_ahead() -> None:
    async def run() -> None:
        here = actor_in(1)
        running = Running()
        await running.append(here, 1, *range(1, 31))
        loops = await running.start()
        await running.store.asked.wait()
        await asyncio.sleep(1)
        full = running.rounds.get(1)
        assert full is not None
        assert full.buffered == 3
        running.store.load_gate.set()
        ahead: list[int] = []
        while here not in running.kind.made or len(running.kind.made[here].seen) < 30:
            ahead.append(full.buffered)
            await asyncio.sleep(0)
        assert max(ahead) <= NARROW.buffer_entries_max + NARROW.read_entries_max
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await running.rounds.close()
        await running.store.close()

    virtually(run)


def test_what_is_called_after_a_commit_and_fails_harms_no_other_partition() -> None:
    def handle(_: FakeActivation, item: Item, effects: Effects) -> None:
        def broken() -> None:
            raise OSError("of no concern to the store")

        effects.after_commit(broken)
        effects.done(item)
        effects.snapshot(item.message.target, b"state")

    async def run() -> None:
        running = Running(FakeKind(handle))
        running.store.load_gate.set()
        for number in (1, 2):
            await running.append(actor_in(number), number, 1)
        loops = await running.start()
        await asyncio.sleep(1)
        assert [(p.committed, p.committing) for p in running.rounds.partitions] == [(1, False), (1, False)]
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await running.rounds.close()
        await running.store.close()

    virtually(run)


def test_a_look_at_a_server_that_is_away_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before the time of a late timer may be there, on the server that does not answer."""
    reads: list[int] = []

    async def run() -> None:
        running = Running()
        rounds, server = running.rounds, running.store.server
        reader = rounds._reader
        read = reader.read

        async def count(*args: Any, **kwargs: Any) -> dict[str, list[Entry]]:
            reads.append(1)
            return await read(*args, **kwargs)

        monkeypatch.setattr(reader, "read", count)
        reading, rounding = await running.start()
        rounding.cancel()
        two = rounds.partitions[1]
        two.timer("t", 1, Signal(actor_in(2), "op", b""))
        server.away.add(two.number)
        payload = wire.pack([Signal(actor_in(2), "op", b"before")])
        server.append("rounds", Append(two.target, "test", 1, (payload,)))
        running.store.load_gate.set()
        await rounds._round()
        assert rounds._looking == {two}
        await asyncio.sleep(60)
        assert rounds._looking == {two}, "nobody has looked there yet"
        assert len(reads) < 2 * 60 * 1_000 / NARROW.heartbeat_ms, "nor is it asked again and again"
        server.away.clear()
        async with asyncio.timeout(60):
            while not two.buffered:
                await asyncio.sleep(0.1)
        reading.cancel()
        await asyncio.gather(reading, rounding, return_exceptions=True)
        await rounds.close()
        await running.store.close()

    virtually(run)


def test_a_look_is_begun_though_another_ends_in_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the late timers would wait until the reader's long read ends by itself."""
    monkeypatch.setattr(module, "SLICE_S", -1.0)
    woken: list[int] = []

    async def run() -> None:
        running = Running()
        for loop in await running.start():
            loop.cancel()
        rounds = running.rounds
        one, two = rounds.partitions
        one.buffer([Entry("900-0", wire.pack([Signal(actor_in(1), "op", b"")]))])
        two.timer("t", 1, Signal(actor_in(2), "op", b""))
        rounds._looking.add(one)

        async def others() -> None:
            rounds._looking.discard(one)  # its read was answered; the next one, a long one, begins

        async def wake() -> None:
            woken.append(1)

        running.store.load_gate.set()
        monkeypatch.setattr(rounds, "_let_others_run", others)
        monkeypatch.setattr(rounds._reader, "wake", wake)
        await rounds._round()
        assert rounds._looking == {two}
        assert woken
        rounds.lose(two, "another host owns it")
        assert rounds._looking == set(), "what is lost is not kept in memory"
        await rounds.close()
        await running.store.close()

    virtually(run)
