"""Entities through a whole runtime: calls, signals, what they do to one another."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

import lungfish
from lungfish.runtime.entry_points.local import LocalRuntime
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("entities")


class Opaque:
    """What pydantic knows nothing of."""


class Item(BaseModel):
    item_id: int = Field(alias="itemId")
    at: dt.datetime | None = None


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    @lungfish.shared
    def get(self) -> int:
        return self.value

    def scale(self, by: int, *, twice: bool = False, offset: int = 0) -> int:
        self.value = self.value * by * (2 if twice else 1) + offset
        return self.value

    def who(self) -> str | None:
        return self.context.caller

    def forget(self) -> None:
        self.context.delete()

    def takes_opaque(self, thing: Opaque) -> None: ...

    def gives_opaque(self) -> Opaque:
        return 1  # type: ignore[return-value]

    def fails_with(self, message: str) -> None:
        raise ValueError(message)

    def fails_with_surrogate(self) -> None:
        raise FileNotFoundError("caf\udce9")


@app.entity
class Log(lungfish.Entity):
    lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)

    async def write_slowly(self, line: str) -> None:
        self.lines.append(f"begin {line}")
        await asyncio.sleep(0.005)
        self.lines.append(f"end {line}")

    async def wait(self) -> None:
        await gates[self.key].wait()

    @lungfish.shared
    async def read_with(self, others: int) -> int:
        """Return how many readers are here at once, at most."""
        readers.add(asyncio.current_task())
        async with asyncio.timeout(60):
            while len(readers) < others:
                await asyncio.sleep(0.001)
        return len(readers)


readers: set[Any] = set()
gates: dict[str, asyncio.Event] = {}


@app.entity
class Cart(lungfish.Entity):
    items: list[Item] = []
    places: dict[tuple[int, int], str] = {}

    def put(self, item: Item, place: tuple[int, int]) -> list[Item]:
        self.items.append(item)
        self.places[place] = str(item.item_id)
        return self.items


@app.entity
class Boss(lungfish.Entity):
    told: int = 0

    def tell(self, key: str, n: int, fail: bool = False) -> int:
        self.told += 1
        self.context.signal((Counter, key), Counter.add, n)
        if fail:
            raise RuntimeError("changed my mind")
        return self.told

    def tell_later(self, key: str, n: int) -> None:
        self.context.entity(Counter, key).signal(Counter.add, n, at=dt.timedelta(milliseconds=80))

    async def ask(self, key: str, n: int) -> int:
        self.told += 1
        answer = await self.context.entity(Counter, key).call(Counter.add, n)
        return answer * 1_000 + self.told

    async def ask_who(self, key: str) -> str | None:
        return await self.context.entity(Counter, key).call(Counter.who)

    async def ask_itself(self) -> int:
        return await self.context.entity(Boss, self.key).call(Boss.tell, "x", 1)

    def start(self, n: int) -> str:
        return self.context.start(doubling, n)


@app.activity
def double(n: int) -> int:
    return 2 * n


@app.orchestration
async def doubling(ctx: lungfish.OrchestrationContext, n: int) -> int:
    return await ctx.call_activity(double, n)


@pytest.fixture
async def runtime(run_app: RunApp) -> AsyncIterator[LocalRuntime]:
    async with run_app(app) as runtime:
        yield runtime
        assert await runtime.client.entity(Counter, "at the end").call(Counter.add) == 1
        assert all(host.failed is not None and not host.failed.done() for host in runtime.hosts)


@pytest.fixture
def client(runtime: LocalRuntime) -> lungfish.Client:
    return runtime.client


async def value_is(client: lungfish.Client, key: str, value: int) -> None:
    async def is_there() -> bool:
        state = await client.entity(Counter, key).state()
        return state is not None and state.value >= value

    await until(is_there, f"{key} to be {value}")
    state = await client.entity(Counter, key).state()
    assert state is not None
    assert state.value == value


# --- calls and signals ----------------------------------------------------------------------------


async def test_a_call_returns_the_result_and_the_state_is_durable(client: lungfish.Client) -> None:
    ref = client.entity(Counter, "a")
    assert await ref.call(Counter.add, 5) == 5
    state = await ref.state()
    assert isinstance(state, Counter)
    assert state.value == 5
    assert await ref.call("add", n=2) == 7
    assert await client.entity("Counter", "a").call("get") == 7


async def test_many_calls_at_once_are_all_counted(client: lungfish.Client) -> None:
    ref = client.entity(Counter, "a")
    results = await asyncio.gather(*(ref.call(Counter.add) for _ in range(500)))
    assert results == list(range(1, 501))


async def test_signals_are_applied_once_and_in_order(client: lungfish.Client) -> None:
    log = client.entity(Log, "a")
    await asyncio.gather(*(log.signal(Log.write, str(number)) for number in range(200)))
    await log.signal_many(Log.write, [(str(number),) for number in range(200, 2_500)])
    await log.call(Log.write, "end")
    state = await log.state()
    assert state is not None
    assert state.lines == [*(str(number) for number in range(2_500)), "end"]


async def test_signals_by_name_and_with_names(client: lungfish.Client) -> None:
    for ref in (client.entity(Counter, "a"), client.entity("Counter", "b")):
        await ref.signal("add", n=3)
        await ref.signal("scale", 2, twice=True, offset=1)
        await ref.signal("scale", by=10)
        await ref.signal_many("add", [(1,), [2]])
        assert await ref.call("get") == 133


async def test_a_client_without_the_app_may_use_names_too(
    client: lungfish.Client, valkey: Server, hub_name: str
) -> None:
    async with lungfish.connect(valkey.url, hub=hub_name) as other:
        ref = other.entity("Counter", "a")
        await ref.signal("scale", by=2, offset=7)
        assert await ref.call("scale", 2, twice=True) == 28
        assert await ref.state() == {"value": 28}
        assert await other.entity(Counter, "a").call(Counter.get) == 28


async def test_an_entity_that_nobody_wrote_to_has_no_state(client: lungfish.Client) -> None:
    ref = client.entity(Counter, "nobody")
    assert await ref.state() is None
    assert await ref.call(Counter.get) == 0
    assert await ref.state() is None


async def test_falsy_is_not_deleted_and_deleted_is_gone(client: lungfish.Client) -> None:
    ref = client.entity(Counter, "a")
    await ref.call(Counter.add, 0)
    state = await ref.state()
    assert state is None or state.value == 0
    await ref.call(Counter.add, 3)
    await ref.call(Counter.add, -3)
    state = await ref.state()
    assert state is not None
    assert state.value == 0
    await ref.call(Counter.forget)
    assert await ref.state() is None
    assert await ref.call(Counter.add) == 1


async def test_delete_is_an_operation_of_every_class(client: lungfish.Client) -> None:
    called, signalled = client.entity(Counter, "called"), client.entity(Counter, "signalled")
    for ref in (called, signalled):
        await ref.call(Counter.add, 3)
    assert await called.call("delete") is None
    await signalled.signal("delete")
    assert await signalled.call(Counter.get) == 0
    assert [await ref.state() for ref in (called, signalled)] == [None, None]
    with pytest.raises(lungfish.NotRegistered):
        await client.entity("lungfish.schedules", "s").call("delete")


async def test_one_operation_at_a_time_also_across_await(client: lungfish.Client) -> None:
    log = client.entity(Log, "a")
    await asyncio.gather(*(log.call(Log.write_slowly, str(number)) for number in range(10)))
    state = await log.state()
    assert state is not None
    assert state.lines == [f"{what} {number}" for number in range(10) for what in ("begin", "end")]


async def test_shared_operations_overlap(client: lungfish.Client) -> None:
    readers.clear()
    log = client.entity(Log, "a")
    assert await asyncio.gather(*(log.call(Log.read_with, 5) for _ in range(5))) == [5] * 5


async def test_models_go_and_come_back_whatever_their_aliases(client: lungfish.Client) -> None:
    ref = client.entity(Cart, "a")
    at = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    first, second = Item(itemId=1, at=at), Item(itemId=2)
    assert await ref.call(Cart.put, first, (0, 1)) == [first]
    assert await ref.call(Cart.put, second, (2, 3)) == [first, second]
    state = await ref.state()
    assert state is not None
    assert (state.items, state.places) == ([first, second], {(0, 1): "1", (2, 3): "2"})


# --- between entities -----------------------------------------------------------------------------


async def test_an_entity_signals_another_in_any_partition(client: lungfish.Client) -> None:
    for number in range(40):
        assert await client.entity(Boss, f"b{number}").call(Boss.tell, "told", number) == 1
    await value_is(client, "told", sum(range(40)))


async def test_an_operation_that_raises_sends_nothing(client: lungfish.Client) -> None:
    boss = client.entity(Boss, "a")
    with pytest.raises(lungfish.EntityOperationFailed, match="changed my mind"):
        await boss.call(Boss.tell, "a", 5, fail=True)
    await boss.signal(Boss.tell, "a", 7, fail=True)
    assert await boss.call(Boss.tell, "a", 1) == 1
    await value_is(client, "a", 1)


async def test_a_scheduled_signal_comes_later(client: lungfish.Client) -> None:
    await client.entity(Boss, "a").call(Boss.tell_later, "a", 5)
    assert await client.entity(Counter, "a").call(Counter.get) == 0
    await value_is(client, "a", 5)


async def test_an_entity_calls_another(client: lungfish.Client) -> None:
    answers = await asyncio.gather(
        *(client.entity(Boss, f"b{number % 4}").call(Boss.ask, "a", 1) for number in range(40))
    )
    assert sorted(answer // 1_000 for answer in answers) == list(range(1, 41))
    assert sorted(answer % 1_000 for answer in answers) == sorted(list(range(1, 11)) * 4)


async def test_who_asks_is_known(client: lungfish.Client) -> None:
    assert await client.entity(Boss, "a").call(Boss.ask_who, "x") == "Boss/a"
    caller = await client.entity(Counter, "x").call(Counter.who)
    assert caller is not None
    assert caller.startswith("client ")


async def test_a_call_in_a_circle_fails_at_once(client: lungfish.Client) -> None:
    with pytest.raises(lungfish.CallCycle, match="Boss/a"):
        await client.entity(Boss, "a").call(Boss.ask_itself)


async def test_an_entity_starts_an_orchestration(client: lungfish.Client) -> None:
    instance = await client.entity(Boss, "a").call(Boss.start, 21)
    assert await client.orchestration(instance).result(timeout=60) == 42


# --- what is refused, and poisons nothing ---------------------------------------------------------


async def test_a_message_that_is_not_utf8_reaches_the_caller(client: lungfish.Client) -> None:
    with pytest.raises(lungfish.EntityOperationFailed, match="caf.udce9"):
        await client.entity(Counter, "a").call(Counter.fails_with_surrogate)


async def test_a_type_that_cannot_be_stored_is_told_to_the_caller(
    client: lungfish.Client, valkey: Server, hub_name: str
) -> None:
    ref = client.entity(Counter, "a")
    with pytest.raises(lungfish.SerializationError, match="Opaque"):
        await ref.call("takes_opaque", 1)
    with pytest.raises(lungfish.SerializationError, match="Opaque"):
        await ref.call("gives_opaque")
    with pytest.raises(lungfish.SerializationError, match="Opaque"):
        await ref.signal("takes_opaque", 1)
    with pytest.raises(lungfish.SerializationError, match="Opaque"):
        await ref.signal_many("takes_opaque", [(1,), (2,)])
    async with lungfish.connect(valkey.url, hub=hub_name) as stranger:
        await stranger.entity("Counter", "a").signal("takes_opaque", 1)
        assert await stranger.entity("Counter", "a").call("add") == 1


@pytest.mark.parametrize("name", ["\ud800", "", "x" * 600, "a\nb"])
async def test_names_that_cannot_be_sent_are_refused_at_once(
    client: lungfish.Client, valkey: Server, hub_name: str, name: str
) -> None:
    async with lungfish.connect(valkey.url, hub=hub_name) as other:
        for request in (
            other.entity("Counter", "a").call(name),
            other.entity("Counter", "a").signal(name),
            other.entity("Counter", "a").signal_many(name, [()]),
            other.orchestration("i").raise_event(name),
            other.start(name),
            other.start("doubling", id=name),
        ):
            with pytest.raises(lungfish.InvalidId):
                await request
        assert await other.entity("Counter", "a").call("add") == 1


@pytest.mark.parametrize("reason", ["\ud800", 5, object()])
async def test_reasons_that_cannot_be_sent_are_refused_at_once(client: lungfish.Client, reason: Any) -> None:
    handle = await client.start(doubling, 1)
    with pytest.raises(lungfish.UsageError):
        await handle.terminate(reason)
    assert await handle.result(timeout=60) == 2


@pytest.mark.parametrize("wrong", [int, Opaque, 5, None])
async def test_what_is_no_entity_class_is_refused(client: lungfish.Client, wrong: Any) -> None:
    with pytest.raises(lungfish.UsageError, match="an entity is a subclass of lungfish.Entity, or its name"):
        client.entity(wrong, "a")


# --- without an event loop ------------------------------------------------------------------------


async def test_a_blocking_client_does_the_same(runtime: LocalRuntime, valkey: Server, hub_name: str) -> None:
    def work() -> tuple[object, ...]:
        with lungfish.connect_sync(app, url=valkey.url, hub=hub_name) as client:
            ref = client.entity(Counter, "sync")
            ref.signal(Counter.add, 1)
            ref.signal_many(Counter.add, [(1,)] * 100)
            total = ref.call(Counter.add, 5)
            state = ref.state()
            handle = client.start(doubling, 4, id="sync")
            result = handle.result(timeout=60)
            found = [status.instance_id for status in client.instances(name="doubling")]
            next(client.instances())  # left in the middle
            return total, state and state.value, result, handle.status().runtime_status, found

    assert await asyncio.to_thread(work) == (106, 106, 8, "Completed", ["sync"])


async def test_threads_share_a_blocking_client(runtime: LocalRuntime, valkey: Server, hub_name: str) -> None:
    with await asyncio.to_thread(
        lungfish.connect_sync(app, url=valkey.url, hub=hub_name).__enter__
    ) as client:
        ref = client.entity(Counter, "sync")

        def add() -> list[int]:
            return [ref.call(Counter.add) for _ in range(20)]

        results = await asyncio.gather(*(asyncio.to_thread(add) for _ in range(8)))
        assert sorted(value for result in results for value in result) == list(range(1, 161))
        assert all(result == sorted(result) for result in results)
        await asyncio.to_thread(client.close)
    with pytest.raises(lungfish.StoreUnavailable, match="closed"):
        ref.call(Counter.add)


async def test_closing_a_blocking_client_ends_calls_of_other_threads(
    runtime: LocalRuntime, valkey: Server, hub_name: str
) -> None:
    gate = gates["blocked"] = asyncio.Event()
    client = lungfish.connect_sync(app, url=valkey.url, hub=hub_name)
    await asyncio.to_thread(client.__enter__)
    waiting = asyncio.create_task(asyncio.to_thread(client.entity(Log, "blocked").call, Log.wait))

    async def is_running() -> bool:
        return any(partition.running for host in runtime.hosts for partition in host.partitions)

    await until(is_running, "the operation to run")
    await asyncio.to_thread(client.close)
    with pytest.raises(lungfish.StoreUnavailable, match="closed"):
        await waiting
    gate.set()
