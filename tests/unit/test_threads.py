"""Threads for sync activities."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from lungfish.runtime.worker.threads import DaemonThreads


def test_they_run_what_is_given_up_to_so_many_at_once() -> None:
    threads = DaemonThreads(3, "test")
    together = threading.Barrier(3)
    futures = [threads.submit(together.wait, 30) for _ in range(9)]
    assert sorted(future.result(30) for future in futures) == sorted([0, 1, 2] * 3)
    names = {threads.submit(lambda: threading.current_thread().name).result(30) for _ in range(20)}
    assert names <= {"test 0", "test 1", "test 2"}
    threads.shutdown()


def test_whatever_a_function_raises_the_thread_goes_on() -> None:
    threads = DaemonThreads(1, "test")
    for error in (ValueError("x"), SystemExit(3), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            threads.submit(fail).result(30)
    with pytest.raises(RuntimeError, match="raised StopIteration") as caught:
        threads.submit(next, iter([])).result(30)
    assert isinstance(caught.value.__cause__, StopIteration)
    assert threads.submit(lambda: 5).result(30) == 5
    threads.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(lambda: 5)


@pytest.mark.parametrize("cancel", [False, True])
def test_shutdown_runs_or_cancels_what_waits(*, cancel: bool) -> None:
    threads = DaemonThreads(1, "test")
    began, go_on = threading.Event(), threading.Event()

    def first() -> int:
        began.set()
        go_on.wait(30)
        return 1

    running, waiting = threads.submit(first), threads.submit(lambda: 2)
    began.wait(30)
    threads.shutdown(wait=False, cancel_futures=cancel)
    go_on.set()
    threads.shutdown()
    assert running.result(30) == 1
    if cancel:
        with pytest.raises(CancelledError):
            waiting.result(30)
    else:
        assert waiting.result(30) == 2


HANGS = """
import threading, time
from lungfish.runtime.worker.threads import DaemonThreads

began = threading.Event()

def hang() -> None:
    began.set()
    time.sleep(3_600)

threads = DaemonThreads(2, "test")
threads.submit(hang)
began.wait(30)
threads.shutdown(wait=False, cancel_futures=True)
print("stopped")
"""


def test_a_process_can_end_while_an_activity_hangs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "stopped" in done.stdout
