"""What keeps a thread: its stack, as another thread sees it.

A host's loop that user code keeps cannot tell by whom: it does nothing else meanwhile. So the thread that
beats in its place (``keepalive``) looks at its stack. Nothing is interrupted; a loop in time costs nothing.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from types import FrameType
from typing import Final

from .ids import ActorId

#: The innermost frames that are told; deeper recursion is left out.
FRAMES_MAX: Final = 40

#: Where code lives that is not the user's: this package, Python itself, installed packages.
_NOT_USERS: Final = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    *(sysconfig.get_path(each) + os.sep for each in ("stdlib", "purelib", "platlib")),
    "<frozen",
)


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
    """Look at a thread of this process; None if it has ended."""
    frame = sys._current_frames().get(thread_id)
    if frame is None:
        return None
    frames = [found for found, _ in traceback.walk_stack(frame)]
    users = next((each for each in frames if not each.f_code.co_filename.startswith(_NOT_USERS)), frame)
    code = users.f_code
    stack = "".join(traceback.format_list(traceback.extract_stack(frame, FRAMES_MAX)))
    return Stall(f"{code.co_filename}:{users.f_lineno} ({code.co_name})", _actor_of(frames), stack)


def _actor_of(frames: list[FrameType]) -> str:
    for frame in frames:
        if frame.f_code.co_name == "_run_slot":
            actor = frame.f_locals.get("actor")
            return str(actor) if isinstance(actor, ActorId) else ""
    return ""
