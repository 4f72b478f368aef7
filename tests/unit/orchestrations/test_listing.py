"""What the indexes say of an instance, from its start to its end."""

from __future__ import annotations

import pytest

import lungfish
from lungfish import OrchestrationContext
from lungfish.orchestrations.listing import entries
from lungfish.orchestrations.row import InstanceRow
from lungfish.runtime import codec
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.ids import CLIENT, ORCHESTRATION, ActorId
from lungfish.runtime.messages.messages import Control, Message, RaiseEvent, Start
from tests.unit.orchestrations.fakes import FakeHost, instance

app = lungfish.App("listing")


@app.orchestration
async def at_once(ctx: OrchestrationContext) -> int:
    return 1


@app.orchestration
async def waits(ctx: OrchestrationContext) -> str:
    answer: str = await ctx.wait_for_external_event("go", str)
    return answer


@pytest.fixture(params=["live", "always_replay"])
def host(request: pytest.FixtureRequest) -> FakeHost:
    return FakeHost(app, always_replay=request.param == "always_replay")


def start(name: str, *tags: str, reuse: str = "", parent: str = "") -> Start:
    return Start(
        instance("i"),
        name,
        encode_arguments((), {}, name),
        "r",
        ActorId(CLIENT, "", "c"),
        parent=ActorId(ORCHESTRATION, "", parent) if parent else None,
        tags=tags,
        reuse=reuse,
    )


def listed(host: FakeHost) -> dict[tuple[str, str], int]:
    return {
        (index, member): score
        for index, members in host.effects.indexes.items()
        for member, score in members.items()
    }


def expected(host: FakeHost) -> dict[tuple[str, str], int]:
    return entries("i", InstanceRow.unpack(host.effects.rows[instance("i")]))


def test_entries_follow_the_row(host: FakeHost) -> None:
    host.deliver(start("waits", "a", "b", parent="p"))
    assert listed(host) == expected(host)
    assert {index for index, _ in listed(host)} == {"status:Running", "name:waits", "tag:a\0b", "parent:p"}


@pytest.mark.parametrize("crash", [False, True])
def test_entries_follow_every_status(host: FakeHost, crash: bool) -> None:
    steps: list[Message] = [
        start("waits", "a", "b"),
        Control(instance("i"), "suspend"),
        Control(instance("i"), "resume"),
        RaiseEvent(instance("i"), "go", codec.encode("x")),
    ]
    for step, status in zip(steps, ("Running", "Suspended", "Running", "Completed"), strict=True):
        host.effects.now_ms += 1
        host.deliver(step)
        assert host.row().status == status
        assert listed(host) == expected(host)
        if crash:
            host.crash()


@pytest.mark.parametrize("crash", [False, True])
def test_an_id_that_is_used_again_is_another_member(host: FakeHost, crash: bool) -> None:
    """Both instances are Completed when their rows are written: the status alone does not tell them apart."""
    host.deliver(start("at_once", "old", "1"))
    assert listed(host) == expected(host)
    if crash:
        host.crash()
    host.effects.now_ms += 5
    host.deliver(start("at_once", "new", "2", reuse="restart"))
    assert listed(host) == expected(host)
    assert [index for index, _ in listed(host) if index.startswith("tag")] == ["tag:new\x002"]
