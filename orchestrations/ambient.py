"""I/O, clocks and chance in an orchestration's code, noticed while it runs.

Rules:

* Nothing is patched, stopped or changed: what is noticed is logged as a warning, once for each place.
* Always: Python's own audit events (files, sockets, processes), where the running loop is an
  orchestration's. For other code the hook costs a look
  into a table.
* Where code is replayed at every turn (tests): also clocks, chance, blocking sleeps and the environment,
  which have no audit events. A profile function sees each call; that is far too slow for production.
* What the standard library does for itself does not count: a log record has its time.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import sysconfig
import time
import uuid
from asyncio import events
from datetime import date, datetime
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

log = logging.getLogger("lungfish.orchestrations")

_PRODUCT: Final = tuple(str(Path(__file__).parents[1] / name) for name in ("runtime", "orchestrations"))
_STDLIB: Final = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), "<frozen ")
#: Packages that users install are below the standard library's folder.
_INSTALLED: Final = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
#: Parts of the standard library that do I/O on their own account, and for good reason.
_EXCUSED: Final = ("importlib", "logging", "linecache", "traceback", "warnings", "tokenize", "zipimport")

_SLEEP: Final = "sleeps in the thread (await ctx.sleep(...))"
#: Audit events of what replay does not repeat, and the words for them.
_EVENTS: Final = {
    "open": "opens a file",
    "socket.connect": "connects a socket",
    "socket.bind": "binds a socket",
    "socket.getaddrinfo": "looks up a host name",
    "socket.gethostname": "asks for the host's name",
    "subprocess.Popen": "starts a process",
    "os.system": "starts a process",
    "os.fork": "starts a process",
    "os.posix_spawn": "starts a process",
    "os.listdir": "lists a folder",
    "os.scandir": "lists a folder",
    "os.remove": "removes a file",
    "os.rename": "renames a file",
    "os.mkdir": "makes a folder",
    "os.rmdir": "removes a folder",
    "sqlite3.connect": "opens a database",
    "urllib.Request": "makes an HTTP request",
    "_thread.start_new_thread": "starts a thread",
    "_thread.start_joinable_thread": "starts a thread",
    "time.sleep": _SLEEP,
}

_CLOCK: Final = "reads the clock (ctx.now() is the same in replay)"
_CHANCE: Final = "draws chance (ctx.random and ctx.uuid4() are the same in replay)"
_ENVIRONMENT: Final = "reads the environment (it differs between hosts; pass it as input)"

_CLOCKS: Final = (time.time, time.time_ns, time.monotonic, time.monotonic_ns, time.perf_counter)
#: Built-in functions by identity, and methods of built-in classes by class and name.
_FUNCTIONS: Final[dict[Any, str]] = {
    time.sleep: _SLEEP,
    os.urandom: _CHANCE,
    **dict.fromkeys(_CLOCKS, _CLOCK),
}
_METHODS: Final = {(datetime, "now"), (datetime, "utcnow"), (datetime, "today"), (date, "today")}
#: The generator behind ``random.random()`` and its sisters; other generators have seeds of their own.
_SHARED_RANDOM: Final = getattr(random, "_inst", None)


def _codes(*functions: Any) -> set[CodeType]:
    return {function.__code__ for function in functions if isinstance(function, FunctionType)}


_PYTHON: Final[dict[CodeType, str]] = {
    **dict.fromkeys(_codes(uuid.uuid1, uuid.uuid4), _CHANCE),
    **dict.fromkeys(_codes(os.getenv, type(os.environ).__getitem__), _ENVIRONMENT),
    **dict.fromkeys(_codes(*(v for v in vars(random.Random).values())), ""),
}


class _Told:
    """What this process did about it so far."""

    def __init__(self) -> None:
        self.installed = False
        self.places: set[tuple[str, str]] = set()


_told: Final = _Told()


def watch_io() -> None:
    """Notice I/O of orchestrations in this process from here on; Python cannot undo that."""
    if not _told.installed:
        _told.installed = True
        sys.addaudithook(_audit)


def forget() -> None:
    """Forget what was told: each place is told once more."""
    _told.places.clear()


def watch_calls() -> Any:
    """Notice also what has no audit event, in this thread; return what ``unwatch_calls`` needs."""
    outer = sys.getprofile()
    sys.setprofile(_profile)
    return outer


def unwatch_calls(outer: Any) -> None:
    """End what ``watch_calls`` began."""
    sys.setprofile(outer)


def _audit(event: str, _: tuple[Any, ...]) -> None:
    # The running loop is this thread's own: what other threads do meanwhile is no concern of ours.
    if event in _EVENTS and getattr(events._get_running_loop(), "runs_orchestration", False):
        frame = sys._getframe(1)
        where = _user_frame(frame)
        if where is not None:
            _tell(frame, where, _EVENTS[event])


def _profile(frame: FrameType, event: str, arg: Any) -> None:
    if event == "c_call":
        what = _of_builtin(arg)
        if what and not _of_library(frame.f_code.co_filename):
            _tell(frame, frame, what)
    elif event == "call" and frame.f_code in _PYTHON:
        what = _PYTHON[frame.f_code]
        if not what and frame.f_locals.get("self") is _SHARED_RANDOM:
            what = _CHANCE
        where = _user_frame(frame.f_back) if what else None
        if where is not None:
            _tell(frame, where, what)


def _of_builtin(function: Any) -> str:
    try:
        found = _FUNCTIONS.get(function)
    except TypeError:  # a method of something that has no hash
        return ""
    if found:
        return found
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if owner is _SHARED_RANDOM and owner is not None:
        return _CHANCE
    if isinstance(owner, type) and any(issubclass(owner, cls) and name == method for cls, method in _METHODS):
        return _CLOCK
    return ""


def _of_library(file: str) -> bool:
    """Tell whether a file is ours or the standard library's."""
    return file.startswith(_PRODUCT) or (file.startswith(_STDLIB) and not file.startswith(_INSTALLED))


def _user_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame of the user; None if there is none."""
    while frame is not None and _of_library(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _has_excuse(frame: FrameType | None) -> bool:
    """Tell whether the standard library called for this on its own account: a log record has its time."""
    while frame is not None and not frame.f_code.co_filename.startswith(_PRODUCT):
        module = frame.f_globals.get("__name__", "").partition(".")[0].removeprefix("_frozen_")
        if module in _EXCUSED or "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _tell(innermost: FrameType, frame: FrameType, what: str) -> None:
    line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    if (line, what) in _told.places or _has_excuse(innermost):
        return
    _told.places.add((line, what))
    log.warning(
        "%s: the code of an orchestration %s. Replay does not repeat it: use an activity.", line, what
    )
