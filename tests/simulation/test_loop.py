"""The simulated loop: virtual time, deadlocks, and processes that freeze and die."""

from __future__ import annotations

import asyncio

import pytest

from tests.simulation.loop import Deadlock, Gate, SimulationLoop, new_loop


@pytest.fixture
def loop() -> SimulationLoop:
    return new_loop()


def test_time_passes_only_when_nothing_is_ready(loop: SimulationLoop) -> None:
    times: list[float] = []

    async def main() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        times.append(loop.time())
        await asyncio.sleep(3_600)
        times.append(loop.time())

    loop.run(main())
    assert times == [0.0, 3_600.0]


def test_timers_fire_in_order_also_at_the_same_time(loop: SimulationLoop) -> None:
    fired: list[int] = []

    async def main() -> None:
        for number, delay in enumerate((2.0, 1.0, 1.0, 0.0)):
            loop.call_later(delay, fired.append, number)
        await asyncio.sleep(3)

    loop.run(main())
    assert fired == [3, 1, 2, 0]


def test_waiting_for_what_nobody_will_do_is_a_deadlock(loop: SimulationLoop) -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="nothing can run any more"):
        loop.run(main())
    loop.close()


def test_running_without_end_is_a_deadlock(loop: SimulationLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.loop.STUCK_CALLBACKS", 1_000)

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Deadlock, match="1000 callbacks at 0"):
        loop.run(main())
    loop.close()


def test_timeouts_and_task_groups_work(loop: SimulationLoop) -> None:
    async def main() -> list[int]:
        async def after(delay: float, value: int) -> int:
            await asyncio.sleep(delay)
            return value

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(2)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(after(3 - n, n)) for n in range(3)]
        return [task.result() for task in tasks]

    assert loop.run(main()) == [0, 1, 2]
    assert loop.now_s == 1 + 3


def test_a_frozen_process_stands_still_and_is_late(loop: SimulationLoop) -> None:
    seen: list[tuple[str, float]] = []
    gate = Gate("frozen")

    async def work() -> None:
        for step in "abc":
            await asyncio.sleep(1)
            seen.append((step, loop.time()))

    async def main() -> None:
        task = loop.start_process(gate, work())
        await asyncio.sleep(1.5)
        loop.freeze(gate)
        await asyncio.sleep(10)
        loop.thaw(gate)
        await task

    loop.run(main())
    assert seen == [("a", 1.0), ("b", 11.5), ("c", 12.5)]


def test_a_dead_process_runs_not_even_its_finally(loop: SimulationLoop) -> None:
    seen: list[str] = []
    gate = Gate("dead")

    async def work() -> None:
        try:
            await asyncio.sleep(1)
            seen.append("went on")
        finally:
            seen.append("finally")

    async def main() -> None:
        _ = loop.start_process(gate, work())
        await asyncio.sleep(0.5)
        loop.kill(gate)
        await asyncio.sleep(5)

    loop.run(main())
    assert seen == []
    loop.close()


def test_what_a_process_starts_belongs_to_it(loop: SimulationLoop) -> None:
    gate = Gate("parent")

    async def child() -> None:
        await asyncio.sleep(9)

    async def parent() -> None:
        _ = asyncio.create_task(child(), name="child")  # noqa: RUF006 - the loop keeps it
        await asyncio.sleep(9)

    async def main() -> list[str]:
        _ = loop.start_process(gate, parent())
        await asyncio.sleep(1)
        return [task.get_name() for task in loop.tasks_of(gate)]

    assert loop.run(main()) == ["parent main", "child"]
    loop.close()


def test_sets_of_tasks_have_an_order_that_repeats() -> None:
    def order() -> list[str]:
        loop = new_loop()

        async def main() -> list[str]:
            tasks = {asyncio.create_task(asyncio.sleep(1), name=str(n)) for n in range(50)}
            done, _ = await asyncio.wait(tasks)
            return [task.get_name() for task in done]

        return loop.run(main())

    assert order() == order()


def test_exceptions_that_nobody_looks_at_are_kept(loop: SimulationLoop) -> None:
    def fail() -> None:
        raise ValueError("seen")

    async def main() -> None:
        loop.call_soon(fail)
        await asyncio.sleep(1)

    loop.run(main())
    assert len(loop.errors) == 1
    assert "seen" in loop.errors[0]
