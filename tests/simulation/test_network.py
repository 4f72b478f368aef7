"""The faults do what their names say: a fault that does less would make everything look well."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.store.store import Append, Appended, partition_target
from lungfish.runtime.testing.memory_server import MemoryServer
from tests.simulation.faults import Profile, Trace
from tests.simulation.loop import Gate, SimulationLoop, new_loop
from tests.simulation.network import FaultyStore, Network

FROZEN_S = 3.0


class CountingServer(MemoryServer):
    """Counts what is put into its streams."""

    puts = 0

    def _put(self, hub: str, target: str, producer: str, sequence: int, payloads: Sequence[bytes]) -> None:
        self.puts += 1
        super()._put(hub, target, producer, sequence, payloads)


class Process:
    """A victim."""

    def __init__(self, loop: SimulationLoop) -> None:
        self.gate = Gate("p1")
        self._loop = loop

    def crash(self) -> None:
        self._loop.kill(self.gate)

    def freeze(self) -> float:
        self._loop.freeze(self.gate)
        self._loop.call_later(FROZEN_S, lambda: self._loop.thaw(self.gate), context=self._loop.outside)
        return FROZEN_S


class Bench:
    """One process, one server, and one fault, at the first call."""

    def __init__(self, fault: str, *, clustered: bool = False) -> None:
        self.loop = new_loop()
        self.server = CountingServer(lambda: int(self.loop.now_s * 1_000))
        self.answers: list[list[Appended]] = []
        self.answered_s = 0.0
        self.process = Process(self.loop)
        profile = Profile(latency_s=0.001, slow_s=0.5, until_s=9.0, script={1: fault})
        told: list[tuple[str, str]] = []
        self.network = Network(
            self.loop, self.server, profile, Trace(), 1, clustered=clustered, told=lambda *it: told.append(it)
        )
        self.store = FaultyStore(self.network, self.process, "hub")

    def run(self, *appends: Append) -> str:
        """Append in the process; return how it ended: ``ok``, ``error``, or ``""`` if it never did."""
        outcome: list[str] = []

        async def work() -> None:
            try:
                self.answers.append(await self.store.append(appends or (append(0),)))
                outcome.append("ok")
            except StoreUnavailable:
                outcome.append("error")
            self.answered_s = self.loop.time()

        async def main() -> None:
            _ = self.loop.start_process(self.process.gate, work())
            await asyncio.sleep(30)

        self.loop.run(main())
        self.loop.close()
        return "".join(outcome)


def append(partition: int) -> Append:
    return Append(partition_target(partition), "c:me", 1, (b"payload",))


@pytest.mark.parametrize(
    ("fault", "applied", "outcome"),
    [
        ("break_before", 0, "error"),
        ("break_after", 1, "error"),
        ("twice", 1, "ok"),  # the second is dropped: the store says so as the first time
        ("ghost", 1, "error"),
        ("crash_before", 0, ""),
        ("crash_after", 1, ""),
        ("freeze_before", 1, "ok"),
        ("freeze_after", 1, "ok"),
        ("slow_before", 1, "ok"),
        ("slow_after", 1, "ok"),
    ],
)
def test_a_call_is_applied_and_answered_or_not(fault: str, applied: int, outcome: str) -> None:
    bench = Bench(fault)
    assert bench.run() == outcome
    assert bench.server.puts == applied
    assert bench.network.trace.fired == {fault: 1}


def test_a_frozen_process_hears_of_its_answer_when_it_thaws() -> None:
    for fault in ("freeze_before", "freeze_after"):
        bench = Bench(fault)
        assert bench.run() == "ok"
        assert bench.answered_s >= FROZEN_S


def test_some_servers_do_not_answer() -> None:
    bench = Bench("partial", clustered=True)
    assert bench.run(*(append(partition) for partition in range(20))) == "ok"
    (answers,) = bench.answers
    assert {Appended.OK, Appended.UNKNOWN} == set(answers)
    assert answers.count(Appended.OK) < bench.server.puts < 20


def test_nothing_gets_through_while_the_store_is_away() -> None:
    bench = Bench("")
    bench.network.stop_store()
    assert bench.run() == "error"
    assert bench.server.puts == 0
