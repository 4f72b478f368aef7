"""Ephemeral fields on a real store: nothing of them is stored, and a takeover begins with the defaults."""

from __future__ import annotations

import socket

import pytest

import lungfish
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("ephemeral")


@app.entity
class Desk(lungfish.Entity):
    total: int = 0
    line: socket.socket | None = lungfish.ephemeral(None)
    tries: list[int] = lungfish.ephemeral(factory=list)

    def on_activate(self) -> None:
        self.line = socket.socket()

    def on_passivate(self) -> None:
        assert self.line is not None
        self.line.close()
        self.line = None

    def add(self, n: int) -> list[int]:
        self.tries.append(n)
        self.total += n
        if n < 0:
            raise ValueError(n)
        return [self.total, *self.tries]

    async def add_slowly(self, n: int) -> list[int]:
        return self.add(n)

    @lungfish.shared
    def is_open(self) -> bool:
        return self.line is not None and self.line.fileno() >= 0


async def test_what_is_stored_has_nothing_of_them(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    async with run_app(app) as runtime:
        desk = runtime.client.entity(Desk, "d")
        assert await desk.call(Desk.add, 1) == [1, 1]
        with pytest.raises(lungfish.EntityOperationFailed, match="ValueError"):
            await desk.call(Desk.add_slowly, -1)
        assert await desk.call(Desk.add, 1) == [2, 1, -1, 1]
        assert await desk.call(Desk.is_open)
        state = await desk.state()
        assert state is not None
        assert (state.total, state.tries, state.line) == (2, [], None)
    async with lungfish.connect(valkey.url, hub=hub_name) as client:
        assert await client.entity("Desk", "d").state() == {"total": 2}
    async with run_app(app) as runtime:
        desk = runtime.client.entity(Desk, "d")
        assert await desk.call(Desk.is_open)
        assert await desk.call(Desk.add, 1) == [3, 1]
