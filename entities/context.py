"""What an operation sees of the world: its context, and references to other entities."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar, overload

from lungfish.runtime.client import broadcasts
from lungfish.runtime.declared.definitions import EntityDefinition, Orchestration
from lungfish.runtime.declared.reminders import (
    CatchUp,
    Reminder,
    When,
    at_ms,
    check_catch_up,
    check_period,
    put,
    without,
)
from lungfish.runtime.errors import UsageError
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId, check_id
from lungfish.runtime.messages.messages import ReminderDue, Signal, Start

from .calls import CALL_DEADLINE_MS, make_call, outcome_of
from .journal import StartEntry
from .scope import Scope
from .topic_refs import EntityTopic

#: The operation that a reminder runs if none is named; it is called with the reminder's name.
ON_REMINDER: Final = "on_reminder"

P = ParamSpec("P")
R = TypeVar("R")

#: An entity to send to: a reference, or ``(class or name, key)``.
Target: TypeAlias = "EntityRef | tuple[type[Any] | str, str]"


class EntityContext:
    """The context of a running operation: ``self.context``.

    Signals and starts are sent when the operation has ended well and its state is
    durable, and never if it raises. Calls are sent at once.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @property
    def key(self) -> str:
        """The key of this entity."""
        self._scope.check_open()
        return self._scope.actor.key

    @property
    def name(self) -> str:
        """The registered name of this entity."""
        self._scope.check_open()
        return self._scope.actor.name

    @property
    def caller(self) -> str | None:
        """Who asked: ``"Counter/hits"``, an instance id, ``"client …"``; None: a client's signal."""
        self._scope.check_open()
        return self._scope.caller

    def now(self) -> dt.datetime:
        """Return the store's clock as an aware datetime (UTC).

        It moves on between runs of an operation: do not let it decide which calls are made.
        """
        return from_ms(self._scope.effects.now_ms)

    def entity(self, entity: type[Any] | str, key: str) -> EntityRef:
        """Return a reference to another entity; nothing is sent or activated by that.

        Args:
            entity: a registered class, or its registered name.

        Raises:
            NotRegistered: no such entity in this app.
            InvalidId: a key that cannot be used.
        """
        definition = self._scope.app.find_entity(entity)
        return EntityRef(self._scope, definition, check_id("entity key", key))

    def stateless(self, worker: type[Any] | str) -> EntityRef:
        """Return a reference to stateless workers: those of this host, unless they are in a pool.

        Args:
            worker: a class registered with ``@app.stateless``, or its registered name.

        Raises:
            NotRegistered: no such class in this app.
        """
        scope = self._scope
        definition = scope.app.find_entity(scope.app.stateless_name(worker))
        return EntityRef(scope, definition, scope.effects.walk.near(definition.name, scope.actor))

    @overload
    def signal(
        self, ref: Target, operation: Callable[..., Any], /, *args: Any, at: When, **kwargs: Any
    ) -> None: ...
    @overload
    def signal(
        self,
        ref: Target,
        operation: Callable[Concatenate[Any, P], Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None: ...
    @overload
    def signal(
        self, ref: Target, operation: str, /, *args: Any, at: When | None = None, **kwargs: Any
    ) -> None: ...
    def signal(self, ref: Target, operation: Any, /, *args: Any, **kwargs: Any) -> None:
        """Ask an entity for an operation, one-way: the same as ``ref.signal(...)``.

        Args:
            ref: a reference, or ``(class or name, key)``.
        """
        target = ref if isinstance(ref, EntityRef) else self.entity(*ref)
        target.signal(operation, *args, **kwargs)

    def start(
        self, orchestration: Orchestration[P, Any] | str, *args: Any, id: str | None = None, **kwargs: Any
    ) -> str:
        """Start an orchestration when this operation has ended well; return its instance id.

        An instance of that id that exists already is left as it is.

        Args:
            orchestration: a registered orchestration, or its registered name.
            id: the instance id; default is a new unique one.
        """
        scope = self._scope
        scope.check_open()
        if not isinstance(orchestration, Orchestration | str):
            raise UsageError(f"context.start takes an @app.orchestration or its name, not {orchestration!r}")
        name = orchestration if isinstance(orchestration, str) else orchestration.name
        found = scope.app.find_orchestration(name)
        chosen = self._new_id(name) if id is None else check_id("instance id", id)
        given = found.signature.encode(args, kwargs)
        travelling = scope.headers("start", name, chosen)
        scope.send(Start(ActorId(ORCHESTRATION, "", chosen), name, given, headers=travelling))
        return chosen

    def _new_id(self, name: str) -> str:
        # Journaled: a call may have told it to somebody, and a re-run must tell the same. A sync
        # operation calls nobody, so nothing of an unfinished run of it is known anywhere; unless it runs
        # in a task, inside of middleware that may call.
        scope, journal = self._scope, self._scope.journal
        if not scope.operation.is_async and scope.task is None:
            return scope.effects.unique()
        entry = StartEntry(name, scope.effects.unique(), scope.branch())
        recorded = journal.start(entry)
        if recorded is None:
            journal.add(entry)
        return (recorded or entry).id

    def broadcast(
        self,
        entity: type[Any] | str,
        operation: Callable[..., Any] | str,
        /,
        *args: Any,
        prefix: str = "",
        **kwargs: Any,
    ) -> None:
        """Signal every entity of a type that has a state, if this operation ends well.

        As ``Client.broadcast``: see there.

        Args:
            entity: a registered class, or its registered name.
            operation: a method of it (``Counter.add``), or its name.
            prefix: only those whose key begins so.

        Raises:
            NotRegistered, InvalidArguments: no such entity or operation, or not with these arguments.
            PayloadTooLarge: arguments of more than 64 KiB.
        """
        scope, definition = self._scope, self._scope.app.find_entity(entity)
        found = definition.find(operation)
        arguments = found.signature.encode_signal(args, kwargs)
        batch = broadcasts.request(definition.name, found.name, arguments, prefix)
        target = broadcasts.target_of(definition.name)
        scope.send(Signal(target, broadcasts.BEGIN, batch, 1, 0, scope.travelled))

    def topic(self, name: str) -> EntityTopic:
        """Return a topic of the hub, to publish to and to subscribe to; talks to nobody."""
        return EntityTopic(self._scope, name)

    def delete(self) -> None:
        """Delete this entity's state when this operation has ended well.

        The next operation finds the defaults. Changes that this operation makes to the state,
        before or after, are deleted too.

        Raises:
            UsageError: the operation is ``@shared``, which means read-only.
        """
        self._scope.check_open()
        if self._scope.operation.shared:
            raise UsageError(
                f"{self._scope.operation.signature.what} is shared (read-only) and cannot delete"
            )
        self._scope.deleted = True

    # --- reminders ---

    def set_reminder(
        self,
        name: str,
        due: When,
        period: dt.timedelta | None = None,
        *,
        operation: Callable[..., Any] | str = ON_REMINDER,
        args: Sequence[Any] = (),
        catch_up: CatchUp = "once",
    ) -> None:
        """Have an operation of this entity run at a time, once or again and again; as in Orleans.

        It is set when this operation has ended well, together with the state, and lasts until it is
        cancelled, or the entity is deleted: over passivation, crashes and takeovers. A reminder is never
        early, and late by at most the failover time. Its operation takes effect exactly once per time; if
        it raises, it is rolled back and counted, and the reminder stays: the next period comes, or, without
        a period, it is tried again after 1 s, 2 s, 4 s … up to an hour. Times keep their phase
        (``due + k * period``), however late one was handled, and one waits for the other.

        Setting a name again replaces it, also one that is due and waits in the mailbox. Setting it exactly
        as it is set (the same aware ``due``) changes nothing.

        Args:
            name: which one of this entity's.
            due: when first: at a time (aware), or after a duration. What has passed is due at once.
            period: how often from then on, 100 ms or more; None: once.
            operation: a method of this class, or its name; by default ``on_reminder``, called with the name.
            args: its positional arguments, if ``operation`` is given.
            catch_up: what becomes of times that passed while nobody could handle them (hosts were down,
                or the entity was busy). ``"once"``: one run for all of them. ``"all"``: one run each.
                ``"skip"``: none for those more than 30 s late (or a period, if that is shorter).

        Raises:
            UsageError: a time without time zone, a bad period, or this operation is ``@shared``.
            NotRegistered, InvalidArguments: no such operation, or not with these arguments.
            LimitExceeded: the entity has 1,000 reminders already.
        """
        scope = self._changing("set reminders")
        check_id("reminder name", name)
        definition = scope.app.find_entity(scope.actor.name)
        found = definition.find(operation)
        given = (name,) if operation == ON_REMINDER and not args else tuple(args)
        first_ms = at_ms(due, scope.effects.now_ms, "due")
        wanted = Reminder(
            name=name,
            operation=found.name,
            batch=found.signature.encode_signal(given, {}),
            generation=scope.effects.unique(),
            first_ms=first_ms,
            due_ms=first_ms,
            period_ms=check_period(period),
            catch_up=check_catch_up(catch_up),
        )
        handled = scope.item.message
        handling = handled.generation if isinstance(handled, ReminderDue) else ""
        scope.turns.set_reminders(put(scope.turns.reminders, wanted, handling))

    def cancel_reminder(self, name: str) -> bool:
        """Cancel a reminder when this operation has ended well; tell whether there was one.

        It does not fire any more then, not even if it is due already and waits in the mailbox.

        Raises:
            UsageError: this operation is ``@shared``.
        """
        turns = self._changing("cancel reminders").turns
        known = name in turns.reminders
        if known:
            turns.set_reminders(without(turns.reminders, name))
        return known

    def reminders(self) -> dict[str, Reminder]:
        """Return this entity's reminders by name, with what this operation has changed so far."""
        self._scope.check_open()
        return dict(self._scope.turns.reminders)

    def _changing(self, what: str) -> Scope:
        scope = self._scope
        scope.check_open()
        if scope.operation.shared:
            raise UsageError(f"{scope.operation.signature.what} is shared (read-only) and cannot {what}")
        return scope

    def __repr__(self) -> str:
        return f"<context of {self._scope.actor}>"


class EntityRef:
    """A reference to an entity, made by ``context.entity``; usable while the operation runs."""

    __slots__ = ("_definition", "_scope", "id")

    def __init__(self, scope: Scope, definition: EntityDefinition, key: str) -> None:
        self._scope = scope
        self._definition = definition
        self.id = ActorId(ENTITY, definition.name, key)

    @property
    def key(self) -> str:
        """The key of the entity."""
        return self.id.key

    @overload
    def signal(self, operation: Callable[..., Any], /, *args: Any, at: When, **kwargs: Any) -> None: ...
    @overload
    def signal(
        self, operation: Callable[Concatenate[Any, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def signal(self, operation: str, /, *args: Any, at: When | None = None, **kwargs: Any) -> None: ...
    def signal(self, operation: Any, /, *args: Any, **kwargs: Any) -> None:
        """Ask for an operation, one-way: durable with this operation, applied exactly once.

        Signals to one entity arrive in the order of sending; scheduled ones have no order, and cannot be
        cancelled: for that there are reminders.

        Args:
            operation: a method of the entity's class (``Counter.add``), or its name.
            at: not before this time (aware), or not before so long from now.

        Raises:
            NotRegistered: no such operation.
            InvalidArguments: arguments that do not fit its signature.
        """
        at = kwargs.pop("at", None)
        scope, found = self._scope, self._definition.find(operation)
        batch = found.signature.encode_signal(args, kwargs)
        due_ms = 0 if at is None else at_ms(at, scope.effects.now_ms)
        travelling = scope.headers("signal", self.id.name, self.id.key, found.name)
        scope.send(Signal(self.id, found.name, batch, 1, due_ms, scope.travelled, travelling))

    @overload
    def call(
        self,
        operation: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Awaitable[R]: ...
    @overload
    def call(
        self, operation: Callable[Concatenate[Any, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]: ...
    @overload
    def call(
        self, operation: Callable[..., Any], /, *args: Any, timeout: dt.timedelta | float, **kwargs: Any
    ) -> Awaitable[Any]: ...
    @overload
    def call(self, operation: str, /, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...
    def call(self, operation: Any, /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Ask for an operation and await its result.

        It is sent at once and takes effect at most once, also if this operation is interrupted by a crash and
        run again; if this operation raises later, the other's effect stays.

        Raises:
            CallCycle: that entity waits for this operation. Raised here, not by awaiting.
            EntityOperationFailed: the other operation raised.
            DeadlineExceeded: no answer within ``timeout`` (timedelta or seconds; default 30 s), or while
                whoever asked for this operation still waited. A call that was not started by then never is.
            NotRegistered, InvalidArguments: it cannot be asked for so.
        """
        found = self._definition.find(operation)
        timeout_ms = found.signature.take_timeout_ms(kwargs) or CALL_DEADLINE_MS
        args_sent = found.signature.encode(args, kwargs)
        entry = make_call(self._scope, self.id, found, args_sent, timeout_ms)
        return outcome_of(self._scope, entry, found)

    def __repr__(self) -> str:
        return f"<entity {self.id}>"


def from_ms(at_ms: int) -> dt.datetime:
    """Return Unix ms as an aware datetime (UTC)."""
    # Not fromtimestamp(): a float loses milliseconds far from now.
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=at_ms)
