"""A schedule as users ask for it, made into its definition. Talks to nobody."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from lungfish.runtime.errors import NotRegistered, UsageError
from lungfish.runtime.ids import check_id

from .calendar import Cron, Every, Recurrence
from .definitions import EntityDefinition, Operation, Orchestration
from .reminders import at_ms
from .schedule_plan import Definition, Overlap, SignalTarget, StartTarget, checked, run_id
from .signatures import encode_arguments, encode_signal_arguments

#: What a schedule does: starts an orchestration, or signals ``(entity class or name, key, operation)``.
Target: TypeAlias = Orchestration[..., Any] | str | tuple[type[Any] | str, str, Any]

_MS = dt.timedelta(milliseconds=1)


class Known(Protocol):
    """What is registered, as far as this process knows."""

    @property
    def orchestrations(self) -> Mapping[str, Orchestration[Any, Any]]:
        """Orchestrations by name."""
        ...

    @property
    def entities(self) -> Mapping[str, EntityDefinition]:
        """Entities by name."""
        ...


def define(
    known: Known | None,
    spec: Recurrence,
    target: Target,
    args: Sequence[Any] = (),
    *,
    overlap: Overlap = "skip",
    catch_up: dt.timedelta = dt.timedelta(hours=1),
    jitter: dt.timedelta = dt.timedelta(0),
    start_at: dt.datetime | None = None,
    end_at: dt.datetime | None = None,
    runs: int | None = None,
) -> Definition:
    """Return the definition of a schedule; see ``Schedules.create`` for the arguments.

    Raises:
        UsageError: something does not fit; a subclass where a name or argument does not.
    """
    given: Any = spec  # whatever the annotation says
    if not isinstance(given, Cron | Every):
        raise UsageError(f"a schedule's spec is lungfish.cron(...) or lungfish.every(...), not {spec!r}")
    return checked(
        Definition(
            times=spec,
            target=target_of(known, target, args),
            overlap=overlap,
            catch_up_ms=_duration_ms("catch_up", catch_up),
            jitter_ms=_duration_ms("jitter", jitter),
            start_ms=0 if start_at is None else _time_ms("start_at", start_at),
            end_ms=0 if end_at is None else _time_ms("end_at", end_at),
            runs=_count(runs),
        )
    )


def check_schedule_id(id: str) -> str:
    """Return a schedule's id if it can be one, and its runs can be named after it."""
    check_id("schedule id", run_id(check_id("schedule id", id), 0, "-trigger-1000000"))
    return id


def target_of(known: Known | None, target: Target, args: Sequence[Any]) -> StartTarget | SignalTarget:
    """Return what a schedule does, with its arguments encoded and, where they are known, checked."""
    given: Any = target
    if not isinstance(given, Orchestration | str) and not (isinstance(given, tuple) and len(given) == 3):
        raise UsageError(
            f"a schedule starts an orchestration, or signals (entity, key, operation); not {target!r}"
        )
    if isinstance(target, tuple):
        return _signal_target(known, *target, args=args)
    if isinstance(target, Orchestration):
        return StartTarget(target.name, target.signature.encode(args, {}))
    name = check_id("orchestration name", target)
    found = known.orchestrations.get(name) if known is not None else None
    return StartTarget(name, found.signature.encode(args, {}) if found else encode_arguments(args, {}, name))


def _signal_target(
    known: Known | None, entity: type[Any] | str, key: str, operation: Any, *, args: Sequence[Any]
) -> SignalTarget:
    check_id("entity key", key)
    found = _entity(known, entity)
    if found is None:
        name, what = check_id("entity name", str(entity)), check_id("operation name", operation)
        return SignalTarget(name, key, what, encode_signal_arguments(args, {}, f"{name}.{what}"))
    known_operation: Operation = found.find(operation)
    batch = known_operation.signature.encode_signal(args, {})
    return SignalTarget(found.name, key, known_operation.name, batch)


def _entity(known: Known | None, entity: type[Any] | str) -> EntityDefinition | None:
    if isinstance(entity, str):
        return known.entities.get(entity) if known is not None else None
    for definition in known.entities.values() if known is not None else ():
        if definition.cls is entity:
            return definition
    if not hasattr(entity, "lungfish_definition"):
        raise NotRegistered(f"{entity!r} is no entity: use a class of this app, or its name")
    made: EntityDefinition = entity.lungfish_definition(entity.__name__)
    return made


def _duration_ms(what: str, duration: Any) -> int:
    if not isinstance(duration, dt.timedelta):
        raise UsageError(f"{what} is a timedelta, not {duration!r}")
    return duration // _MS


def _time_ms(what: str, time: Any) -> int:
    if not isinstance(time, dt.datetime):
        raise UsageError(f"{what} is an aware datetime, not {time!r}")
    return at_ms(time, 0, what)


def _count(runs: Any) -> int:
    if runs is None:
        return 0
    if not isinstance(runs, int) or runs < 1:
        raise UsageError(f"runs is how many runs there may be, 1 or more, or None, not {runs!r}")
    return runs
