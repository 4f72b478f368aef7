"""``lungfish http``, and the API inside a FastAPI app that is there already."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI

import lungfish.http
from lungfish.runtime.http.shapes import PREFIX
from tests.http.app import app
from tests.http.conftest import listening
from tests.local import RunApp
from tests.servers import Server

SECRET = "0123456789abcdef"


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """Run ``lungfish http`` and yield the address that it prints."""
    command = [sys.executable, "-m", "lungfish.runtime.cli.main", "http", "--port", "0", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "LUNGFISH_HTTP_KEYS": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert " is served at http://" in line, line + process.stderr.read()
            yield line.split()[-1]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0, process.stderr.read()
        finally:
            process.kill()


async def test_the_command_serves_a_hub(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    async with run_app(app) as runtime:
        await runtime.client.start("wait", id="one")
        with serving("--redis", valkey.url, "--hub", hub_name) as address:
            async with httpx.AsyncClient(base_url=address, timeout=60) as http:
                assert (await http.get("/instances/one")).json()["runtimeStatus"] == "Running"
        with serving("--redis", valkey.url, "--hub", hub_name, "--keys", f"me:read:{SECRET}") as address:
            async with httpx.AsyncClient(base_url=address, timeout=60) as http:
                assert (await http.get("/instances/one")).status_code == 401
                keyed = await http.get("/instances/one", headers={"x-functions-key": SECRET})
                assert keyed.status_code == 202


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "which hub"),
        (("--hub", "h", "--host", "0.0.0.0"), "without API keys"),
        (("--hub", "h", "--keys", "me:read:short"), "16 characters"),
        (
            ("--hub", "h", "--redis", "redis://127.0.0.1:1"),
            "error: cannot connect to the store at 127.0.0",
        ),
    ],
)
def test_wrong_calls_say_what_to_do(arguments: tuple[str, ...], says: str) -> None:
    command = [sys.executable, "-m", "lungfish.runtime.cli.main", "http", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
async def test_an_address_that_cannot_be_listened_on(
    run_app: RunApp, valkey: Server, hub_name: str, host: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "lungfish.runtime.cli.main",
            "http",
            "--host",
            host,
            "--port",
            str(port),
        ]
        command += ["--redis", valkey.url, "--hub", hub_name, "--keys", f"me:read:{SECRET}"]
        async with run_app(app):
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=120, check=False
            )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot listen on {host}:{port}: "), done.stderr
    assert "another port with --port" in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_in_an_app_of_ones_own(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    api = FastAPI()

    @api.get("/mine")
    def mine() -> str:
        return "mine"

    api.include_router(lungfish.http.router(hub=hub_name, url=valkey.url))
    async with run_app(app), listening(api) as origin, httpx.AsyncClient(base_url=origin, timeout=60) as http:
        assert (await http.get("/mine")).json() == "mine"
        done = await http.post(f"{PREFIX}/orchestrators/echo?timeout=60", json=7)
        assert (done.status_code, done.json()) == (200, 7)
        missing = await http.get(f"{PREFIX}/instances/nobody")
        assert missing.headers["content-type"] == "application/problem+json"
