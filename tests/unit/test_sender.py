"""A producer: batches, order, and each message once, whatever breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungfish.runtime.errors import (
    InternalError,
    LungfishError,
    Overloaded,
    SerializationError,
    StoreUnavailable,
)
from lungfish.runtime.ids import CLIENT, ActorId
from lungfish.runtime.messages.messages import Call, CancelCall, Signal
from lungfish.runtime.session import sender as module
from lungfish.runtime.session.sender import BACKOFF_S, CROWDED_S, Sender
from lungfish.runtime.store.store import Append, Appended
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore
from tests.unit.fakes import actor_in
from tests.unit.scripted import BROKEN, FULL, GAP, OK, FlakyStore, ScriptedStore, words, words_of
from tests.virtual import virtual_server, virtually

HERE = actor_in(0)
ONE, TWO = "p:1", "p:2"


def word(text: bytes) -> list[Any]:
    return [Signal(HERE, "op", text)]


def on(store: ScriptedStore, give_up_s: float = 30.0) -> Sender:
    return Sender(cast("Any", store), "me", give_up_s=give_up_s)


Test = Callable[[], Coroutine[Any, Any, None]]


def virtual(test: Test) -> Callable[[], None]:
    """Run a test on a virtual clock: no back-off takes real time."""

    def run() -> None:
        virtually(test)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtual
async def test_what_is_sent_in_one_tick_is_one_batch() -> None:
    store = ScriptedStore()
    sender = on(store)
    await asyncio.gather(*(sender.send(ONE, word(text)) for text in (b"1", b"2", b"3")))
    assert store.sent == [[(ONE, 1, False, [b"1", b"2", b"3"])]]


@virtual
async def test_what_is_sent_meanwhile_makes_up_the_next_batch() -> None:
    store = ScriptedStore()
    sender = on(store)
    store.open.clear()
    futures = [sender.put(ONE, word(b"1"))]
    await asyncio.sleep(1)
    for text in (b"2", b"3"):
        futures.append(sender.put(ONE, word(text)))
        await asyncio.sleep(1)
    assert len(store.calls) == 1
    assert not any(future.done() for future in futures)
    store.open.set()
    await asyncio.gather(*futures)
    assert store.sent == [[(ONE, 1, False, [b"1"])], [(ONE, 2, False, [b"2", b"3"])]]


@virtual
async def test_all_targets_share_a_call_and_each_counts_for_itself() -> None:
    store = ScriptedStore()
    sender = on(store)
    await asyncio.gather(sender.send(ONE, word(b"1")), sender.send(TWO, word(b"2")))
    await sender.send(TWO, word(b"3"))
    assert store.sent == [
        [(ONE, 1, False, [b"1"]), (TWO, 1, False, [b"2"])],
        [(TWO, 2, False, [b"3"])],
    ]


@virtual
async def test_nothing_is_acknowledged_before_the_store_says_so() -> None:
    store = ScriptedStore()
    store.open.clear()
    future = on(store).put(ONE, word(b"1"))
    await asyncio.sleep(10)
    assert not future.done()
    store.open.set()
    await future


@virtual
async def test_a_batch_is_repeated_byte_for_byte_under_its_number() -> None:
    store = ScriptedStore(BROKEN, BROKEN, BROKEN)
    sender = on(store)
    first = sender.put(ONE, word(b"1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = sender.put(ONE, word(b"2"))
    await asyncio.gather(first, second)
    assert len(store.calls) == 5
    assert all(call == store.calls[0] for call in store.calls[:4])
    assert store.sent[0] == [(ONE, 1, False, [b"1"])]
    assert store.sent[4] == [(ONE, 2, False, [b"2"])]


@virtual
async def test_waits_between_tries_double_up_to_a_limit_and_begin_anew() -> None:
    store: Any = ScriptedStore(*[BROKEN] * 10)
    sender = on(store)
    await sender.send(ONE, word(b"1"))
    waits = [after - before for before, after in zip(store.times_s, store.times_s[1:], strict=False)]
    least, most = BACKOFF_S
    assert waits == [pytest.approx(min(least * 2**n, most), abs=1e-4) for n in range(10)]
    store.script = [BROKEN]
    await sender.send(ONE, word(b"2"))
    assert store.times_s[-1] - store.times_s[-2] == pytest.approx(least, abs=1e-4)


@virtual
async def test_a_full_target_is_tried_again() -> None:
    store = ScriptedStore([FULL], [FULL])
    await on(store).send(ONE, word(b"1"))
    assert store.calls == [store.calls[0]] * 3


@virtual
async def test_a_full_target_holds_up_its_own_messages_only() -> None:
    store = ScriptedStore(lambda appends: [FULL if a.target == ONE else OK for a in appends])
    store.script *= 1_000
    sender = on(store, give_up_s=60)
    stuck = sender.put(ONE, word(b"stuck"))
    for number in range(20):
        began_s = asyncio.get_running_loop().time()
        await sender.send(TWO, word(b"%d" % number))
        assert asyncio.get_running_loop().time() - began_s < 0.001
        await asyncio.sleep(0.3)
    assert not stuck.done()
    store.script = []
    await stuck
    assert [w for call in store.sent for t, _, _, ws in call if t == TWO for w in ws] == [
        b"%d" % number for number in range(20)
    ]


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [([FULL], Overloaded, "p:1 is full; slow down.*p:1"), (BROKEN, StoreUnavailable, "broken.*p:1")],
)
def test_a_batch_is_given_up_and_its_number_is_never_used_again(
    answer: Any, error: type[LungfishError], why: str
) -> None:
    async def run() -> None:
        store = ScriptedStore(*[answer] * 1_000)
        sender = on(store, give_up_s=5)
        began_s = asyncio.get_running_loop().time()
        first = sender.put(ONE, word(b"1"))
        await asyncio.sleep(1)
        second = sender.put(ONE, word(b"2"))
        with pytest.raises(error, match=why):
            await first
        waited_s = asyncio.get_running_loop().time() - began_s
        assert 5 <= waited_s <= 5 + BACKOFF_S[1] + 0.01
        store.script = []
        await second
        await sender.send(ONE, word(b"3"))
        assert store.sent[-2:] == [[(ONE, 2, True, [b"2"])], [(ONE, 3, False, [b"3"])]]

    virtually(run)


UNANSWERED = [Appended.UNKNOWN]


@pytest.mark.parametrize("unanswered", [BROKEN, UNANSWERED])
@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_full_target_is_no_promise_if_a_try_may_yet_arrive(unanswered: Any, at: int) -> None:
    async def run() -> None:
        script: list[Any] = [[FULL]] * 1_000
        script[at] = unanswered
        store = ScriptedStore(*script)
        sender = on(store, give_up_s=5)
        with pytest.raises(StoreUnavailable, match="full.*unknown"):
            await sender.send(ONE, word(b"1"))
        # The next batch is another matter: all of its tries are answered.
        with pytest.raises(Overloaded):
            await sender.send(ONE, word(b"2"))

    virtually(run)


@virtual
async def test_the_one_after_a_given_up_one_skips_its_number_on_the_store() -> None:
    """It did arrive, late: a message behind it must not be taken for it."""
    server = virtual_server()
    store = MemoryStore(server, "h")
    await store.open()
    scripted = ScriptedStore(*[BROKEN] * 1_000)
    sender = on(scripted, give_up_s=1)
    with pytest.raises(StoreUnavailable):
        await sender.send(ONE, word(b"given up"))
    late = scripted.calls[0][0]
    sender._store = store
    await sender.send(ONE, word(b"next"))
    assert await store.append([late]) == [OK]
    assert words_of(server, "h", ONE) == [b"next"]


@virtual
async def test_a_store_that_lost_acknowledged_messages_takes_the_next_ones() -> None:
    store = ScriptedStore([OK], [GAP])
    sender = on(store)
    await sender.send(ONE, word(b"lost"))
    await sender.send(ONE, word(b"2"))
    await sender.send(ONE, word(b"3"))
    assert store.sent[1:] == [
        [(ONE, 2, False, [b"2"])],
        [(ONE, 2, True, [b"2"])],
        [(ONE, 3, False, [b"3"])],
    ]


@virtual
async def test_a_resync_is_repeated_as_such_after_a_broken_connection() -> None:
    store = ScriptedStore([GAP], BROKEN)
    await on(store).send(ONE, word(b"1"))
    assert [call[0][2] for call in store.sent] == [False, True, True]


@virtual
async def test_close_fails_what_has_no_outcome_yet() -> None:
    store = ScriptedStore()
    sender = on(store)
    store.open.clear()
    futures = [sender.put(ONE, word(b"1"))]
    await asyncio.sleep(1)
    futures += [sender.put(ONE, word(b"2")), sender.put(TWO, word(b"3"))]
    await sender.close()
    for future in futures:
        with pytest.raises(StoreUnavailable, match="this connection was closed"):
            await future
    with pytest.raises(StoreUnavailable, match="this connection was closed"):
        await sender.put(ONE, word(b"4"))


@virtual
async def test_close_during_a_back_off_and_of_an_idle_sender() -> None:
    store = ScriptedStore(*[BROKEN] * 1_000)
    sender = on(store)
    future = sender.put(ONE, word(b"1"))
    await asyncio.sleep(2)
    await sender.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await future
    idle = on(ScriptedStore())
    await idle.close()
    await idle.close()


@virtual
async def test_a_caller_that_is_cancelled_disturbs_nobody() -> None:
    store = ScriptedStore()
    sender = on(store)
    store.open.clear()
    first = asyncio.create_task(sender.send(ONE, word(b"1")))
    await asyncio.sleep(1)
    cancelled = [asyncio.create_task(sender.send(ONE, word(text))) for text in (b"2", b"3")]
    last = asyncio.create_task(sender.send(ONE, word(b"4")))
    await asyncio.sleep(1)
    first.cancel()
    for task in cancelled:
        task.cancel()
    store.open.set()
    await last
    assert store.sent == [[(ONE, 1, False, [b"1"])], [(ONE, 2, False, [b"2", b"3", b"4"])]]
    assert all(task.cancelled() for task in (first, *cancelled))


@virtual
async def test_the_sender_sleeps_when_there_is_nothing_to_send() -> None:
    store = ScriptedStore()
    sender = on(store)
    for text in (b"1", b"2"):
        await sender.send(ONE, word(text))
        await asyncio.sleep(1)
        assert sender._pump is None
    assert [call[0][1] for call in store.sent] == [1, 2]


@virtual
async def test_a_batch_is_bounded_in_messages_and_in_bytes() -> None:
    store = ScriptedStore()
    sender = on(store)
    many = [sender.put(ONE, word(b"x")) for _ in range(2 * module.BATCH_MESSAGES_MAX + 1)]
    large = [sender.put(TWO, word(b"x" * 300_000)) for _ in range(6)]
    await asyncio.gather(*many, *large)
    counts = [(target, len(sent)) for call in store.sent for target, _, _, sent in call]
    limit = module.BATCH_MESSAGES_MAX
    assert [count for target, count in counts if target == ONE] == [limit, limit, 1]
    assert [count for target, count in counts if target == TWO] == [4, 2]


@virtual
async def test_the_messages_of_one_send_are_not_torn_apart() -> None:
    store = ScriptedStore()
    sender = on(store)
    await sender.send(ONE, [*word(b"x" * 800_000), *word(b"y" * 800_000), *word(b"z")])
    assert [len(sent) for call in store.sent for *_, sent in call] == [3]


@virtual
async def test_a_message_that_cannot_be_packed_fails_alone() -> None:
    store = ScriptedStore()
    sender = on(store)
    good = [sender.put(ONE, word(b"1"))]
    bad = [sender.put(ONE, [Signal(HERE, name, b"bad")]) for name in ("\ud800", object())]  # type: ignore[arg-type]
    good.append(sender.put(ONE, word(b"2")))
    await asyncio.gather(*good)
    for future in bad:
        with pytest.raises(SerializationError, match="cannot be sent.*p:1"):
            await future
    with pytest.raises(SerializationError):
        await sender.send(ONE, [Signal(HERE, "\ud800", b"alone")])
    await sender.send(ONE, word(b"3"))
    assert store.sent == [[(ONE, 1, False, [b"1", b"2"])], [(ONE, 2, False, [b"3"])]]


@virtual
async def test_a_call_that_the_store_refuses_fails_in_the_end_and_the_sender_goes_on() -> None:
    store = ScriptedStore(*[ValueError("no such command")] * 1_000)
    sender = on(store, give_up_s=1)
    with pytest.raises(InternalError, match="no such command.*p:1"):
        await sender.send(ONE, word(b"1"))
    store.script = []
    await sender.send(ONE, word(b"2"))
    assert store.sent[-1] == [(ONE, 2, True, [b"2"])]


@virtual
async def test_a_request_gets_the_error_and_else_is_left_alone() -> None:
    store = ScriptedStore([OK], *[BROKEN] * 1_000)
    sender = on(store, give_up_s=1)
    call = [Call(HERE, "op", b"", "1", ActorId(CLIENT, "", "me"))]
    loop = asyncio.get_running_loop()
    sent: asyncio.Future[object] = loop.create_future()
    sender.post(ONE, call, sent)
    await asyncio.sleep(1)
    assert not sent.done()
    failed: asyncio.Future[object] = loop.create_future()
    sender.post(ONE, call, failed)
    with pytest.raises(StoreUnavailable, match="broken"):
        await failed


@given(st.integers(0, 2**32))
def test_each_message_arrives_once_and_in_order_over_a_bad_connection(seed: int) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        server = virtual_server()
        store = FlakyStore(server, "h", chance)
        await store.open()
        sender = Sender(store, "me", give_up_s=10_000)
        sent: dict[str, list[bytes]] = {ONE: [], TWO: []}
        futures = []
        for number in range(40):
            target = chance.choice([ONE, TWO])
            sent[target].append(b"%d" % number)
            futures.append(sender.put(target, word(b"%d" % number)))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() / 20)
        await asyncio.gather(*futures)
        assert {target: words_of(server, "h", target) for target in sent} == sent

    virtually(run)


@given(st.integers(0, 2**32))
def test_what_was_acknowledged_is_there_in_order_even_if_some_was_given_up(seed: int) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        server: MemoryServer = virtual_server()
        store = FlakyStore(server, "h", chance, broken=0.6)
        await store.open()
        sender = Sender(store, "me", give_up_s=0.02)
        outcomes: dict[bytes, bool] = {}

        async def send(text: bytes) -> None:
            try:
                await sender.send(ONE, word(text))
                outcomes[text] = True
            except StoreUnavailable:
                outcomes[text] = False

        tasks = []
        for number in range(30):
            tasks.append(asyncio.create_task(send(b"%d" % number)))
            await asyncio.sleep(chance.random() / 20)
        await asyncio.gather(*tasks)
        arrived = words_of(server, "h", ONE)
        assert arrived == sorted(set(arrived), key=int)
        assert {text for text, accepted in outcomes.items() if accepted} <= set(arrived)

    virtually(run)


@virtual
async def test_what_ends_the_waiting_keeps_its_place_and_gets_into_a_crowded_target() -> None:
    def crowded(appends: Sequence[Append]) -> list[Appended]:
        return [Appended.CROWDED if append.yields else OK for append in appends]

    store = ScriptedStore(*[crowded] * 100)
    sender = Sender(cast("Any", store), "me", yields=True)
    given_up = CancelCall(HERE, "1", ActorId(CLIENT, "", "c"))
    futures = [sender.put(ONE, messages) for messages in (word(b"1"), [given_up], word(b"2"))]
    began_s = asyncio.get_running_loop().time()
    first, middle, last = await asyncio.gather(*futures, return_exceptions=True)
    assert (type(first), middle, type(last)) == (Overloaded, None, Overloaded)
    assert asyncio.get_running_loop().time() - began_s < 2 * CROWDED_S, "all are tried together"
    sent = [append for call in store.calls for append in call]
    assert [words(append) for append in sent] == [*[[b"1", b"2"]] * (len(sent) - 1), []]
    assert [(append.sequence, append.yields) for append in (sent[0], sent[-1])] == [(1, True), (2, False)]
    assert sent[-1].resync
    store.script = []
    await asyncio.gather(*(sender.put(ONE, messages) for messages in ([given_up], word(b"3"), word(b"4"))))
    assert [(words(append), append.yields) for call in store.calls[-2:] for append in call] == [
        ([], False),
        ([b"3", b"4"], True),
    ]
