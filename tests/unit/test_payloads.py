"""Large values leave histories and messages, and nobody notices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext, PayloadSettings
from lungfish.orchestrations import events
from lungfish.orchestrations.replayer import Replayer
from lungfish.runtime import codec
from lungfish.runtime.errors import PayloadTooLarge, UsageError
from lungfish.runtime.host.orphans import sweep_orphans
from lungfish.runtime.ids import ORCHESTRATION, ActorId
from lungfish.runtime.messages import payloads
from lungfish.runtime.messages.messages import RaiseEvent, Watch
from lungfish.runtime.testing.environment import Environment
from lungfish.runtime.testing.memory_server import Hub
from lungfish.runtime.testing.memory_store import MemoryStore
from lungfish.testing import crash_everywhere, environment

OVER = 200
#: Larger than what a history shows of arguments (``SHOWN_BYTES_MAX``).
BIG = 2_000


def text(letter: str, size: int = BIG) -> str:
    return letter * size


def make_app() -> lungfish.App:
    app = lungfish.App("payloads", payloads=PayloadSettings(offload_bytes=OVER, bytes_max=100_000))

    @app.activity
    async def grow(given: str, size: int) -> str:
        return given[:1] * size

    @app.orchestration
    async def child(ctx: OrchestrationContext, given: str) -> str:
        made: str = await ctx.call_activity(grow, given, BIG + 1)
        return made

    @app.orchestration
    async def everything(ctx: OrchestrationContext, given: str) -> str:
        first: str = await ctx.call_activity(grow, given, BIG)
        event: str = await ctx.wait_for_external_event("go", str)
        second: str = await ctx.call_orchestration(child, event, id=f"{ctx.instance_id}.child")
        return first + event + second + given

    @app.orchestration
    async def again(ctx: OrchestrationContext, given: str, left: int) -> str:
        event: str = await ctx.wait_for_external_event("go", str)
        if left:
            ctx.continue_as_new(event + given[:BIG], left - 1)
            return ""
        return event + given

    @app.orchestration
    async def sends(ctx: OrchestrationContext, target: str) -> None:
        ctx.send_event(target, "go", text("s"))

    @app.orchestration
    async def asked(ctx: OrchestrationContext, given: str) -> int:
        ctx.on_query("given", lambda: given)
        await ctx.wait_for_external_event("go", str)
        return len(given)

    @app.activity
    async def fragile(given: str) -> str:
        if "f" in broken:
            raise ValueError("broken")
        return given

    @app.orchestration
    async def mended(ctx: OrchestrationContext, given: str) -> str:
        first: str = await ctx.call_activity(grow, given, BIG)
        second: str = await ctx.call_activity(fragile, given)
        return first + second

    @app.orchestration
    async def parent(ctx: OrchestrationContext, given: str) -> str:
        done: str = await ctx.call_orchestration(child, given, id=f"{ctx.instance_id}.child")
        again: str = await ctx.call_activity(fragile, done)
        return again

    @app.orchestration
    async def too_much(ctx: OrchestrationContext, where: str) -> Any:
        if where == "result":
            return "x" * 100_001
        try:
            await ctx.call_activity(grow, "x" * 100_001, 1)
        except PayloadTooLarge as error:
            return str(error)

    @app.orchestration
    async def much_from_activity(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(grow, "x", 100_001)

    return app


#: Why ``fragile`` fails.
broken: set[str] = set()


def hub_of(client: lungfish.Client) -> Hub:
    store = client._open.store
    assert isinstance(store, MemoryStore)
    return store.server.hub(store.hub)


def stored(hub: Hub) -> list[str]:
    """Return the ids of all payloads in the store."""
    return sorted(each for rows in hub.partitions.values() for each in rows.payloads)


def pending(hub: Hub) -> list[str]:
    """Return the ids of those that no commit has adopted."""
    indexes = [rows.indexes.get(payloads.PENDING, {}) for rows in hub.partitions.values()]
    return sorted(each for index in indexes for each in index)


def inline(hub: Hub) -> int:
    """Return the size of the largest thing in rows and histories."""
    sizes = [len(row) for rows in hub.partitions.values() for row in rows.instances.values()]
    sizes += [len(b) for rows in hub.partitions.values() for h in rows.histories.values() for b in h]
    sizes += [len(row) for rows in hub.partitions.values() for row in rows.activities.values()]
    return max(sizes, default=0)


async def sweep(env: Environment, older_s: int) -> int:
    """Sweep what is older than so long, as the hosts do in time."""
    store, swept = env.client._open.store, 0
    for host in env._hosts.values():
        swept += await sweep_orphans(store, host.partitions, await store.now_ms() - older_s * 1_000)
    return swept


async def play_everything(client: lungfish.Client) -> tuple[bool, int, list[str]]:
    handle = await client.start("everything", text("i"), id="e")
    await handle.raise_event("go", text("v"))
    result = await handle.result(timeout=60)
    status = await handle.status()
    assert status.output == result
    await client.purge("e")
    hub = hub_of(client)
    leaked = sorted(set(stored(hub)) - set(pending(hub)))
    return result == text("i") + text("v") + text("v", BIG + 1) + text("i"), inline(hub), leaked


async def play_again(client: lungfish.Client) -> tuple[str, list[str]]:
    handle = await client.start("again", text("i"), 2, id="a")
    for letter in "abc":
        await handle.raise_event("go", text(letter))
    result = await handle.result(timeout=60)
    hub = hub_of(client)
    # What stays is what is still referred to: input, one event, output.
    kept = len(set(stored(hub)) - set(pending(hub)))
    assert kept == 3, kept
    await client.purge("a")
    letters = "".join(result[at] for at in range(0, len(result), BIG))
    return letters, sorted(set(stored(hub)) - set(pending(hub)))


@pytest.mark.parametrize("always_replay", [True, False])
async def test_everything_large_is_kept_beside(always_replay: bool) -> None:
    async with environment(make_app(), always_replay=always_replay) as env:
        client = env.client
        handle = await client.start("everything", text("i"), id="e")
        await handle.raise_event("go", text("v"))
        result = await handle.result()
        assert result == text("i") + text("v") + text("v", BIG + 1) + text("i")
        hub = hub_of(client)
        assert inline(hub) < BIG / 2
        assert pending(hub) == []
        # Input, result of the activity, event, answer of the child, output; input and output of the child,
        # which is its activity's result, too. Arguments of activities have gone with their rows.
        assert len(stored(hub)) == 5 + 2
        assert (await handle.status()).output == result
        assert [found.output async for found in client.instances(name="everything")] == [result]
        history = await handle.history()
        raised = next(each for each in history if isinstance(each, events.EventRaised))
        assert codec.decode(raised.payload) == text("v")
        Replayer(make_app()).replay(history, instance_id="e")
        await client.purge("e")
        assert stored(hub) == []


@pytest.mark.parametrize("always_replay", [True, False])
def test_everything_survives_a_death_at_every_call(always_replay: bool) -> None:
    report = crash_everywhere(make_app(), play_everything, always_replay=always_replay)
    assert report.outcome == (True, 0, [])
    assert any("put_payloads" in call for call in report.calls)


@pytest.mark.parametrize("always_replay", [True, False])
def test_continue_as_new_keeps_what_goes_on_and_deletes_the_rest(always_replay: bool) -> None:
    report = crash_everywhere(make_app(), play_again, always_replay=always_replay)
    assert report.outcome == ("cba", [])


async def test_a_purge_deletes_only_its_own() -> None:
    async with environment(make_app()) as env:
        client = env.client
        one = await client.start("again", text("i"), 0, id="one")
        other = await client.start("again", text("i"), 0, id="other")
        await one.raise_event("go", text("a"))
        await one.result()
        await client.purge("one")
        await other.raise_event("go", text("b"))
        assert await other.result() == text("b") + text("i")
        await client.purge("other")
        assert stored(hub_of(client)) == []


async def test_an_id_that_is_used_again_has_none_of_the_old() -> None:
    async with environment(make_app()) as env:
        client = env.client
        for letter in "ab":
            handle = await client.start("again", text(letter), 0, id="i", if_exists="restart_if_ended")
            await handle.raise_event("go", text(letter))
            assert await handle.result() == 2 * text(letter)
            assert len(stored(hub_of(client))) == 3
        await client.start("again", text("c"), 0, id="i", if_exists="terminate_and_start")
        assert len(stored(hub_of(client))) == 1


async def test_a_held_event_is_kept_as_long_as_it_is_held() -> None:
    async with environment(make_app()) as env:
        client = env.client
        handle = await client.start("again", text("i"), 0, id="i")
        await handle.suspend()
        await handle.raise_event("go", text("a"))
        await handle.suspend()
        hub = hub_of(client)
        assert (len(stored(hub)), pending(hub)) == (2, [])
        await env.advance(3 * 86_400)
        assert await sweep(env, older_s=60) == 0
        assert len(stored(hub)) == 2
        await handle.resume()
        assert await handle.result() == text("a") + text("i")
        suspended = await client.start("again", text("i"), 0, id="j")
        await suspended.suspend()
        await suspended.raise_event("go", text("a"))
        await suspended.terminate()
        await client.purge("i")
        await client.purge("j")
        assert stored(hub) == []


async def test_a_delayed_start_finds_its_input() -> None:
    async with environment(make_app()) as env:
        handle = await env.client.start("again", text("i"), 0, id="i", at=3 * 86_400)
        await handle.raise_event("go", text("a"))
        await env.advance(4 * 86_400)
        assert await handle.result() == text("a") + text("i")
        await env.client.purge("i")
        assert stored(hub_of(env.client)) == []


async def test_what_nobody_takes_is_swept() -> None:
    async with environment(make_app()) as env:
        client = env.client
        ended = await client.start("asked", "i")
        await ended.terminate("enough")
        await ended.raise_event("go", text("a"))
        payload = payloads.Payload(0, "orphan", b"x")
        await client._open.store.put_payloads([payload])
        hub = hub_of(client)
        with pytest.raises(lungfish.OrchestrationTerminated):
            await ended.result(timeout=60)
        assert stored(hub) == ["orphan"]  # the other was deleted with the event that nobody took
        await env.advance(3_600)
        assert await sweep(env, older_s=3_700) == 0
        assert stored(hub) == ["orphan"]
        assert await sweep(env, older_s=3_500) == 1
        assert stored(hub) == []


@pytest.mark.parametrize("always_replay", [True, False])
async def test_events_between_orchestrations_and_queries(always_replay: bool) -> None:
    async with environment(make_app(), always_replay=always_replay) as env:
        client = env.client
        handle = await client.start("asked", text("i"), id="asked")
        assert await handle.query("given") == text("i")
        await client.start("sends", "asked", id="sends")
        assert await handle.result() == BIG
        assert await handle.query("given") == text("i")
        for each in ("asked", "sends"):
            await client.purge(each)
        await asyncio.sleep(1)
        assert stored(hub_of(client)) == []


@pytest.mark.parametrize("always_replay", [True, False])
async def test_rewound_restarted_and_forked_instances_have_their_values(
    always_replay: bool,
) -> None:
    async with environment(make_app(), always_replay=always_replay) as env:
        client, expected = env.client, text("i") + text("i")
        broken.add("f")
        handles = [await client.start(name, text("i"), id=name) for name in ("mended", "parent")]
        for handle in handles:
            with pytest.raises(lungfish.OrchestrationFailed, match="broken"):
                await handle.result()
        broken.clear()
        for handle in handles:
            await handle.rewind()
        assert await handles[0].result() == expected
        assert await handles[1].result() == text("i", BIG + 1)
        handle = handles[0]
        await handle.restart()
        assert await handle.result() == expected
        other = await handle.restart(new_id=True)
        assert await other.result() == expected
        completed = next(
            at for at, e in enumerate(await handle.history()) if isinstance(e, events.TaskCompleted)
        )
        fork = await handle.fork(at=completed - 1)
        assert await fork.result() == expected
        Replayer(make_app()).replay(await fork.history(), instance_id=fork.id)
        for each in (*handles, other, fork):
            await client.purge(each.id)
        assert stored(hub_of(client)) == []


async def test_the_hard_limit_is_told_at_the_call() -> None:
    async with environment(make_app()) as env:
        client = env.client
        with pytest.raises(PayloadTooLarge, match="limit is 100,000"):
            await client.start("again", text("x", 100_001), 0)
        with pytest.raises(PayloadTooLarge, match="payload of event go.*limit is 100,000"):
            await client.orchestration("i").raise_event("go", text("x", 100_001))
        assert "limit is 100,000" in await client.run("too_much", "args")
        for name, args in (("too_much", ("result",)), ("much_from_activity", ())):
            with pytest.raises(lungfish.OrchestrationFailed, match="limit is 100,000"):
                await client.run(name, *args)


async def test_a_value_that_the_store_has_lost_fails_the_instance() -> None:
    async with environment(make_app()) as env:
        client = env.client
        handle = await client.start("again", text("i"), 0, id="i")
        actor = ActorId(ORCHESTRATION, "", "i")
        token = payloads.Payload(client._open.partition(actor), "never written", b"x" * BIG).token
        await client._open.send(actor, [RaiseEvent(actor, "go", token)])
        with pytest.raises(lungfish.OrchestrationFailed, match="its content is gone from the store"):
            await handle.result()


@pytest.mark.parametrize("values", [{"offload_bytes": 0}, {"bytes_max": 10}, {"bytes_max": 2 << 30}])
def test_settings_that_cannot_be(values: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        PayloadSettings(**values)


def test_a_token_is_no_value() -> None:
    payload = payloads.Payload(3, "id", b"x" * (payloads.CHUNK_BYTES + 1))
    key = payloads.key_of(payload.token)
    assert (key.partition, key.id, key.size, key.chunks) == (3, "id", payloads.CHUNK_BYTES + 1, 2)
    assert payloads.is_token(payload.token)
    assert not payloads.is_token(None)
    for value in (None, b"", b"\xc1", payload.token, "\xc1payload\x01", [payload.token]):
        assert not payloads.is_token(codec.encode(value))
    assert [len(each) for each in payloads.chunks_of(payload.content)] == [payloads.CHUNK_BYTES, 1]
    assert payloads.chunks_of(b"") == [b""]


def test_batches_in_and_out() -> None:
    token = payloads.Payload(0, "a", b"y" * 300).token
    batch = events.pack([events.EventRaised("e", b"y" * 300), events.TaskCompleted(1, b"small")])
    small = payloads.offloaded(batch, OVER, lambda _: token)
    assert payloads.tokens_in(small) == [token]
    assert payloads.tokens_in(batch) == []
    assert payloads.inlined(small, {token: b"y" * 300}) == batch
    assert payloads.inlined(small, {}) == small
    actor = ActorId(ORCHESTRATION, "", "i")
    assert payloads.carried(Watch(actor, "1", actor)) is None
