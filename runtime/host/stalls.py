"""What keeps a thread: its stack, as another thread sees it.

A host's loop that user code keeps cannot tell by whom: it does nothing else meanwhile. So the thread that
beats in its place (``keepalive``) looks at its stack. Nothing is interrupted; a loop in time costs nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from lungfish.runtime.ids import ActorId

#: The innermost frames that are told; deeper recursion is left out.
FRAMES_MAX: Final = 40

_OURS: Final = str(Path(__file__).absolute().parents[2]) + os.sep
#: Where code lives that is not the user's: this package, Python itself, installed packages.
_NOT_USERS: Final = (
    _OURS,
    *(sysconfig.get_path(each) + os.sep for each in ("stdlib", "purelib", "platlib")),
    "<frozen",
)
_ASYNCIO: Final = os.path.dirname(asyncio.__file__) + os.sep
#: Functions of asyncio in which a loop runs: what is inside of them is what the loop does.
_LOOPS: Final = frozenset({"_run_once", "run_forever", "run_until_complete", "run"})


@dataclass(frozen=True, slots=True)
class Stall:
    """Where a thread is.

    Attributes:
        where: ``file:line (function)`` of the innermost user code; the innermost of all if there is none.
        actor: whose turn it is, as far as that can be seen: ``Counter/a``; else empty.
        stack: the whole stack, as a traceback has it.
    """

    where: str
    actor: str
    stack: str


def stall_of(thread_id: int) -> Stall | None:
    """Look at a thread that runs an event loop; None if it has ended, or the loop runs nothing of ours now.

    A loop that waits is late, too, where the store does not answer: nobody keeps it then.
    """
    frame = sys._current_frames().get(thread_id)
    if frame is None:
        return None
    frames = _in_the_loop(frame)
    if not any(each.f_code.co_filename.startswith(_OURS) for each in frames):
        return None
    users = next((each for each in frames if not each.f_code.co_filename.startswith(_NOT_USERS)), frame)
    code = users.f_code
    stack = "".join(traceback.format_list(traceback.extract_stack(frame, FRAMES_MAX)))
    return Stall(f"{code.co_filename}:{users.f_lineno} ({code.co_name})", _actor_of(frames), stack)


def _in_the_loop(frame: FrameType) -> list[FrameType]:
    """Return the frames of what the loop runs, innermost first; uvloop's own are not seen at all."""
    found: list[FrameType] = []
    for each, _ in traceback.walk_stack(frame):
        code = each.f_code
        if code.co_name in _LOOPS and code.co_filename.startswith(_ASYNCIO):
            break
        found.append(each)
    return found


def _actor_of(frames: list[FrameType]) -> str:
    for frame in frames:
        if frame.f_code.co_name == "_run_slot":
            actor = frame.f_locals.get("actor")
            return str(actor) if isinstance(actor, ActorId) else ""
    return ""
