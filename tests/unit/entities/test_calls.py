"""Calls from entities: sent once and answered once, whatever happens in between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from lungfish.entities import Entity, shared
from lungfish.entities import calls as calls_module
from lungfish.runtime import codec
from lungfish.runtime.errors import (
    CallCycle,
    DeadlineExceeded,
    EntityOperationFailed,
    FailureDetails,
    InvalidArguments,
)
from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.messages.messages import Call
from tests.unit.entities.fakes import Host, error, value, virtually

STEPS: list[str] = []
CHOICE: Callable[[], str] = lambda: "a"  # noqa: E731


@pytest.fixture(autouse=True)
def _clean() -> None:
    STEPS.clear()


class Account(Entity):
    balance: int = 0

    def add(self, n: int) -> int:
        self.balance += n
        return self.balance

    def reset(self) -> None:
        self.balance = 0

    @shared
    def get(self) -> int:
        return self.balance


class Bank(Entity):
    moved: int = 0

    async def move(self, n: int) -> list[int]:
        STEPS.append("begins")
        self.moved += n
        self.context.entity(Account, "audit").signal(Account.add, n)
        taken = await self.context.entity(Account, "from").call(Account.add, -n)
        STEPS.append(f"taken {taken}")
        given = await self.context.entity("Account", "to").call("add", n)
        STEPS.append(f"given {given}")
        self.moved += 1000
        return [taken, given]

    async def both(self) -> list[int]:
        account = self.context.entity(Account, "x")
        return list(await asyncio.gather(account.call(Account.add, 1), account.call(Account.add, 2)))

    async def choose(self) -> int:
        await self.context.entity(Account, CHOICE()).call(Account.add, 1)
        await self.context.entity(Account, "last").call(Account.add, 1)
        return 1

    async def maybe(self) -> int:
        if CHOICE() == "a":
            await self.context.entity(Account, "a").call(Account.add, 1)
        return 0

    async def swallow(self) -> int:
        try:
            await self.context.entity(Account, CHOICE()).call(Account.add, 1)
        except Exception:
            STEPS.append("swallowed")
        return 7

    async def patient(self) -> str:
        try:
            await self.context.entity(Account, "slow").call(Account.add, 1)
        except DeadlineExceeded as late:
            STEPS.append(str(late))
        await self.context.entity(Account, "after").call(Account.add, 1)
        return "compensated"

    async def impatient(self) -> str:
        try:
            async with asyncio.timeout(1):
                await self.context.entity(Account, "slow").call(Account.add, 1)
        except TimeoutError:
            STEPS.append("gave up")
        await self.context.entity(Account, "after").call(Account.add, 1)
        return "went on"

    async def caught(self) -> str:
        try:
            await self.context.entity(Account, "x").call(Account.add, 1)
        except EntityOperationFailed as failed:
            return failed.details.message if failed.details is not None else "no details"
        return "no failure"

    async def wrong(self) -> None:
        await self.context.entity(Account, "x").call("add", "not a number", "nor two")

    async def self_call(self) -> None:
        await self.context.entity(Bank, self.key).call(Bank.self_call)

    async def back(self) -> str:
        try:
            await self.context.entity(Bank, "first").call(Bank.back)
        except CallCycle as cycle:
            return str(cycle)
        return "no cycle"

    def sync(self) -> None:
        self.context.entity(Account, "x").call(Account.add, 1)  # type: ignore[unused-awaitable]

    async def starts(self) -> str:
        chosen = self.context.start("order", 1)
        await self.context.entity(Account, "x").call(Account.add, 1)
        return chosen

    @shared
    async def look(self, key: str) -> int:
        return await self.context.entity(Account, key).call(Account.get)


def bank() -> Host:
    host = Host(Bank, Account)

    async def order(ctx: Any, n: int) -> None: ...

    host.app.orchestration(order)
    return host


def failing(name: str, message: str) -> FailureDetails:
    return FailureDetails(name, message)


async def test_a_call_and_its_answer() -> None:
    host = bank()
    request = host.ask("move", 5)
    await host.settle()
    (first,) = host.calls
    assert first.target == ActorId(ENTITY, "Account", "from")
    assert first.operation == "add"
    assert codec.decode(first.args) == [[-5], {}]
    assert first.reply_to == host.actor
    assert first.chain == ("Bank/k",)
    assert first.deadline_ms == host.effects.now_ms + 30_000
    assert host.items[0].record, "the journal is in the commit that carries the call"
    assert host.signals == [], "signals wait for the end"
    answer = host.respond(first.request, -5)
    await host.settle()
    assert answer in host.effects.finished
    _, second = host.calls
    host.respond(second.request, 5)
    await host.settle()
    assert value(host.answer(request)) == [-5, 5]
    assert host.fields == {"moved": 1005}
    assert [signal.target.key for signal in host.signals] == ["audit"]
    assert host.activation.passive


@pytest.mark.parametrize("answered", [0, 1, 2], ids=["no answer", "one answer", "two answers"])
@pytest.mark.parametrize("when", ["before the crash", "after the crash"])
async def test_a_crash_doubles_nothing(answered: int, when: str) -> None:
    host = bank()
    request = host.ask("move", 5)
    await host.settle()

    def respond(at: int) -> None:
        host.respond(host.calls[at].request, [-5, 5][at])

    for at in range(answered):
        if at < answered - 1 or when == "before the crash":
            respond(at)
            if at < 1:
                await host.settle()
            else:
                host.activation.run(host.effects)  # taken into the journal; the operation has not seen it
    await host.crash()
    if answered and when == "after the crash":
        respond(answered - 1)
    STEPS.clear()
    await host.settle()
    assert STEPS[0] == "begins", "the operation is run again from its beginning"
    for at in range(answered, 2):
        if len(host.calls) == at:
            await host.settle()
        respond(at)
        await host.settle()
    assert [call.target.key for call in host.calls] == ["from", "to"], "each call was sent once"
    assert len({call.request for call in host.calls}) == 2
    assert value(host.answer(request)) == [-5, 5]
    assert host.fields == {"moved": 1005}
    assert len(host.signals) == 1
    assert host.activation.passive


async def test_an_answer_that_comes_twice_counts_once() -> None:
    host = bank()
    request = host.ask("move", 5)
    await host.settle()
    for result in (-5, -100):
        host.respond(host.calls[0].request, result)
    await host.settle()
    host.respond(host.calls[0].request, -200)
    host.respond(host.calls[1].request, 5)
    await host.settle()
    assert value(host.answer(request)) == [-5, 5]
    assert len(host.effects.finished) == len(host.items)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("crash", [False, True])
async def test_calls_at_once(order: tuple[int, int], crash: bool) -> None:
    host = bank()
    request = host.ask("both")
    await host.settle()
    assert [codec.decode(call.args)[0] for call in host.calls] == [[1], [2]]
    for at in order:
        host.respond(host.calls[at].request, at)
        await host.settle()
        if crash and at == order[0]:
            await host.crash()
            await host.settle()
    assert value(host.answer(request)) == [0, 1]
    assert len(host.calls) == 2


# --- re-runs that take another path --------------------------------------------------------------


@pytest.mark.parametrize("operation", ["choose", "swallow"])
async def test_another_call_in_the_rerun_is_an_error_that_explains(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = bank()
    request = host.ask(operation)
    await host.settle()
    await host.crash()
    monkeypatch.setitem(globals(), "CHOICE", lambda: "b")
    await host.settle()
    answer = host.answer(request)
    assert error(answer) == "NonDeterminism", "even if the operation catches it"
    assert answer.failure is not None
    assert "step 1" in answer.failure.message
    assert "'call Account/a.add'" in answer.failure.message
    assert "'call Account/b.add'" in answer.failure.message
    assert len(host.calls) == 1
    assert host.activation.passive


async def test_a_call_less_in_the_rerun_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    host = bank()
    request = host.ask("maybe")
    await host.settle()
    await host.crash()
    monkeypatch.setitem(globals(), "CHOICE", lambda: "b")
    await host.settle()
    answer = host.answer(request)
    assert error(answer) == "NonDeterminism"
    assert answer.failure is not None
    assert "'end'" in answer.failure.message


async def test_the_id_of_a_started_orchestration_is_the_same_in_the_rerun() -> None:
    host = bank()
    request = host.ask("starts")
    await host.settle()
    await host.crash()
    host.respond(host.calls[0].request, 1)
    await host.settle()
    (start,) = [message for message in host.effects.sent if type(message).__name__ == "Start"]
    assert value(host.answer(request)) == start.target.key == "u1"


# --- deadlines -------------------------------------------------------------------------------------


def test_no_answer_in_time() -> None:
    async def scenario() -> None:
        host = bank()
        request = host.ask("patient")
        await host.settle()
        await asyncio.sleep(29.9)
        await host.settle()
        assert STEPS == []
        await asyncio.sleep(0.2)
        await host.settle()
        assert STEPS == ["call Account/slow.add was not answered within 30 s"]
        late = host.respond(host.calls[0].request, 1)
        await host.settle()
        assert late in host.effects.finished
        await host.crash()
        await host.settle()
        assert len(STEPS) == 2, "the re-run sees the time-out again, and not the late answer"
        host.respond(host.calls[1].request, 1)
        await host.settle()
        assert value(host.answer(request)) == "compensated"
        assert len(host.calls) == 2

    virtually(scenario())


def test_a_rerun_waits_no_longer_than_the_deadline() -> None:
    async def scenario() -> None:
        host = bank()
        host.ask("patient")
        await host.settle()
        await host.crash()
        host.effects.now_ms += 25_000
        await host.settle()
        await asyncio.sleep(5.1)
        assert len(STEPS) == 1

    virtually(scenario())


def test_an_operation_that_stopped_waiting_stops_again_in_the_rerun() -> None:
    async def scenario() -> None:
        host = bank()
        request = host.ask("impatient")
        await host.settle()
        host.effects.now_ms += 20_000
        await asyncio.sleep(1.1)
        await host.settle()
        assert STEPS == ["gave up"]
        late = host.respond(host.calls[0].request, 1)
        await host.settle()
        assert late in host.effects.finished
        host.effects.now_ms += 15_000  # past the deadline of the first call, not of the second
        await host.crash()
        await host.settle()
        await asyncio.sleep(1.1)
        await host.settle()
        assert STEPS == ["gave up", "gave up"]
        host.respond(host.calls[1].request, 1)
        await host.settle()
        assert value(host.answer(request)) == "went on"
        assert len(host.calls) == 2

    virtually(scenario())


# --- failures -------------------------------------------------------------------------------------


async def test_a_failed_call_can_be_caught() -> None:
    host = bank()
    request = host.ask("caught")
    await host.settle()
    host.respond(host.calls[0].request, failure=failing("builtins.ValueError", "broke"))
    await host.settle()
    assert value(host.answer(request)) == "broke"


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (failing("builtins.ValueError", "broke"), "EntityOperationFailed"),
        (failing("lungfish.runtime.errors.NotRegistered", "no such"), "NotRegistered"),
        (failing("lungfish.runtime.errors.DeadlineExceeded", "late"), "DeadlineExceeded"),
    ],
)
async def test_a_failed_call_fails_the_operation_and_rolls_it_back(
    details: FailureDetails, expected: str
) -> None:
    host = bank()
    request = host.ask("move", 5)
    await host.settle()
    host.respond(host.calls[0].request, failure=details)
    await host.settle()
    answer = host.answer(request)
    assert error(answer) == expected
    assert answer.failure is not None
    assert details.message in answer.failure.message
    if expected == "EntityOperationFailed":
        assert answer.failure.cause == details
    assert host.snapshot is None
    assert host.signals == []


async def test_wrong_arguments_fail_where_the_call_is_made() -> None:
    host = bank()
    request = host.ask("wrong")
    await host.settle()
    assert error(host.answer(request)) == InvalidArguments.__name__
    assert host.calls == []


async def test_a_sync_operation_cannot_call() -> None:
    host = bank()
    answer = host.call("sync")
    assert error(answer) == "UsageError"
    assert answer.failure is not None
    assert "Bank.sync must be 'async def' to call" in answer.failure.message


async def test_shared_operations_call_independently() -> None:
    host = bank()
    requests = [host.ask("look", key) for key in ("x", "y")]
    await host.settle()
    assert [call.target.key for call in host.calls] == ["x", "y"]
    host.respond(host.calls[1].request, 2)
    await host.settle()
    assert value(host.answer(requests[1])) == 2
    await host.crash()
    host.respond(host.calls[0].request, 1)
    await host.settle()
    assert value(host.answer(requests[0])) == 1
    assert len(host.calls) == 2


# --- cycles ---------------------------------------------------------------------------------------


async def test_an_entity_cannot_wait_for_itself() -> None:
    host = bank()
    request = host.ask("self_call")
    await host.settle()
    answer = host.answer(request)
    assert error(answer) == "CallCycle"
    assert answer.failure is not None
    assert answer.failure.message.startswith("Bank/k → Bank/k: Bank/k waits for this call")
    assert host.calls == []


async def test_a_cycle_fails_at_once_and_names_the_chain() -> None:
    host = bank()
    request = host.ask("back", chain=("Bank/first", "Account/second"))
    await host.settle()
    message = value(host.answer(request))
    assert message.startswith("Bank/first → Account/second → Bank/k → Bank/first: Bank/first waits")


async def test_a_signals_sender_does_not_wait() -> None:
    host = bank()
    host.signal("back", [], chain=("Bank/first",))
    await host.settle()
    assert [call.target.key for call in host.calls] == ["first"]
    assert host.calls[0].chain == ("Bank/k",)


def test_the_deadline_is_what_callers_are_told() -> None:
    assert calls_module.CALL_DEADLINE_MS == 30_000


# --- a whole: entities that call each other, with crashes at random -------------------------------------


@pytest.mark.parametrize("seed", range(20))
async def test_money_is_neither_made_nor_lost(seed: int) -> None:
    """Several entities, messages in any order that keeps pairs in order, crashes anywhere between steps."""
    chance = random.Random(seed)
    hosts = {
        ("Bank", "k"): bank(),
        **{("Account", key): Host(Account, key=key) for key in ("from", "to", "audit")},
    }
    carried = dict.fromkeys(hosts, 0)
    home = hosts["Bank", "k"]
    requests = [home.ask("move", n) for n in (1, 2, 3)]
    for _ in range(400):
        host = chance.choice(list(hosts.values()))
        if chance.random() < 0.2:
            await host.crash()
        host.run()
        await asyncio.sleep(0)
        host.run()
        for name, sender in hosts.items():
            for message in sender.effects.sent[carried[name] :]:
                receiver = hosts.get((message.target.name, message.target.key))
                if receiver is not None:
                    receiver.accept(message)
            carried[name] = len(sender.effects.sent)
        if all(home.answered(request) for request in requests):
            break
    for host in hosts.values():
        await host.settle()
    assert [value(home.answer(request)) for request in requests] == [[-1, 1], [-3, 3], [-6, 6]]
    assert {name: host.fields for name, host in hosts.items()} == {
        ("Bank", "k"): {"moved": 3006},
        ("Account", "from"): {"balance": -6},
        ("Account", "to"): {"balance": 6},
        ("Account", "audit"): {"balance": 6},
    }
    assert sum(isinstance(message, Call) for message in home.effects.sent) == 6
