"""One live connection to a Redis, from its first command to its first error.

Rules:

* Replies are handed out in the order in which requests were written. A caller that is cancelled
  leaves its place in the row, so no reply can ever reach the wrong caller.
* Replies are read where the event loop delivers them, in ``data_received``. A stream and a task
  that reads it cost another turn of the loop and some 20 µs per reply, and a lone call of an
  entity waits for four of them.
* What a server sends unasked, to who listens on a channel, goes straight to ``pushed``; only then.
* Nothing is retried: the first error fails everything that is in flight.
* One timer serves the time limits of all requests: it is set for the earliest, and when it rings it is set
  again. A timer for each took 3 µs, and is needed by next to none.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import hiredis

from lungfish.runtime.errors import StoreUnavailable

#: One command: its name and arguments, each of them str, bytes or int.
Command: TypeAlias = tuple[Any, ...]
#: What a server answers: bytes, int, None or a list of these, or an error.
Reply: TypeAlias = Any


class Request:
    """Commands whose replies one caller awaits."""

    __slots__ = ("future", "missing", "replies", "until_s", "wait_s")

    def __init__(self, count: int, wait_s: float) -> None:
        self.future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self.missing = count
        self.replies: list[Reply] = []
        self.wait_s = wait_s
        #: When its caller takes the server for gone (the loop's time).
        self.until_s = math.inf


class Session(asyncio.Protocol):
    """The protocol of a transport that somebody else has connected and logged in."""

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        where: str,
        *,
        parse_error: Callable[[str], Exception],
        refusal: type[Exception],
    ) -> None:
        """Take a connection over; nobody else may read from it or write to it any more.

        Args:
            writer: its stream; kept, because a stream that is collected closes its transport.
            where: names the server in errors.
            parse_error: makes an exception from a server's error line.
            refusal: the class of errors that are answers; any other one ends the session.
        """
        self._writer = writer
        self._where = where
        self._refusal = refusal
        self._parsed = hiredis.Reader(replyError=parse_error)
        self._requests: deque[Request] = deque()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: BaseException | None = None
        #: How long the server may wait, of its own will, before it has answered everything in flight (s).
        self.wait_s = 0.0
        #: Takes what comes on the channels that this connection listens to; None: it listens to none.
        self.pushed: Callable[[bytes], None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = math.inf
        writer.transport.set_protocol(self)

    def send(self, commands: Sequence[Command], wait_s: float = 0.0) -> Request:
        """Write commands at once, behind all earlier ones; their replies are awaited on the request.

        Args:
            commands: what to run.
            wait_s: how long the server may wait in them (a blocking read, WAIT).
        """
        request = Request(len(commands), wait_s)
        self._requests.append(request)
        self.wait_s += wait_s
        # Without waiting for room: what is in flight is bounded by the callers, who all wait for replies, and
        # a caller cancelled in such a wait would take the connection along.
        self._writer.transport.write(b"".join(hiredis.pack_command(command) for command in commands))
        return request

    def limit(self, request: Request, timeout_s: float) -> None:
        """Take the server for gone if a request that somebody awaits has no reply in time."""
        loop = asyncio.get_running_loop()
        request.until_s = loop.time() + timeout_s
        if request.until_s < self._alarm_s and self.lost is None:
            self._set_alarm(loop, request.until_s)

    def _set_alarm(self, loop: asyncio.AbstractEventLoop, at_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s = at_s
        self._alarm = loop.call_at(at_s, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        # The loop may ring a little early, by the resolution of its clock.
        now_s = max(loop.time(), self._alarm_s)
        self._alarm, self._alarm_s = None, math.inf
        awaited = [request.until_s for request in self._requests if not request.future.done()]
        first_s = min(awaited, default=math.inf)
        if first_s <= now_s:
            self.drop(TimeoutError("no answer in time"))
        elif first_s < math.inf:
            self._set_alarm(loop, first_s)

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are complete."""
        if self.lost is not None:
            return
        try:
            self._parsed.feed(data)
            while (reply := self._parsed.gets()) is not False:  # False: not enough data
                if self.pushed is not None and isinstance(reply, list) and reply[0] == b"message":
                    self.pushed(reply[2])
                else:
                    self._hand_out(reply)
        except (hiredis.HiredisError, LookupError) as error:
            self.drop(error)

    def _hand_out(self, reply: Reply) -> None:
        if isinstance(reply, Exception) and not isinstance(reply, self._refusal):
            self.drop(reply)
            return
        request = self._requests[0]  # LookupError: a reply nobody asked for; the stream is out of step
        request.replies.append(reply)
        request.missing -= 1
        if request.missing == 0:
            self._requests.popleft()
            self.wait_s = self.wait_s - request.wait_s if self._requests else 0.0  # no rounding errors stay
            if not request.future.done():  # else its caller was cancelled
                request.future.set_result(request.replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the transport, whoever brought it about."""
        self.drop(exc or ConnectionResetError("connection closed by the server"))
        if not self._ended.done():
            self._ended.set_result(None)

    def drop(self, error: BaseException) -> None:
        """Fail everything in flight and disconnect."""
        if self.lost is not None:
            return
        self.lost = error
        if self._alarm is not None:
            self._alarm.cancel()
        self._writer.transport.abort()
        unavailable = f"lost the store at {self._where}: {describe(error)}"
        while self._requests:
            future = self._requests.popleft().future
            if not future.done():
                failure = StoreUnavailable(unavailable)
                failure.__cause__ = error
                future.set_exception(failure)

    async def ended(self) -> None:
        """Wait until the connection is closed."""
        await asyncio.wait((self._ended,))


def describe(error: BaseException) -> str:
    """Return an error's message, or its class where it has none."""
    return str(error) or type(error).__name__
