"""A message that kills its host is found and set aside; those around it are not, and nothing is lost."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

import lungfish
from lungfish.runtime.errors import UsageError
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.letters import pack_letter, unpack_letter
from lungfish.runtime.messages.messages import Signal
from lungfish.runtime.partitions.caution import ATTEMPTS_MAX, DEATHS_MAX, PATIENCE_MS, Caution, Step
from lungfish.runtime.partitions.kinds import Item, Stored
from lungfish.runtime.partitions.mailbox_rows import pack_item, unpack_item
from lungfish.runtime.store.generations import CALM_MS
from lungfish.runtime.store.store import START, Appended
from tests.unit.fakes import Clock, FakeKind, actor_in, make_partition
from tests.unit.hub import Hub, hub_of, key_in
from tests.virtual import virtually

app = lungfish.App("caution")


class Switch:
    """What the deadly operation does."""

    hub: Hub | None = None
    is_deadly = True
    deaths = 0


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def die(self) -> int:
        """Take the whole host away, as a segmentation fault does: nothing of this run reaches the store."""
        if Switch.is_deadly and Switch.hub is not None:
            Switch.deaths += 1
            for store in Switch.hub.stores.values():
                store.cut_off = True
        return self.add(100)

    async def wait(self) -> None:
        await asyncio.sleep(10**6)

    async def dawdle(self) -> int:
        await asyncio.sleep(1)
        return self.add()


POISONED, FINE, SLOW = key_in(1, "Counter"), key_in(1, "Counter", "fine"), key_in(1, "Counter", "slow")


async def let_hosts_die(hub: Hub, most: int) -> None:
    """Start hosts one after the other, until one lives for a while."""
    loop = asyncio.get_running_loop()
    for number in range(most):
        name = f"host-{number}"
        await hub.start(name)
        until_s = loop.time() + 8
        while loop.time() < until_s and not hub.stores[name].cut_off:
            await asyncio.sleep(0.01)
        if not hub.stores[name].cut_off:
            return
        await hub.kill(name)
    raise AssertionError(f"{most} hosts died")


def test_a_message_that_kills_its_host_is_set_aside_and_can_be_sent_again() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            Switch.hub, Switch.is_deadly, Switch.deaths = hub, True, 0
            # In the hub before there is a host: so it is all read in one round.
            await hub.start("first")
            await hub.settled()
            await hub.kill("first")
            async with hub.client() as client:
                poisoned, fine = client.entity(Counter, POISONED), client.entity(Counter, FINE)
                for _ in range(3):
                    await fine.signal(Counter.add)
                    await poisoned.signal(Counter.add)
                killing = asyncio.ensure_future(poisoned.options(timeout=None).call(Counter.die))
                await fine.signal(Counter.add)
                await poisoned.signal(Counter.add)
                await let_hosts_die(hub, 20)
                # What is asked gets an answer, in bounded deaths; what is around is applied, once.
                with pytest.raises(lungfish.LungfishError, match="its host died"):
                    await killing
                assert Switch.deaths <= DEATHS_MAX + ATTEMPTS_MAX + 1
                assert await fine.call(Counter.add, 0) == await poisoned.call(Counter.add, 0) == 4
                (letter,) = [letter async for letter in client.dead_letters()]
                assert (letter.target, letter.what) == (f"Counter/{POISONED}", "Call die")
                assert "its host died" in letter.reason
                assert letter.at is not None
                Switch.is_deadly = False
                await letter.replay()
                await letter.replay()
                assert await poisoned.call(Counter.add, 0) == 104
                assert [letter async for letter in client.dead_letters()] == []

    virtually(run)


def test_whoever_merely_waits_is_not_suspected() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            Switch.hub, Switch.is_deadly = hub, False
            await hub.start_all("0")
            async with hub.client() as client:
                slow = client.entity(Counter, SLOW)
                await slow.signal(Counter.wait)
                await slow.signal(Counter.add)
                await client.entity(Counter, FINE).call(Counter.add)
                for number in range(1, 2 * (DEATHS_MAX + ATTEMPTS_MAX)):
                    await hub.kill(str(number - 1))
                    await hub.start_all(str(number))
                    await asyncio.sleep(PATIENCE_MS / 1_000 * 3)
                assert [letter async for letter in client.dead_letters()] == []
                assert len(hub.row(1).mailbox) == 2

    virtually(run)


def test_hosts_that_leave_are_not_counted_as_dead() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("0")
            for number in range(1, 6):
                await hub.drain(str(number - 1))
                await hub.start_all(str(number))
            assert hub.row(1).deaths == 0

    virtually(run)


def test_what_others_of_the_host_do_meanwhile_is_not_suspected_for_long() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            Switch.hub, Switch.is_deadly, Switch.deaths = hub, True, 0
            await hub.start("first")
            await hub.settled()
            await hub.kill("first")
            async with hub.client() as client:
                others = [client.entity(Counter, key_in(n, "Counter")) for n in (0, 2, 3)]
                for other in others:
                    await other.signal(Counter.dawdle)
                await client.entity(Counter, POISONED).signal(Counter.die)
                await let_hosts_die(hub, 30)
                found = [(letter.target, letter.what) async for letter in client.dead_letters()]
                assert found == [(f"Counter/{POISONED}", "Signal die")]
                for other in others:
                    assert await other.call(Counter.add, 0) == 1

    virtually(run)


def test_caution_ends_under_a_load_that_never_ends() -> None:
    kind, clock = FakeKind(), Clock()
    partition = make_partition(kind, clock, deaths=DEATHS_MAX)
    for n in range(1_000):
        partition.accept(Signal(actor_in(0, f"a{n % 7}"), "add", b"%d" % n))
    clock.now_ms += CALM_MS
    for _ in range(10):
        while partition.busy:
            for actor in partition.wanted():
                partition.activate(actor, Stored(None))
            partition.run(100)
        if partition.dirty:
            partition.acknowledged(partition.take_commit().number)
    assert partition.backlog == 0


# --- pure ------------------------------------------------------------------------------------------


def item(row: int = 1, attempts: int = 0) -> Item:
    return Item(Signal(actor_in(0), "add", b""), row, b"", 0, attempts)


def test_the_attempt_is_durable_before_the_message_is_given() -> None:
    caution = Caution(until_ms=CALM_MS)
    caution.add(item())
    assert caution.next_step(0, 5, is_running=False) is Step.COMMIT
    caution.gate = 6
    assert caution.next_step(0, 5, is_running=False) is Step.WAIT
    assert caution.next_step(0, 6, is_running=False) is Step.GIVE
    caution.given_ms = 1
    assert caution.next_step(1, 6, is_running=True) is Step.WAIT
    assert caution.next_step(1, 6, is_running=False) is Step.CLEAR
    assert caution.next_step(1 + PATIENCE_MS, 6, is_running=True) is Step.CLEAR


def test_it_ends_when_time_is_over_and_nothing_waits() -> None:
    caution = Caution(until_ms=CALM_MS)
    assert caution.next_step(CALM_MS - 1, 0, is_running=False) is Step.WAIT
    assert caution.next_step(CALM_MS, 0, is_running=False) is Step.END
    caution.add(item(attempts=ATTEMPTS_MAX))
    assert caution.next_step(CALM_MS, 0, is_running=False) is Step.SET_ASIDE


def test_attempts_are_kept_in_the_row() -> None:
    for attempts in (0, 3):
        found = unpack_item(1, pack_item(item(attempts=attempts)))
        assert found is not None
        assert found.attempts == attempts


def test_a_cautious_partition_gives_one_message_at_a_time_each_after_its_commit() -> None:
    kind = FakeKind()
    clock = Clock()
    partition = make_partition(kind, clock, deaths=DEATHS_MAX)
    given: list[int] = []
    for n in range(3):
        partition.accept(Signal(actor_in(0, f"a{n}"), "add", b"%d" % n))
    for _ in range(20):
        while partition.busy:
            for actor in partition.wanted():
                partition.activate(actor, Stored(None))
            partition.run(100)
        given.append(len(kind.made))
        if partition.dirty:
            partition.acknowledged(partition.take_commit().number)
    assert sorted(set(given)) == [0, 1, 2, 3]
    assert partition.backlog == 0


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02\x03", b"rubbish", b"\x92\x01\x90"])
def test_letters_of_earlier_releases_have_no_reason(data: bytes) -> None:
    assert unpack_letter(data).payload == data
    assert unpack_letter(pack_letter("why", 5, data)) == unpack_letter(pack_letter("why", 5, data))
    assert unpack_letter(pack_letter("why", 5, data)).payload == data


def test_what_cannot_be_read_is_listed_and_deleted_but_not_sent() -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a")
            for n in range(250):
                hub.row(2).dead.add(n, pack_letter("broken", 1_000, b"%d" % n))
            async with hub.client() as client:
                letters = [letter async for letter in client.dead_letters()]
                assert len(letters) == 250
                assert letters[0].at == dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)
                with pytest.raises(UsageError, match="cannot be read"):
                    await letters[0].replay()
                assert await client.dead_letters().replay() == 0
                await letters[0].delete()
                await letters[0].delete()
                assert await client.dead_letters("Counter").delete() == 0
                assert await client.dead_letters().delete() == 249
                assert await client._open.store.dead(2, START, 10) == []

    virtually(run)


@pytest.mark.parametrize(
    ("outcome", "error"),
    [(Appended.FULL, lungfish.Overloaded), (Appended.UNKNOWN, lungfish.StoreUnavailable)],
)
def test_a_letter_that_cannot_be_sent_again_is_kept(outcome: Appended, error: type[Exception]) -> None:
    async def run() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a")
            async with hub.client() as client:
                payload = wire.pack([Signal(actor_in(1), "add", b"")])
                hub.row(1).dead.add(1, pack_letter("", 0, payload))
                (letter,) = [letter async for letter in client.dead_letters()]
                store: Any = client._open.store

                async def append(_appends: object) -> list[Appended]:
                    return [outcome]

                store.append = append
                with pytest.raises(error):
                    await letter.replay()
                assert len([letter async for letter in client.dead_letters()]) == 1

    virtually(run)
