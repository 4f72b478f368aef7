"""Purging an ended instance: nothing of it is left, and nothing of it comes back."""

from __future__ import annotations

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.orchestrations.purging import edition_of
from lungfish.runtime import codec
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import InstanceNotFound, InstanceRunning, qualified_name
from lungfish.runtime.ids import CLIENT, ActorId
from lungfish.runtime.messages.messages import ActivityResult, Control, RaiseEvent, Start, Watch
from tests.unit.orchestrations.fakes import FakeHost, instance

app = lungfish.App("purging")
ME = ActorId(CLIENT, "", "me")


@app.activity
def act(n: int) -> int:
    return n


@app.orchestration
async def waits(ctx: OrchestrationContext, n: int) -> int:
    task = ctx.call_activity(act, n)
    await ctx.wait_for_external_event("go", int)
    assert task is not None
    return n


@pytest.fixture(params=["live", "always_replay", "crash"])
def host(request: pytest.FixtureRequest) -> FakeHost:
    host = FakeHost(app, always_replay=request.param == "always_replay")
    host.crashes = request.param == "crash"
    return host


def begin(host: FakeHost, n: int = 1) -> None:
    host.deliver(Start(instance("i"), "waits", encode_arguments((n,), {}, "waits"), tags=("a", "b")))


def end(host: FakeHost) -> None:
    host.deliver(RaiseEvent(instance("i"), "go", codec.encode(1)))
    assert host.row().status == "Completed"
    maybe_crash(host)


def maybe_crash(host: FakeHost) -> None:
    if host.crashes:
        host.crash()


def purge(host: FakeHost, request: str = "p", edition: str = "") -> str:
    """Purge, and return the type of the error; empty: it is purged."""
    host.deliver(Control(instance("i"), "purge", edition, request, ME))
    (answer,) = host.responses(request)
    return "" if answer.failure is None else answer.failure.error_type


def is_gone(host: FakeHost) -> bool:
    effects = host.effects
    return (
        effects.rows.get(instance("i")) is None
        and not effects.histories.get(instance("i"))
        and not any(effects.indexes.values())
        and not effects.timers
        and not effects.activities
    )


def test_nothing_is_left(host: FakeHost) -> None:
    begin(host)
    end(host)
    assert purge(host) == ""
    assert is_gone(host)


def test_what_runs_is_left_alone(host: FakeHost) -> None:
    begin(host)
    maybe_crash(host)
    assert purge(host) == qualified_name(InstanceRunning)
    end(host)
    assert host.row().output == codec.encode(1)


def test_twice_and_never_there(host: FakeHost) -> None:
    assert purge(host, "p1") == qualified_name(InstanceNotFound)
    begin(host)
    end(host)
    assert purge(host, "p2") == ""
    maybe_crash(host)
    assert purge(host, "p3") == qualified_name(InstanceNotFound)
    assert is_gone(host)


def test_what_is_still_under_way_finds_nobody(host: FakeHost) -> None:
    begin(host)
    execution = host.row().execution
    end(host)
    purge(host)
    maybe_crash(host)
    host.deliver(ActivityResult(instance("i"), execution, 1, 1, codec.encode(1)))
    host.deliver(RaiseEvent(instance("i"), "go", codec.encode(1)))
    host.deliver(Control(instance("i"), "terminate"))
    assert is_gone(host)
    host.deliver(Watch(instance("i"), "w", ME))
    (answer,) = host.responses("w")
    assert answer.failure is not None
    assert answer.failure.error_type == qualified_name(InstanceNotFound)


def test_the_id_is_free_for_a_new_instance(host: FakeHost) -> None:
    begin(host, 1)
    first = host.row().execution
    end(host)
    purge(host)
    maybe_crash(host)
    begin(host, 2)
    second = host.row().execution
    assert second != first
    host.deliver(ActivityResult(instance("i"), first, 1, 1, codec.encode(1)))
    end(host)
    assert host.row().output == codec.encode(2)


def test_only_the_edition_that_is_meant(host: FakeHost) -> None:
    begin(host)
    end(host)
    looked_at = edition_of(host.effects.rows[instance("i")])
    host.effects.now_ms += 1
    purge(host, "p1")
    begin(host, 2)
    end(host)
    assert purge(host, "p2", looked_at) == "", "answered, but not done"
    assert host.row().output == codec.encode(2)
    assert purge(host, "p3", edition_of(host.effects.rows[instance("i")])) == ""
    assert is_gone(host)


def test_in_one_round_with_a_new_start(host: FakeHost) -> None:
    begin(host, 1)
    end(host)
    host.deliver(
        Control(instance("i"), "purge", "", "p", ME),
        Start(instance("i"), "waits", encode_arguments((2,), {}, "waits")),
        RaiseEvent(instance("i"), "go", codec.encode(1)),
    )
    assert host.row().output == codec.encode(2)
    assert {index for index, members in host.effects.indexes.items() if members} == {
        "status:Completed",
        "name:waits",
        "ended:Completed:waits",
    }


def test_edition_of_what_runs_is_empty(host: FakeHost) -> None:
    begin(host)
    assert edition_of(host.effects.rows[instance("i")]) == ""
