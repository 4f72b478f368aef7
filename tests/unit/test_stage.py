"""The demo's stage: a signal at any instant ends what runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Tasks that wake one another, in a loop that is never idle: the signal hits between any two of its steps.
BUSY = """
import asyncio, random, signal, sys
from lungfish.demo.stage import run_interruptibly

async def work():
    queues = [asyncio.Queue() for _ in range(10)]

    async def pass_on(number):
        while True:
            await queues[number].get()
            queues[number - 1].put_nowait(None)

    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(pass_on(number))
            queues[number].put_nowait(None)
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.005))

signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(getattr(signal, sys.argv[1])))
signal.signal(signal.SIGINT, signal.default_int_handler)
ended = 0
for _ in range(1_000):
    try:
        run_interruptibly(work())
    except KeyboardInterrupt:
        ended += 1
print(ended, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_busy_loop_at_any_step(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUSY, name], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout == "1000 True\n"
