"""``on_activate`` and ``on_passivate``: what an entity does when it comes into memory, and when it leaves.

Rules:

* ``on_activate`` runs before the first operation of an activation. Until it has ended well no operation
  runs, and what arrives waits. What it changes and sends is in one commit, as an operation's would be.
* If it raises, its changes and messages are taken back. Calls that wait are answered with
  ``ActivationFailed``: somebody can try again. Signals, due reminders, and calls that had begun before a
  crash have no such somebody: they stay in the mailbox. It is tried again with the next message, and by a
  durable timer for as long as something waits.
* It calls no other entity. A call is journaled beside the message that caused it, and an activation has
  none: a crash would make the call again.
* ``on_passivate`` runs where an activation is let go on purpose (idle, over a cap, its partition moves),
  after its last commit. It cannot change anything durable, and nothing depends on it: a crash does not run
  it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache, partial
from typing import Any, Final

from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.definitions import Operation
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import ActivationFailed, FailureDetails, LungfishError, UsageError
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import Message, Signal, TimerFired
from lungfish.runtime.partitions.kinds import Effects, Item

from .jobs import Job, describe
from .journal import Journal
from .running import Running
from .scope import Scope
from .turn import Turns, give_context

logger = logging.getLogger(__name__)

ON_ACTIVATE: Final = "on_activate"
ON_PASSIVATE: Final = "on_passivate"
NAMES: Final = frozenset({ON_ACTIVATE, ON_PASSIVATE})
#: Longest run of each (s).
ACTIVATE_MAX_S: Final = 30.0
PASSIVATE_MAX_S: Final = 5.0
#: Waits between tries, while something waits (ms): doubled from the first to the second.
BACKOFF_MS: Final = (1_000, 60_000)
#: Purpose of the timer that tries again.
AGAIN: Final = "activate"


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of an entity class; None: it does not have that one."""

    on_activate: Operation | None
    on_passivate: Operation | None

    def __bool__(self) -> bool:
        return self.on_activate is not None or self.on_passivate is not None


def hooks_of(cls: Any, name: str) -> Hooks:
    """Return the hooks of an entity class.

    Raises:
        UsageError: something of that name that cannot be one.
    """
    return _hooks_of(cls, name)


@lru_cache(maxsize=1024)
def _hooks_of(cls: type[Any], name: str) -> Hooks:
    return Hooks(_hook(cls, name, ON_ACTIVATE), _hook(cls, name, ON_PASSIVATE))


def _hook(cls: type[Any], name: str, hook: str) -> Operation | None:
    raw = inspect.getattr_static(cls, hook, None)
    if raw is None:
        return None
    what = f"{name}.{hook}"
    if not inspect.isfunction(raw) or inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw):
        raise UsageError(f"{what} is called by the runtime: a method, 'def' or 'async def', without yield")
    if len(inspect.signature(raw).parameters) != 1:
        raise UsageError(f"{what} is called by the runtime with nothing but self")
    # Async whatever it is, as the context sees it: what it may not do is refused in its own words.
    return Operation(hook, raw, Signature.of(raw, what, skip=1), shared=False, is_async=True)


class HookScope(Scope):
    """The inside of ``self.context`` while a hook runs."""

    __slots__ = ()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Refuse to call: see the rules of this module."""
        raise UsageError(
            f"{self.operation.signature.what} cannot call other entities: what it asked would be asked again "
            "after a crash. Call from an operation, or send a signal from on_activate"
        )


class _LeavingScope(HookScope):
    __slots__ = ()

    def send(self, message: Message) -> None:  # noqa: ARG002 - nothing can be sent
        raise UsageError(f"{self.operation.signature.what} cannot send: its last commit was made before it")


def _begin(scope: HookScope, turns: Turns, effects: Effects, hook: Operation) -> Job:
    message = Signal(scope.actor, hook.name, b"")
    item = Item(message, 0, b"", effects.now_ms)
    job = Job(item, hook, message, Journal())
    scope.effects, scope.turns = effects, turns
    scope.begin(item, hook, job.journal)
    give_context(turns.state, scope)
    return job


class Step(Enum):
    """How far an activation has come."""

    #: Operations may run.
    AWAKE = "awake"
    #: ``on_activate`` runs, or waits to be tried again.
    ASLEEP = "asleep"
    #: It has just failed.
    FAILED = "failed"


class Waking:
    """``on_activate`` of one activation, until it has ended well.

    Attributes:
        messages: what it sent; failure: why it failed, the last time.
    """

    def __init__(self, actor: ActorId, app: App, hook: Operation | None, turns: Turns) -> None:
        self._actor = actor
        self._app = app
        self._hook = hook
        self._turns = turns
        self._before = b""
        self._running: Running | None = None
        self._has_ended = False
        self._timer_id = f"activate\x00{actor.name}\x00{actor.key}"
        self._wait_ms = 0
        self.messages: list[Message] = []
        self.failure: FailureDetails | None = None

    @property
    def running(self) -> bool:
        """True while it runs."""
        return self._running is not None

    def step(self, effects: Effects) -> Step:
        """Run it, or take its outcome: an activation is run when something arrived, or ended."""
        if self._hook is None:
            return Step.AWAKE
        if self._running is not None:
            return self._settle(effects, self._running) if self._has_ended else Step.ASLEEP
        return self._start(effects, self._hook)

    def _start(self, effects: Effects, hook: Operation) -> Step:
        try:
            self._before = self._turns.stored_form()
        except LungfishError as error:
            return self._fail(error)
        scope = HookScope(self._actor, self._app)
        running = self._running = Running(_begin(scope, self._turns, effects, hook), scope, self._ended)
        self._has_ended = False
        if not inspect.iscoroutinefunction(hook.function):
            try:
                hook.function(self._turns.state)
            except BaseException as error:  # also SystemExit: user code does not stop a host
                running.error = error
        elif not running.start(partial(_bounded, hook.function, self._turns.state, ACTIVATE_MAX_S)):
            effects.spawn(self._actor, running.join())
            return Step.ASLEEP
        return self._settle(effects, running)

    def _ended(self, _running: Running) -> None:
        self._has_ended = True

    def _settle(self, effects: Effects, running: Running) -> Step:
        self._running, scope, error = None, running.scope, running.error
        scope.end()
        if error is None:
            try:
                if scope.deleted:
                    raise UsageError(f"{running.job.operation.signature.what} cannot delete the entity")
                self._turns.woke(self._before)
            except LungfishError as raised:
                error = raised
        if error is not None:
            return self._fail(error)
        self._turns.take_back()
        if self._wait_ms:
            effects.cancel_timer(self._timer_id)
        self.messages = scope.outgoing
        return Step.AWAKE

    def _fail(self, error: BaseException) -> Step:
        self._turns.start_over()
        cause = describe(error)
        failed = ActivationFailed(f"{self._actor}: on_activate raised, and no operation was run")
        self.failure = replace(FailureDetails.of(failed), cause=cause)
        logger.warning(
            "%s: on_activate failed, and is tried again: %s\n%s", self._actor, cause, cause.traceback
        )
        return Step.FAILED

    def try_again(self, effects: Effects) -> None:
        """Set the timer that tries again: something waits that nobody will send once more."""
        first, last = BACKOFF_MS
        self._wait_ms = min(self._wait_ms * 2, last) if self._wait_ms else first
        due_ms = effects.now_ms + self._wait_ms
        effects.cancel_timer(self._timer_id)
        effects.timer(self._timer_id, due_ms, TimerFired(self._actor, "", 0, due_ms, AGAIN))

    def drop(self) -> None:
        """Stop it; it has no effect."""
        if self._running is not None:
            self._running.drop()


async def _bounded(function: Callable[[Any], Coroutine[Any, Any, Any]], state: Any, longest_s: float) -> None:
    deadline = asyncio.timeout(longest_s)
    try:
        async with deadline:
            await function(state)
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise TimeoutError(f"{function.__name__} did not end within {longest_s:g} s") from error


class Leaving:
    """``on_passivate`` of a host's entities, while they run."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, actor: ActorId, app: App, hook: Operation, turns: Turns, effects: Effects) -> None:
        """Run it; what it raises is logged."""
        scope = _LeavingScope(actor, app)
        _begin(scope, turns, effects, hook)
        if inspect.iscoroutinefunction(hook.function):
            task = asyncio.get_running_loop().create_task(
                self._run(scope, partial(_bounded, hook.function, turns.state, PASSIVATE_MAX_S)),
                name=f"{actor}.{ON_PASSIVATE}",
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        try:
            hook.function(turns.state)
        except BaseException:  # also SystemExit: user code does not stop a host
            logger.exception("%s: on_passivate raised", actor)
        finally:
            scope.end()

    async def _run(self, scope: Scope, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:  # also SystemExit: user code does not stop a host
            logger.exception("%s: on_passivate raised", scope.actor)
        finally:
            scope.end()

    async def settle(self) -> None:
        """Wait until all have ended; each of them is bounded."""
        while self._tasks:
            await asyncio.wait(self._tasks)
