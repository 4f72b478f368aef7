"""What an orchestration sends: actions to messages and timers."""

from __future__ import annotations

from typing import Any, assert_never

from lungfish.runtime.ids import ORCHESTRATION, ActorId, chain_name
from lungfish.runtime.messages.messages import (
    Call,
    CancelCall,
    Control,
    LockRelease,
    LockRequest,
    RaiseEvent,
    Signal,
    Start,
    TimerFired,
)
from lungfish.runtime.messages.payloads import DEFAULT
from lungfish.runtime.partitions.kinds import Effects

from . import actions
from .attempts import Attempts, timer_id
from .large import sent
from .matching import Outstanding
from .outcomes import CANCELS_CHILDREN


class Outgoing:
    """The actions of a turn, kept until it ends: what is asked for and cancelled in one turn never leaves."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[type[Any], int], actions.Action] = {}

    def keep(self, action: actions.Action) -> None:
        """Keep an action until ``perform``."""
        match action:
            case actions.CancelActivity():
                if self._kept.pop((actions.ScheduleActivity, action.id), None) is not None:
                    return
            case actions.CancelTimer():
                if self._kept.pop((actions.CreateTimer, action.id), None) is not None:
                    return
            case actions.CancelCall():
                if self._kept.pop((actions.CallEntity, action.id), None) is not None:
                    return
            case actions.ReleaseLock():
                if self._kept.pop((actions.RequestLock, action.id), None) is not None:
                    return
            case actions.CancelOrchestration():
                if self._kept.pop((actions.StartOrchestration, action.id), None) is not None:
                    return
            case _:
                pass
        self._kept[type(action), action.id] = action

    def clear(self) -> None:
        """Forget what was kept."""
        self._kept.clear()

    def perform(
        self,
        effects: Effects,
        actor: ActorId,
        execution: str,
        attempts: Attempts,
        *,
        ended: str | None,
        over: int = DEFAULT.offload_bytes,
    ) -> None:
        """Turn what was kept into effects.

        Args:
            over: values larger than this (bytes) travel beside their messages.
            ended: the execution ends so in this turn. What it sends leaves, what it would wait for does not;
                sub-orchestrations of one that failed are not started.
        """
        for action in self._kept.values():
            match action:
                case actions.ScheduleActivity():
                    attempts.schedule(effects, action, detached=ended is not None, over=over)
                case actions.CancelActivity():
                    attempts.cancel(effects, action.id)
                case actions.CreateTimer():
                    if ended is None:
                        fires = TimerFired(actor, execution, action.id, action.due_ms)
                        effects.timer(timer_id(actor, execution, action.id, "timer"), action.due_ms, fires)
                case actions.CancelTimer():
                    effects.cancel_timer(timer_id(actor, execution, action.id, "timer"))
                case actions.RequestLock():
                    if ended is None:
                        lock = request_id(execution, action.id)
                        effects.send(LockRequest(action.entities[0], lock, actor, action.entities))
                case actions.CancelCall():
                    request = request_id(execution, action.id)
                    effects.send(CancelCall(action.target, request, actor))
                case actions.ReleaseLock():
                    lock = request_id(execution, action.id)
                    release_lock(effects, lock, action.entities, granted=action.granted)
                case actions.StartOrchestration() if ended in CANCELS_CHILDREN and not action.detached:
                    continue
                case _:
                    effects.send(sent(effects, message_of(action, actor, execution), over))
        self._kept.clear()


def message_of(
    action: actions.StartOrchestration
    | actions.CancelOrchestration
    | actions.CallEntity
    | actions.SignalEntity
    | actions.SendEvent,
    actor: ActorId,
    execution: str,
) -> Start | Control | Call | Signal | RaiseEvent:
    """Return the message that does what an action says."""
    match action:
        case actions.StartOrchestration():
            child = ActorId(ORCHESTRATION, "", action.instance)
            if action.detached:
                return Start(child, action.name, action.input, reuse=action.reuse, headers=action.headers)
            request = request_id(execution, action.id)
            return Start(
                child,
                action.name,
                action.input,
                parent=actor,
                parent_request=request,
                version=action.version,
                reuse=action.reuse,
                headers=action.headers,
            )
        case actions.CancelOrchestration():
            request = request_id(execution, action.id)
            return to_child("cancel", "not waited for any more", action.instance, actor, request)
        case actions.CallEntity():
            request = request_id(execution, action.id)
            chain = (chain_name(actor),)
            return Call(
                action.target,
                action.operation,
                action.args,
                request,
                actor,
                action.deadline_ms,
                chain,
                action.headers,
            )
        case actions.SignalEntity():
            chain = (chain_name(actor),)
            return Signal(
                action.target, action.operation, action.batch, 1, action.due_ms, chain, action.headers
            )
        case actions.SendEvent():
            return RaiseEvent(
                ActorId(ORCHESTRATION, "", action.instance), action.name, action.payload, action.headers
            )
        case _:
            assert_never(action)


def release_locks(effects: Effects, execution: str, outstanding: Outstanding) -> None:
    """Release all that an execution holds or waits for: it ends."""
    for sequence, (entities, granted) in outstanding.locks.items():
        release_lock(effects, request_id(execution, sequence), entities, granted=granted)


def release_lock(effects: Effects, lock: str, entities: tuple[ActorId, ...], *, granted: bool) -> None:
    """Let go of entities.

    A request that is still under way is followed on the way that it takes, so that nobody gets the release
    before the request; what is held is released everywhere at once.
    """
    if granted:
        for entity in entities:
            effects.send(LockRelease(entity, lock))
    elif entities:
        effects.send(LockRelease(entities[0], lock, entities[1:]))


def to_child(verb: str, reason: str, child: str, actor: ActorId, request: str) -> Control:
    """Return a verb for a sub-orchestration of ``actor``; whoever else has its id does not listen."""
    return Control(ActorId(ORCHESTRATION, "", child), verb, reason, parent=actor, parent_request=request)


def request_id(execution: str, sequence: int) -> str:
    """Return the id under which an execution awaits a response; a later execution has others."""
    return f"{execution}:{sequence}"


def sequence_of(request: str, execution: str) -> int | None:
    """Return the sequence id in a request id of ``execution``; None if it is another one's."""
    head, _, sequence = request.rpartition(":")
    return int(sequence) if head == execution and sequence.isdecimal() else None
