"""Middleware around operations, what is sent, and attempts: what it is told, what it can and cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lungfish
from lungfish import CallNext, Incoming, OrchestrationContext, Outgoing, Refused
from lungfish.entities.kind import EntityKind
from lungfish.runtime.messages.headers import HEADERS_BYTES_MAX
from lungfish.testing import Environment, crash_everywhere, environment
from tests.unit.entities.fakes import Host, error, value, virtually

#: Both forms of a middleware: the second one may wait.
FORMS = ["yielding", "waiting"]

Before = Callable[[Any], None]


def form_of(form: str, before: Before = lambda _: None, after: Before = lambda _: None) -> Any:
    """Return a middleware of a form: ``before``, what is inside, and, if that ended well, ``after``."""

    def yielding(subject: Any) -> Iterator[None]:
        before(subject)
        yield
        after(subject)

    async def waiting(subject: Any, call_next: CallNext) -> Any:
        before(subject)
        await asyncio.sleep(0)
        result = await call_next()
        after(subject)
        return result

    return yielding if form == "yielding" else waiting


#: What a nested read and the operation around it tell one another.
NESTED: list[str] = []


class Account(lungfish.Entity):
    balance: int = 0
    log: list[str] = []

    def add(self, n: int) -> int:
        self.balance += n
        self.log.append(f"add {n}")
        if n < 0:
            raise ValueError(f"negative {n}")
        return self.balance

    async def add_slowly(self, n: int) -> int:
        await asyncio.sleep(0)
        return self.add(n)

    def tell(self, key: str, n: int) -> None:
        self.context.entity(Account, key).signal(Account.add, n)

    async def move(self, key: str, n: int) -> list[int]:
        there = await self.context.entity(Account, key).call(Account.add, n)
        return [self.add(n), there]

    async def ask_back(self, key: str) -> list[int]:
        self.balance += 1
        return [self.balance, await self.context.entity(Account, key).call(Account.look_at, self.key)]

    async def ask_back_and_change(self, key: str) -> int:
        asked = self.context.entity(Account, key).call(Account.look_at, self.key)
        while not NESTED:
            await asyncio.sleep(0)
        self.balance += 1
        NESTED.append("changed")
        return await asked

    async def look_at(self, key: str) -> int:
        found: int = await self.context.entity(Account, key).call(Account.peek)
        return found

    def call_wrongly(self) -> None:
        _ = self.context.entity(Account, "other").call(Account.add, 1)

    def remind(self) -> None:
        self.context.set_reminder("soon", dt.timedelta(seconds=1), operation="add", args=(5,))

    def begin(self) -> None:
        self.context.start("waits", id="begun")

    @lungfish.reentrant
    @lungfish.shared
    def peek(self) -> int:
        return self.balance

    @lungfish.shared
    def lines(self) -> list[str]:
        return self.log


async def waits(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("go")


async def uses(ctx: OrchestrationContext, key: str, n: int) -> Any:
    account = ctx.entity("Account", key)
    async with ctx.lock(account):
        return await account.call("add", n)


def app_of(*operation_middleware: Any) -> lungfish.App:
    app = lungfish.App("middleware")
    app.entity(Account)
    app.orchestration(waits)
    app.orchestration(uses)
    for each in operation_middleware:
        app.operation_middleware(each)
    return app


def account(env: Environment, key: str = "a") -> lungfish.EntityRef[Account]:
    return env.client.entity(Account, key)


# --- the forms -------------------------------------------------------------------------------


def neither(turn: Incoming) -> None:
    """Not a generator, not async."""


def yields_without_parameters() -> Iterator[None]:
    yield


async def waits_without_next(turn: Incoming) -> None: ...


@pytest.mark.parametrize(
    ("middleware", "words"),
    [
        (neither, "neither of"),
        (7, "neither of"),
        (yields_without_parameters, "called with the subject"),
        (waits_without_next, "the subject and call_next"),
    ],
)
def test_what_is_no_middleware_is_refused(middleware: Any, words: str) -> None:
    app = lungfish.App("middleware")
    for register in (app.operation_middleware, app.sending_middleware):
        with pytest.raises(lungfish.UsageError, match=words):
            register(middleware)
    with pytest.raises(lungfish.UsageError):
        app.activity_middleware(middleware)
    assert (app.around_operations, app.around_sends, app.around_attempts) == ((), (), ())


def test_attempts_may_run_in_a_thread_where_nothing_can_wait() -> None:
    with pytest.raises(lungfish.UsageError, match="may run in a thread"):
        lungfish.App("middleware").activity_middleware(form_of("waiting"))


def test_objects_and_methods_are_middleware_too() -> None:
    class Trace:
        async def __call__(self, turn: Incoming, call_next: CallNext) -> Any:
            return await call_next()

        def around(self, turn: Incoming) -> Iterator[None]:
            yield

    app = lungfish.App("middleware")
    app.operation_middleware(Trace())
    app.operation_middleware(Trace().around)
    assert [each.is_async for each in app.around_operations] == [True, False]


def test_another_hub_has_the_same_middleware() -> None:
    app = app_of(form_of("yielding"))
    app.sending_middleware(form_of("yielding"))
    app.sending_middleware(form_of("waiting"))
    app.activity_middleware(form_of("yielding"))
    other = app.with_hub("other")
    assert (other.around_operations, other.around_attempts) == (app.around_operations, app.around_attempts)
    assert other.around_sends == app.around_sends
    assert other.around_sends_at_once == app.around_sends[:1]


# --- operations: order, and what they are told -------------------------------------------------


@pytest.mark.parametrize("forms", [(a, b) for a in FORMS for b in FORMS])
async def test_the_first_is_outermost(forms: tuple[str, str]) -> None:
    log: list[str] = []

    def named(form: str, name: str) -> Any:
        return form_of(form, lambda _: log.append(f"{name} in"), lambda _: log.append(f"{name} out"))

    async with environment(app_of(named(forms[0], "first"), named(forms[1], "second"))) as env:
        assert await account(env).call(Account.add, 1) == 1
        assert log == ["first in", "second in", "second out", "first out"]
        log.clear()
        assert await account(env).call(Account.add_slowly, 1) == 2
        assert log == ["first in", "second in", "second out", "first out"]


@pytest.mark.parametrize("form", FORMS)
async def test_what_a_turn_tells(form: str) -> None:
    seen: list[Incoming] = []
    app = app_of(form_of(form, seen.append))

    def told() -> list[Any]:
        found = [(t.kind, t.name, t.key, t.operation, t.args, t.caller, t.is_shared) for t in seen]
        seen.clear()
        return found

    async with environment(app) as env:
        with lungfish.sending({"user": "ada"}):
            await account(env).call(Account.add, 1)
        assert dict(seen[0].headers) == {"user": "ada"}
        assert (seen[0].caller or "").startswith("client ")
        seen.clear()
        await account(env).signal("add", n=2)
        await account(env).signal_many(Account.add, [(3,), (4,)])
        assert await account(env).call(Account.peek) == 10
        client = seen[-1].caller
        assert (seen[0].args, dict(seen[0].kwargs), dict(seen[0].headers)) == ((), {"n": 2}, {})
        seen.pop(0)
        assert told() == [
            ("signal", "Account", "a", "add", (3,), None, False),
            ("signal", "Account", "a", "add", (4,), None, False),
            ("call", "Account", "a", "peek", (), client, True),
        ]
        await account(env).call(Account.move, "b", 1)
        assert told() == [
            ("call", "Account", "a", "move", ("b", 1), client, False),
            ("call", "Account", "b", "add", (1,), "Account/a", False),
        ]
        await account(env).call(Account.remind)
        await env.advance(2)
        assert told()[1:] == [("reminder", "Account", "a", "add", (5,), None, False)]
        assert await env.client.run("uses", "c", 7, id="u") == 7
        assert told() == [("call", "Account", "c", "add", (7,), "u", False)], "a lock is no operation"


@pytest.mark.parametrize("form", FORMS)
async def test_what_is_no_operation_of_a_users_entity_is_not_told(form: str) -> None:
    seen: list[Incoming] = []
    app = app_of(form_of(form, seen.append))
    async with environment(app) as env:
        await env.client.topic("news").subscribe(env.client.entity(Account, "s"), Account.add)
        await env.client.topic("news").publish(3)
        while (state := await account(env, "s").state()) is None:
            await asyncio.sleep(0.01)
        assert [(turn.name, turn.operation) for turn in seen] == [("Account", "add")]
        assert state.balance == 3
        await account(env, "s").edit({"balance": 1}, reason="test", by="test")
        assert len(seen) == 1


@pytest.mark.parametrize("form", FORMS)
async def test_entities_that_are_functions(form: str) -> None:
    seen: list[Any] = []
    app = app_of(form_of(form, lambda turn: seen.append((turn.name, turn.operation, turn.args))))

    @app.entity_function
    def counter(context: lungfish.FunctionContext) -> Any:
        context.set_state(context.get_state(lambda: 0) + context.get_input())
        return context.get_state()

    async with environment(app) as env:
        assert await env.client.entity("counter", "c").call("whatever", 5) == 5
        assert seen == [("counter", "whatever", (5,))]


@pytest.mark.parametrize("form", FORMS)
async def test_reentrant_reads(form: str) -> None:
    seen: list[Any] = []
    async with environment(
        app_of(form_of(form, lambda turn: seen.append((turn.key, turn.operation))))
    ) as env:
        assert await account(env).call(Account.ask_back, "b") == [1, 1]
        assert seen == [("a", "ask_back"), ("b", "look_at"), ("a", "peek")]
        assert await account(env).call(Account.add, 1) == 2


async def test_a_nested_read_that_waits_is_not_blamed_for_what_the_operation_around_it_changes() -> None:
    async def waits_for_the_change(turn: Incoming, call_next: CallNext) -> Any:
        result = await call_next()
        if turn.operation == "peek":
            NESTED.append("reads")
            while "changed" not in NESTED:
                await asyncio.sleep(0)
        return result

    async with environment(app_of(waits_for_the_change)) as env:
        assert await account(env).call(Account.ask_back_and_change, "b") == 0
        assert await account(env).call(Account.add, 1) == 2


# --- operations: refusing and failing -----------------------------------------------------------


def refusing(turn: Incoming) -> None:
    if turn.operation.startswith("add") and turn.args[0] == 13:
        turn.entity.balance = 1_000
        turn.entity.context.entity(Account, "told").signal(Account.add, 1)
        raise Refused("not thirteen")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("operation", [Account.add, Account.add_slowly])
async def test_a_refused_call_changes_nothing(form: str, operation: Any) -> None:
    async with environment(app_of(form_of(form, refusing))) as env:
        await account(env).call(operation, 1)
        with pytest.raises(Refused, match="^not thirteen$"):
            await account(env).call(operation, 13)
        assert await account(env).call(operation, 1) == 2
        assert await account(env).call(Account.lines) == ["add 1", "add 1"]
        assert await account(env, "told").state() is None


@pytest.mark.parametrize("form", FORMS)
async def test_a_refused_signal_is_dropped_and_the_others_are_applied(
    form: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with environment(app_of(form_of(form, refusing))) as env:
        with caplog.at_level(logging.WARNING):
            await account(env).signal_many(Account.add, [(1,), (13,), (2,)])
            await account(env).signal(Account.add, 13)
            assert await account(env).call(Account.add, 3) == 6
        assert await account(env).call(Account.lines) == ["add 1", "add 2", "add 3"]
        assert [letter async for letter in env.client.dead_letters()] == []
        assert await account(env, "told").state() is None
    refusals = [record.getMessage() for record in caplog.records if "not thirteen" in record.getMessage()]
    assert len(refusals) == 2
    assert not any("Traceback" in line for line in refusals)


@pytest.mark.parametrize("form", FORMS)
async def test_refusals_reach_operations_and_orchestrations(form: str) -> None:
    async with environment(app_of(form_of(form, refusing))) as env:
        with pytest.raises(Refused, match="not thirteen"):
            await account(env).call(Account.move, "b", 13)
        assert await account(env).state() is None
        with pytest.raises(lungfish.OrchestrationFailed, match="not thirteen") as caught:
            await env.client.run("uses", "c", 13)
        assert caught.value.details is not None
        assert caught.value.details.is_caused_by(Refused)
        assert await account(env, "c").call(Account.add, 1) == 1, "the lock was let go"


@pytest.mark.parametrize("form", FORMS)
def test_refusals_are_counted(form: str) -> None:
    async def test() -> None:
        host = Host(Account, app=app_of(form_of(form, refusing)))
        host.signal("add", [1], [13], [2])
        request = host.ask("add", 13)
        await host.settle()
        assert error(host.answer(request)) == "Refused"
        assert isinstance(host.kind, EntityKind)
        assert host.kind.refused == 2
        assert host.kind.counts.failed == 2
        assert host.fields == {"balance": 3, "log": ["add 1", "add 2"]}

    virtually(test())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("operation", [Account.add, Account.add_slowly])
async def test_what_it_raises_fails_the_operation(form: str, at: str, operation: Any) -> None:
    def fail(turn: Incoming) -> None:
        if turn.args == (13,):
            raise LookupError("no such user")

    async with environment(app_of(form_of(form, **{at: fail}))) as env:
        with pytest.raises(lungfish.EntityOperationFailed, match="LookupError: no such user"):
            await account(env).call(operation, 13)
        assert await account(env).state() is None
        assert await account(env).call(operation, 1) == 1


def swallows(form: str) -> Any:
    def yielding(turn: Incoming) -> Iterator[None]:
        with contextlib.suppress(ValueError):
            yield

    async def waiting(turn: Incoming, call_next: CallNext) -> Any:
        try:
            return await call_next()
        except ValueError:
            return -1

    return yielding if form == "yielding" else waiting


def translates(form: str) -> Any:
    def yielding(turn: Incoming) -> Iterator[None]:
        try:
            yield
        except ValueError as wrong:
            raise LookupError("translated") from wrong

    async def waiting(turn: Incoming, call_next: CallNext) -> Any:
        try:
            return await call_next()
        except ValueError as wrong:
            raise LookupError("translated") from wrong

    return yielding if form == "yielding" else waiting


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("operation", [Account.add, Account.add_slowly])
async def test_a_failure_cannot_be_made_a_success(form: str, operation: Any) -> None:
    async with environment(app_of(swallows(form))) as env:
        with pytest.raises(lungfish.EntityOperationFailed, match="negative -1"):
            await account(env).call(operation, -1)
        assert await account(env).state() is None


@pytest.mark.parametrize("form", FORMS)
async def test_a_failure_may_become_another_one(form: str) -> None:
    async with environment(app_of(translates(form))) as env:
        with pytest.raises(lungfish.EntityOperationFailed, match=r"translated.*negative -1"):
            await account(env).call(Account.add, -1)
        assert await account(env).state() is None


async def test_one_that_waits_sees_the_result_and_may_answer_in_its_place() -> None:
    async def middleware(turn: Incoming, call_next: CallNext) -> Any:
        if turn.operation == "peek":
            return 42
        return await call_next() * 10

    async with environment(app_of(middleware)) as env:
        assert await account(env).call(Account.add, 3) == 30
        assert await account(env).call(Account.peek) == 42
        state = await account(env).state()
        assert state is not None
        assert state.balance == 3


async def calls_twice(turn: Incoming, call_next: CallNext) -> Any:
    await call_next()
    return await call_next()


async def leaves_behind(turn: Incoming, call_next: CallNext) -> Any:
    left = asyncio.ensure_future(call_next())
    await asyncio.sleep(0)
    assert not left.done()


async def never_awaits(turn: Incoming, call_next: CallNext) -> Any:
    _ = call_next()


def ends_early(turn: Incoming) -> Iterator[None]:
    if turn.key == "never":
        yield


def yields_twice(turn: Incoming) -> Iterator[None]:
    yield
    yield


@pytest.mark.parametrize(
    ("middleware", "words"),
    [
        (calls_twice, "calls call_next twice"),
        (leaves_behind, "ended before what it called"),
        (never_awaits, "ended before what it called"),
        (ends_early, "ended before its yield"),
        (yields_twice, "yields more than once"),
    ],
)
async def test_wrong_middleware_fails_the_operation_and_says_why(middleware: Any, words: str) -> None:
    async with environment(app_of(middleware)) as env:
        with pytest.raises(lungfish.UsageError, match=f"{middleware.__name__} {words}"):
            await account(env).call(Account.add_slowly, 1)
        assert await account(env).state() is None


async def test_an_operation_that_raises_what_generators_end_with() -> None:
    class Odd(lungfish.Entity):
        def stop(self) -> None:
            raise StopIteration(7)

    app = app_of(form_of("yielding"))
    app.entity(Odd)
    async with environment(app) as env:
        with pytest.raises(lungfish.EntityOperationFailed, match="failed: StopIteration: 7"):
            await env.client.entity(Odd, "o").call(Odd.stop)


def test_the_traceback_of_a_failure_ends_in_the_operation_and_shows_nothing_of_ours() -> None:
    host = Host(Account, app=app_of(form_of("yielding")))
    failure = host.call("add", -1).failure
    assert failure is not None
    assert 'raise ValueError(f"negative' in failure.traceback
    assert "/lungfish/" not in failure.traceback
    assert failure.cause is None


# --- operations: atomicity, and how often --------------------------------------------------------


class Audit(lungfish.Entity):
    lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


RUNS: list[str] = []


def audits(form: str) -> Any:
    def before(turn: Incoming) -> None:
        RUNS.append(turn.operation)
        if turn.name != "Audit":
            line = f"{turn.key}.{turn.operation}"
            turn.entity.context.entity(Audit, "log").signal(Audit.note, line)

    return form_of(form, before)


@pytest.mark.parametrize("form", FORMS)
def test_what_it_sends_commits_and_rolls_back_with_the_operation_at_any_crash(form: str) -> None:
    app = app_of(audits(form))
    app.entity(Audit)

    async def scenario(client: lungfish.Client) -> Any:
        RUNS.clear()
        first = client.entity(Account, "a")
        moved = await first.call(Account.move, "b", 2)
        with pytest.raises(lungfish.EntityOperationFailed):
            await first.call(Account.add, -1)
        await first.signal(Account.add, 1)
        total = await first.call(Account.peek)
        audit = client.entity(Audit, "log")
        while (state := await audit.state()) is None or len(state.lines) < 4:
            await asyncio.sleep(0.01)
        return [moved, total, sorted(state.lines)]

    report = crash_everywhere(app, scenario)
    assert report.outcome == [[2, 2], 3, ["a.add", "a.move", "a.peek", "b.add"]]
    assert report.runs > 20


def test_sync_operations_stay_one_turn_while_no_middleware_waits() -> None:
    host = Host(Account, app=app_of(form_of("yielding")))
    for n in range(5):
        host.ask("add", n)
    host.run()
    assert len(host.effects.snapshots) == 1


def test_sync_operations_are_a_turn_each_where_one_waits_in_the_same_order() -> None:
    async def test() -> None:
        host = Host(Account, app=app_of(form_of("waiting")))
        host.signal("add", [1], [2])
        requests = [host.ask("add", n) for n in (3, 4)]
        await host.settle()
        assert [value(host.answer(request)) for request in requests] == [6, 10]
        assert host.fields == {"balance": 10, "log": ["add 1", "add 2", "add 3", "add 4"]}
        assert len(host.effects.snapshots) == 4

    virtually(test())


@pytest.mark.parametrize("form", FORMS)
async def test_a_sync_operation_cannot_call_others_whatever_is_around_it(form: str) -> None:
    async with environment(app_of(form_of(form))) as env:
        with pytest.raises(lungfish.UsageError, match="must be 'async def'"):
            await account(env).call(Account.call_wrongly)
        assert await account(env, "other").state() is None


async def test_one_that_waits_may_ask_another_entity() -> None:
    class Rights(lungfish.Entity):
        allowed: bool = False

        def allow(self) -> None:
            self.allowed = True

        @lungfish.shared
        def may(self) -> bool:
            return self.allowed

    async def checks(turn: Incoming, call_next: CallNext) -> Any:
        if turn.name == "Account":
            rights = turn.entity.context.entity(Rights, turn.headers.get("user", "nobody"))
            if not await rights.call(Rights.may):
                raise Refused("no right to do that")
        return await call_next()

    app = app_of(checks)
    app.entity(Rights)
    async with environment(app) as env:
        await env.client.entity(Rights, "ada").call(Rights.allow)
        with lungfish.sending({"user": "ada"}):
            assert await account(env).call(Account.add, 1) == 1
        with pytest.raises(Refused, match="no right"):
            await account(env).call(Account.add, 1)


@pytest.mark.parametrize("form", FORMS)
async def test_headers_that_it_adds_go_on_from_the_operation(form: str) -> None:
    seen: list[dict[str, str]] = []

    def yielding(turn: Incoming) -> Iterator[None]:
        seen.append(dict(turn.headers))
        with lungfish.sending({"from": turn.key}):
            yield

    async def waiting(turn: Incoming, call_next: CallNext) -> Any:
        seen.append(dict(turn.headers))
        with lungfish.sending({"from": turn.key}):
            return await call_next()

    async with environment(app_of(yielding if form == "yielding" else waiting)) as env:
        await account(env).call(Account.tell, "b", 1)
        await account(env).call(Account.move, "b", 1)
        assert seen == [{}, {"from": "a"}, {}, {"from": "a"}]
        assert lungfish.headers() == {}


def test_without_middleware_operations_are_what_they_were() -> None:
    app = app_of()
    host = Host(Account, app=app)
    definition: Any = host.activation
    assert definition._definition is app.find_entity("Account")


# --- what is sent ---------------------------------------------------------------------------------


def sender_of(form: str, log: list[Any]) -> Any:
    def before(sent: Outgoing) -> None:
        log.append((sent.kind, sent.name, sent.key, sent.operation, sent.sender, dict(sent.headers)))
        sent.headers["token"] = "t"
        if sent.key == "secret":
            raise Refused("nobody talks to that")

    return form_of(form, before, lambda sent: log.append(f"{sent.kind} sent"))


@pytest.mark.parametrize("form", FORMS)
async def test_what_clients_send(form: str) -> None:
    log: list[Any] = []
    received: list[dict[str, str]] = []
    app = app_of(form_of("yielding", lambda turn: received.append(dict(turn.headers))))
    app.sending_middleware(sender_of(form, log))
    async with environment(app) as env:
        with lungfish.sending({"user": "ada"}):
            assert await account(env).call(Account.add, 1) == 1
        await account(env).signal(Account.add, 1)
        await account(env).signal_many(Account.add, [(1,), (1,)])
        handle = await env.client.start("waits", id="w")
        await handle.raise_event("go", 1)
        assert await handle.result() == 1
        assert log == [
            ("call", "Account", "a", "add", None, {"user": "ada"}), "call sent",
            ("signal", "Account", "a", "add", None, {}), "signal sent",
            ("signal", "Account", "a", "add", None, {}), "signal sent",
            ("start", "waits", "w", "", None, {}), "start sent",
            ("event", "", "w", "go", None, {}), "event sent",
        ]  # fmt: skip
        assert received == [{"user": "ada", "token": "t"}, *[{"token": "t"}] * 3]


@pytest.mark.parametrize("form", FORMS)
async def test_what_a_client_is_refused_is_not_sent(form: str) -> None:
    app = app_of()
    app.sending_middleware(sender_of(form, []))
    async with environment(app) as env:
        secret = account(env, "secret")
        with pytest.raises(Refused):
            await secret.call(Account.add, 1)
        with pytest.raises(Refused):
            await secret.signal(Account.add, 1)
        with pytest.raises(Refused):
            await secret.signal_many(Account.add, [(1,)])
        with pytest.raises(Refused):
            await env.client.start("waits", id="secret")
        with pytest.raises(Refused):
            await env.client.orchestration("secret").raise_event("go")
        assert await secret.state() is None
        with pytest.raises(lungfish.InstanceNotFound):
            await env.client.orchestration("secret").status()


async def test_one_that_waits_sees_answers_and_failures_of_a_call() -> None:
    seen: list[Any] = []

    async def middleware(sent: Outgoing, call_next: CallNext) -> Any:
        try:
            result = await call_next()
        except lungfish.EntityOperationFailed as failed:
            seen.append(str(failed))
            raise
        seen.append(result)
        return result

    app = app_of()
    app.sending_middleware(middleware)
    async with environment(app) as env:
        assert await account(env).call(Account.add, 2) == 2
        with pytest.raises(lungfish.EntityOperationFailed):
            await account(env).call(Account.add, -1)
        assert seen[0] == 2
        assert "negative -1" in seen[1]


async def test_headers_are_checked_and_bounded_when_it_has_set_them() -> None:
    wrong: dict[str, Any] = {}

    def middleware(sent: Outgoing) -> Iterator[None]:
        sent.headers.update(wrong)
        yield

    app = app_of()
    app.sending_middleware(middleware)
    async with environment(app) as env:
        wrong["n"] = 7
        with pytest.raises(lungfish.UsageError, match="a text"):
            await account(env).call(Account.add, 1)
        wrong["n"] = "x" * HEADERS_BYTES_MAX
        with pytest.raises(lungfish.PayloadTooLarge):
            await account(env).signal(Account.add, 1)
        assert await account(env).state() is None


async def test_what_is_said_of_an_operations_sends_goes_with_them() -> None:
    received: list[Any] = []
    app = app_of(form_of("yielding", lambda turn: received.append((turn.key, dict(turn.headers)))))

    @app.sending_middleware
    def signed(sent: Outgoing) -> Iterator[None]:
        if sent.sender is not None:
            sent.headers["by"] = sent.sender
        yield

    async with environment(app) as env:
        await account(env).call(Account.move, "b", 1)
        assert received == [("a", {}), ("b", {"by": "Account/a"})]


async def test_what_operations_send_goes_through_those_that_never_wait() -> None:
    log: list[Any] = []
    received: list[Any] = []

    def note(turn: Incoming) -> None:
        if turn.caller in ("Account/a", "Account/b"):
            received.append((turn.operation, dict(turn.headers)))

    async def waiting(sent: Outgoing, call_next: CallNext) -> Any:
        assert sent.sender is None, "an operation's sends cannot wait"
        return await call_next()

    app = app_of(form_of("yielding", note))
    app.sending_middleware(waiting)
    app.sending_middleware(sender_of("yielding", log))
    async with environment(app) as env:
        await account(env).call(Account.move, "b", 1)
        await account(env).call(Account.tell, "b", 1)
        await account(env).call(Account.begin)
        with pytest.raises(Refused):
            await account(env).call(Account.tell, "secret", 1)
        while len(received) < 2:
            await asyncio.sleep(0.01)
    by_operations = [each for each in log if isinstance(each, tuple) and each[4] is not None]
    carried = {"token": "t"}
    assert by_operations == [
        ("call", "Account", "b", "add", "Account/a", carried),
        ("signal", "Account", "b", "add", "Account/a", carried),
        ("start", "waits", "begun", "", "Account/a", carried),
        ("signal", "Account", "secret", "add", "Account/a", carried),
    ]
    assert received == [("add", carried), ("add", carried)]


@pytest.mark.parametrize("always_replay", [False, True])
async def test_what_orchestrations_send_is_not_told(always_replay: bool) -> None:
    log: list[Any] = []
    app = app_of()
    app.sending_middleware(sender_of("yielding", log))
    async with environment(app, always_replay=always_replay) as env:
        assert await env.client.run("uses", "c", 7, id="u") == 7
    assert [each[:2] for each in log if isinstance(each, tuple)] == [("start", "uses")]


# --- attempts of activities ------------------------------------------------------------------------

activities = lungfish.App("activities")
ATTEMPTS: list[Any] = []
FAILING: list[BaseException] = []


@activities.activity_middleware
def attempts(attempt: lungfish.ActivityInfo) -> Iterator[None]:
    ATTEMPTS.append((attempt.name, attempt.attempt, dict(lungfish.headers())))
    if FAILING:
        raise FAILING.pop()
    try:
        yield
    except ValueError:
        ATTEMPTS.append("failed")
        return
    ATTEMPTS.append("ended")


@activities.activity(retry=lungfish.RetryPolicy(max_attempts=3))
def work(n: int) -> int:
    if lungfish.activity_info().attempt <= n:
        raise ValueError(n)
    return n


@activities.activity(retry=lungfish.RetryPolicy(max_attempts=3))
async def work_slowly(n: int) -> int:
    await asyncio.sleep(0)
    return work(n)


@activities.orchestration
async def works(ctx: OrchestrationContext, name: str, n: int) -> Any:
    return await ctx.call_activity(name, n)


@pytest.fixture(autouse=True)
def _clean() -> None:
    ATTEMPTS.clear()
    FAILING.clear()
    NESTED.clear()


@pytest.mark.parametrize("name", ["work", "work_slowly"])
async def test_around_each_attempt_and_a_failure_stays_one(name: str) -> None:
    async with environment(activities) as env:
        with lungfish.sending({"user": "ada"}):
            assert await env.client.run(works, name, 1) == 1
    carried = {"user": "ada"}
    expected = [(name, 1, carried), "failed", (name, 2, carried), "ended"]
    assert expected == ATTEMPTS


@pytest.mark.parametrize("name", ["work", "work_slowly"])
async def test_a_refused_attempt_is_not_tried_again_and_another_failure_is(name: str) -> None:
    async with environment(activities) as env:
        FAILING.append(Refused("not on this worker"))
        with pytest.raises(lungfish.OrchestrationFailed, match="not on this worker"):
            await env.client.run(works, name, 0)
        assert len(ATTEMPTS) == 1
        FAILING.append(ConnectionError("no metrics"))
        assert await env.client.run(works, name, 0) == 0
        assert [each[1] for each in ATTEMPTS if isinstance(each, tuple)] == [1, 1, 2]
