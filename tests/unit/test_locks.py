"""Critical sections through a whole runtime: who runs, who waits, and that every way out lets go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.entities import locking
from lungfish.entities.locking import Locks
from lungfish.runtime.ids import ORCHESTRATION, ActorId
from lungfish.runtime.messages.messages import LockGranted, LockRelease, LockRequest
from lungfish.testing import Environment, crash_everywhere, environment

app = lungfish.App("locks")


@pytest.fixture(autouse=True)
def nobody_asks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave locks alone that nobody releases, where that is not the question: else it would be mended."""
    if "nobody" not in request.node.name:
        monkeypatch.setattr(Locks, "check", lambda *_: None)


@app.entity
class Account(lungfish.Entity):
    balance: int = 0
    log: list[str] = []

    def add(self, amount: int, who: str = "") -> int:
        self.balance += amount
        self.log.append(who)
        return self.balance

    def fail(self) -> None:
        raise ValueError("no")

    async def slow_add(self, amount: int, who: str = "") -> int:
        await asyncio.sleep(0)
        return self.add(amount, who)

    async def move(self, to: str, amount: int) -> int:
        """Call another account from an operation."""
        self.balance -= amount
        return await self.context.entity(Account, to).call(Account.add, amount, f"moved from {self.key}")

    @lungfish.shared
    def get(self) -> int:
        return self.balance

    @lungfish.shared
    def lines(self) -> list[str]:
        return self.log


@app.activity
def nothing() -> None:
    return None


@app.orchestration
async def transfer(ctx: OrchestrationContext, source: str, target: str, amount: int) -> tuple[int, int]:
    a, b = ctx.entity(Account, source), ctx.entity(Account, target)
    async with ctx.lock(a, b):
        left = await a.call(Account.add, -amount, ctx.instance_id)
        there = await b.call(Account.add, amount, ctx.instance_id)
    return left, there


@app.orchestration
async def hold(ctx: OrchestrationContext, keys: list[str], how: str) -> str:
    """Hold entities until told, then leave as told."""
    refs = [ctx.entity(Account, key) for key in keys]
    async with ctx.lock(*refs) as section:
        assert section.held
        for ref in refs:
            await ref.call(Account.add, 1, ctx.instance_id)
        ctx.set_custom_status("holds")
        await ctx.wait_for_external_event("leave")
        match how:
            case "raise":
                raise KeyError("out")
            case "continue":
                ctx.continue_as_new(keys, "return")
                return ""
            case "cancel":
                raise asyncio.CancelledError
            case "too much":
                while True:
                    ctx.send_event("nobody", "x")
            case "early":
                section.release()
                ctx.set_custom_status("left early")
                await ctx.wait_for_external_event("end")
            case _:
                pass
    return how


#: What ``fickle`` does differently when it is replayed.
CHANGED = False


@app.orchestration
async def fickle(ctx: OrchestrationContext) -> None:
    """Hold an entity, and take another path in replay."""
    ref = ctx.entity(Account, "a")
    async with ctx.lock(ref):
        await (ctx.call_activity(nothing) if CHANGED else ref.call(Account.add, 1, ctx.instance_id))
        ctx.set_custom_status("holds")
        await ctx.wait_for_external_event("leave")


@app.orchestration
def by_generator(ctx: OrchestrationContext, keys: list[str]) -> Generator[Any, Any, int]:
    refs = [ctx.entity(Account, key) for key in keys]
    with (yield ctx.lock(*refs)) as section:
        assert section.held
        yield refs[0].call(Account.add, 1)
        found = yield refs[0].call(Account.get)
    assert not section.held
    return int(found)


@app.orchestration
def forgets_with(ctx: OrchestrationContext, key: str) -> Generator[Any, Any, int]:
    """No ``with``: held until the end."""
    section = ctx.lock(ctx.entity(Account, key))
    yield section
    return 1


@app.orchestration
async def patient(ctx: OrchestrationContext, keys: list[str], seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds), ctx.lock(*[ctx.entity(Account, key) for key in keys]):
            return "held"
    except TimeoutError:
        await ctx.wait_for_external_event("end")
        return "late"


@app.orchestration
async def rule(ctx: OrchestrationContext, name: str) -> str:
    """Break one rule, and tell what came of it."""
    a, b = ctx.entity(Account, "a"), ctx.entity(Account, "b")
    try:
        match name:
            case "nothing":
                ctx.lock()  # type: ignore[unused-awaitable]
            case "nested":
                async with ctx.lock(a), ctx.lock(b):
                    pass
            case "other":
                async with ctx.lock(a):
                    await b.call(Account.get)
            case "child":
                async with ctx.lock(a):
                    await ctx.call_orchestration(transfer, "x", "y", 1)
            case "outstanding":
                call = b.call(Account.get)
                async with ctx.lock(a):
                    await call
            case "branches":

                async def branch(ref: Any) -> None:
                    async with ctx.lock(ref):
                        await ref.call(Account.get)

                await asyncio.gather(branch(a), branch(b))
            case "operation":
                async with ctx.lock(a):
                    await a.call(Account.move, "b", 1)
            case "no reference":
                ctx.lock("a")  # type: ignore[arg-type, unused-awaitable]
            case "with":
                with ctx.lock(a):
                    pass
            case "twice":
                section = ctx.lock(a)
                async with section:
                    _ = await section
            case "many":
                _ = ctx.lock(*[ctx.entity(Account, str(n)) for n in range(1_000)])
    except (lungfish.UsageError, lungfish.EntityOperationFailed) as error:
        return f"{type(error).__name__}: {error}"
    return "went well"


@app.orchestration
async def signals_inside(ctx: OrchestrationContext) -> int:
    """Signals to the locked entity are a part of the section; those to others just go."""
    a, b = ctx.entity(Account, "a"), ctx.entity(Account, "b")
    a.signal(Account.add, 1, "before")
    async with ctx.lock(a):
        a.signal(Account.add, 2, "inside")
        b.signal(Account.add, 1, "other")
        found = await a.call(Account.add, 3, "call")
        a.signal(Account.add, 4, "last")
    a.signal(Account.add, 5, "after")
    return found


@app.orchestration
async def moves(ctx: OrchestrationContext) -> int:
    """An operation that is called in a section calls another entity of it."""
    a, b = ctx.entity(Account, "a"), ctx.entity(Account, "b")
    async with ctx.lock(a, b):
        return await a.call(Account.move, "b", 3)


@app.orchestration
async def waits(ctx: OrchestrationContext) -> str:
    """Everything that may be awaited in a section."""
    async with ctx.lock(ctx.entity(Account, "a")):
        await ctx.call_activity(nothing)
        await ctx.sleep(5)
        return await ctx.wait_for_external_event("go", str)


SETTINGS: list[dict[str, Any]] = [
    {"always_replay": True},
    {"always_replay": False},
    {"always_replay": False, "hosts": 2},
]


@pytest.fixture(params=SETTINGS, ids=["replayed", "live", "two-hosts"])
def opened(request: pytest.FixtureRequest) -> Callable[[], Any]:
    options = request.param

    @asynccontextmanager
    async def open_it() -> AsyncIterator[Environment]:
        async with environment(app, **options) as env:
            yield env

    return open_it


async def until(condition: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.002)
    assert what


async def status_is(handle: Any, text: str) -> None:
    async def there() -> bool:
        return bool((await handle.status()).custom_status == text)

    await until(there, text)


async def holding(env: Environment, keys: list[str], how: str = "return", id: str = "holder") -> Any:
    handle = await env.client.start(hold, keys, how, id=id)
    await status_is(handle, "holds")
    return handle


async def assert_free(env: Environment, *keys: str) -> None:
    for key in keys:
        ref = env.client.entity(Account, key)

        async def free(ref: Any = ref) -> bool:
            status = await ref.inspect()
            return status.holder is None and not status.waiting and not status.operations

        await until(free, key)


# --- holding -----------------------------------------------------------------------------------


async def test_transfers_go_both_ways_at_once(opened: Any) -> None:
    async with opened() as env:
        names = [("a", "b"), ("b", "a")] * 10
        handles = [await env.client.start(transfer, s, t, 1, id=f"t{n}") for n, (s, t) in enumerate(names)]
        await asyncio.gather(*(handle.result(60) for handle in handles))
        assert [(await env.client.entity(Account, key).call(Account.get)) for key in "ab"] == [0, 0]
        await assert_free(env, "a", "b")
        lines = await env.client.entity(Account, "a").call(Account.lines)
        assert sorted(lines) == sorted(f"t{n}" for n in range(20))


async def test_others_wait_in_order_while_it_is_held_and_reads_do_not(opened: Any) -> None:
    async with opened() as env:
        env.auto_skip = False
        a = env.client.entity(Account, "a")
        holder = await holding(env, ["a", "b"])
        assert await a.call(Account.get) == 1, "a shared operation need not wait"
        await a.signal(Account.add, 10, "first")
        second = asyncio.create_task(a.call(Account.add, 100, "second"))
        await asyncio.sleep(0)  # it is sent
        await a.signal(Account.add, 1_000, "third")
        read = asyncio.create_task(a.call(Account.get))

        async def blocked() -> bool:
            return bool((await a.inspect()).operations == 4)

        await until(blocked, "all four wait")
        state = await a.state()
        assert state is not None
        assert state.balance == 1
        status = await a.inspect()
        assert status.holder == "holder"
        assert status.since is not None
        assert abs((env.now() - status.since).total_seconds()) < 60
        await holder.raise_event("leave")
        assert await second == 111
        assert await read == 1_111, "a read does not overtake what was sent before it"
        assert (await a.call(Account.lines))[1:] == ["first", "second", "third"]
        await assert_free(env, "a", "b")


async def test_locks_are_served_in_the_order_of_asking(opened: Any) -> None:
    async with opened() as env:
        holder = await holding(env, ["a"])
        a = env.client.entity(Account, "a")
        for number in range(5):
            await env.client.start(transfer, "a", "z", 1, id=f"w{number}")

            async def asked(number: int = number) -> bool:
                return len((await a.inspect()).waiting) == number + 1

            await until(asked, "it waits")
        assert (await a.inspect()).waiting == tuple(f"w{number}" for number in range(5))
        await holder.raise_event("leave")
        for number in range(5):
            await env.client.orchestration(f"w{number}").result(60)
        assert (await a.call(Account.lines))[1:] == [f"w{number}" for number in range(5)]


async def test_signals_of_the_section_are_a_part_of_it(opened: Any) -> None:
    async with opened() as env:
        handle = await env.client.start(signals_inside)
        assert await handle.result(60) == 6
        await assert_free(env, "a")
        lines = await env.client.entity(Account, "a").call(Account.lines)
        assert lines == ["before", "inside", "call", "last", "after"]


async def test_an_operation_in_a_section_calls_another_entity_of_it(opened: Any) -> None:
    async with opened() as env:
        assert await (await env.client.start(moves)).result(60) == 3
        await assert_free(env, "a", "b")


async def test_activities_timers_and_events_may_be_awaited_inside(opened: Any) -> None:
    async with opened() as env:
        handle = await env.client.start(waits)
        await handle.raise_event("go", "on")
        assert await handle.result(60) == "on"


async def test_generators(opened: Any) -> None:
    async with opened() as env:
        assert await (await env.client.start(by_generator, ["a", "b", "a"])).result(60) == 1
        assert await (await env.client.start(forgets_with, "a")).result(60) == 1
        await assert_free(env, "a", "b")


# --- every way out -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["return", "raise", "continue", "cancel", "too much", "early"])
async def test_every_exit_lets_go(opened: Any, how: str) -> None:
    async with opened() as env:
        holder = await holding(env, ["a", "b"], how)
        waiter = await env.client.start(transfer, "b", "a", 1)
        await holder.raise_event("leave")
        assert await waiter.result(60) in ([0, 2], (0, 2)) or how == "continue"
        if how == "continue":
            await holder.raise_event("leave")
        if how == "early":
            await holder.raise_event("end")
        await assert_free(env, "a", "b")


@pytest.mark.parametrize("suspended", [False, True])
async def test_termination_lets_go(opened: Any, suspended: bool) -> None:
    async with opened() as env:
        holder = await holding(env, ["a", "b"])
        waiter = await env.client.start(transfer, "b", "a", 1)
        if suspended:
            await holder.suspend()
        await holder.terminate("enough")
        await waiter.result(60)
        await assert_free(env, "a", "b")


async def test_code_that_cannot_be_replayed_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async with environment(app) as env:
        holder = await env.client.start(fickle, id="holder")
        await status_is(holder, "holds")
        waiter = await env.client.start(transfer, "a", "b", 1)
        monkeypatch.setattr("tests.unit.test_locks.CHANGED", True)
        await holder.raise_event("leave")
        with pytest.raises(lungfish.OrchestrationFailed, match="another path"):
            await holder.result(60)
        await waiter.result(60)
        await assert_free(env, "a", "b")


async def test_an_error_of_ours_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async with environment(app, always_replay=False) as env:
        holder = await holding(env, ["a", "b"])
        waiter = await env.client.start(transfer, "b", "a", 1)

        def broken(*_: Any) -> None:
            raise RuntimeError("a bug")

        with monkeypatch.context() as patched:
            patched.setattr("lungfish.orchestrations.processor.feed", broken)
            await holder.raise_event("leave")
            with pytest.raises(lungfish.OrchestrationFailed, match="a bug"):
                await holder.result(60)
        await waiter.result(60)
        await assert_free(env, "a", "b")


async def test_an_instance_that_ends_while_it_waits_is_not_granted_anything(opened: Any) -> None:
    async with opened() as env:
        first = await holding(env, ["b"])
        waiter = await env.client.start(transfer, "a", "b", 1, id="waiter")
        b = env.client.entity(Account, "b")

        async def waits_there() -> bool:
            return bool((await b.inspect()).waiting == ("waiter",))

        await until(waits_there, "it holds a and waits for b")
        assert (await env.client.entity(Account, "a").inspect()).holder == "waiter"
        await waiter.terminate()
        await assert_free(env, "a")
        assert (await b.inspect()).waiting == ()
        await first.raise_event("leave")
        await assert_free(env, "a", "b")


async def test_a_time_out_around_the_lock_withdraws_the_request_everywhere(opened: Any) -> None:
    async with opened() as env:
        holder = await holding(env, ["b"])
        waiter = await env.client.start(patient, ["a", "b", "c"], 30, id="waiter")
        await waiter.raise_event("end")
        assert await waiter.result(60) == "late"
        await assert_free(env, "a", "c")
        status = await env.client.entity(Account, "b").inspect()
        assert (status.holder, status.waiting) == ("holder", ())
        await holder.raise_event("leave")
        await assert_free(env, "a", "b", "c")


async def test_a_failed_call_inside_lets_go(opened: Any) -> None:
    async with opened() as env:
        assert "went well" not in await (await env.client.start(rule, "operation")).result(60)
        await assert_free(env, "a", "b")


# --- rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "CriticalSectionError: ctx.lock() needs"),
        ("nested", "CriticalSectionError: this instance holds a lock of Account/a already"),
        ("branches", "CriticalSectionError: this instance waits for a lock of Account/a already"),
        ("other", "CriticalSectionError: call of Account/b in a critical section over Account/a"),
        ("child", "CriticalSectionError: sub-orchestration 'transfer' in a critical section"),
        ("outstanding", "CriticalSectionError: this instance waits for Account.get of Account/b"),
        ("operation", "CriticalSectionError: call of Account/b from an operation in a critical section"),
        ("no reference", "UsageError: ctx.lock takes references"),
        ("with", "UsageError: a lock must be waited for"),
        ("twice", "CriticalSectionError: this lock of Account/a has been entered already"),
        ("many", "CriticalSectionError: a lock of 1000 entities; at most 256"),
    ],
)
async def test_what_could_wait_in_a_circle_is_refused(opened: Any, name: str, says: str) -> None:
    async with opened() as env:
        assert says in await (await env.client.start(rule, name)).result(60)
        await assert_free(env, "a", "b")


# --- orphans and repeats -------------------------------------------------------------------------


async def post(env: Environment, *messages: Any) -> None:
    """Put messages into the hub as the network might: late, doubled, of nobody."""
    connection = env.client._open
    for message in messages:
        await connection.send(message.target, [message])


async def test_a_lock_of_nobody_frees_itself_when_somebody_waits(opened: Any) -> None:
    """The owner's end was lost with its store: nobody will ever send the release."""
    async with opened() as env:
        a = env.client.entity(Account, "a")
        ghost = LockRequest(
            ActorId("e", "Account", "a"),
            "nobody:1",
            ActorId(ORCHESTRATION, "", "never"),
            (ActorId("e", "Account", "a"), ActorId("e", "Account", "~later")),
        )
        env.auto_skip = False
        holder = await holding(env, ["~later"])
        await post(env, ghost)

        async def held() -> bool:
            return bool((await a.inspect()).holder == "never")

        await until(held, "the ghost holds it")
        call = asyncio.create_task(a.options(timeout=None).call(Account.add, 1))

        async def waits_there() -> bool:
            return bool((await a.inspect()).operations == 1)

        await until(waits_there, "somebody waits")
        await env.advance(11)
        assert await call == 1
        assert (await a.inspect()).holder is None
        await holder.raise_event("leave")
        await assert_free(env, "~later")


async def nobody_holds(env: Environment, *keys: str) -> None:
    """Wait until these are free; nobody else asks for them, and no time passes."""
    for key in keys:
        ref = env.client.entity(Account, key)

        async def free(ref: Any = ref) -> bool:
            return (await ref.inspect()).holder is None

        await until(free, f"{key} is free")


async def move_to_another_host(env: Environment) -> None:
    """Have everything in memory loaded again."""
    before = list(env._hosts.values())
    env._hosts.clear()
    await env._add_host()
    for host in before:
        await host.stop()
    await asyncio.gather(*(host.wait_settled() for host in env._hosts.values()))


def request_of_nobody(first: str, *keys: str, again: bool) -> LockRequest:
    entities = tuple(ActorId("e", "Account", key) for key in keys)
    target = ActorId("e", "Account", first)
    return LockRequest(target, "nobody:1", ActorId(ORCHESTRATION, "", "never"), entities, again)


async def test_a_request_passed_on_again_after_its_release_leaves_no_lock(opened: Any) -> None:
    """``b`` has forgotten the release, ``c`` has not: no grant gets to the owner, who would refuse it."""
    async with opened() as env:
        env.auto_skip = False
        await post(env, LockRelease(ActorId("e", "Account", "c"), "nobody:1"))
        await post(env, request_of_nobody("b", "a", "b", "c", again=True))
        assert await env.client.entity(Account, "b").call(Account.add, 1) == 1
        await nobody_holds(env, "b")


async def test_an_entity_that_knows_of_the_release_asks_for_those_before(opened: Any) -> None:
    """The store of ``a`` and ``b`` lost the release and not the request."""
    async with opened() as env:
        env.auto_skip = False
        await post(env, LockRelease(ActorId("e", "Account", "c"), "nobody:1"))
        await post(env, request_of_nobody("a", "a", "b", "c", again=False))
        await nobody_holds(env, "a", "b")


async def test_a_lock_of_nobody_that_comes_back_from_the_store_is_asked_after(opened: Any) -> None:
    """Its release was lost with the store: that nobody waits for it does not mean that it may stay."""
    async with opened() as env:
        env.auto_skip = False
        holder = await holding(env, ["~later"])
        await post(env, request_of_nobody("a", "a", "~later", again=False))
        a = env.client.entity(Account, "a")

        async def held() -> bool:
            return bool((await a.inspect()).holder == "never")

        await until(held, "the ghost holds it")
        await env.advance(11)
        assert await held(), "nobody had a reason to ask"
        await move_to_another_host(env)
        await until(held, "it holds again")
        await env.advance(11)
        await nobody_holds(env, "a")
        await holder.raise_event("leave")
        await assert_free(env, "~later")


async def test_a_lock_of_somebody_not_nobody_costs_one_question_each(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of ``nobody``: it is asked, says nothing, and no request goes round again once it is granted."""
    requests: list[LockRequest] = []
    genuine = Locks.request

    def request(self: Locks, effects: Any, item: Any, message: LockRequest) -> Any:
        requests.append(message)
        return genuine(self, effects, item, message)

    monkeypatch.setattr(Locks, "request", request)
    async with opened() as env:
        env.auto_skip = False
        keys = [f"k{number}" for number in range(8)]
        holder = await holding(env, keys)
        waiters = [await env.client.start(transfer, key, "z", 1, id=f"w{key}") for key in keys]
        asked = len(keys) + len(waiters)

        async def all_ask() -> bool:
            return len(requests) == asked

        await until(all_ask, "each waits for one of them")
        await env.advance(35)
        assert len(requests) == asked
        await holder.raise_event("leave")
        for waiter in waiters:
            await waiter.result(60)
        await assert_free(env, *keys, "z")


async def test_a_request_that_was_lost_by_nobodys_fault_is_sent_again(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets lost between two entities, as with a store that loses writes; somebody waits for the first."""
    lost: list[Any] = []
    genuine = locking.pass_on

    def pass_on(effects: Any, message: LockRequest, *, again: bool = False) -> None:
        if message.target.key == "a" and not lost:
            lost.append(message)
        else:
            genuine(effects, message, again=again)

    monkeypatch.setattr(locking, "pass_on", pass_on)
    async with opened() as env:
        env.auto_skip = False
        first = await env.client.start(transfer, "a", "b", 1, id="first")

        async def is_lost() -> bool:
            return bool(lost)

        await until(is_lost, "a is held")
        call = asyncio.create_task(env.client.entity(Account, "a").options(timeout=None).call(Account.add, 1))

        async def waits_there() -> bool:
            return bool((await env.client.entity(Account, "a").inspect()).operations == 1)

        await until(waits_there, "somebody waits")
        await env.advance(11)
        assert await call == 0
        assert await first.result(60) in ([-1, 1], (-1, 1))
        await assert_free(env, "a", "b")


async def test_a_suspended_owner_not_nobody_is_granted_its_lock_once(opened: Any) -> None:
    """It cannot take the grant, and each further one would wait in its mailbox."""
    async with opened() as env:
        env.auto_skip = False
        before = await holding(env, ["b"])
        owner = await env.client.start(transfer, "a", "b", 1, id="owner")
        a = env.client.entity(Account, "a")

        async def owner_holds(ref: Any = a) -> bool:
            return bool((await ref.inspect()).holder == "owner")

        await until(owner_holds, "it holds the first and waits for the second")
        await owner.suspend()
        await before.raise_event("leave")
        b = env.client.entity(Account, "b")
        await until(lambda: owner_holds(b), "it is granted both")
        calls = [asyncio.create_task(ref.options(timeout=None).call(Account.add, 1)) for ref in (a, b)]

        async def both_wait() -> bool:
            return all([(await ref.inspect()).operations == 1 for ref in (a, b)])

        await until(both_wait, "somebody waits for both")
        rows = [part.mailbox for part in env._server.hub(app.hub).partitions.values()]
        kept = sum(map(len, rows))
        for _ in range(4):
            await env.advance(11)
        assert sum(map(len, rows)) == kept
        await owner.resume()
        assert await owner.result(60) is not None
        await asyncio.gather(*calls)
        await assert_free(env, "a", "b")


async def test_a_grant_of_nobody_is_answered_with_releases(opened: Any) -> None:
    async with opened() as env:
        a = env.client.entity(Account, "a")
        target = ActorId("e", "Account", "a")
        await post(env, LockRequest(target, "nobody:1", ActorId(ORCHESTRATION, "", "never"), (target,)))
        assert await a.call(Account.add, 1) == 1
        await assert_free(env, "a")


async def test_repeated_and_late_lock_messages_are_harmless(opened: Any) -> None:
    """As in Azure/azure-functions-durable-extension#2228: a request redelivered after its release."""
    async with opened() as env:
        holder = await holding(env, ["a", "b"])
        execution = (await holder.status()).execution_id
        (lock,) = [
            f"{execution}:{event.id}"
            for event in await holder.history()
            if type(event).__name__ == "LockRequested"
        ]
        entities = tuple(ActorId("e", "Account", key) for key in "ab")
        owner = ActorId(ORCHESTRATION, "", "holder")
        requests = [LockRequest(entity, lock, owner, entities) for entity in entities]
        await post(env, *requests, LockGranted(owner, lock, entities), *requests)
        a = env.client.entity(Account, "a")
        assert (await a.inspect()).holder == "holder"
        assert (await env.client.entity(Account, "b").inspect()).holder == "holder"
        await holder.raise_event("leave")
        await holder.result(60)
        releases = [LockRelease(entity, lock) for entity in entities]
        await post(env, *requests, LockGranted(owner, lock, entities), *releases, *requests)
        assert await (await env.client.start(transfer, "a", "b", 1)).result(60) in ([0, 2], (0, 2))
        await assert_free(env, "a", "b")


# --- no circle -------------------------------------------------------------------------------------


@app.orchestration
async def locker(ctx: OrchestrationContext, keys: list[str]) -> int:
    refs = [ctx.entity(Account, key) for key in keys]
    async with ctx.lock(*refs):
        before = await asyncio.gather(*(ref.call(Account.add, 1, ctx.instance_id) for ref in refs))
        after = await asyncio.gather(*(ref.call(Account.add, 1, ctx.instance_id) for ref in refs))
    assert [n + 1 for n in before] == list(after), "somebody else came between"
    return len(keys)


@pytest.mark.parametrize("seed", range(5))
async def test_many_random_lock_sets_end_and_exclude_one_another(opened: Any, seed: int) -> None:
    rng = random.Random(seed)
    sets = [[str(rng.randrange(8)) for _ in range(rng.randint(1, 6))] for _ in range(40)]
    async with opened() as env:
        handles = [await env.client.start(locker, sorted(set(keys), key=lambda _: rng.random()))
                   for keys in sets]  # fmt: skip
        await asyncio.gather(*(handle.result(120) for handle in handles))
        await assert_free(env, *map(str, range(8)))
        total = sum([await env.client.entity(Account, str(n)).call(Account.get) for n in range(8)])
        assert total == 2 * sum(len(set(keys)) for keys in sets)


# --- crashes -----------------------------------------------------------------------------------------


async def two_transfers(client: lungfish.Client) -> list[int]:
    first = await client.start(transfer, "a", "b", 5, id="one")
    second = await client.start(transfer, "b", "a", 3, id="two")
    await first.result(60)
    await second.result(60)
    return [await client.entity(Account, key).call(Account.get) for key in "ab"]


@pytest.mark.parametrize("always_replay", [True, False])
def test_a_crash_at_any_instant_neither_leaks_a_lock_nor_doubles_an_operation(always_replay: bool) -> None:
    report = crash_everywhere(app, two_transfers, always_replay=always_replay)
    assert not report.findings
