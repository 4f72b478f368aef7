"""What code of an orchestration does beside its context is noticed while it runs, with file and line."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lungfish.orchestrations import OrchestrationContext, ambient
from lungfish.runtime.declared.app import App
from tests.unit.orchestrations.fakes import FakeHost


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ambient.forget()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if "Replay does not repeat" in record.getMessage()
    ]


def run(code: Callable[[OrchestrationContext], Any], *, always_replay: bool) -> FakeHost:
    app = App("ambient")

    @app.orchestration(name="main")
    async def main(ctx: OrchestrationContext) -> None:
        code(ctx)
        await ctx.sleep(1)
        code(ctx)

    host = FakeHost(app, always_replay=always_replay)
    host.start("main")
    host.advance(1)
    assert host.row().status == "Completed", host.row().failure
    return host


def line_of(code: Callable[..., Any]) -> str:
    return f"{__file__}:{code.__code__.co_firstlineno}: "


@pytest.mark.parametrize("always_replay", [False, True])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (lambda _: Path(os.devnull).read_bytes(), "opens a file"),
        (lambda _: os.listdir("."), "lists a folder"),
        (lambda _: subprocess.run(["true"], check=True), "starts a process"),
        (lambda _: socket.getaddrinfo("localhost", 1), "looks up a host name"),
    ],
)
def test_io_is_told_always(
    caplog: pytest.LogCaptureFixture, code: Any, words: str, always_replay: bool
) -> None:
    run(code, always_replay=always_replay)
    (text,) = [text for text in told(caplog) if words in text]
    assert text.startswith(line_of(code))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (lambda _: time.time(), "reads the clock"),
        (lambda _: dt.datetime.now(dt.UTC), "reads the clock"),
        (lambda _: dt.datetime.today(), "reads the clock"),  # noqa: DTZ002
        (lambda _: random.random(), "draws chance"),
        (lambda _: random.choice([1, 2]), "draws chance"),
        (lambda _: uuid.uuid4(), "draws chance"),
        (lambda _: os.environ.get("HOME"), "reads the environment"),
        (lambda _: time.sleep(0), "sleeps in the thread"),
    ],
)
def test_what_has_no_audit_event_is_told_where_all_is_replayed(
    caplog: pytest.LogCaptureFixture, code: Any, words: str
) -> None:
    run(code, always_replay=True)
    (text,) = told(caplog)
    assert text.startswith(line_of(code))
    assert words in text


def harmless(ctx: OrchestrationContext) -> None:
    ctx.now()
    ctx.uuid4()
    ctx.random.random()
    ctx.random.choice([1, 2])
    random.Random(7).random()
    ctx.logger.warning("a record has its time")
    dt.datetime(2020, 1, 1, tzinfo=dt.UTC).isoformat()
    import json.tool  # noqa: F401 - importing opens files


class Record(logging.LogRecord):
    """What others make of log records, in files of theirs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at = time.time()


def test_what_is_repeated_is_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_logRecordFactory", Record)
    sys.modules.pop("json.tool", None)
    run(harmless, always_replay=True)
    assert told(caplog) == []


def test_activities_and_other_code_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    app = App("inline")

    @app.activity(inline=True)
    def look() -> int:
        return len(os.listdir(".")) + int(time.time())

    @app.orchestration
    async def main(ctx: OrchestrationContext) -> int:
        return await ctx.call_activity(look)

    host = FakeHost(app, always_replay=True)
    host.start("main")
    assert host.output() > 0
    os.listdir(".")
    assert told(caplog) == []


def test_other_threads_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    inside, opened = threading.Event(), threading.Event()

    def beside() -> None:
        inside.wait(30)
        os.listdir(".")
        opened.set()

    thread = threading.Thread(target=beside)
    thread.start()

    def code(_: Any) -> None:
        inside.set()
        assert opened.wait(30)

    run(code, always_replay=False)
    thread.join()
    assert told(caplog) == []


def test_the_hosts_profiler_is_left_as_it_was() -> None:
    def profiler(*_: Any) -> None: ...

    sys.setprofile(profiler)
    try:
        run(lambda _: None, always_replay=True)
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


async def test_under_a_running_loop(caplog: pytest.LogCaptureFixture) -> None:
    await asyncio.sleep(0)
    os.listdir(".")
    assert told(caplog) == []
    run(lambda _: os.listdir("."), always_replay=False)
    assert len(told(caplog)) == 1
    assert caplog.records[-1].levelno == logging.WARNING
