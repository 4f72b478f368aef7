"""Bad input gets its typed error, and the runtime is as well as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import lungfish
from lungfish.runtime.codec import PAYLOAD_BYTES_MAX
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.ids import ENTITY, ActorId, partition_of
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.store.store import Append, Appended, HubMeta, partition_target
from tests.local import RunApp
from tests.servers import Server, free_port, running

app = lungfish.App("bad-input")


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def fail(self) -> None:
        self.value = -1
        raise ValueError("no")

    def unstorable(self) -> Any:
        return object()

    def grow(self, size: int) -> bytes:
        return b"x" * size


@app.activity
def echo(value: int) -> int:
    return value


@app.activity
def unstorable_result() -> Any:
    return object()


@app.orchestration
async def echoing(ctx: lungfish.OrchestrationContext, value: int) -> int:
    return await ctx.call_activity(echo, value)


@app.orchestration
async def calls_what_is_not_there(ctx: lungfish.OrchestrationContext) -> Any:
    return await ctx.call_activity("nothing_like_it", 1)


@app.orchestration
async def wrong_argument(ctx: lungfish.OrchestrationContext) -> Any:
    return await ctx.call_activity("echo", ["no", "int"])


@app.orchestration
async def gets_unstorable(ctx: lungfish.OrchestrationContext) -> Any:
    return await ctx.call_activity(unstorable_result)


@app.orchestration
async def returns_unstorable(ctx: lungfish.OrchestrationContext) -> Any:
    return object()


@pytest.fixture
async def runtime(run_app: RunApp) -> AsyncIterator[LocalRuntime]:
    """A runtime that must still work when the test is over."""
    async with run_app(app) as runtime:
        yield runtime
        ref = runtime.client.entity(Counter, "healthy")
        assert await ref.call(Counter.add, 2) == 2
        assert await (await runtime.client.start(echoing, 5)).result(timeout=60) == 5
        assert all(host.failed is not None and not host.failed.done() for host in runtime.hosts)


Refused = Callable[[lungfish.Client], Awaitable[Any]]

REFUSED: dict[str, tuple[type[lungfish.LungfishError], str, Refused]] = {
    "unknown entity": (
        lungfish.NotRegistered,
        "no entity named 'Kounter'.*Counter",
        lambda client: client.entity("Kounter", "a").call("add", 1),
    ),
    "unknown operation, found at the call site": (
        lungfish.NotRegistered,
        "no operation named 'ad' on entity Counter.*add",
        lambda client: client.entity(Counter, "a").call("ad", 1),
    ),
    "unknown orchestration": (
        lungfish.NotRegistered,
        "no orchestration named 'echo_ing'.*echoing",
        lambda client: client.start("echo_ing", 1),
    ),
    "too many arguments": (
        lungfish.InvalidArguments,
        "Counter.add.*too many positional",
        lambda client: client.entity("Counter", "a").call("add", 1, 2),
    ),
    "an argument of the wrong type": (
        lungfish.InvalidArguments,
        "Counter.add: argument 1.*valid integer.*'many'",
        lambda client: client.entity("Counter", "a").call("add", "many"),
    ),
    "an orchestration's argument of the wrong type": (
        lungfish.InvalidArguments,
        "echoing: argument 1.*valid integer",
        lambda client: client.start("echoing", "many"),
    ),
    "an argument that cannot be stored": (
        lungfish.SerializationError,
        "Counter.add.*type object",
        lambda client: client.entity("Counter", "a").call("add", object()),
    ),
    "a result that cannot be stored": (
        lungfish.SerializationError,
        "object",
        lambda client: client.entity(Counter, "a").call(Counter.unstorable),
    ),
    "an oversized argument": (
        lungfish.PayloadTooLarge,
        "the limit is 4,194,304.*reference",
        lambda client: client.entity("Counter", "a").call("add", b"x" * PAYLOAD_BYTES_MAX),
    ),
    "an oversized result": (
        lungfish.PayloadTooLarge,
        "the limit is",
        lambda client: client.entity(Counter, "a").call(Counter.grow, PAYLOAD_BYTES_MAX + 1),
    ),
    "an empty key": (
        lungfish.InvalidId,
        "entity key must not be empty",
        lambda client: client.entity(Counter, "").call(Counter.add, 1),
    ),
    "a missing instance": (
        lungfish.InstanceNotFound,
        "nobody",
        lambda client: client.orchestration("nobody").result(timeout=60),
    ),
    "the status of a missing instance": (
        lungfish.InstanceNotFound,
        "nobody",
        lambda client: client.orchestration("nobody").status(),
    ),
    "the end of a missing instance": (
        lungfish.InstanceNotFound,
        "nobody",
        lambda client: client.orchestration("nobody").terminate("why"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_with_a_typed_error(runtime: LocalRuntime, case: str) -> None:
    error, words, request = REFUSED[case]
    with pytest.raises(error, match=f"(?s){words}"):
        await request(runtime.client)


async def test_an_operation_that_raises_is_rolled_back(runtime: LocalRuntime) -> None:
    ref = runtime.client.entity(Counter, "rolls back")
    await ref.call(Counter.add, 3)
    with pytest.raises(lungfish.EntityOperationFailed, match="ValueError: no") as raised:
        await ref.call(Counter.fail)
    assert raised.value.details is not None
    assert raised.value.details.is_caused_by(ValueError)
    assert "raise ValueError" in raised.value.details.traceback
    assert await ref.call(Counter.add, 1) == 4


FAILING: dict[str, tuple[Any, str]] = {
    "unknown activity": (calls_what_is_not_there, "NotRegistered"),
    "an activity's argument of the wrong type": (wrong_argument, "InvalidArguments"),
    "an activity's result that cannot be stored": (gets_unstorable, "SerializationError"),
    "a result that cannot be stored": (returns_unstorable, "SerializationError"),
}


@pytest.mark.parametrize("case", FAILING)
async def test_an_orchestration_fails_with_the_cause(runtime: LocalRuntime, case: str) -> None:
    orchestration, cause = FAILING[case]
    handle = await runtime.client.start(orchestration)
    with pytest.raises(lungfish.OrchestrationFailed) as raised:
        await handle.result(timeout=60)
    assert raised.value.details is not None
    assert raised.value.details.is_caused_by(cause)
    assert (await handle.status()).runtime_status == lungfish.RuntimeStatus.FAILED


async def test_malformed_bytes_in_an_inbox_are_set_aside(
    runtime: LocalRuntime, valkey: Server, hub_name: str
) -> None:
    """The partition goes on with the messages before and after them."""
    ref = runtime.client.entity(Counter, "beside rubbish")
    await ref.signal(Counter.add, 1)
    store = open_store(valkey.url, hub_name)
    meta = await store.open()
    number = partition_of(ActorId(ENTITY, "Counter", "beside rubbish"), meta.partitions)
    rubbish = [b"", b"\xff\x00rubbish", b"\x92\x01\x91\x91\x63", b"\x92\x01\xc0"]
    appends = [Append(partition_target(number), "rogue", at, (data,)) for at, data in enumerate(rubbish, 1)]
    assert await store.append(appends) == [Appended.OK] * len(rubbish)
    await store.close()
    assert await ref.call(Counter.add, 1) == 2
    partitions = [p for host in runtime.hosts for p in host.partitions if p.number == number]
    assert sum(partition.malformed for partition in partitions) == len(rubbish)


async def test_a_store_that_is_not_there(hub_name: str) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    with pytest.raises(lungfish.StoreUnavailable, match="127.0.0.1"):
        async with asyncio.timeout(60), lungfish.connect(url, hub=hub_name):
            raise AssertionError("connected to nothing")


async def test_a_wrong_partition_count(valkey: Server, hub_name: str) -> None:
    store = open_store(valkey.url, hub_name)
    await store.open(HubMeta(partitions=8))
    with pytest.raises(lungfish.HubMismatch, match="8.*16|16.*8"):
        await store.open(HubMeta(partitions=16))
    await store.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_store_that_evicts(policy: str, hub_name: str) -> None:
    with running("--maxmemory-policy", policy) as server:
        with pytest.raises(lungfish.UnsafeStore, match=f"{policy}.*noeviction"):
            async with lungfish.connect(server.url, hub=hub_name):
                raise AssertionError("connected to a store that drops data")


async def test_an_address_without_a_hub() -> None:
    with pytest.raises(lungfish.UsageError, match="hub"):
        lungfish.connect("redis://127.0.0.1:1")
    with pytest.raises(lungfish.UsageError, match="127.0.0.1"):
        lungfish.connect("127.0.0.1:6379", hub="x")


async def test_a_handle_of_a_closed_client(runtime: LocalRuntime, valkey: Server, hub_name: str) -> None:
    async with lungfish.connect(valkey.url, hub=hub_name) as client:
        ref = client.entity(Counter, "late")
    with pytest.raises(lungfish.StoreUnavailable, match="closed"):
        await ref.signal("add", 1)
