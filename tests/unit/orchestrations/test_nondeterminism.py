"""What is said about each kind of change, word for word: this text is all that somebody has at night."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lungfish.orchestrations import OrchestrationContext, events
from lungfish.orchestrations.replayer import Replayer
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import EntityDefinition, operations_of
from lungfish.runtime.errors import NonDeterminism
from tests.unit.orchestrations.fakes import FakeHost, instance

Step = Callable[[OrchestrationContext], Any]

ADVICE = (
    "Let running instances finish on the old code, or keep the old path for them: "
    "`if ctx.patched('name-of-the-change'): new path, else: old path`."
)
CHANCE = "or the code depends on what is not repeated (clock, random, environment, I/O, a set's order)"


class Account:
    def add(self, n: int) -> None: ...


def app_of(*steps: Step) -> App:
    app = App("changes")
    app.entities["Account"] = EntityDefinition("Account", Account, operations_of(Account, "Account", object))
    for name in ("pay", "ship", "bill"):
        app.activity(name=name)(_no_work)

    @app.orchestration
    async def order(ctx: OrchestrationContext) -> None:
        for step in steps:
            step(ctx)
        await ctx.wait_for_external_event("end")
        _ = ctx.call_activity("ship")

    return app


def _no_work() -> None: ...


def history_of(app: App) -> list[events.Event]:
    host = FakeHost(app)
    host.start("order")
    host.raise_event("end")
    return events.unpack_all(host.effects.histories[instance("i")])


def pay(ctx: OrchestrationContext) -> Any:
    return ctx.call_activity("pay")


def ship(ctx: OrchestrationContext) -> Any:
    return ctx.call_activity("ship")


def bill(ctx: OrchestrationContext) -> Any:
    return ctx.call_activity("bill")


def timer(ctx: OrchestrationContext) -> Any:
    return ctx.create_timer(60)


def child(ctx: OrchestrationContext) -> Any:
    return ctx.call_orchestration("order", id="kid")


def credit_a(ctx: OrchestrationContext) -> Any:
    return ctx.entity("Account", "a").call("add", 1)


def credit_b(ctx: OrchestrationContext) -> Any:
    return ctx.entity("Account", "b").call("add", 1)


def tells(ctx: OrchestrationContext) -> Any:
    return ctx.send_event("other", "news")


def patch(ctx: OrchestrationContext) -> Any:
    return ctx.patched("new-way")


def again(ctx: OrchestrationContext) -> Any:
    timer(ctx).cancel()


def raises(ctx: OrchestrationContext) -> Any:
    raise ValueError("no stock")


#: (steps before, steps now, expected, position, actual, likely)
CHANGES: list[tuple[list[Step], list[Step], str, str, str]] = [
    ([pay], [bill], "activity 'pay' (#1), at event 3 of 7", "activity 'bill' (#1) at <bill>",
     "renamed or replaced since this instance ran"),
    ([pay], [timer], "activity 'pay' (#1), at event 3 of 7", "timer (#1) at <timer>",
     "replaced by another kind of step since this instance ran, or steps were added, removed or reordered"),
    ([pay, ship], [ship, pay], "activity 'pay' (#1), at event 3 of 8", "activity 'ship' (#1) at <ship>",
     "the two were swapped since this instance ran"),
    ([pay, ship], [bill, pay, ship], "activity 'pay' (#1), at event 3 of 8", "activity 'bill' (#1) at <bill>",
     "activity 'bill' (#1) was added before activity 'pay' (#1) since this instance ran"),
    ([pay, ship], [ship], "activity 'pay' (#1), at event 3 of 8", "activity 'ship' (#1) at <ship>",
     "activity 'pay' (#1) was removed, or moved behind activity 'ship' (#1)"),
    ([pay], [pay, bill], "nothing more to be decided, at event 4 of 7", "activity 'bill' (#2) at <bill>",
     "activity 'bill' (#2) was added here since this instance ran"),
    ([pay, bill], [pay], "activity 'bill' (#2), at event 4 of 8", "nothing more",
     "activity 'bill' (#2) was removed here since this instance ran"),
    ([child], [pay], "sub-orchestration 'order' with id 'kid' (#1), at event 3 of 7",
     "activity 'pay' (#1) at <pay>",
     "replaced by another kind of step since this instance ran, or steps were added, removed or reordered"),
    ([credit_a], [credit_b], "call of 'add' on entity Account/a (#1), at event 3 of 7",
     "call of 'add' on entity Account/b (#1) at <credit_b>",
     "another entity of the same kind since this instance ran: how its key is made was changed"),
    ([tells], [pay], "event 'news' to instance 'other' (#1), at event 3 of 7", "activity 'pay' (#1) at <pay>",
     "replaced by another kind of step since this instance ran, or steps were added, removed or reordered"),
    ([again], [timer], "cancellation of timer #1, at event 4 of 8", "nothing more",
     "cancellation of timer #1 was removed here since this instance ran"),
    ([pay], [raises], "activity 'pay' (#1), at event 3 of 7", "the end of the code, Failed at <order>",
     "the code raises here now (no stock), where it went on"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "now", "expected", "actual", "likely"),
    CHANGES,
    ids=[f"{'+'.join(s.__name__ for s in b)} to {'+'.join(s.__name__ for s in n)}" for b, n, *_ in CHANGES],
)
def test_a_change_is_told(
    before: list[Step], now: list[Step], expected: str, actual: str, likely: str
) -> None:
    changed = app_of(*now)
    with pytest.raises(NonDeterminism) as told:
        Replayer(changed).replay(history_of(app_of(*before)), instance_id="i")
    for step in (*now, changed.orchestrations["order"].function):
        line = step.__code__.co_firstlineno + (0 if step.__name__ == "order" else 1)
        where = f"{__file__}:{line}" + (" (order)" if step.__name__ == "order" else "")
        actual = actual.replace(f"<{step.__name__}>", where)
    assert str(told.value) == (
        "order, instance 'i': replay took another path than the history.\n"
        f"  expected: {expected} in the history\n"
        f"  actual:   {actual}\n"
        f"  likely:   {likely}, {CHANCE}\n"
        f"{ADVICE}"
    )


@pytest.mark.parametrize(
    ("before", "now", "actual", "likely"),
    [
        (
            "goes on",
            "ends",
            "the end of the code, Completed at",
            "the code ends here now, where it went on: a",
        ),
        (
            "ends",
            "goes on",
            "activity 'pay' (#1) at",
            "the code goes on here, where it ended: a step was added",
        ),
        (
            "goes on",
            "renews",
            "the end of the code, continuing as new at",
            "the code ends here now, where it went",
        ),
    ],
)
def test_an_end_that_moved_is_told(before: str, now: str, actual: str, likely: str) -> None:
    def app_that(what: str) -> App:
        app = App("ends")
        app.activity(name="pay")(_no_work)

        @app.orchestration
        async def order(ctx: OrchestrationContext) -> None:
            if what == "goes on":
                await ctx.call_activity("pay")
            elif what == "renews":
                ctx.continue_as_new()

        return app

    host = FakeHost(app_that(before))
    host.start("order")
    history = events.unpack_all(host.effects.histories[instance("i")])
    with pytest.raises(NonDeterminism) as told:
        Replayer(app_that(now)).replay(history, instance_id="i")
    assert f"  actual:   {actual} {__file__}:" in str(told.value)
    assert f"  likely:   {likely}" in str(told.value)


def test_harmless_changes_are_none() -> None:
    # A longer timer, another argument, a patch that was taken out again.
    def longer(ctx: OrchestrationContext) -> Any:
        return ctx.create_timer(3_600)

    Replayer(app_of(longer)).replay(history_of(app_of(patch, timer)), instance_id="i")
