"""The figures of a process without Ray, as text on a port of loopback: ``lungfish dev --metrics-port``.

One request per connection, and one path: a web framework is an extra, and a process of a developer need not
have it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

#: How long a peer may take to ask (s).
_ASK_S: Final = 5.0


@contextlib.asynccontextmanager
async def metrics_port(port: int, text: Callable[[], str]) -> AsyncIterator[int]:
    """Answer ``GET /metrics`` with ``text()`` for as long as the block lasts; yield the port.

    Args:
        port: 0 takes a free one.

    Raises:
        OSError: it is taken.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_ASK_S):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_response(head, text))
            await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # whoever asked has gone, or does not speak HTTP
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _response(head: bytes, text: Callable[[], str]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    found = method == b"GET" and path == b"/metrics"
    body = text().encode() if found else b"GET /metrics\n"
    status = "200 OK" if found else "404 Not Found"
    lines = (
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain; version=0.0.4; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + body
