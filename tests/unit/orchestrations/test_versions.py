"""Versions of one orchestration side by side: new instances get the newest, running ones stay with theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lungfish.orchestrations import OrchestrationContext, events
from lungfish.orchestrations.exporting import ExportedHistory
from lungfish.orchestrations.replayer import Replayer
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import NotRegistered, UsageError
from tests.unit.orchestrations.fakes import FakeHost, instance


def app_with(*versions: str, label: str = "") -> App:
    """Return an app with code of these versions; each tells which one runs."""
    app = App("versions", version=label)
    for version in versions:
        app.orchestration(name="order", version=version)(_code(f"code {version or 'without'}"))
    return app


def _code(which: str) -> Callable[..., Any]:
    async def order(ctx: OrchestrationContext) -> list[str]:
        seen = [which, ctx.version]
        await ctx.wait_for_external_event(f"for {which}")
        return seen

    return order


def moved(host: FakeHost, app: App, *, always_replay: bool = False) -> FakeHost:
    """Return a host with other code that takes over what the first one stored."""
    after = FakeHost(app, always_replay=always_replay)
    after.effects = host.effects
    after.mailbox = host.mailbox
    return after


@pytest.mark.parametrize(
    ("versions", "newest"),
    [
        (["1", "2"], "2"),
        (["2", "1"], "2"),
        (["1.9", "1.10"], "1.10"),
        (["", "1"], "1"),
        (["1", "1.1", "1-rc"], "1.1"),
    ],
)
def test_a_new_instance_gets_the_newest(versions: Sequence[str], newest: str) -> None:
    host = FakeHost(app_with(*versions))
    host.start("order")
    assert (host.row().version, host.row().pinned) == (newest, True)
    host.raise_event(f"for code {newest}")
    assert host.output() == [f"code {newest}", newest]


def test_a_start_may_ask_for_a_version() -> None:
    host = FakeHost(app_with("1", "2"))
    host.start("order", version="1")
    host.raise_event("for code 1")
    assert host.output() == ["code 1", "1"]
    host.start("order", id="other", version="3")
    (response,) = host.responses("start")[1:]
    assert "no version '3' of orchestration 'order' in app 'versions'; there are: 1, 2" in str(
        response.failure
    )


@pytest.mark.parametrize("always_replay", [False, True])
@pytest.mark.parametrize(
    ("before", "after"), [(["1"], ["1", "2"]), ([""], ["", "1"]), (["1", "2"], ["2", "3", "1"])]
)
def test_a_running_instance_stays_with_its_code(
    before: list[str], after: list[str], always_replay: bool
) -> None:
    host = FakeHost(app_with(*before))
    host.start("order")
    was = host.row().version
    host = moved(host, app_with(*after), always_replay=always_replay)
    host.raise_event(f"for code {was or 'without'}")
    assert host.output() == [f"code {was or 'without'}", was]


@pytest.mark.parametrize(("was", "now"), [("1", "2"), ("", "2"), ("1", "")])
def test_an_instance_whose_code_is_gone_waits_for_it(
    was: str, now: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = FakeHost(app_with(was))
    host.start("order")
    event = f"for code {was or 'without'}"
    without = moved(host, app_with(now))
    without.raise_event(event)
    assert without.row().status == "Running"
    assert len(without.mailbox[instance("i")]) == 1
    assert "instance i waits for a host that has its code: no version" in caplog.text
    again = moved(host, app_with(was, now))
    again.activation(instance("i")).run(again.effects)
    assert again.output()[0] == f"code {was or 'without'}"


def test_continuing_as_new_keeps_the_version() -> None:
    app = App("renews")

    @app.orchestration(version="1")
    async def renews(ctx: OrchestrationContext, round: int) -> str:
        if round < 3:
            await ctx.wait_for_external_event("next")
            ctx.continue_as_new(round + 1)
        return ctx.version

    host = FakeHost(app)
    host.start("renews", 1)
    host.raise_event("next")
    app.orchestration(name="renews", version="2")(renews.function)
    host.crash()
    host.raise_event("next")
    assert host.output() == "1"


def test_the_deployments_version_is_told_and_decides_nothing() -> None:
    host = FakeHost(app_with("", label="2026.7"))
    host.start("order")
    assert (host.row().version, host.row().pinned) == ("2026.7", False)
    host = moved(host, app_with("", "2026.7", label="2026.8"))
    host.raise_event("for code without")
    assert host.output() == ["code without", "2026.7"]


def test_a_child_runs_the_code_that_was_named() -> None:
    app = app_with("1", "2")
    old = app.versions["order"]["1"]

    @app.orchestration
    async def parent(ctx: OrchestrationContext) -> None:
        await ctx.when_all(
            ctx.call_orchestration(old, id="by code"), ctx.call_orchestration("order", id="by name")
        )

    host = FakeHost(app)
    host.start("parent")
    starts = [message for message in host.effects.sent if type(message).__name__ == "Start"]
    host.deliver(*starts)
    assert (host.row("by code").version, host.row("by name").version) == ("1", "2")


def test_a_history_is_replayed_by_the_code_of_its_version() -> None:
    host = FakeHost(app_with("1"))
    host.start("order")
    text = ExportedHistory("i", events.unpack_all(host.effects.histories[instance("i")])).to_json()
    Replayer(app_with("1", "2")).replay(text)
    with pytest.raises(NotRegistered, match="no version '1' of orchestration 'order'"):
        Replayer(app_with("2")).replay(text)


def test_a_version_is_registered_once() -> None:
    app = app_with("1")
    with pytest.raises(UsageError, match="pass name= or version= to tell them apart"):
        app.orchestration(name="order", version="1")(_code("again"))
    assert repr(app.orchestrations["order"]) == "<orchestration order 1>"


def test_another_hub_has_the_same_versions() -> None:
    other = app_with("1", "2", label="7").with_hub("other")
    assert (other.version, sorted(other.versions["order"])) == ("7", ["1", "2"])
