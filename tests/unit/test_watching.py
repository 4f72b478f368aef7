"""Watching entities: only what is committed, in order, the latest at least, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

import lungfish
from lungfish.entities.watching import WATCHERS_MAX, Watchers
from lungfish.runtime.client.watching import LEASE_MS, RENEW_S, WINDOW, pack_state
from lungfish.runtime.errors import Overloaded
from lungfish.runtime.ids import CLIENT, ActorId
from lungfish.runtime.messages.messages import EntityControl, Response
from lungfish.runtime.store.store import Commit
from tests.unit.entities.fakes import Host as OneEntity
from tests.unit.hub import Hub, hub_of, key_in
from tests.virtual import virtually

app = lungfish.App("watching")


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def fail(self) -> None:
        self.value += 1_000
        raise ValueError("no")

    async def fail_slowly(self) -> None:
        self.value += 1_000
        await asyncio.sleep(0.2)
        raise ValueError("no")

    def forget(self) -> None:
        self.context.delete()


KEY = key_in(1, "Counter")
Test = Callable[[Hub, lungfish.Client], Coroutine[Any, Any, None]]


def with_hub(*hosts: str) -> Callable[[Test], Callable[[], None]]:
    """Run a test with hosts and a client, on a virtual clock."""

    def decorate(test: Test) -> Callable[[], None]:
        async def run() -> None:
            async with hub_of(app) as hub:
                await hub.start_all(*(hosts or ("a",)))
                async with hub.client() as client:
                    await test(hub, client)

        def test_run() -> None:
            virtually(run)

        test_run.__name__, test_run.__doc__ = test.__name__, test.__doc__
        return test_run

    return decorate


def number(state: Counter | None) -> int | None:
    return None if state is None else state.value


async def following(watch: Any, count: int) -> list[int | None]:
    async with asyncio.timeout(60):
        return [number(await anext(watch)) for _ in range(count)]


@with_hub()
async def test_the_present_state_comes_first_then_each_change_then_none(
    hub: Hub, client: lungfish.Client
) -> None:
    counter = client.entity(Counter, KEY)
    async with counter.watch() as watch:
        assert await following(watch, 1) == [None]
        for n in (1, 2):
            await counter.call(Counter.add)
            assert await following(watch, 1) == [n]
        await counter.call(Counter.forget)
        assert await following(watch, 1) == [None]
    async with counter.watch() as late:
        assert await following(late, 1) == [None]


@with_hub()
async def test_what_was_rolled_back_is_never_seen(hub: Hub, client: lungfish.Client) -> None:
    counter = client.entity(Counter, KEY)
    await counter.call(Counter.add)
    watch = counter.watch()
    assert await following(watch, 1) == [1]
    failing = asyncio.ensure_future(counter.call(Counter.fail_slowly))
    await asyncio.sleep(0.1)
    late = counter.watch()
    assert await following(late, 1) == [1]
    for outcome in (failing, counter.call(Counter.fail)):
        with pytest.raises(lungfish.EntityOperationFailed):
            await outcome
    await counter.call(Counter.add)
    assert await following(watch, 1) == await following(late, 1) == [2]


@with_hub()
async def test_nothing_is_seen_before_it_is_committed(hub: Hub, client: lungfish.Client) -> None:
    counter = client.entity(Counter, KEY)
    await counter.call(Counter.add)
    watch = counter.watch()
    assert await following(watch, 1) == [1]
    hub.stores["a"].commits_pass.clear()
    await counter.signal(Counter.add)
    waiting = asyncio.ensure_future(anext(watch))
    other = counter.watch()
    first = asyncio.ensure_future(anext(other))
    await asyncio.sleep(1)
    assert not waiting.done()
    assert not first.done()
    hub.stores["a"].commits_pass.set()
    assert number(await waiting) == number(await first) == 2


@with_hub()
async def test_states_that_come_faster_than_they_are_taken_are_left_out_except_the_latest(
    hub: Hub, client: lungfish.Client
) -> None:
    counter = client.entity(Counter, KEY)
    watch = counter.watch()
    assert await following(watch, 1) == [None]
    for _ in range(4 * WINDOW):
        await counter.call(Counter.add)
    seen: list[int | None] = []
    while not seen or seen[-1] != 4 * WINDOW:
        seen += await following(watch, 1)
    assert seen == sorted(set(seen), key=lambda value: value or 0)
    assert len(seen) < 4


@with_hub()
async def test_a_watcher_that_takes_nothing_costs_no_more_than_a_window(
    hub: Hub, client: lungfish.Client
) -> None:
    told = 0

    def count(commits: Sequence[Commit]) -> None:
        nonlocal told
        mine = f"c:{client._open.session}"
        told += sum(d.target == mine for commit in commits for d in commit.deliveries)

    counter = client.entity(Counter, KEY)
    watch = counter.watch()
    assert await following(watch, 1) == [None]
    hub.stores["a"].before_commit = count
    async with hub.client() as other:
        for _ in range(5 * WINDOW):
            await other.entity(Counter, KEY).call(Counter.add)
    assert told < WINDOW


@with_hub("a", "b")
async def test_a_watch_goes_on_after_a_takeover(hub: Hub, client: lungfish.Client) -> None:
    counter = client.entity(Counter, KEY)
    watch = counter.watch()
    await counter.call(Counter.add)
    assert await following(watch, 1) == [1]
    before = watch.version
    await hub.kill(hub.owners()[1])
    assert await counter.call(Counter.add) == 2
    began_s = asyncio.get_running_loop().time()
    assert await following(watch, 1) == [2]
    assert asyncio.get_running_loop().time() - began_s <= RENEW_S + 0.5
    assert watch.version > before


@with_hub("a", "b")
async def test_a_takeover_without_a_change_is_not_a_new_state(hub: Hub, client: lungfish.Client) -> None:
    counter = client.entity(Counter, KEY)
    watch = counter.watch()
    await counter.call(Counter.add)
    assert await following(watch, 1) == [1]
    await hub.kill(hub.owners()[1])
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(4 * RENEW_S)
    assert not waiting.done()
    await counter.call(Counter.add)
    assert number(await waiting) == 2


@with_hub()
async def test_a_watch_is_resumed_by_its_version(hub: Hub, client: lungfish.Client) -> None:
    counter = client.entity(Counter, KEY)
    watch = counter.watch()
    await counter.call(Counter.add)
    assert await following(watch, 1) == [1]
    async with hub.client() as other:
        again = other.entity(Counter, KEY).watch(since=watch.version)
        waiting = asyncio.ensure_future(anext(again))
        await asyncio.sleep(2 * RENEW_S)
        assert not waiting.done()
        await counter.call(Counter.add)
        assert number(await waiting) == 2


@with_hub()
async def test_a_store_that_lost_writes_shows_what_is_left(hub: Hub, client: lungfish.Client) -> None:
    counter = client.entity(Counter, KEY)
    await counter.call(Counter.add)
    checkpoint = hub.server.checkpoint()
    watch = counter.watch()
    for n in range(2, 8):
        await counter.call(Counter.add)
        await following(watch, 1)
        assert n
    version = watch.version
    hub.server.rollback(checkpoint)
    assert await following(watch, 1) == [1]
    assert watch.version < version


@with_hub()
async def test_lost_replies_are_told_again(hub: Hub, client: lungfish.Client) -> None:
    counter = client.entity(Counter, KEY)
    watch = counter.watch()
    assert await following(watch, 1) == [None]
    take, client._open._take = client._open._take, lambda payload: None  # type: ignore[method-assign]
    async with hub.client() as other:
        await other.entity(Counter, KEY).call(Counter.add)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(1)
    client._open._take = take  # type: ignore[method-assign]
    assert number(await waiting) == 1


@with_hub()
async def test_a_store_that_is_away_for_a_while_does_not_end_it(hub: Hub, client: lungfish.Client) -> None:
    counter = client.entity(Counter, KEY)
    watch = counter.watch()
    assert await following(watch, 1) == [None]
    waiting = asyncio.ensure_future(anext(watch))
    hub.server.away = {0, 1, 2, 3}
    await asyncio.sleep(3 * RENEW_S)
    hub.server.away = set()
    await counter.call(Counter.add)
    assert number(await waiting) == 1


@with_hub()
async def test_closing_ends_it_for_whoever_waits(hub: Hub, client: lungfish.Client) -> None:
    watch = client.entity(Counter, KEY).watch()
    await following(watch, 1)

    async def drain() -> list[int | None]:
        return [number(state) async for state in watch]

    waiting = asyncio.ensure_future(drain())
    await asyncio.sleep(1)
    await watch.aclose()
    await watch.aclose()
    assert await waiting == []


@with_hub()
async def test_a_forgotten_watch_leaves_nothing_behind(hub: Hub, client: lungfish.Client) -> None:
    counter = client.entity(Counter, KEY)
    for _ in range(3):
        await following(counter.watch(), 1)
        gc.collect()
    kept = counter.watch()
    assert len(client._open._subscribers) == 1
    del kept


@with_hub()
async def test_what_the_owner_refuses_is_raised(hub: Hub, client: lungfish.Client) -> None:
    with pytest.raises(lungfish.NotRegistered, match="Nobody"):
        await anext(client.entity("Nobody", "k").watch())
    for since in (-1, "1", True):
        with pytest.raises(lungfish.UsageError):
            client.entity(Counter, KEY).watch(since=since)  # type: ignore[arg-type]


@with_hub()
async def test_without_an_answer_it_does_not_wait_for_ever(hub: Hub, client: lungfish.Client) -> None:
    await hub.kill("a")
    with pytest.raises(lungfish.DeadlineExceeded, match="Is a host"):
        await anext(client.entity(Counter, KEY).options(timeout=12).watch())


# --- one entity, no runtime ----------------------------------------------------------------------

ME = ActorId(CLIENT, "", "test")


def control(verb: str, payload: bytes = b"", request: str = "w") -> EntityControl:
    return EntityControl(ActorId("e", "Counter", "k"), verb, payload, request, ME)


@pytest.mark.parametrize("message", [control("dance"), control("watch", b"\xc1"), control("watch", b"\x01")])
def test_what_cannot_be_understood_is_refused_and_hurts_nobody(message: EntityControl) -> None:
    host = OneEntity(Counter)
    host.accept(message)
    assert host.call("add").failure is None
    (refused,) = [m for m in host.effects.sent if isinstance(m, Response) and m.request == "w"]
    assert refused.failure is not None


def test_where_nobody_watches_nothing_is_published() -> None:
    host = OneEntity(Counter)
    for _ in range(3):
        host.call("add")
    assert len(host.effects.sent) == 3


def test_one_that_is_silent_and_full_is_forgotten_and_others_are_not() -> None:
    watchers = Watchers()
    watchers.heard(ME, "gone", 0, 0, lost=True)
    for version in range(1, WINDOW + 1):
        assert [w.request for w in watchers.changed(version, version)] == ["gone"]
    watchers.heard(ME, "alive", 0, LEASE_MS, lost=True)
    assert [w.request for w in watchers.changed(WINDOW + 1, LEASE_MS + 1)] == ["alive"]
    assert len(watchers) == 1


def test_one_that_confirms_is_told_on() -> None:
    watchers = Watchers()
    watcher = watchers.heard(ME, "w", 0, 0, lost=True)
    for version in range(1, 100):
        told = watchers.changed(version, 0)
        assert told == [watcher]
        watchers.heard(ME, "w", version, 0, lost=False)


def test_there_is_a_limit() -> None:
    watchers = Watchers()
    for n in range(WATCHERS_MAX):
        watchers.heard(ME, str(n), 0, 0, lost=True)
    with pytest.raises(Overloaded):
        watchers.heard(ME, "more", 0, 0, lost=True)
    watchers.heard(ME, "more", 0, LEASE_MS + 1, lost=True)
    assert len(watchers) == 1


@with_hub()
async def test_a_state_that_comes_behind_a_later_one_is_passed_over(
    hub: Hub, client: lungfish.Client
) -> None:
    async with client.entity(Counter, KEY).watch() as watch:

        def tell(version: int, *, again: bool = False) -> tuple[int, bytes | None] | None:
            state = pack_state(version, b"state %d" % version, again=again)
            watch._take(Response(ActorId(CLIENT, "", "c"), "r", state))
            return watch._latest

        assert tell(5) == (5, b"state 5")
        assert tell(4) == (5, b"state 5"), "it was on its way for longer"
        assert tell(2, again=True) == (2, b"state 2"), "the store has lost what was later"
