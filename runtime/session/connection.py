"""A client's session with a hub: requests out, responses in.

Rules:

* A session is one producer: what it sends to one actor arrives in the order of the calls,
  each exactly once, whatever connections break meanwhile.
* A response is matched by request id and taken once; a second one (the outbox may
  deliver twice) is passed over.
* Waiting is always bounded. A time-out says that the outcome is unknown, because it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from lungfish.runtime.declared.middleware import Chain, Outgoing, Sort, wait_through
from lungfish.runtime.errors import (
    DeadlineExceeded,
    FailureDetails,
    StoreUnavailable,
    UnknownPool,
    usage_error,
)
from lungfish.runtime.ids import CLIENT, ActorId
from lungfish.runtime.messages import headers, wire
from lungfish.runtime.messages.headers import Wire
from lungfish.runtime.messages.messages import Message, Response
from lungfish.runtime.messages.payloads import DEFAULT, Payload, PayloadSettings, is_token
from lungfish.runtime.store.existing import HUB_WAIT_S, open_existing
from lungfish.runtime.store.layout import HubMeta, Layout
from lungfish.runtime.store.store import START, Reader, Store, client_target, partition_target

from .allowance import Allowance
from .deadlines import Deadlines
from .direct import read_note
from .owners import Owners
from .sender import Sender

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How long a request waits for its response where the caller does not say (s).
TIMEOUT_S: Final = 30.0
#: After how long an unanswered wait for an outcome is asked for again (s).
WATCH_AGAIN_S: Final = 600.0
_BLOCK_MS: Final = 1_000
_BACKOFF_S: Final = (0.02, 1.0)


class Connection:
    """One open session. Not shared between event loops."""

    def __init__(
        self,
        store: Store,
        *,
        session: str,
        payloads: PayloadSettings = DEFAULT,
        carried: tuple[headers.Carried, ...] = (),
        around: Chain = (),
    ) -> None:
        self.store = store
        self.payloads = payloads
        self.session = session
        self.me = ActorId(CLIENT, "", self.session)
        self.layout = Layout(HubMeta())
        #: Context variables that travel with what is sent.
        self.carried = carried
        #: Middleware around what is sent.
        self.around = around
        self._sender = Sender(store, f"c:{self.session}", yields=True)
        self._owners: Owners | None = None
        self._waiting: dict[str, asyncio.Future[Response]] = {}
        self._deadlines = Deadlines(self._waiting)
        self._watches: dict[ActorId, asyncio.Future[Response]] = {}
        #: Who takes the responses to requests that have many; weakly, since a watch may just be forgotten.
        self._subscribers: dict[str, weakref.WeakMethod[Callable[[Response], None]]] = {}
        #: How many callers wait for one of these: a watch stays when they give up.
        self._watchers = 0
        self._requests = 0
        self._written = 0
        self._listener: asyncio.Task[None] | None = None
        self._reader: Reader | None = None
        self.closed = False

    async def open(self, wait_s: float = HUB_WAIT_S) -> None:
        """Connect to the store; raises as ``open_existing``."""
        self.layout.learn(await open_existing(self.store, wait_s))
        if self.store.hands_over:
            self._sender.owners = self._owners = Owners(self.store)

    async def refresh(self) -> None:
        """Learn of pools that were added to the hub."""
        self.layout.learn(await self.store.open(create=False))

    async def close(self) -> None:
        """End the session: open requests fail, durable ones go on without us."""
        self.closed = True
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self._sender.close()
        if self._owners is not None:
            await self._owners.close()
        if self._reader is not None:
            await self._reader.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(StoreUnavailable("this connection was closed"))
                future.exception()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        self._deadlines.close()
        await self.store.close()

    @property
    def waiting(self) -> int:
        """How many callers wait for a response."""
        return len(self._waiting) - len(self._watches) + self._watchers

    @property
    def handing(self) -> bool:
        """Whether something was handed to a host of which nobody knows yet whether it arrived."""
        return self._sender.handing > 0

    def headers(self) -> headers.Wire:
        """Return what a message that is sent here and now takes along; raises as ``headers.outgoing``."""
        return headers.outgoing(self.carried)

    async def through(
        self,
        kind: Sort,
        name: str,
        key: str,
        operation: str,
        send: Callable[[Wire], Awaitable[T]],
    ) -> T:
        """Send something with the headers of here and now, inside of the app's middleware.

        Args:
            kind, name, key, operation: as in ``Outgoing``.
            send: sends it with these headers, and returns what the sender waits for.
        """
        if not self.around:
            return await send(self.headers())
        found = dict(headers.as_mapping(self.headers()))
        outgoing = Outgoing(kind, name, key, operation, found)

        async def work() -> T:
            return await send(headers.as_wire(outgoing.headers))

        answer: T = await wait_through(self.around, outgoing, work)
        return answer

    async def call_through(
        self,
        actor: ActorId,
        operation: str,
        ask: Callable[[Wire, float | None], Awaitable[T]],
        *,
        timeout_s: float | None,
        what: str,
    ) -> T:
        """Call an entity inside of the app's middleware, whose waiting is a part of the time-out.

        Args:
            ask: sends the call with these headers, and waits for no longer than that (s) for the answer.
            timeout_s: longest wait (s), from now on; None waits for ever.
            what: names the call in errors.

        Raises:
            DeadlineExceeded: no answer in time, or middleware waited for too long.
        """
        if timeout_s is None:
            return await self.through("call", actor.name, actor.key, operation, partial(_for_ever, ask))
        allowance = Allowance(timeout_s, what)

        async def lent(travelling: Wire) -> T:
            return await allowance.lend(partial(ask, travelling))

        return await allowance.cover(partial(self.through, "call", actor.name, actor.key, operation, lent))

    def partition(self, actor: ActorId) -> int:
        """Return the partition that owns an actor; raises ``UnknownPool`` (see ``place``)."""
        return self.layout.of(actor)

    async def place(self, actor: ActorId) -> int:
        """Return the partition that owns an actor, also if its pool was added a moment ago.

        Raises:
            UnknownPool: the hub has no such pool.
        """
        try:
            return self.layout.of(actor)
        except UnknownPool:
            await self.refresh()
            return self.layout.of(actor)

    async def written_ahead(self, actor: ActorId, value: bytes) -> bytes:
        """Return what a message to an actor carries of a value: a large one is put beside it first."""
        if len(value) <= self.payloads.offload_bytes:
            return value
        self._written += 1
        payload = Payload(await self.place(actor), f"c{self.session}.{self._written}", value)
        await self.store.put_payloads([payload])
        return payload.token

    async def read_back(self, value: bytes | None) -> bytes | None:
        """Return what a value in a response stands for."""
        if value is None or not is_token(value):
            return value
        return (await self.store.payloads([value])).get(value, value)

    async def send(self, actor: ActorId, messages: Sequence[Message]) -> None:
        """Send messages to one actor; they are durable when this returns.

        Raises:
            Overloaded: the actor's inbox stayed full; nothing was accepted.
            StoreUnavailable: the outcome is unknown.
        """
        await self._sender.send(partition_target(await self.place(actor)), messages)

    async def request(
        self,
        actor: ActorId,
        make: Callable[[str], Message],
        *,
        timeout_s: float | None,
        what: str,
        give_up: Callable[[str], Message] | None = None,
    ) -> Response:
        """Send a message that asks for a response, and return the response.

        Args:
            make: makes the message from its request id.
            timeout_s: longest wait (s); None waits for ever.
            what: names the request in errors.
            give_up: makes, from its request id, what is sent when nobody waits for the response any more.

        Raises:
            DeadlineExceeded: no response in time; the outcome is unknown.
            UnknownPool: the hub has no such pool; nothing was sent.
        """
        self._listen()
        try:
            target = partition_target(self.layout.of(actor))
        except UnknownPool:
            target = partition_target(await self.place(actor))
        self._requests += 1
        request = str(self._requests)
        loop = asyncio.get_running_loop()
        response: asyncio.Future[Response] = loop.create_future()
        self._waiting[request] = response
        if timeout_s is not None:
            self._deadlines.add(request, timeout_s, partial(_late, timeout_s, what))
        try:
            self._sender.post(target, [make(request)], response)
            return await response
        except (asyncio.CancelledError, DeadlineExceeded):
            if give_up is not None and not self.closed:
                self._mention(actor, give_up(request))
            raise
        finally:
            del self._waiting[request]

    def subscribe(self, take: Callable[[Response], None]) -> str:
        """Return a request id whose responses all go to ``take``: a bound method, held weakly."""
        self._listen()
        self._requests += 1
        request = str(self._requests)
        for gone in [known for known, method in self._subscribers.items() if method() is None]:
            del self._subscribers[gone]
        self._subscribers[request] = weakref.WeakMethod(take)
        return request

    def _mention(self, actor: ActorId, message: Message) -> None:
        """Send something if it can be sent; nobody waits to hear whether it could."""
        sent = self._sender.put(partition_target(self.partition(actor)), [message])
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def watch(
        self, actor: ActorId, make: Callable[[str], Message], *, timeout_s: float | None, what: str
    ) -> Response:
        """Wait for an answer that may take days, such as an orchestration's outcome.

        All who wait for one actor share one request, which stays when one of them gives up: asking in a loop
        leaves no trail of requests at the actor.
        """
        pending = self._watches.get(actor)
        if pending is None:
            pending = self._watches[actor] = asyncio.ensure_future(self._ask_again(actor, make, what))
            pending.add_done_callback(lambda done: self._watched(actor, done))
        self._watchers += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(pending)
        except TimeoutError:
            raise DeadlineExceeded(f"{what}: no answer within {timeout_s:g} s; it goes on") from None
        finally:
            self._watchers -= 1

    async def _ask_again(self, actor: ActorId, make: Callable[[str], Message], what: str) -> Response:
        while True:
            # Again now and then: a failover of the store may have taken the request with it.
            with contextlib.suppress(DeadlineExceeded):
                return await self.request(actor, make, timeout_s=WATCH_AGAIN_S, what=what)

    def _watched(self, actor: ActorId, done: asyncio.Future[Response]) -> None:
        self._watches.pop(actor, None)
        if not done.cancelled():
            done.exception()  # seen: everybody who waited may have given up

    def _listen(self) -> None:
        if self._listener is None:
            self._reader = self.store.reader()
            self._listener = asyncio.get_running_loop().create_task(
                self._listen_forever(self._reader), name="lungfish replies"
            )

    async def _listen_forever(self, reader: Reader) -> None:
        target = client_target(self.session)
        position = START
        wait_s = _BACKOFF_S[0]
        while True:
            try:
                found = await reader.read({target: position}, block_ms=_BLOCK_MS, count=1_000)
            except Exception as error:  # whatever it is: without this loop every request would only time out
                logger.warning("reading replies: %r; again in %.2f s", error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _BACKOFF_S[1])
                continue
            wait_s = _BACKOFF_S[0]
            for entry in found.get(target, ()):
                position = entry.id
                self._take(entry.payload)
            if found:
                self._sender.answered()
            # First those who were answered, and what they send next; only then this read's own business.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _take(self, payload: bytes) -> None:
        try:
            messages = wire.unpack(payload)
        except wire.MalformedBytes:
            logger.exception("a reply that cannot be read was passed over")
            return
        for message in messages:
            if isinstance(message, Response):
                waiting = self._waiting.get(message.request)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
                elif message.request in self._subscribers:
                    self._tell(message)
                elif waiting is None and (note := read_note(message.request)) is not None:
                    taken, partition, sequence = note
                    self._sender.note(taken=taken, partition=partition, sequence=sequence)

    def _tell(self, message: Response) -> None:
        take = self._subscribers[message.request]()
        if take is None:
            del self._subscribers[message.request]
        else:
            take(message)


def _late(timeout_s: float, what: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{what}: no answer within {timeout_s:g} s; whether it took effect is unknown. "
        "Is a host of this hub running?"
    )


def _for_ever(ask: Callable[[Wire, float | None], Awaitable[T]], travelling: Wire) -> Awaitable[T]:
    return ask(travelling, None)


def raise_usage_error(details: FailureDetails) -> None:
    """Raise what a host refused as the class that it has, if it is the caller's mistake."""
    error = usage_error(details)
    if error is not None:
        raise error
    if details.error_type.rpartition(".")[2] == DeadlineExceeded.__name__:
        raise DeadlineExceeded(details.message)
