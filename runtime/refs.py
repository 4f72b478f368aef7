"""Handles that a client gives out: to an entity, to an orchestration instance.

A handle is an address: making one costs nothing and talks to nobody.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

from . import codec
from .again import fork_of, restart_of, start_like
from .answers import answer, handler_name, result_of
from .connection import TIMEOUT_S, Connection, raise_usage_error
from .definitions import EntityDefinition, Operation
from .editing import Editable
from .errors import (
    InstanceNotFound,
    NotRegistered,
    OrchestrationCanceled,
    OrchestrationFailed,
    OrchestrationTerminated,
    Overloaded,
    QueryFailed,
    UpdateFailed,
    UsageError,
)
from .ids import ActorId, check_id
from .messages import (
    Call,
    CancelCall,
    Control,
    Inspect,
    Query,
    RaiseEvent,
    Signal,
    Start,
    Update,
    Watch,
)
from .reminders import Reminder, When, from_rows, signal_due_ms
from .signatures import Signature, encode_arguments, encode_signal_arguments
from .status import EntityStatus, OrchestrationStatus, StatusReader, entity_status
from .watching import StateWatch
from .whole import with_values
from .why_handle import Explained

#: What ``result`` raises, by the type that the failure names.
_ENDS: Final[dict[str, type[OrchestrationFailed]]] = {
    cls.__name__: cls for cls in (OrchestrationTerminated, OrchestrationCanceled)
}

E = TypeVar("E")
P = ParamSpec("P")
R = TypeVar("R")

#: Operations of one ``signal_many`` that travel in one message.
SIGNALS_PER_MESSAGE: Final = 1_000


def operation_name(operation: Any, definition: EntityDefinition | None) -> tuple[str, Operation | None]:
    """Return the name of an operation given as a function or a str, and what is known of it.

    Raises:
        NotRegistered: the class has no such operation.
        UsageError: neither a function nor a str.
    """
    name = operation if isinstance(operation, str) else getattr(operation, "__name__", None)
    if not isinstance(name, str):
        raise UsageError(f"an operation is a method of the entity class, or its name, not {operation!r}")
    if definition is None:
        return check_id("operation name", name), None
    found = definition.operations.get(name)
    if found is None:
        listed = ", ".join(sorted(definition.operations)) or "none"
        raise NotRegistered(f"no operation named {name!r} on entity {definition.name}; there are: {listed}")
    return name, found


def entity_state(definition: EntityDefinition | None, name: str, key: str, row: bytes) -> Any:
    """Return the state in a stored snapshot; without a class: its plain fields."""
    if definition is None:
        return codec.decode(row, f"state of {name}/{key}")[2]
    return definition.cls.lungfish_state(row, key)


class EntityRef(Editable, Explained, Generic[E]):
    """A handle to one entity, existing or not; as in Orleans, it never has to be created."""

    def __init__(
        self,
        connection: Connection,
        actor: ActorId,
        definition: EntityDefinition | None,
        timeout_s: float | None = TIMEOUT_S,
    ) -> None:
        self._connection = connection
        self._actor = actor
        self._definition = definition
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """Registered name of the entity's class."""
        return self._actor.name

    @property
    def key(self) -> str:
        """Key of the entity."""
        return self._actor.key

    @property
    def partition(self) -> int:
        """Number of the partition that owns the entity."""
        return self._connection.partition(self._actor)

    def options(self, *, timeout: float | None) -> EntityRef[E]:
        """Return the same handle with another longest wait for calls (s); None waits for ever."""
        return EntityRef(self._connection, self._actor, self._definition, timeout)

    @overload
    async def call(
        self,
        operation: Callable[Concatenate[E, P], Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    async def call(
        self, operation: Callable[Concatenate[E, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def call(
        self, operation: Callable[..., Any], *args: Any, timeout: dt.timedelta | float, **kwargs: Any
    ) -> Any: ...
    @overload
    async def call(self, operation: str, *args: Any, **kwargs: Any) -> Any: ...
    async def call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Run an operation and return its result, once its effect is durable.

        The effect on the state happens at most once. It has happened, durably, when this returns. Once this
        was cancelled or has timed out, a call that waits at the entity is not started any more (best
        effort: the host is told, if it can be reached).

        Args:
            operation: the method, as ``Counter.add``, or its name.
            timeout: longest wait (timedelta, or seconds) instead of that of ``options``; if the operation has
                a parameter of that name, it is that.

        Raises:
            NotRegistered, InvalidArguments, SerializationError, PayloadTooLarge: refused; nothing happened.
            EntityOperationFailed: the operation raised, and was rolled back.
            DeadlineExceeded: no answer in time; the outcome is unknown.
            Overloaded: the inbox stayed full; nothing happened.
            StoreUnavailable: the outcome is unknown.
        """
        name, known = operation_name(operation, self._definition)
        what = f"{self._actor}.{name}"
        timeout_s = self._timeout_s
        if known is not None:
            if "timeout" in kwargs:
                timeout_s = known.signature.take_timeout_ms(kwargs) / 1_000 or timeout_s
            data = known.signature.encode(args, kwargs)
        else:
            data = encode_arguments(args, kwargs, what)

        travelling = self._connection.headers()

        def make(request: str) -> Call:
            # Negative: from when it was accepted.
            deadline_ms = 0 if timeout_s is None else -max(1, round(timeout_s * 1_000))
            return Call(self._actor, name, data, request, self._connection.me, deadline_ms, (), travelling)

        def give_up(request: str) -> CancelCall:
            return CancelCall(self._actor, request, self._connection.me)

        response = await self._connection.request(
            self._actor, make, timeout_s=timeout_s, what=what, give_up=give_up
        )
        return result_of(response, known.signature if known is not None else None, what)

    @overload
    async def signal(self, operation: Callable[..., Any], *args: Any, at: When, **kwargs: Any) -> None: ...
    @overload
    async def signal(
        self, operation: Callable[Concatenate[E, P], Any], *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    async def signal(self, operation: str, *args: Any, at: When | None = None, **kwargs: Any) -> None: ...
    async def signal(self, operation: Any, *args: Any, **kwargs: Any) -> None:
        """Send a one-way operation. When this returns it is durable and will be applied exactly once.

        Signals (and calls) of one client to one entity are applied in the order in which they were sent.
        If the operation raises there, it is rolled back and logged; nobody is told.

        Args:
            operation: the method, as ``Counter.add``, or its name.
            at: not before this time (aware), or not before so long after it was accepted. Scheduled signals
                have no order among one another, and cannot be cancelled: for that there are reminders.

        Raises:
            NotRegistered, InvalidArguments, SerializationError, PayloadTooLarge: refused; nothing was sent.
            UsageError: ``at`` has no time zone.
            Overloaded: the inbox stayed full; nothing was accepted.
            StoreUnavailable: the outcome is unknown.
        """
        due_ms = signal_due_ms(kwargs.pop("at", None)) if "at" in kwargs else 0
        name, known = operation_name(operation, self._definition)
        if known is not None:
            data = known.signature.encode_signal(args, kwargs)
        else:
            data = encode_signal_arguments(args, kwargs, f"{self._actor}.{name}")
        travelling = self._connection.headers()
        await self._connection.send(self._actor, [Signal(self._actor, name, data, 1, due_ms, (), travelling)])

    async def signal_many(self, operation: Callable[..., Any] | str, batch: Iterable[Sequence[Any]]) -> None:
        """Send many one-way operations of one kind, in order; all are durable when this returns.

        Each is applied exactly once and rolls back alone. Far cheaper than one ``signal`` each.

        Args:
            operation: the method, as ``Counter.add``, or its name.
            batch: positional arguments, one sequence per operation.

        Raises:
            As ``signal``. With ``StoreUnavailable``, or ``Overloaded`` in a batch of over 1,000,
            the first part of the batch may have been accepted.
        """
        name, known = operation_name(operation, self._definition)
        calls = list(batch)
        messages = []
        travelling = self._connection.headers()
        for at in range(0, len(calls), SIGNALS_PER_MESSAGE):
            part = calls[at : at + SIGNALS_PER_MESSAGE]
            if known is not None:
                data, count = known.signature.encode_many(part)
            else:
                data = codec.encode([list(args) for args in part], f"arguments of {self._actor}.{name}")
                count = len(part)
            messages.append(Signal(self._actor, name, data, count, headers=travelling))
        if messages:
            await self._connection.send(self._actor, messages)

    async def reminders(self) -> dict[str, Reminder]:
        """Return the entity's reminders by name, as last committed. Activates nothing.

        Raises:
            SerializationError: what is stored cannot be read.
            StoreUnavailable: the store cannot be reached.
        """
        row = await self._snapshot()
        stored = [] if row is None else codec.decode(row, f"state of {self._actor}")
        return dict(from_rows(stored[3])) if len(stored) > 3 else {}

    async def _snapshot(self) -> bytes | None:
        partition = self._connection.partition(self._actor)
        (row,) = await self._connection.store.snapshots([(partition, self._actor.name, self._actor.key)])
        return row

    async def state(self) -> E | None:
        """Return the last committed state; None if the entity does not exist. Activates nothing.

        Raises:
            SerializationError: what is stored does not fit the class.
            StoreUnavailable: the store cannot be reached.
        """
        return self._read(await self._snapshot())

    def watch(self, since: int | None = None) -> StateWatch[E | None]:
        """Follow the committed states, from the present one on: ``async for state in ref.watch()``.

        Never a state that is not durable, never one that was rolled back. Order is kept; states that follow
        one another faster than they are taken are left out, except the latest. None: the entity does not
        exist (any more). It goes on over takeovers and broken connections: after a takeover in about 5 s.

        Args:
            since: the ``version`` of the last state that was seen, to go on after it: the present state is
                left out if it is known to be that one.

        Raises:
            Raised by the iteration. DeadlineExceeded: nobody answered at all in the handle's time-out.
            NotRegistered, StateMismatch: the owner cannot run the entity.
            Overloaded: over 10,000 watchers.
        """
        if since is not None and (type(since) is not int or since < 0):
            raise UsageError(f"since is the version of a watch, not {since!r}")
        return StateWatch(self._connection, self._actor, self._read, since, self._timeout_s)

    def _read(self, row: bytes | None) -> E | None:
        if row is None:
            return None
        state: E = entity_state(self._definition, self._actor.name, self._actor.key, row)
        return state

    async def inspect(self) -> EntityStatus:
        """Return who holds the entity and what waits there; answered at once, also while it is locked.

        Raises:
            DeadlineExceeded: no host answered in time.
        """

        def make(request: str) -> Inspect:
            return Inspect(self._actor, request, self._connection.me)

        what = f"state of {self._actor}"
        response = await self._connection.request(self._actor, make, timeout_s=self._timeout_s, what=what)
        told: dict[str, Any] = result_of(response, None, what)
        return entity_status(told)

    def __repr__(self) -> str:
        return f"<entity {self._actor}>"


class OrchestrationHandle(Explained, Generic[R]):
    """A handle to one orchestration instance."""

    def __init__(
        self,
        connection: Connection,
        instance_id: str,
        signature: Signature | None,
        read_status: StatusReader,
        read_history: Callable[[Sequence[bytes]], list[Any]],
        *,
        find_archived: Callable[[str], Coroutine[Any, Any, Any]] | None = None,
    ) -> None:
        self._connection = connection
        self._find_archived = find_archived
        self._actor = ActorId("o", "", instance_id)
        self._signature = signature
        self._read_status = read_status
        self._read_history = read_history

    @property
    def id(self) -> str:
        """The instance id."""
        return self._actor.key

    async def status(self) -> OrchestrationStatus:
        """Return the instance as last committed.

        Raises:
            InstanceNotFound: there is no such instance.
            StoreUnavailable: the store cannot be reached.
        """
        partition = self._connection.partition(self._actor)
        (stored,) = await self._connection.store.instances([(partition, self.id)], history=False)
        if stored.row is None:
            raise InstanceNotFound(f"no orchestration instance {self.id!r}")
        whole = await with_values(self._connection.store, stored)
        return self._read_status(self.id, whole.row or stored.row)

    async def history(self) -> list[Any]:
        """Return the events of the current execution, oldest first; of a purged one, from the app's archive.

        Raises:
            InstanceNotFound: there is no such instance.
        """
        partition = self._connection.partition(self._actor)
        (stored,) = await self._connection.store.instances([(partition, self.id)], history=True)
        if stored.row is not None:
            whole = await with_values(self._connection.store, stored)
            return self._read_history(whole.history)
        archived = None if self._find_archived is None else await self._find_archived(self.id)
        if archived is None:
            raise InstanceNotFound(f"no orchestration instance {self.id!r}")
        return list(archived.history)

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return the result.

        Args:
            timeout: longest wait (s); None waits for ever.

        Raises:
            OrchestrationFailed: it failed; ``details`` has the chain of causes.
            OrchestrationTerminated: it was terminated.
            OrchestrationCanceled: it was cancelled.
            InstanceNotFound: there is no such instance.
            DeadlineExceeded: it has not ended in time; it goes on.
        """

        def make(request: str) -> Watch:
            return Watch(self._actor, request, self._connection.me)

        what = f"orchestration {self.id}"
        response = await self._connection.watch(self._actor, make, timeout_s=timeout, what=what)
        details = response.failure
        if details is not None:
            kind = details.error_type.rpartition(".")[2]
            if kind == InstanceNotFound.__name__:
                await self.status()  # raises it, unless it is the instance that failed with one
            if kind == Overloaded.__name__ and not (await self.status()).runtime_status.is_terminal:
                raise Overloaded(details.message)
            raise _ENDS.get(kind, OrchestrationFailed)(f"{what} failed: {details}", details)
        read = replace(response, result=await self._connection.read_back(response.result))
        result: R = result_of(read, self._signature, what)
        return result

    async def raise_event(self, name: str, payload: Any = None) -> None:
        """Send an external event; durable when this returns.

        It is kept until the instance waits for it. One for an instance that does not exist or has
        ended is dropped.
        """
        what = f"payload of event {check_id('event name', name)}"
        data = codec.encode(payload, what, self._connection.payloads.bytes_max)
        travelling = self._connection.headers()
        data = await self._connection.written_ahead(self._actor, data)
        await self._connection.send(self._actor, [RaiseEvent(self._actor, name, data, travelling)])

    async def query(
        self, query: Callable[..., Any] | str, *args: Any, timeout: float | None = TIMEOUT_S, **kwargs: Any
    ) -> Any:
        """Ask the orchestration's code, and return the answer. Works after the end, too; changes nothing.

        The answer is of what is committed: it never tells of a step that a crash could still undo.

        Args:
            query: the name that the code gave to ``ctx.on_query``, or the function.
            timeout: longest wait (s); None waits for ever.

        Raises:
            InstanceNotFound: there is no such instance.
            NotRegistered: the code answers no such query, or no host has the code.
            InvalidArguments: they do not fit the handler.
            ReadOnly: the handler tried to change something.
            QueryFailed: the handler raised, or the instance cannot be replayed.
            UsageError: the instance has not begun.
            DeadlineExceeded: no answer in time.
        """
        name = handler_name(query, "query")
        data = encode_arguments(args, kwargs, f"query {name!r}")

        def make(request: str) -> Query:
            return Query(self._actor, name, data, request, self._connection.me)

        what = f"query {name!r} of {self.id}"
        response = await self._connection.request(self._actor, make, timeout_s=timeout, what=what)
        return answer(response, QueryFailed, what)

    async def update(
        self,
        update: Callable[..., Any] | str,
        *args: Any,
        id: str | None = None,
        timeout: float | None = TIMEOUT_S,
        **kwargs: Any,
    ) -> Any:
        """Ask the orchestration's code for a change, and return what its handler returned.

        It is done once for each id, whatever crashes; asking again with the id tells the same outcome. While
        the instance is suspended, or has not begun, it waits.

        Args:
            update: the name that the code gave to ``ctx.on_update``, or the function.
            id: of this update; default: a new one.
            timeout: longest wait (s); None waits for ever.

        Raises:
            UpdateRejected: its validator refused it; nothing was recorded.
            UpdateFailed: its handler raised, or was cut off by continue-as-new.
            InstanceNotFound, InstanceEnded: nobody can do it any more.
            NotRegistered: the code does no such update.
            InvalidArguments, ReadOnly: refused; nothing was recorded.
            DeadlineExceeded: no outcome in time; it may go on. Ask again with the same id.
        """
        name = handler_name(update, "update")
        data = encode_arguments(args, kwargs, f"update {name!r}")
        unique = check_id("update id", id) if id is not None else uuid.uuid4().hex

        def make(request: str) -> Update:
            return Update(self._actor, name, data, unique, request, self._connection.me)

        what = f"update {name!r} of {self.id}"
        response = await self._connection.request(self._actor, make, timeout_s=timeout, what=what)
        return answer(response, UpdateFailed, what)

    async def terminate(self, reason: str = "") -> None:
        """End the instance now, and its running sub-orchestrations; ``reason`` becomes its output.

        Running activities are not stopped; their results are dropped.

        Raises:
            InstanceNotFound: there is no such instance.
        """
        await self._control("terminate", reason)

    async def cancel(self, reason: str = "") -> None:
        """Ask the instance to end: ``asyncio.CancelledError`` is raised where its code waits.

        Its cleanup code runs and may call activities. The instance is then Canceled, unless the code returns
        (Completed) or raises something else (Failed). Sub-orchestrations that it waits for are cancelled
        with it. A pending instance ends at once, a suspended one is told when it is resumed. When this
        returns the request is durable; a second one changes nothing.

        Raises:
            InstanceNotFound: there is no such instance.
            InstanceEnded: it has ended.
        """
        await self._control("cancel", reason)

    async def rewind(self, reason: str = "") -> None:
        """Let a failed instance go on from where it failed (Durable Functions); durable when this returns.

        The failures that led to the end are taken out of the history and their tasks run again, recursively;
        what has a result is not. With none, the last turn runs again. See docs/orchestrations.md.

        Raises:
            InstanceNotFound, InstanceEnded, InstanceRunning: there is none; it did not fail; it runs.
            UsageError: it failed within a critical section.
        """
        await self._control("rewind", reason)

    async def restart(self, *, new_id: bool = False) -> OrchestrationHandle[R]:
        """Start an instance that has ended once more, with the input of its last execution.

        Args:
            new_id: as an instance of its own, with a new id; else in the place of this one, whose history
                goes.

        Raises:
            InstanceNotFound, InstanceRunning: there is none; it runs.
        """
        if not new_id:
            await self._control("restart", "")
            return self
        return await self._start_like(await restart_of(self._connection, self._actor), None)

    async def fork(self, *, at: int, id: str | None = None) -> OrchestrationHandle[R]:
        """Start a new instance with the beginning of this one's history; this one is not touched.

        What has a result there is not run again; what was under way is asked for again, by the new instance.

        Args:
            at: how many events of ``history()`` it begins with: ``history()[:at]``. Between two steps.
            id: its instance id; default: a new unique one.

        Raises:
            InstanceNotFound, InstanceExists: there is none; the id is taken.
            UsageError: not between two steps (it names the nearest), or today's code does not repeat it.
            PayloadTooLarge: that much history does not fit into one message.
        """
        return await self._start_like(await fork_of(self._connection, self._actor, at), id)

    async def _start_like(self, start: Start, id: str | None) -> OrchestrationHandle[R]:
        instance = await start_like(self._connection, start, id)
        return OrchestrationHandle(
            self._connection, instance, self._signature, self._read_status, self._read_history
        )

    async def suspend(self, reason: str = "") -> None:
        """Take nothing in until ``resume``; idempotent. Timers then fire late, none is lost."""
        await self._control("suspend", reason)

    async def resume(self, reason: str = "") -> None:
        """Undo ``suspend``; idempotent."""
        await self._control("resume", reason)

    async def _control(self, verb: str, reason: str) -> None:
        if not isinstance(reason, str):
            raise UsageError(f"the reason to {verb} an instance is a str, not {reason!r}")

        def make(request: str) -> Control:
            return Control(self._actor, verb, reason, request, self._connection.me)

        what = f"{verb} of {self.id}"
        response = await self._connection.request(self._actor, make, timeout_s=TIMEOUT_S, what=what)
        if response.failure is not None:
            raise_usage_error(response.failure)
            raise OrchestrationFailed(f"{what}: {response.failure}", response.failure)

    def __repr__(self) -> str:
        return f"<orchestration {self.id}>"
