"""Readers of Redis, against servers that answer as the test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.on_redis.keys import Keys
from lungfish.runtime.on_redis.link import Command, Reply
from lungfish.runtime.on_redis.readers import ClusterReader, SingleReader
from lungfish.runtime.on_redis.servers import Call, ServerAway
from lungfish.runtime.store.store import START


class NarrowServers:
    """Servers whose answers come in time only if they hold no more than ``room`` entries."""

    client_id = 1

    def __init__(self) -> None:
        self.room = 1
        self.asked: list[int] = []

    def link(self, name: str) -> Any:
        return self

    async def call(self, commands: Sequence[Command], *, wait_s: float = 0.0) -> list[Reply]:
        return [self._answer(command) for command in commands]

    async def run(self, lane: str, calls: Sequence[Call], **options: Any) -> list[Reply]:
        return [self._answer(command) for _, command in calls]

    def _answer(self, command: Command) -> Reply:
        count = int(command[2])
        self.asked.append(count)
        if count > self.room:
            raise StoreUnavailable("no answer in time")
        entries = [(b"%d-0" % n, [b"p", b"x"]) for n in range(count)]
        return [(str(command[-2]).encode(), entries)]


async def test_it_is_known_which_targets_nothing_was_heard_of() -> None:
    class Half(NarrowServers):
        def _answer(self, command: Command) -> Reply:
            return ServerAway("gone") if str(command[-2]).endswith("2}:inbox") and self.room else None

    servers = Half()
    reader = ClusterReader(cast("Any", servers), Keys("h"))
    assert reader.away == set()
    await reader.read({"p:1": START, "p:2": START}, block_ms=0, count=1)
    assert reader.away == {"p:2"}
    servers.room = 0
    await reader.read({"p:1": START, "p:2": START}, block_ms=0, count=1)
    assert reader.away == set()


@pytest.mark.parametrize("kind", [SingleReader, ClusterReader])
async def test_an_answer_too_large_to_come_in_time_is_asked_for_in_parts(kind: Any) -> None:
    servers = NarrowServers()
    reader = kind(cast("Any", servers), Keys("h"))
    servers.room = 5

    async def read(count: int = 64) -> int:
        try:
            found = await reader.read({"p:1": START}, block_ms=0, count=count)
        except StoreUnavailable:
            return 0
        return len(found["p:1"])

    assert [await read() for _ in range(5)] == [0, 0, 0, 0, 4]
    assert servers.asked == [64, 32, 16, 8, 4]
    servers.room = 1
    assert [await read() for _ in range(4)] == [0, 0, 1, 0], "one entry is asked for at least"
    servers.room = 1_000
    counts = [await read() for _ in range(40)]
    assert counts == sorted(counts)
    assert counts[-1] == 64
    assert await read(200) == 200, "it has forgotten what was"
