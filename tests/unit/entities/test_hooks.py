"""on_activate and on_passivate: when they run, what they may do, what becomes of messages when they fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import PrivateAttr

import lungfish
from lungfish.entities import Entity, shared
from lungfish.entities.hooks import ACTIVATE_MAX_S, AGAIN, BACKOFF_MS
from lungfish.runtime.declared.definitions import reentrant
from lungfish.runtime.errors import ActivationFailed, UsageError
from lungfish.runtime.messages.messages import CancelCall, TimerFired
from lungfish.testing import crash_everywhere
from tests.unit.entities.fakes import CLIENT_ID, Host, error, value, virtually
from tests.unit.hub import hub_of
from tests.virtual import virtually as on_a_virtual_loop

TRACE: list[str] = []
FAILS: list[bool] = []
GATE: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    TRACE.clear()
    FAILS.clear()
    GATE.clear()


class Desk(Entity):
    value: int = 0
    notes: list[str] = []
    _seen: list[str] = PrivateAttr(default_factory=list)

    def on_activate(self) -> None:
        TRACE.append(f"opens {self.key} at {self.value}")
        self._seen.append("on_activate")
        if FAILS and FAILS.pop(0):
            self.value = 1_000
            self.context.signal((Desk, "other"), Desk.add, 1)
            raise ConnectionError("no database")

    def on_passivate(self) -> None:
        TRACE.append(f"closes {self.key} at {self.value}")

    def add(self, n: int) -> int:
        self.value += n
        if n < 0:
            raise ValueError(n)
        return self.value

    @shared
    def seen(self) -> list[str]:
        return self._seen


class Stamp(Entity):
    opened: int = 0
    value: int = 0

    async def on_activate(self) -> None:
        if GATE:
            await GATE[0].wait()
        self.opened += 1
        if FAILS and FAILS.pop(0):
            raise ConnectionError("no database")

    def add(self, n: int) -> int:
        self.value += n
        if n < 0:
            raise ValueError(n)
        return self.value

    async def slow(self) -> int:
        await self.context.entity(Stamp, "other").call(Stamp.add, 1)
        return self.value

    @shared
    def get(self) -> int:
        return self.opened

    @reentrant
    @shared
    def peek(self) -> int:
        return self.opened


def test_it_runs_once_per_activation_before_the_first_operation() -> None:
    host = Host(Desk)
    assert TRACE == [], "nothing is run for an activation that is asked nothing"
    assert value(host.call("add", 2)) == 2
    assert value(host.call("add", 2)) == 4
    host.reactivate()
    host.signal("add", [1])
    host.run()
    assert TRACE == ["opens k at 0", "opens k at 4"]


def test_hooks_are_no_operations() -> None:
    host = Host(Desk)
    assert error(host.call("on_activate")) == "NotRegistered"
    assert error(host.call("on_passivate")) == "NotRegistered"


def test_one_that_changes_nothing_writes_nothing() -> None:
    host = Host(Desk)
    assert value(host.call("seen")) == ["on_activate"]
    assert host.effects.snapshots == []


def test_what_it_leaves_in_private_attributes_stays_when_operations_fail() -> None:
    host = Host(Desk)
    assert error(host.call("add", -1)) == "ValueError"
    assert value(host.call("seen")) == ["on_activate"]
    assert TRACE == ["opens k at 0"]


def test_what_it_changes_is_stored_whatever_becomes_of_the_operation() -> None:
    async def test() -> None:
        host = Host(Stamp)
        refused = host.ask("add", -1)
        await host.settle()
        assert error(host.answer(refused)) == "ValueError"
        assert host.fields == {"opened": 1, "value": 0}
        await host.crash()
        asked = host.ask("get")
        await host.settle()
        assert value(host.answer(asked)) == 2
        assert host.fields == {"opened": 2, "value": 0}

    virtually(test())


def test_a_crash_while_it_runs_runs_it_again() -> None:
    async def test() -> None:
        GATE.append(asyncio.Event())
        host = Host(Stamp)
        host.signal("add", [1], [2])
        asked = host.ask("add", 3)
        await host.settle()
        assert host.effects.snapshots == []
        assert host.effects.finished == []
        assert not host.activation.passive
        await host.crash()
        GATE[0].set()
        await host.settle()
        assert value(host.answer(asked)) == 6
        assert host.fields == {"opened": 1, "value": 6}

    virtually(test())


def test_calls_that_wait_fail_and_signals_stay_in_order() -> None:
    host = Host(Desk)
    FAILS.append(True)
    first = host.signal("add", [1])
    asked = host.ask("add", 10)
    last = host.signal("add", [2])
    host.run()
    failure = host.answer(asked).failure
    assert failure is not None
    assert failure.is_a(ActivationFailed)
    assert failure.is_caused_by(ConnectionError)
    assert "Desk/k" in failure.message
    assert host.effects.snapshots == [], "what it changed is taken back"
    assert host.signals == [], "and what it sent"
    assert first not in host.effects.finished
    assert last not in host.effects.finished
    assert not host.activation.passive, "nor may it be let go while something waits"
    assert not host.activation.ready, "nor tried again in a busy loop"
    assert value(host.call("add", 4)) == 7, "the next message tries again"


def test_a_timer_tries_again_while_signals_wait() -> None:
    host = Host(Desk)
    FAILS.extend([True, True])
    host.signal("add", [1])
    host.run()
    ((timer_id, (due_ms, fired)),) = host.effects.timers.items()
    assert due_ms == host.effects.now_ms + BACKOFF_MS[0]
    assert isinstance(fired, TimerFired)
    host.accept(fired)
    host.run()
    due_ms, fired = host.effects.timers[timer_id]
    assert due_ms == host.effects.now_ms + 2 * BACKOFF_MS[0]
    host.accept(fired)
    host.run()
    assert host.fields == {"value": 1, "notes": []}
    assert host.effects.timers == {}
    host.accept(TimerFired(host.actor, "", 0, due_ms, AGAIN))
    host.run()
    assert host.activation.passive


def test_no_timer_where_nothing_waits() -> None:
    host = Host(Desk)
    FAILS.append(True)
    assert error(host.call("add", 1)) == "ActivationFailed"
    assert host.effects.timers == {}
    assert host.activation.passive


def test_a_call_that_had_begun_before_a_crash_stays() -> None:
    async def test() -> None:
        host = Host(Stamp)
        asked = host.ask("slow")
        await host.settle()
        (made,) = host.calls
        await host.crash()
        FAILS.append(True)
        late = host.ask("get")
        await host.settle()
        assert not host.answered(asked)
        assert error(host.answer(late)) == "ActivationFailed"
        host.respond(made.request, 1)
        await host.settle()
        assert value(host.answer(asked)) == 0
        assert len(host.calls) == 1, "its journal was there, too"

    virtually(test())


def test_a_call_back_waits_for_it_too() -> None:
    async def test() -> None:
        host = Host(Stamp)
        asked = host.ask("slow")
        await host.settle()
        await host.crash()
        GATE.append(asyncio.Event())
        inside = host.ask("peek", chain=(str(host.actor), "Stamp/other"))
        await host.settle()
        assert not host.answered(inside)
        GATE[0].set()
        await host.settle()
        assert value(host.answer(inside)) == 2
        assert not host.answered(asked)

    virtually(test())


def test_it_is_bounded_in_time() -> None:
    async def test() -> None:
        GATE.append(asyncio.Event())
        host = Host(Stamp)
        asked = host.ask("get")
        host.run()
        await asyncio.sleep(ACTIVATE_MAX_S - 1)
        host.run()
        assert not host.answered(asked)
        await asyncio.sleep(2)
        host.run()
        failure = host.answer(asked).failure
        assert failure is not None
        assert failure.is_caused_by(TimeoutError)

    virtually(test())


def test_a_call_that_is_cancelled_meanwhile_is_forgotten() -> None:
    async def test() -> None:
        GATE.append(asyncio.Event())
        host = Host(Stamp)
        asked = host.ask("get")
        host.run()
        host.accept(CancelCall(host.actor, asked, CLIENT_ID))
        host.run()
        assert not host.activation.passive, "it still runs"
        GATE[0].set()
        await host.settle()
        assert not host.answered(asked)
        again = host.ask("get")
        await host.settle()
        assert value(host.answer(again)) == 1

    virtually(test())


class Caller(Entity):
    async def on_activate(self) -> None:
        await self.context.entity(Desk, "x").call(Desk.add, 1)

    def get(self) -> int:
        return 1


class Greeter(Entity):
    greeted: bool = False

    def on_activate(self) -> None:
        if not self.greeted:
            self.greeted = True
            self.context.signal((Desk, "x"), Desk.add, 1)
            self.context.set_reminder("r", self.context.now(), operation=Greeter.get)

    def on_passivate(self) -> None:
        TRACE.append(self.key)
        self.context.signal((Desk, "x"), Desk.add, 1)

    def get(self) -> int:
        return 1


class Deleter(Entity):
    def on_activate(self) -> None:
        self.context.delete()

    def get(self) -> int:
        return 1


@pytest.mark.parametrize("cls", [Caller, Deleter])
def test_what_it_may_not_do_is_refused(cls: type[Any]) -> None:
    async def test() -> None:
        host = Host(cls, Desk)
        asked = host.ask("get")
        await host.settle()
        failure = host.answer(asked).failure
        assert failure is not None
        assert failure.is_caused_by(UsageError)
        assert host.calls == []

    virtually(test())


def test_it_may_signal_and_set_reminders() -> None:
    host = Host(Greeter, Desk)
    assert value(host.call("get")) == 1
    assert [signal.operation for signal in host.signals] == ["add"]
    assert host.fields == {"greeted": True}
    assert len(host.effects.timers) == 1
    host.reactivate()
    assert value(host.call("get")) == 1
    assert len(host.signals) == 1


def test_on_passivate_cannot_send(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(Greeter, Desk)
    host.call("get")
    host.activation.passivate()
    assert TRACE == ["k"]
    assert "cannot send" in caplog.text


def test_on_passivate_runs_only_for_what_was_awake() -> None:
    host = Host(Desk)
    host.run()
    host.activation.passivate()
    assert TRACE == []


@pytest.mark.parametrize(
    "made",
    [
        {"on_activate": lambda self, n: None},
        {"on_activate": staticmethod(print)},
        {"on_passivate": lambda self: (yield)},
    ],
)
def test_what_cannot_be_a_hook_is_refused(made: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="on_"):
        lungfish.App("refused").entity(type("Bad", (Entity,), {"__annotations__": {}, **made}))


def test_a_field_cannot_have_its_name() -> None:
    with pytest.raises(UsageError, match="on_activate"):
        type("Bad", (Entity,), {"__annotations__": {"on_activate": int}, "on_activate": 3})


# --- on hosts -----------------------------------------------------------------------------------

app = lungfish.App("hooks")


@app.entity
class Room(lungfish.Entity):
    guests: int = 0

    async def on_activate(self) -> None:
        await asyncio.sleep(0.01)
        TRACE.append(f"opens {self.key}")

    async def on_passivate(self) -> None:
        await asyncio.sleep(0.01)
        TRACE.append(f"closes {self.key} with {self.guests}")

    def enter(self) -> int:
        self.guests += 1
        return self.guests


@app.orchestration
async def visit(ctx: lungfish.OrchestrationContext, key: str) -> int:
    return await ctx.entity(Room, key).call(Room.enter)


def test_a_drained_host_runs_on_passivate_and_the_next_owner_on_activate() -> None:
    async def test() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a")
            async with hub.client() as client:
                room = client.entity(Room, "r")
                assert await room.call(Room.enter) == 1
                assert TRACE == ["opens r"]
                await hub.start_all("b")
                await hub.drain("a")
                await hub.drain("b")
                assert TRACE[-1] == "closes r with 1"
                assert TRACE.count("closes r with 1") == TRACE.count("opens r")
                await hub.start_all("c")
                assert await room.call(Room.enter) == 2
                assert TRACE[-1] == "opens r"

    on_a_virtual_loop(test)


def test_a_killed_host_runs_no_on_passivate_and_loses_nothing() -> None:
    async def test() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a", "b")
            async with hub.client() as client:
                rooms = [client.entity(Room, f"r{n}") for n in range(8)]
                assert await asyncio.gather(*(room.call(Room.enter) for room in rooms)) == [1] * 8
                asked = [asyncio.create_task(room.call(Room.enter)) for room in rooms]
                await asyncio.sleep(0)
                await hub.kill("a")
                assert await asyncio.gather(*asked) == [2] * 8
                assert not [line for line in TRACE if line.startswith("closes")]

    on_a_virtual_loop(test)


def test_idle_ones_are_let_go() -> None:
    async def test() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a", idle_ms=1_000)
            async with hub.client() as client:
                await client.entity(Room, "r").call(Room.enter)
                await hub.until(lambda: "closes r with 1" in TRACE, "it is closed")
                handle = await client.start(visit, "r")
                assert await handle.result() == 2
                assert TRACE.count("opens r") == 2

    on_a_virtual_loop(test)


def test_a_client_and_an_entity_see_the_same_class_of_error() -> None:
    async def test() -> None:
        async with hub_of(failing) as hub:
            await hub.start_all("a")
            async with hub.client() as client:
                with pytest.raises(ActivationFailed, match="on_activate"):
                    await client.entity(Broken, "x").call(Broken.get)
                assert await client.entity(Asks, "x").call(Asks.ask) == "ActivationFailed"
                with pytest.raises(lungfish.OrchestrationFailed) as caught:
                    await client.run(asks, "x")
                assert caught.value.details is not None
                assert caught.value.details.is_caused_by(ActivationFailed)

    on_a_virtual_loop(test)


failing = lungfish.App("failing")


@failing.entity
class Broken(lungfish.Entity):
    def on_activate(self) -> None:
        raise ConnectionError("no database")

    def get(self) -> int:
        return 1


@failing.entity
class Asks(lungfish.Entity):
    async def ask(self) -> str:
        try:
            await self.context.entity(Broken, "x").call(Broken.get)
        except lungfish.EntityOperationFailed as error:
            return type(error).__name__
        return ""


@failing.orchestration
async def asks(ctx: lungfish.OrchestrationContext, key: str) -> None:
    await ctx.entity(Broken, key).call(Broken.get)


# --- crashes ------------------------------------------------------------------------------------

crashing = lungfish.App("hooks-and-crashes")


@crashing.entity
class Member(lungfish.Entity):
    joined: int = 0
    value: int = 0

    async def on_activate(self) -> None:
        await asyncio.sleep(0)
        if not self.joined:
            self.joined += 1
            self.context.signal((Club, "c"), Club.join)

    def add(self) -> int:
        self.value += 1
        return self.value


@crashing.entity
class Club(lungfish.Entity):
    members: int = 0

    def join(self) -> None:
        self.members += 1

    @lungfish.shared
    def count(self) -> int:
        return self.members


def test_a_host_that_dies_at_any_instant_changes_nothing() -> None:
    async def scenario(client: lungfish.Client) -> list[Any]:
        member, club = client.entity(Member, "m"), client.entity(Club, "c")
        found: list[Any] = [await member.call(Member.add), await member.call(Member.add)]
        while not await club.call(Club.count):
            await asyncio.sleep(0.01)
        state = await member.state()
        return [*found, await club.call(Club.count), state and state.joined]

    report = crash_everywhere(crashing, scenario)
    assert not report.findings
    assert report.outcome == [1, 2, 1, 1]
