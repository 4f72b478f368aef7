"""A client's session: each request gets its own answer, once, or an error in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from lungfish.runtime.errors import (
    DeadlineExceeded,
    FailureDetails,
    InternalError,
    InvalidArguments,
    LungfishError,
    StoreUnavailable,
    qualified_name,
)
from lungfish.runtime.ids import partition_of
from lungfish.runtime.messages import wire
from lungfish.runtime.messages.messages import Call, Message, Response, Signal
from lungfish.runtime.session.connection import Connection, raise_usage_error
from lungfish.runtime.store.store import START, Append, HubMeta, client_target, partition_target
from lungfish.runtime.testing.memory_store import MemoryReader, MemoryServer, MemoryStore
from tests.unit.fakes import PARTITIONS, actor_in
from tests.virtual import virtual_server, virtually

HUB = "h"
HERE = actor_in(2)


class Peer:
    """A connection, and the host's end of it, which the test plays."""

    def __init__(self) -> None:
        self.server: MemoryServer = virtual_server()
        self.store = MemoryStore(self.server, HUB)
        self.connection = Connection(self.store, session="me")

    async def open(self) -> None:
        await self.store.open(HubMeta(partitions=PARTITIONS))
        await self.connection.open()

    def request(self, timeout_s: float | None = 30.0) -> asyncio.Task[Response]:
        def make(request: str) -> Message:
            return Call(HERE, "op", b"", request, self.connection.me)

        work = self.connection.request(HERE, make, timeout_s=timeout_s, what="Counter/a.op")
        return asyncio.get_running_loop().create_task(work)

    async def calls(self, count: int) -> list[Call]:
        """Wait for so many calls in the inbox."""
        async with asyncio.timeout(60):
            while len(found := self._calls()) < count:
                await asyncio.sleep(0.001)
        return found

    def _calls(self) -> list[Call]:
        target = partition_target(partition_of(HERE, PARTITIONS))
        entries = self.server.read(HUB, {target: START}, 1_000).get(target, [])
        return [call for entry in entries for call in wire.unpack(entry.payload) if isinstance(call, Call)]

    def answer(self, *rows: Response | bytes) -> None:
        for row in rows:
            payload = row if isinstance(row, bytes) else wire.pack([row])
            self.server.append(HUB, Append(client_target("me"), "p:2", 0, (payload,)))

    def response(self, request: str, result: bytes = b"") -> Response:
        return Response(self.connection.me, request, result)


Test = Callable[[Peer], Coroutine[object, object, None]]


def with_peer(test: Test) -> Callable[[], None]:
    """Run a test with a connection, on a virtual clock."""

    async def run() -> None:
        peer = Peer()
        await peer.open()
        await test(peer)
        assert peer.connection._waiting == {}
        await peer.connection.close()

    def test_run() -> None:
        virtually(run)

    test_run.__name__, test_run.__doc__ = test.__name__, test.__doc__
    return test_run


@with_peer
async def test_answers_find_their_requests_in_any_order(peer: Peer) -> None:
    tasks = [peer.request() for _ in range(3)]
    calls = await peer.calls(3)
    assert len({call.request for call in calls}) == 3
    for call in reversed(calls):
        peer.answer(peer.response(call.request, call.request.encode()))
    results = await asyncio.gather(*tasks)
    assert [response.result for response in results] == [call.request.encode() for call in calls]


@with_peer
async def test_the_first_answer_counts(peer: Peer) -> None:
    task = peer.request()
    (call,) = await peer.calls(1)
    peer.answer(
        peer.response("unknown"), peer.response(call.request, b"1"), peer.response(call.request, b"2")
    )
    assert (await task).result == b"1"


@with_peer
async def test_rubbish_among_the_answers_is_passed_over(peer: Peer) -> None:
    task = peer.request()
    (call,) = await peer.calls(1)
    peer.answer(b"rubbish", wire.pack([Signal(HERE, "op", b"")]), peer.response(call.request, b"1"))
    assert (await task).result == b"1"


@with_peer
async def test_waiting_is_bounded_and_the_error_says_what_is_known(peer: Peer) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(
        DeadlineExceeded,
        match=r"Counter/a.op: no answer within 2.5 s; .*unknown.*Is a host of this hub running",
    ):
        await peer.request(timeout_s=2.5)
    assert loop.time() - began_s == pytest.approx(2.5, abs=0.01)
    (late,) = await peer.calls(1)
    peer.answer(peer.response(late.request))
    task = peer.request()
    call = (await peer.calls(2))[-1]
    assert call.request != late.request
    peer.answer(peer.response(call.request, b"1"))
    assert (await task).result == b"1"


@with_peer
async def test_none_waits_for_ever(peer: Peer) -> None:
    task = peer.request(timeout_s=None)
    await asyncio.sleep(1_000)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@with_peer
async def test_a_request_that_is_cancelled_leaves_nothing(peer: Peer) -> None:
    task = peer.request()
    (call,) = await peer.calls(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert peer.connection._waiting == {}
    peer.answer(peer.response(call.request))
    await asyncio.sleep(1)


@with_peer
async def test_all_who_watch_one_actor_share_a_request(peer: Peer) -> None:
    def watch(timeout_s: float | None) -> asyncio.Task[Response]:
        def make(request: str) -> Message:
            return Call(HERE, "watch", b"", request, peer.connection.me)

        work = peer.connection.watch(HERE, make, timeout_s=timeout_s, what="it")
        return asyncio.get_running_loop().create_task(work)

    impatient, patient, cancelled = watch(1.0), watch(None), watch(50.0)
    (call,) = await peer.calls(1)
    with pytest.raises(DeadlineExceeded, match="it: no answer within 1 s; it goes on"):
        await impatient
    cancelled.cancel()
    late = watch(50.0)
    await asyncio.sleep(1)
    assert len(await peer.calls(1)) == 1
    peer.answer(peer.response(call.request, b"1"))
    assert [(await task).result for task in (patient, late)] == [b"1"] * 2
    again = watch(50.0)
    peer.answer(peer.response((await peer.calls(2))[-1].request, b"2"))
    assert (await again).result == b"2"


@with_peer
async def test_a_request_that_cannot_be_sent_fails(peer: Peer) -> None:
    peer.connection._sender._give_up_s = 1.0

    async def broken(appends: object) -> None:
        raise StoreUnavailable("gone")

    peer.store.append = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(StoreUnavailable, match="gone.*p:2"):
        await peer.request()


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), InternalError("refused")])
def test_answers_are_found_after_the_reader_broke(
    error: LungfishError, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [error] * 5
    read = MemoryReader.read

    async def breaks(*args: object, **kwargs: object) -> object:
        if failures:
            raise failures.pop()
        return await read(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryReader, "read", breaks)

    @with_peer
    async def run(peer: Peer) -> None:
        task = peer.request()
        (call,) = await peer.calls(1)
        peer.answer(peer.response(call.request, b"1"))
        assert (await task).result == b"1"
        assert not failures

    run()


def test_close_fails_what_waits_and_what_comes() -> None:
    async def run() -> None:
        peer = Peer()
        await peer.open()
        task = peer.request()
        await peer.calls(1)
        await peer.connection.close()
        with pytest.raises(StoreUnavailable, match="this connection was closed"):
            await task
        with pytest.raises(StoreUnavailable, match="this connection was closed"):
            await peer.request()
        assert peer.connection._waiting == {}
        await peer.connection.close()

    virtually(run)


def test_a_refusal_is_raised_as_what_it_is() -> None:
    raise_usage_error(FailureDetails("builtins.ValueError", "no"))
    with pytest.raises(InvalidArguments, match="no"):
        raise_usage_error(FailureDetails(qualified_name(InvalidArguments), "no"))
    with pytest.raises(DeadlineExceeded, match="late"):
        raise_usage_error(FailureDetails(qualified_name(DeadlineExceeded), "late"))
