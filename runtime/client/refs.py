"""The handle to an entity that a client gives out: an address, making one talks to nobody."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

from lungfish.runtime import codec
from lungfish.runtime.declared.definitions import EntityDefinition, Operation
from lungfish.runtime.declared.reminders import Reminder, When, from_rows, signal_due_ms
from lungfish.runtime.declared.signatures import check_batch, encode_arguments, encode_signal_arguments
from lungfish.runtime.errors import InvalidArguments, NotRegistered, PayloadTooLarge, UsageError
from lungfish.runtime.ids import ActorId, check_id
from lungfish.runtime.messages.headers import Wire
from lungfish.runtime.messages.messages import Call, CancelCall, Inspect, Response, Signal
from lungfish.runtime.messages.status import EntityStatus, entity_status
from lungfish.runtime.session.answers import result_of
from lungfish.runtime.session.connection import TIMEOUT_S, Connection
from lungfish.runtime.why.handle import Explained

from .editing import Editable
from .watching import StateWatch

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
            timeout: longest wait (timedelta, or seconds) instead of that of ``options``, from now on, with
                what middleware takes; if the operation has a parameter of that name, it is that.

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

        signature = known.signature if known is not None else None
        connection = self._connection
        if not connection.around:
            response = await self._ask(name, data, timeout_s, what, connection.headers())
            return result_of(response, signature, what)

        async def ask(travelling: Wire, left_s: float | None) -> Any:
            response = await self._ask(name, data, left_s, what, travelling)
            return result_of(response, signature, what)

        return await connection.call_through(self._actor, name, ask, timeout_s=timeout_s, what=what)

    def _ask(
        self, name: str, data: bytes, timeout_s: float | None, what: str, travelling: Wire
    ) -> Coroutine[Any, Any, Response]:
        connection, actor = self._connection, self._actor

        def make(request: str) -> Call:
            # Negative: from when it was accepted.
            deadline_ms = 0 if timeout_s is None else -max(1, round(timeout_s * 1_000))
            return Call(actor, name, data, request, connection.me, deadline_ms, (), travelling)

        def give_up(request: str) -> CancelCall:
            return CancelCall(actor, request, connection.me)

        return connection.request(actor, make, timeout_s=timeout_s, what=what, give_up=give_up)

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
        connection = self._connection
        if not connection.around:
            await self._tell(name, data, due_ms, connection.headers())
            return
        send = partial(self._tell, name, data, due_ms)
        await connection.through("signal", self._actor.name, self._actor.key, name, send)

    def _tell(self, name: str, data: bytes, due_ms: int, travelling: Wire) -> Coroutine[Any, Any, None]:
        message = Signal(self._actor, name, data, 1, due_ms, (), travelling)
        return self._connection.send(self._actor, [message])

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
        batches: list[tuple[bytes, int]] = []
        try:
            for at in range(0, len(calls), SIGNALS_PER_MESSAGE):
                batches += self._packed(name, known, calls[at : at + SIGNALS_PER_MESSAGE], at + 1)
        except (TypeError, InvalidArguments):
            check_batch(calls, f"{self._actor.name}.{name}")
            raise

        async def send(travelling: Wire) -> None:
            messages = [Signal(self._actor, name, *each, headers=travelling) for each in batches]
            await self._connection.send(self._actor, messages)

        if batches:
            await self._connection.through("signal", self._actor.name, self._actor.key, name, send)

    def _packed(
        self, name: str, known: Operation | None, calls: Sequence[Sequence[Any]], first: int
    ) -> list[tuple[bytes, int]]:
        """Return signals in as few messages as their size allows; each with how many it holds."""
        try:
            if known is not None:
                return [known.signature.encode_many(calls, first)]
            data = codec.encode([list(args) for args in calls], f"arguments of {self._actor}.{name}")
            return [(data, len(calls))]
        except PayloadTooLarge:
            half = len(calls) // 2
            if not half:
                raise
            return [
                *self._packed(name, known, calls[:half], first),
                *self._packed(name, known, calls[half:], first + half),
            ]

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
        partition = await self._connection.place(self._actor)
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
