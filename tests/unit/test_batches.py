"""One verb for many instances, through the client, on a runtime in memory."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

import lungfish
from lungfish import BatchRefusal, BatchStep, InstanceNotFound, InvalidArguments, RuntimeStatus
from lungfish.orchestrations import OrchestrationContext
from lungfish.runtime.client.batch_steps import (
    APPLIES,
    BatchPosition,
    filters_of,
    read_continuation,
    write_continuation,
)
from lungfish.runtime.client.client import Client
from lungfish.runtime.client.instance_handle import OrchestrationHandle
from lungfish.runtime.errors import InstanceEnded, Overloaded
from lungfish.runtime.messages.status import from_ms
from tests.virtual import run_app_virtually

app = lungfish.App("batches")
NOW_MS = 1_700_000_000_000


@app.orchestration
async def wait(ctx: OrchestrationContext) -> list[str]:
    return [await ctx.wait_for_external_event("go", str) for _ in range(2)]


@app.orchestration
async def quick(ctx: OrchestrationContext, value: int) -> int:
    return value


async def started(client: Client, count: int, **options: Any) -> list[str]:
    """Start instances that wait, and return their ids when they do."""
    handles = [await client.start(wait, id=f"w{number:03}", **options) for number in range(count)]
    while await client.count_instances(name="wait", status="Running") < count:
        await asyncio.sleep(0.1)
    return [handle.id for handle in handles]


async def ended(client: Client, ids: list[str]) -> None:
    for id in ids:
        while not (await client.orchestration(id).status()).runtime_status.is_terminal:
            await asyncio.sleep(0.1)


# --- the pure part ---


def filters(verb: Any, given: Any) -> dict[str, Any]:
    return dict(filters_of(verb, given, NOW_MS))


@pytest.mark.parametrize("verb", APPLIES)
def test_a_verb_takes_the_statuses_in_which_it_can_do_something(verb: Any) -> None:
    found = filters(verb, {"name": "wait"})
    assert tuple(found["status"] or ()) == APPLIES[verb]
    for status in RuntimeStatus:
        if status in APPLIES[verb]:
            assert filters(verb, {"status": status})["status"] == [status]
        else:
            with pytest.raises(InvalidArguments, match=f"instances that are {status}, only: "):
                filters(verb, {"status": [status, *APPLIES[verb]]})


@pytest.mark.parametrize("given", [{}, {"name": None}, {"id_prefix": ""}, {"tags": {}}])
def test_without_a_filter_nothing_is_done(given: Any) -> None:
    with pytest.raises(InvalidArguments, match="give a filter"):
        filters("purge", given)


def test_a_batch_is_about_what_there_was_at_its_beginning() -> None:
    before, after = from_ms(NOW_MS - 5), from_ms(NOW_MS + 5)
    for given, end in ((None, NOW_MS + 1), (before, NOW_MS - 5), (after, NOW_MS + 1)):
        found = filters("restart", {"name": "a", "created_before": given, "updated_before": given})
        assert found["created_before"] == found["updated_before"] == from_ms(end)
    assert "updated_before" not in filters("terminate", {"name": "a"})
    naive = dt.datetime(2026, 1, 1)  # noqa: DTZ001
    assert filters("terminate", {"created_before": naive})["created_before"] is naive


@pytest.mark.parametrize("text", ["", "nonsense", "é", "lAGpdGVybWluYXRl", "gA", "wA", "a" * 5_000])
def test_what_is_no_continuation_is_refused(text: str) -> None:
    with pytest.raises(InvalidArguments, match="not a continuation"):
        read_continuation("terminate", text)


def test_continuations_come_back() -> None:
    position = BatchPosition(NOW_MS, "cursor")
    text = write_continuation("purge", position)
    assert read_continuation("purge", text) == position
    with pytest.raises(InvalidArguments, match="a batch of purge, not of cancel"):
        read_continuation("cancel", text)
    for began_ms in (10**30, -(10**30), -(10**17), 10**18):
        with pytest.raises((InvalidArguments, OverflowError)):
            read_continuation("purge", write_continuation("purge", BatchPosition(began_ms, "c")))


# --- with a runtime ---


def test_steps_go_on_where_the_one_before_ended() -> None:
    async def use(client: Client) -> None:
        ids = await started(client, 7)
        assert await client.batch("terminate", name="wait", count_only=True) == BatchStep("terminate", 7)
        first = await client.batch("terminate", name="wait", limit=3, reason="enough")
        assert (first.matched, sorted(first.done)) == (3, ids[:3])
        late = await client.start(wait, id="late")
        second = await client.batch("terminate", name="wait", limit=10, continuation=first.continuation)
        assert (second.matched, sorted(second.done), second.continuation) == (4, ids[3:], None)
        await ended(client, ids)
        assert not (await late.status()).runtime_status.is_terminal, "it came after the beginning"
        assert (await client.batch("terminate", id_prefix="w")).matched == 0, "done is done"

    run_app_virtually(app, use)


def test_a_batch_does_not_meet_its_own_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    restart, restarts, clients = OrchestrationHandle.restart, list[str](), list[Client]()

    async def until_ended(handle: OrchestrationHandle[Any], *, new_id: bool = False) -> Any:
        await asyncio.sleep(1)
        again = await restart(handle, new_id=new_id)
        restarts.append(handle.id)
        await ended(clients[0], [handle.id])  # so it fits every filter but that of the beginning
        return again

    async def use(client: Client) -> None:
        clients.append(client)
        ids = [(await client.start(quick, number, id=f"q{number}")).id for number in range(5)]
        await ended(client, ids)
        monkeypatch.setattr(OrchestrationHandle, "restart", until_ended)
        steps = [step async for step in client.batch_all("restart", name="quick")]
        assert (sum(step.matched for step in steps), sorted(restarts)) == (5, ids)
        first = await client.batch("restart", name="quick", limit=2)
        rest = await client.batch("restart", name="quick", continuation=first.continuation)
        assert sorted((*first.done, *rest.done)) == ids
        assert len(restarts) == 10

    run_app_virtually(app, use)


def test_what_is_refused_and_what_is_unknown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    terminate = OrchestrationHandle.terminate
    errors = {
        "w001": InstanceEnded("it has ended"),
        "w002": lungfish.DeadlineExceeded("no answer"),
        "w003": Overloaded("full"),
    }

    async def broken(self: OrchestrationHandle[Any], reason: str = "") -> None:
        if self.id in errors:
            raise errors[self.id]
        await terminate(self, reason)

    async def use(client: Client) -> None:
        ids = await started(client, 250)
        monkeypatch.setattr(OrchestrationHandle, "terminate", broken)
        steps = [step async for step in client.batch_all("terminate", name="wait")]
        assert len(steps) == 1, "who does not answer now will not for the next ones"
        (step,) = steps
        assert step.refused == (BatchRefusal("w001", "InstanceEnded", "it has ended"),)
        assert {each.instance_id for each in step.unknown} == {"w002", "w003"}
        assert sorted(step.done) == [id for id in ids[:100] if id not in errors]
        assert step.matched == 100
        errors.clear()
        rest = [each async for each in client.batch_all("terminate", id_prefix="w")]
        assert sum(len(each.done) for each in rest) == 153, "those that are done do not fit any more"

    run_app_virtually(app, use)


def test_what_was_done_is_told_though_the_store_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    read, pages = Client.instances_page, list[str | None]()

    async def breaking(self: Client, **options: Any) -> Any:
        pages.append(options["cursor"])
        if len(pages) == 2:
            raise lungfish.StoreUnavailable("away")
        return await read(self, **options)

    async def use(client: Client) -> None:
        ids = await started(client, 150)
        monkeypatch.setattr(Client, "instances_page", breaking)
        first = await client.batch("suspend", name="wait")
        assert (first.matched, len(first.done)) == (100, 100)
        rest = await client.batch("suspend", name="wait", continuation=first.continuation)
        assert sorted((*first.done, *rest.done)) == ids
        pages[:] = [None]
        with pytest.raises(lungfish.StoreUnavailable):
            await client.batch("resume", name="wait")

    run_app_virtually(app, use)


def test_events_and_purges() -> None:
    async def use(client: Client) -> None:
        ids = await started(client, 3, tags={"team": "blue"})
        for payload in ("a", "b"):
            step = await client.batch("raise_event", event="go", payload=payload, tag=("team", "blue"))
            assert sorted(step.done) == ids
        await ended(client, ids)
        for id in ids:
            assert await client.orchestration(id).result() == ["a", "b"]
        assert sorted((await client.batch("purge", tag=("team", "blue"))).done) == ids
        with pytest.raises(InstanceNotFound):
            await client.orchestration(ids[0]).status()

    run_app_virtually(app, use)


def test_wrong_orders_are_refused_before_anything_is_done() -> None:
    async def use(client: Client) -> None:
        await started(client, 1)
        named: dict[str, Any] = {"name": "wait"}
        wrong: list[dict[str, Any]] = [
            {"verb": "explode"},
            {"verb": "terminate", "reason": 7},
            {"verb": "terminate", "limit": 0},
            {"verb": "terminate", "limit": 1_001},
            {"verb": "terminate", "limit": True},
            {"verb": "terminate", "event": "go"},
            {"verb": "terminate", "payload": 1},
            {"verb": "terminate", "continuation": "nonsense"},
            {"verb": "terminate", "status": "Nonsense"},
            {"verb": "terminate", "created_before": dt.datetime(2026, 1, 1)},  # noqa: DTZ001
            {"verb": "raise_event"},
            {"verb": "raise_event", "event": ""},
            {"verb": "raise_event", "event": "go", "payload": object()},
        ]
        for order in wrong:
            with pytest.raises(lungfish.UsageError):
                await client.batch(**(named | order))
        assert (await client.orchestration("w000").status()).runtime_status is RuntimeStatus.RUNNING

    run_app_virtually(app, use)
