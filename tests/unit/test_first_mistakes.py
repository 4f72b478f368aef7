"""What a new user does wrong first is told by a ``UsageError`` that says what to write."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import lungfish
from lungfish import InvalidArguments, OrchestrationContext, UsageError
from lungfish.runtime.client.client import Client
from lungfish.testing import Environment, environment

app = lungfish.App("first-mistakes")


@app.entity
class Cart(lungfish.Entity):
    items: list[str] = []
    total: int = 0

    def put(self, item: str) -> None:
        self.items.append(item)

    def add(self, price: int) -> None:
        self.total += price


@app.activity
def greet(city: str) -> str:
    return f"Hello {city}"


@app.orchestration
async def with_options(ctx: OrchestrationContext, given: dict[str, Any]) -> str:
    return await ctx.call_activity(greet.options(**given), "Cairo")


@app.orchestration
async def tour(ctx: OrchestrationContext, city: str) -> str:
    return await ctx.call_activity(greet, city)


async def bare(ctx: OrchestrationContext) -> None: ...


#: What a user may take for an orchestration, or for an activity.
OTHERS: dict[str, Any] = {"bare": bare, "Cart": Cart, "add": Cart.add, "None": None, "number": 17}


@app.orchestration
async def astray(ctx: OrchestrationContext, verb: str, given: str) -> str:
    called: Any = getattr(ctx, verb)
    return str(await called(OTHERS[given]))


@app.entity
class Starter(lungfish.Entity):
    def begin(self, given: str) -> str:
        return self.context.start(OTHERS[given])


@app.orchestration
async def opens(ctx: OrchestrationContext, blocking: bool) -> None:
    if blocking:
        with lungfish.connect_sync(app, url="redis://127.0.0.1:1"):
            pass
    else:
        async with lungfish.connect(app, url="redis://127.0.0.1:1"):
            pass


#: A client that was opened outside, and is used inside of an orchestration.
CLIENTS: list[Client] = []


@app.orchestration
async def borrows(ctx: OrchestrationContext) -> None:
    await CLIENTS[0].start(tour, "Cairo")


@pytest.fixture
async def env() -> AsyncIterator[Environment]:
    async with environment(app) as env:
        yield env


def test_a_client_that_was_not_opened() -> None:
    with pytest.raises(UsageError, match=r"inside of 'async with lungfish\.connect\(…\) as client:'"):
        lungfish.connect(app).entity(Cart, "c")
    with pytest.raises(UsageError, match=r"inside of 'with lungfish\.connect_sync\(…\) as client:'"):
        lungfish.connect_sync(app).entity(Cart, "c").state()


async def test_a_client_that_was_not_opened_lists_nothing_either() -> None:
    client = lungfish.connect(app)
    with pytest.raises(UsageError, match="the client is not open"):
        await anext(client.instances())
    with pytest.raises(UsageError, match="the client is not open"):
        await client.start(tour, "Cairo")
    with pytest.raises(UsageError, match="the client is not open"):
        await client.schedules.create("s", lungfish.every(dt.timedelta(hours=1)), tour, ["Cairo"])
    await client.close()


def test_a_client_opened_without_async() -> None:
    client: Any = lungfish.connect(app)
    with (
        pytest.raises(
            UsageError,
            match=r"use 'async with lungfish\.connect\(…\)', or 'with lungfish\.connect_sync\(…\)' in code",
        ),
        client,
    ):
        pass


async def test_a_blocking_client_opened_with_async() -> None:
    client: Any = lungfish.connect_sync(app)
    with pytest.raises(UsageError, match=r"use 'with lungfish\.connect_sync\(…\)', or 'async with lung"):
        async with client:
            pass


async def test_a_client_that_is_awaited_instead_of_entered(env: Environment) -> None:
    for connect in (lungfish.connect, lungfish.connect_sync):
        client: Any = connect(app)
        with pytest.raises(UsageError, match=r"a client is entered, not awaited: use '(async )?with lung"):
            await client
    opened: Any = env.client
    assert await opened is env.client  # containers of injection await whatever they can


@pytest.mark.parametrize("given", [Cart, tour, 17])
@pytest.mark.parametrize("connect", [lungfish.connect, lungfish.connect_sync])
def test_a_client_of_something_else_than_an_app(connect: Callable[[Any], Any], given: Any) -> None:
    with pytest.raises(UsageError, match="connect takes an app or an address such as redis://host:6379, not"):
        connect(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"hub": ""}, "hub must not be empty"),
        ({"hub": "a b"}, "hub 'a b': only letters"),
        ({"hub": 17}, "hub must be a str"),
        ({"url": ""}, "not the URL of a Redis server: ''"),
        ({"url": "localhost:6379"}, "not the URL of a Redis server"),
        ({"url": 6379}, "url is an address such as redis://host:6379, not 6379"),
    ],
)
@pytest.mark.parametrize("connect", [lungfish.connect, lungfish.connect_sync])
def test_a_client_of_what_is_no_hub(connect: Callable[..., Any], given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        connect(app, **given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"app": Cart}, "start takes an App, not <class"),
        ({"url": "localhost:6379"}, "not the URL of a Redis server"),
        ({"replicas": -1}, "replicas is a whole number of 0 or more, not -1"),
        ({"partitions": 0}, "partitions is a whole number of 1 or more, not 0"),
        ({"partitions": "32"}, "partitions is a whole number of 1 or more, not '32'"),
        ({"hosts_per_node": -1}, "hosts_per_node is a whole number of 0 or more, not -1"),
        ({"workers_per_node": 1.5}, "workers_per_node is a whole number of 0 or more, not 1.5"),
        ({"concurrency": 0}, "concurrency is a whole number of 1 or more, not 0"),
        ({"settings": {"lease_ms": 1_000}}, "settings is a HostSettings"),
    ],
)
def test_a_runtime_that_cannot_be(given: dict[str, Any], says: str) -> None:
    """Told before Ray, or the store, is asked for anything."""
    with pytest.raises(UsageError, match=says):
        lungfish.start(**{"app": app, **given})


def test_a_runtime_of_no_app() -> None:
    given: Any = "shop"
    with pytest.raises(UsageError, match="attach takes an App, not 'shop'"):
        lungfish.attach(given)


async def test_a_start_of_what_is_no_orchestration(env: Environment) -> None:
    for given in (greet, bare, Cart, None):
        with pytest.raises(UsageError, match=r"an orchestration is a function with @app\.orchestration"):
            await env.client.start(given)  # type: ignore[call-overload]


async def test_a_start_of_a_function_that_was_called(env: Environment) -> None:
    called: Any = bare_tour()
    with pytest.raises(UsageError, match="not called, or its name; not <coroutine object bare_tour"):
        await env.client.start(called)
    called.close()


async def bare_tour() -> None: ...


@pytest.mark.parametrize(
    ("given", "says"), [({"retry": 3}, "retry is a RetryPolicy"), ({"id": 5}, "activity id must")]
)
async def test_an_option_of_another_type_fails_the_call_and_nothing_hangs(
    env: Environment, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        greet.options(**given)
    with pytest.raises(lungfish.OrchestrationFailed, match=says) as failed:
        await env.client.run(with_options, given, timeout=60)
    assert failed.value.details is not None
    assert "InternalError" not in str(failed.value)
    assert await env.client.run(with_options, {"id": "a key"}, timeout=60) == "Hello Cairo"


def test_a_number_of_retries_is_no_policy() -> None:
    with pytest.raises(UsageError, match=r"retry is a RetryPolicy\(max_attempts=…\), not 3"):
        app.activity(retry=3)(len)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("max_attempts", "3", "whole number"),
        ("max_attempts", 2.5, "whole number"),
        ("initial_interval", 5, "timedelta"),
        ("max_interval", "1h", "timedelta"),
        ("retry_timeout", 60.0, "timedelta"),
    ],
)
def test_a_field_of_a_policy_of_another_type(name: str, value: object, kind: str) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=f"RetryPolicy: {name} is a {kind}, not {value!r}"):
        lungfish.RetryPolicy(**given)


@pytest.mark.parametrize("target", [(Cart, "c"), (Cart, "c", Cart.add, [1]), greet, None])
async def test_a_schedule_of_what_cannot_be_started(env: Environment, target: Any) -> None:
    with pytest.raises(UsageError, match=r"a schedule starts an orchestration, or signals \(entity, key, "):
        await env.client.schedules.create("s", lungfish.every(dt.timedelta(hours=1)), target)


Send = Callable[[lungfish.EntityRef[Cart]], Awaitable[None]]
FLAT: dict[str, Send] = {
    "numbers": lambda cart: cart.signal_many(Cart.add, [1, 2]),  # type: ignore[list-item]
    "numbers by name": lambda cart: cart.signal_many("add", [1, 2]),  # type: ignore[list-item]
    "texts": lambda cart: cart.signal_many(Cart.put, ["book", "pen"]),
    "the last of many": lambda cart: cart.signal_many(Cart.add, [*[(1,)] * 1_500, 2]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("way", FLAT)
async def test_a_batch_of_values_instead_of_arguments(env: Environment, way: str) -> None:
    cart = env.client.entity(Cart, "c")
    number = 1_501 if way == "the last of many" else 1
    with pytest.raises(
        InvalidArguments, match=rf"signal {number}: Cart\.\w+: .* as in \[\(1,\), \(2,\)\], not "
    ):
        await FLAT[way](cart)
    assert await cart.state() is None


@pytest.mark.parametrize("given", OTHERS)
@pytest.mark.parametrize("verb", ["call_activity", "call_orchestration", "start_orchestration"])
async def test_what_an_orchestration_cannot_call(env: Environment, verb: str, given: str) -> None:
    kind = "activity" if verb == "call_activity" else "orchestration"
    with pytest.raises(
        lungfish.OrchestrationFailed, match=f"UsageError: {verb} takes an @app.{kind} or its name, not "
    ):
        await env.client.run(astray, verb, given, timeout=60)


@pytest.mark.parametrize("given", OTHERS)
async def test_what_an_entity_cannot_start(env: Environment, given: str) -> None:
    says = r"context.start takes an @app.orchestration or its name, not "
    with pytest.raises((UsageError, lungfish.EntityOperationFailed), match=says):
        await env.client.entity(Starter, "s").call(Starter.begin, given)


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_client_opened_in_an_orchestration(env: Environment, blocking: bool) -> None:
    with pytest.raises(lungfish.OrchestrationFailed, match="a client cannot be opened in an orch") as failed:
        await env.client.run(opens, blocking, timeout=60)
    assert failed.value.details is not None
    assert failed.value.details.error_type.endswith(".NotDurable")
    assert "test_first_mistakes.py" in failed.value.details.traceback


async def test_a_client_used_in_an_orchestration_is_told_with_the_users_line(env: Environment) -> None:
    CLIENTS[:] = [env.client]
    with pytest.raises(
        lungfish.OrchestrationFailed,
        match=r"orchestration waits at \S+test_first_mistakes\.py:\d",
    ):
        await env.client.run(borrows, timeout=60)
