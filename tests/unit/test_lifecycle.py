"""The life of orchestrations through client, host and worker: live, replayed, and with deaths."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext, RuntimeStatus
from lungfish.runtime.errors import InstanceEnded
from lungfish.testing import Environment, crash_everywhere, environment

UTC = dt.UTC
YEAR = dt.timedelta(days=365)

app = lungfish.App("lifecycle")
did: list[str] = []


@app.activity
def note(text: str) -> str:
    did.append(text)
    return text


@app.activity
def fail(text: str) -> str:
    raise OSError(text)


@pytest.fixture(params=[True, False], ids=["always_replay", "live"])
async def env(request: pytest.FixtureRequest) -> AsyncIterator[Environment]:
    did.clear()
    async with environment(app, always_replay=request.param) as env:
        yield env


# --- timers -----------------------------------------------------------------------------------------


@app.orchestration
async def waits_until(ctx: OrchestrationContext, when: dt.datetime) -> dt.datetime:
    await ctx.create_timer(when)
    return ctx.now()


@app.orchestration
async def waits_for_years(ctx: OrchestrationContext, years: int) -> float:
    began = ctx.now()
    await ctx.sleep(YEAR * years)
    return (ctx.now() - began) / YEAR


@app.orchestration
async def races(ctx: OrchestrationContext) -> list[str]:
    timer = ctx.create_timer(YEAR)
    timer.cancel()
    try:
        await timer
    except asyncio.CancelledError:
        return ["cancelled", str(timer.cancel())]
    return ["fired"]


async def test_a_timer_may_be_as_long_as_life(env: Environment) -> None:
    began = env.now()
    assert await env.client.run(waits_for_years, 100) >= 100
    assert env.now() - began >= 100 * YEAR


@pytest.mark.parametrize("ago", [dt.timedelta(0), dt.timedelta(days=1), 50 * YEAR])
async def test_a_timer_in_the_past_fires_at_once(env: Environment, ago: dt.timedelta) -> None:
    began = env.now()
    assert await env.client.run(waits_until, began - ago) - began < dt.timedelta(minutes=1)


@pytest.mark.parametrize("hours", [-11.5, 0, 5.75, 14])
async def test_a_timer_means_the_same_instant_in_every_zone(env: Environment, hours: float) -> None:
    there = dt.timezone(dt.timedelta(hours=hours))
    due = (env.now() + dt.timedelta(days=3)).astimezone(there)
    fired = await env.client.run(waits_until, due)
    assert dt.timedelta(0) <= fired - due < dt.timedelta(minutes=1)


async def test_a_time_without_a_zone_is_refused(env: Environment) -> None:
    naive = dt.datetime(2030, 1, 1)  # noqa: DTZ001 - what is refused
    with pytest.raises(lungfish.OrchestrationFailed, match="has no time zone"):
        await env.client.run(waits_until, naive)
    with pytest.raises(lungfish.UsageError, match="has no time zone"):
        await env.client.start(waits_for_years, 1, at=naive)


async def test_a_cancelled_timer_does_not_fire(env: Environment) -> None:
    assert await env.client.run(races) == ["cancelled", "False"]


# --- external events --------------------------------------------------------------------------------


@app.orchestration
async def sums(ctx: OrchestrationContext, count: int) -> list[Any]:
    got: list[Any] = []
    await ctx.sleep(10)
    while len(got) < count:
        try:
            got.append(await ctx.wait_for_external_event("number", int))
        except lungfish.InvalidArguments as error:
            got.append(str(error).partition("\n")[0])
    return got


async def test_an_event_for_nobody_is_refused(env: Environment) -> None:
    nobody = env.client.orchestration("nobody")
    with pytest.raises(lungfish.InstanceNotFound, match="no instance 'nobody'"):
        await nobody.raise_event("number", 1)
    handle = await env.client.start(sums, 1, id="nobody")
    await handle.raise_event("number", 2)
    assert await handle.result(timeout=60) == [2], "what was refused was not sent"


async def test_an_event_for_an_instance_that_has_ended_is_dropped(env: Environment) -> None:
    """Whoever does not know whether the first arrived sends it again: that must do no harm."""
    handle = await env.client.start(sums, 1)
    await handle.raise_event("number", 1)
    assert await handle.result(timeout=60) == [1]
    await handle.raise_event("number", 1)
    assert await handle.result(timeout=60) == [1]
    await env.client.purge(handle.id)
    with pytest.raises(lungfish.InstanceNotFound):
        await handle.raise_event("number", 1)


@app.entity
class Opener(lungfish.Entity):
    def open(self, id: str) -> None:
        self.context.start(sums, 1, id=id)


async def test_an_event_finds_an_instance_whose_start_is_under_way(env: Environment) -> None:
    """The operation is answered when its start is in the inbox; the instance may not be in the store then."""
    for number in range(10):
        await env.client.entity(Opener, "o").call(Opener.open, f"opened {number}")
        handle = env.client.orchestration(f"opened {number}")
        await handle.raise_event("number", number)
        assert await handle.result(timeout=60) == [number]


async def test_an_event_is_sent_also_when_the_store_cannot_be_asked_before(
    env: Environment,
) -> None:
    """Sending waits for a store that is away; the question before it must not make it fail."""
    handle = await env.client.start(sums, 1)
    store: Any = env.client._open.store

    async def away(*_args: Any, **_options: Any) -> Any:
        raise lungfish.StoreUnavailable("away")

    store.instances = away
    await handle.raise_event("number", 1)
    del store.instances
    assert await handle.result(timeout=60) == [1]


@app.orchestration
async def impatient(ctx: OrchestrationContext) -> list[int]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            await ctx.wait_for_external_event("number", int)
    await ctx.wait_for_external_event("go")
    return [await ctx.wait_for_external_event("number", int)]


@app.orchestration
async def eternal(ctx: OrchestrationContext, left: int, got: list[int]) -> list[int]:
    if left == 0:
        return got
    ctx.set_custom_status(f"{left} left")
    await ctx.sleep(1)  # so that there are several when the first is taken
    got.append(await ctx.wait_for_external_event("number", int))
    ctx.continue_as_new(left - 1, got)
    return got


async def test_events_that_come_early_are_kept_in_order(env: Environment) -> None:
    handle = await env.client.start(sums, 5)
    for number in range(5):
        await handle.raise_event("NUMBER" if number % 2 else "number", number)
    assert await handle.result() == [0, 1, 2, 3, 4]


async def test_an_event_of_the_wrong_type_is_told_at_the_wait_and_used_up(env: Environment) -> None:
    handle = await env.client.start(sums, 3, id="typed")
    for value in (1, "many", 3):
        await handle.raise_event("number", value)
    first, second, third = await handle.result()
    assert (first, third) == (1, 3)
    assert "event 'number' of instance 'typed'" in second


async def test_a_waiter_that_gave_up_takes_nothing(env: Environment) -> None:
    handle = await env.client.start(impatient)
    await env.advance(11)
    await handle.raise_event("number", 7)
    await handle.raise_event("go")
    assert await handle.result() == [7]


async def test_continue_as_new_loses_no_event_and_keeps_the_status(env: Environment) -> None:
    handle = await env.client.start(eternal, 9, [])
    for number in range(8):
        await handle.raise_event("number", number)
    await env.advance(10)
    assert (await handle.status()).custom_status == "1 left"
    await handle.raise_event("number", 8)
    assert await handle.result() == list(range(9))
    assert (await handle.status()).custom_status == "1 left"


def test_continue_as_new_survives_a_crash_at_every_call() -> None:
    async def scenario(client: lungfish.Client) -> tuple[list[int], Any]:
        handle = await client.start(eternal, 4, [], id="e")
        await asyncio.gather(*(handle.raise_event("number", number) for number in range(4)))
        return await handle.result(timeout=60), (await handle.status()).custom_status

    assert crash_everywhere(app, scenario).outcome == ([0, 1, 2, 3], "1 left")


# --- suspend, resume, terminate ---------------------------------------------------------------------


@app.orchestration
async def ticks(ctx: OrchestrationContext) -> str:
    timer = ctx.create_timer(10)
    word = await ctx.wait_for_external_event("word", str)
    await timer
    return word


async def test_nothing_is_delivered_to_a_suspended_instance(env: Environment) -> None:
    handle = await env.client.start(ticks)
    for _ in range(2):
        await handle.suspend("wait")
    await handle.raise_event("word", "later")
    await env.advance(1000)
    status = await handle.status()
    assert status.runtime_status is RuntimeStatus.SUSPENDED
    assert not any(type(event).__name__ == "EventRaised" for event in await handle.history())
    await handle.resume()
    with contextlib.suppress(InstanceEnded):
        await handle.resume()
    assert await handle.result() == "later"  # the timer has fired: late, not lost
    names = [type(event).__name__ for event in await handle.history()]
    assert (names.count("Suspended"), names.count("Resumed")) == (1, 1)


async def test_a_suspended_instance_can_be_terminated(env: Environment) -> None:
    handle = await env.client.start(ticks)
    await handle.suspend()
    await handle.terminate("enough")
    with pytest.raises(lungfish.OrchestrationTerminated, match="enough"):
        await handle.result()


async def test_a_pending_instance_can_be_suspended(env: Environment) -> None:
    handle = await env.client.start(waits_for_years, 1, at=100)
    await handle.suspend()
    await env.advance(1000)
    assert (await handle.status()).runtime_status is RuntimeStatus.SUSPENDED
    await handle.resume()
    assert await handle.result() >= 1


# --- start ------------------------------------------------------------------------------------------


async def test_a_start_may_be_put_off(env: Environment) -> None:
    began = env.now()
    delayed = await env.client.start(waits_until, began, at=dt.timedelta(hours=1))
    status = await delayed.status()
    assert status.runtime_status is RuntimeStatus.PENDING
    assert status.start_at is not None
    assert dt.timedelta(hours=1) <= status.start_at - began < dt.timedelta(hours=2)
    assert await delayed.result() - began >= dt.timedelta(hours=1)
    due = env.now() + dt.timedelta(hours=2)
    timed = await env.client.start(waits_until, began, at=due)
    assert (await timed.status()).start_at == due
    assert await timed.result() >= due
    past = await env.client.start(waits_until, began, at=began)
    assert await past.result() < due + dt.timedelta(minutes=1)


async def test_what_is_put_off_can_be_called_off(env: Environment) -> None:
    for verb, status in (("cancel", RuntimeStatus.CANCELED), ("terminate", RuntimeStatus.TERMINATED)):
        handle = await env.client.start(waits_for_years, 1, at=100)
        await getattr(handle, verb)("not needed")
        await env.advance(1000)
        assert (await handle.status()).runtime_status is status
        with pytest.raises(lungfish.OrchestrationFailed, match="not needed"):
            await handle.result()


async def test_a_singleton_runs_at_most_once(env: Environment) -> None:
    client = env.client
    handles = await asyncio.gather(
        *(client.start(ticks, id="only", if_exists="restart_if_ended") for _ in range(5))
    )
    executions = {(await handle.status()).execution_id for handle in handles}
    assert len(executions) == 1
    same = await client.start(ticks, id="only", if_exists="restart_if_ended")
    assert (await same.status()).execution_id in executions
    await handles[0].raise_event("word", "one")
    assert await handles[0].result() == "one"
    again = await client.start(ticks, id="only", if_exists="restart_if_ended")
    assert (await again.status()).execution_id not in executions
    await again.raise_event("word", "two")
    assert await again.result() == "two"
    with pytest.raises(lungfish.InstanceExists):
        await client.start(ticks, id="only", if_exists="raise")
    with pytest.raises(lungfish.UsageError, match="if_exists"):
        await client.start(ticks, id="only", if_exists="perhaps")  # type: ignore[call-overload]


async def test_a_start_may_push_another_aside(env: Environment) -> None:
    old = await env.client.start(ticks, id="busy")
    outcome = asyncio.ensure_future(old.result())
    await env.advance(1)
    new = await env.client.start(waits_for_years, 1, id="busy", if_exists="terminate_and_start")
    with pytest.raises(lungfish.OrchestrationTerminated, match="replaced"):
        await outcome
    assert await new.result() >= 1


# --- cancellation and children ----------------------------------------------------------------------


@app.orchestration
async def books(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(note, "book")
    try:
        await ctx.call_orchestration(waits, id=f"{ctx.instance_id}.1")
    except BaseException:
        await ctx.call_activity(note, "compensate")
        raise
    return "booked"


@app.orchestration
async def waits(ctx: OrchestrationContext) -> None:
    if ctx.instance_id.count(".") < 3:
        await ctx.call_orchestration(waits, id=f"{ctx.instance_id}.1")
    await ctx.wait_for_external_event("never")


FAMILY = ["f", "f.1", "f.1.1", "f.1.1.1"]


@pytest.mark.parametrize(
    ("verb", "error", "after"),
    [
        ("cancel", lungfish.OrchestrationCanceled, ["book", "compensate"]),
        ("terminate", lungfish.OrchestrationTerminated, ["book"]),
    ],
)
async def test_a_family_ends_with_its_head(
    env: Environment, verb: str, error: type[Exception], after: list[str]
) -> None:
    handle = await env.client.start(books, id="f")
    await env.advance(1)
    for _ in range(2):
        with contextlib.suppress(InstanceEnded):
            await getattr(handle, verb)("no more")
    for id in FAMILY:
        with pytest.raises(error):
            await env.client.orchestration(id).result(timeout=1000)
    assert did == after


def test_cancellation_survives_a_crash_at_every_call() -> None:
    async def scenario(client: lungfish.Client) -> list[str]:
        did.clear()
        handle = await client.start(books, id="f")
        while not await exists(client, "f.1.1.1"):
            await asyncio.sleep(0.01)
        await handle.cancel("no more")
        for id in FAMILY:
            with contextlib.suppress(lungfish.OrchestrationCanceled):
                await client.orchestration(id).result(timeout=60)
        statuses = [(await client.orchestration(id).status()).runtime_status for id in FAMILY]
        return [*statuses, *dict.fromkeys(did)]

    outcome = crash_everywhere(app, scenario).outcome
    assert outcome == ["Canceled"] * 4 + ["book", "compensate"]


async def exists(client: lungfish.Client, id: str) -> bool:
    with contextlib.suppress(lungfish.InstanceNotFound):
        await client.orchestration(id).status()
        return True
    return False


@app.orchestration
async def starts_others(ctx: OrchestrationContext) -> list[str]:
    ids = [
        ctx.start_orchestration(listens),
        ctx.start_orchestration("listens", id="named"),
    ]
    for id in ids:
        ctx.send_event(id, "word", f"to {len(ids)}")
    return ids


@app.orchestration
def listens(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    word: str = yield ctx.wait_for_external_event("word", str)
    return word


async def test_what_is_started_to_live_by_itself_does(env: Environment) -> None:
    ids = await env.client.run(starts_others)
    for id in ids:
        other = env.client.orchestration(id)
        assert await other.result() == "to 2"
        assert (await other.status()).parent_id is None


def test_detached_starts_survive_a_crash_at_every_call() -> None:
    async def scenario(client: lungfish.Client) -> str:
        await client.run(starts_others, id="s", timeout=60)
        return str(await client.orchestration("named").result(timeout=60))

    assert crash_everywhere(app, scenario).outcome == "to 2"


@app.orchestration
async def outer(ctx: OrchestrationContext) -> None:
    await ctx.call_orchestration(inner)


@app.orchestration
async def inner(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(fail, "disk")
    except lungfish.ActivityFailed as error:
        raise RuntimeError("inner gave up") from error


async def test_a_failure_tells_its_whole_chain(env: Environment) -> None:
    with pytest.raises(lungfish.OrchestrationFailed) as raised:
        await env.client.run(outer)
    chain, details = [], raised.value.details
    while details is not None:
        chain.append((details.error_type.rpartition(".")[2], details.message))
        assert "Traceback" in details.traceback or details.traceback
        details = details.cause
    kinds = [kind for kind, _ in chain]
    assert kinds == ["OrchestrationFailed", "RuntimeError", "OSError"]
    assert chain[1][1] == "inner gave up"
    assert chain[2][1] == "disk"
    assert raised.value.details is not None
    assert raised.value.details.is_caused_by(OSError)


def test_the_blocking_client_has_every_verb() -> None:
    from lungfish.runtime.blocking.client import BlockingClient, BlockingOrchestrationHandle
    from lungfish.runtime.client.client import Client
    from lungfish.runtime.client.instance_handle import OrchestrationHandle

    for asynchronous, blocking in (
        (OrchestrationHandle, BlockingOrchestrationHandle),
        (Client, BlockingClient),
    ):
        verbs = {name for name in vars(asynchronous) if not name.startswith("_")}
        verbs -= {"waiting", "handing"}  # what the testing kit asks
        assert verbs <= {name for name in vars(blocking) if not name.startswith("_")}


# --- ids of children --------------------------------------------------------------------------------


@app.orchestration
async def echoes(ctx: OrchestrationContext, text: str) -> str:
    return await ctx.call_activity(note, text)


@app.orchestration
async def names_its_child(ctx: OrchestrationContext, rounds: int, texts: list[str]) -> list[str]:
    said = [await ctx.call_orchestration(echoes, text, id="the child") for text in texts]
    if rounds > 1:
        ctx.continue_as_new(rounds - 1, texts)
    return said


@app.orchestration
async def calls_one_child_twice_at_once(ctx: OrchestrationContext) -> None:
    first = ctx.call_orchestration(waits_for_years, 1, id="the child")
    await ctx.call_orchestration(waits_for_years, 2, id="the child")
    await first


async def test_a_child_that_has_ended_makes_way_for_the_next_of_its_parent(env: Environment) -> None:
    handle = await env.client.start(names_its_child, 2, ["a", "b"], id="parent")
    assert await handle.result() == ["a", "b"]
    assert did == ["a", "b"] * 2
    again = await handle.restart()
    assert await again.result() == ["a", "b"]
    anew = await env.client.start(names_its_child, 1, ["c"], id="parent", if_exists="restart_if_ended")
    assert await anew.result() == ["c"]
    assert (await env.client.orchestration("the child").status()).output == "c"
    assert await env.client.count_instances(parent="parent") == 1


@pytest.mark.parametrize("stranger", [None, "another parent"])
async def test_a_child_takes_no_id_of_another(env: Environment, stranger: str | None) -> None:
    taken: lungfish.OrchestrationHandle[Any]
    if stranger is None:
        taken = await env.client.start(echoes, "mine", id="the child")
    else:
        taken = await env.client.start(names_its_child, 1, ["mine"], id=stranger)
    await taken.result()
    handle = await env.client.start(names_its_child, 1, ["theirs"], id="parent")
    with pytest.raises(lungfish.OrchestrationFailed, match="exists already"):
        await handle.result()
    assert (await env.client.orchestration("the child").status()).output == "mine"


async def test_a_child_that_runs_does_not_make_way(env: Environment) -> None:
    handle = await env.client.start(calls_one_child_twice_at_once, id="parent")
    with pytest.raises(lungfish.OrchestrationFailed, match="exists already"):
        await handle.result()


def test_children_of_one_id_survive_a_crash_at_every_call() -> None:
    async def scenario(client: lungfish.Client) -> list[str]:
        did.clear()
        handle = await client.start(names_its_child, 2, ["a", "b"], id="parent")
        said = await handle.result(timeout=60)
        return [*said, *dict.fromkeys(did)]

    assert crash_everywhere(app, scenario).outcome == ["a", "b", "a", "b"]
