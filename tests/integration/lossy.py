"""A wire to the store that loses answers: what was asked was done, and nobody hears of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine

from tests.servers import Server


class LossyWire:
    """Passes everything on; each ``lose_every``-th answer is lost, and with it all connections."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._answers = 0
        #: 0: none is lost. Must be well over what it takes to connect again, or nothing would go on.
        self.lose_every = 0
        #: How many were lost.
        self.losses = 0
        self.url = ""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a client to the server."""
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server.port)
        self._writers |= {writer, to_server}
        self._start(self._pass_on(reader, to_server, answers=False))
        self._start(self._pass_on(from_server, writer, answers=True))

    def _start(self, pump: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(pump)
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65_536):
                self._answers += answers
                if answers and self.lose_every and self._answers >= self.lose_every:
                    self._lose()
                    break
                writer.write(chunk)
        writer.close()
        self._writers.discard(writer)

    def _lose(self) -> None:
        self.losses += 1
        self._answers = 0
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        """Break what is left."""
        self._lose()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)


@contextlib.asynccontextmanager
async def lossy_wire(server: Server) -> AsyncIterator[LossyWire]:
    """Give a wire to a server; its ``url`` is what clients connect to."""
    wire = LossyWire(server)
    listener = await asyncio.start_server(wire.connected, "127.0.0.1", 0)
    wire.url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        listener.close()
        await wire.close()
