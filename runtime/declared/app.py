"""The app: what a hub's hosts and workers can do, registered by name.

Names are what is stored; classes and functions are what this process has. So every lookup can
fail with ``NotRegistered``, which says what there is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Concatenate, Final, Protocol, TypeVar, overload

from lungfish.runtime.errors import NotRegistered, UsageError
from lungfish.runtime.ids import ENTITY, check_hub, check_id
from lungfish.runtime.messages.headers import Carried
from lungfish.runtime.messages.payloads import PayloadSettings, check_payloads
from lungfish.runtime.messages.tracing import Tracing
from lungfish.runtime.store.layout import POOL_MARK
from lungfish.runtime.store.queues import DEFAULT_PRIORITY, QueueLimits

from . import plugged_in
from .app_middleware import AppMiddleware
from .calendar import Recurrence
from .definitions import (
    DEFAULT_QUEUE,
    Activity,
    ActivityOptions,
    EntityDefinition,
    F,
    Operation,
    Orchestration,
    P,
    R,
    as_duration,
    name_of,
)
from .plugged_in import RESERVED, built_in
from .pools import HostPool, check_pools
from .retention import Place, Retention
from .retry import RetryPolicy
from .schedule_plan import Definition
from .schedule_target import Target, check_schedule_id, define


class EntityClass(Protocol):
    """What ``App.entity`` takes: a subclass of ``lungfish.Entity``."""

    @classmethod
    def lungfish_definition(cls, name: str) -> EntityDefinition:
        """Return the class's definition under ``name``."""
        ...


E = TypeVar("E", bound=type[EntityClass])
T = TypeVar("T")
C = TypeVar("C", bound=type[Any])

#: Operations of a class of stateless workers that one process runs at once, unless the app says otherwise.
MAX_LOCAL: Final = 4


class App(AppMiddleware):
    """A named set of entities, orchestrations and activities; the name is the hub's, too.

    Registering is all that an app does: hosts and workers look things up in it. Names must be
    unique within their sort, and are what is stored: renaming a class or function is a
    change that stored state sees, unless ``name=`` keeps the old one.
    """

    def __init__(
        self,
        hub: str,
        *,
        version: str = "",
        payloads: PayloadSettings | None = None,
        pools: Mapping[str, HostPool] | None = None,
    ) -> None:
        """Make an empty app for ``hub`` (letters, digits, ``-``, ``_``, ``.``).

        Args:
            version: of the deployment, recorded with each instance that it starts; it decides nothing.
            payloads: from which size on values are kept beside histories, and how large they may be.
            pools: hosts of their own for entities that are registered with ``pool=``, by name.

        Raises:
            InvalidId: a name that cannot be part of a store key.
            UsageError: a name that no hub, or no pool, can have.
        """
        self.hub = check_hub(hub)
        self.version = check_id("version", version) if version != "" else ""
        self.payloads = check_payloads(payloads)
        self.pools = check_pools(pools)
        self.entities: dict[str, EntityDefinition] = {}
        #: Stored names of stateless workers, by their class.
        self.stateless_classes: dict[type[Any], str] = {}
        self.activities: dict[str, Activity[Any, Any]] = {}
        #: The newest code of each name.
        self.orchestrations: dict[str, Orchestration[Any, Any]] = {}
        #: By name of the orchestration; the empty name is for all others.
        self.retentions: dict[str, Retention] = {}
        self.queue_limits: dict[str, QueueLimits] = {}
        #: Context variables that travel as headers.
        self.carried: tuple[Carried, ...] = ()
        #: Where spans go; None: nobody wants them. See ``tracing.install``.
        self.tracing: Tracing | None = None
        #: All of it, by name and version.
        self.versions: dict[str, dict[str, Orchestration[Any, Any]]] = {}
        #: Schedules that are made, or brought up to date, by every host that starts.
        self.schedules: dict[str, Definition] = {}

    def with_hub(self, hub: str) -> App:
        """Return an app with the same entities, activities and orchestrations for another hub.

        Raises:
            InvalidId: as when making an app.
        """
        other = App(hub, version=self.version, payloads=self.payloads, pools=self.pools)
        other.entities.update(self.entities)
        other.stateless_classes.update(self.stateless_classes)
        other.activities.update(self.activities)
        other.orchestrations.update(self.orchestrations)
        other.retentions.update(self.retentions)
        other.queue_limits.update(self.queue_limits)
        other.carried = self.carried
        other.tracing = self.tracing
        other.adopt_middleware(self)
        other.versions.update({name: dict(versions) for name, versions in self.versions.items()})
        other.schedules.update(self.schedules)
        return other

    def propagate(
        self,
        var: ContextVar[T],
        *,
        name: str | None = None,
        encode: Callable[[T], str] = str,
        decode: Callable[[str], Any] = str,
    ) -> None:
        """Let a context variable travel with what is sent, as a header.

        Its value where something is sent is set where that is handled, and travels on from there. In an
        orchestration it has the value that the start came with, in every replay. See ``lungfish.headers``.

        Args:
            var: sent only where it is set.
            name: of the header; default is the variable's own.
            encode, decode: its value to a text and back, at most 8 KiB with all other headers.

        Raises:
            UsageError: the name is taken.
        """
        given: Any = (var, encode, decode)
        if not (isinstance(given[0], ContextVar) and callable(given[1]) and callable(given[2])):
            raise UsageError(f"propagate takes a ContextVar, encode= and decode= functions, not {given!r}")
        chosen = check_id("header", name or var.name)
        if any(chosen == each.name for each in self.carried):
            raise UsageError(f"app {self.hub!r} propagates header {chosen!r} already")
        self.carried = (*self.carried, Carried(var, chosen, encode, decode))

    def queue(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        worker_concurrency: int | None = None,
        rate: float | None = None,
    ) -> None:
        """Declare a queue of activities: workers of this app take from it, within these limits.

        What ``client.queue(name).set(...)`` says later goes before what is declared here.

        Args:
            name: as in ``@app.activity(queue=...)``.
            concurrency: how many attempts may run at once, over all workers; None is unlimited.
            worker_concurrency: the same for each worker.
            rate: how many attempts may begin per second, over all workers; None is unlimited.

        Raises:
            UsageError: a limit that makes no sense, or the queue is declared already.
        """
        limits = QueueLimits(concurrency, worker_concurrency, rate)
        if check_id("queue", name) in self.queue_limits:
            raise UsageError(f"app {self.hub!r} declares queue {name!r} already")
        self.queue_limits[name] = limits

    @overload
    def entity(self, cls: E, /) -> E: ...
    @overload
    def entity(self, /, *, name: str | None = None, pool: str | None = None) -> Callable[[E], E]: ...
    def entity(self, cls: E | None = None, /, *, name: str | None = None, pool: str | None = None) -> Any:  # pyright: ignore[reportInvalidTypeVarUse]
        """Register an entity class; its public methods are its operations.

        Args:
            name: the stored name; default is the class's own.
            pool: one of the app's ``pools``: its entities live on hosts of that pool alone, wherever they
                are asked from. It is part of the stored name (``Model@gpu``): a class that changes its pool
                begins with no entities.

        Raises:
            UsageError: not a subclass of ``lungfish.Entity``, the name is taken, or there is no such pool.
        """

        def register(cls: E) -> E:
            if isinstance(name, str) and name.startswith(RESERVED):
                raise UsageError(
                    f"entity {name!r}: names that begin with {RESERVED!r} are taken by the runtime"
                )
            given: Any = cls  # whatever the annotation says
            define = getattr(given, "lungfish_definition", None)
            if not isinstance(given, type) or define is None:
                raise UsageError(f"@app.entity takes a subclass of lungfish.Entity, not {cls!r}")
            definition = define(self._pinned(cls.__name__ if name is None else name, pool))
            self._register(self.entities, "entity", definition.name, definition)
            return cls

        return register if cls is None else register(cls)

    @overload
    def entity_function(self, function: F, /, *, name: str | None = None, pool: str | None = None) -> F: ...
    @overload
    def entity_function(self, /, *, name: str | None = None, pool: str | None = None) -> Callable[[F], F]: ...
    def entity_function(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        pool: str | None = None,
    ) -> Any:
        """Register a function, sync or async, as an entity; as in Durable Functions.

        It is called with a ``FunctionContext`` for each operation, whatever its name is, under the same
        guarantees as the operations of a class. Clients use the name: ``client.entity("counter", "hits")``.

        Args:
            name: the stored name; default is the function's own.
            pool: as in ``entity``.

        Raises:
            UsageError: not a function of one argument, the name is taken, or there is no such pool.
        """

        def register(function: F) -> F:
            chosen = self._pinned(name_of(function, "entity", name), pool)
            definition = plugged_in.kind_class(ENTITY).function_definition(function, chosen)
            self._register(self.entities, "entity", chosen, definition)
            return function

        return register if function is None else register(function)

    @overload
    def activity(self, function: Callable[P, R], /) -> Activity[P, R]: ...
    @overload
    def activity(
        self,
        /,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: dt.timedelta | float | None = None,
        schedule_to_close: dt.timedelta | float | None = None,
        queue: str = DEFAULT_QUEUE,
        inline: bool = False,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        memory: float | None = None,
        resources: Mapping[str, float] | None = None,
        schedule_to_start: dt.timedelta | float | None = None,
        heartbeat_timeout: dt.timedelta | float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Callable[[Callable[P, R]], Activity[P, R]]: ...
    def activity(
        self,
        function: Callable[P, R] | None = None,
        /,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: dt.timedelta | float | None = None,
        schedule_to_close: dt.timedelta | float | None = None,
        queue: str = DEFAULT_QUEUE,
        inline: bool = False,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        memory: float | None = None,
        resources: Mapping[str, float] | None = None,
        schedule_to_start: dt.timedelta | float | None = None,
        heartbeat_timeout: dt.timedelta | float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Any:
        """Register a function, sync or async, as an activity: the place for side effects.

        It runs at least once; its recorded result counts exactly once.

        Args:
            name: the stored name; default is the function's own.
            retry: policy for failed attempts; default: one attempt.
            timeout: longest run of one attempt (timedelta, or seconds).
            schedule_to_close: longest time over all attempts (timedelta, or seconds).
            queue: the queue whose workers run it.
            inline: run in the orchestration's turn: for tiny pure functions only.
            num_cpus, num_gpus, memory, resources: with any of them, each attempt is a Ray
                task with these resources (``memory`` in bytes).
            schedule_to_start: longest wait of an attempt in its queue (timedelta, or seconds).
            heartbeat_timeout: longest silence of a running attempt (timedelta, or seconds).
            priority: 0 (first) to 9 (last) among what waits in the same queue.

        Raises:
            UsageError: an option that makes no sense, or the name is taken.
        """
        wanted = {"num_cpus": num_cpus, "num_gpus": num_gpus, "memory": memory, "resources": resources}
        options = ActivityOptions(
            retry=RetryPolicy() if retry is None else retry,
            timeout=as_duration(timeout, "timeout"),
            schedule_to_close=as_duration(schedule_to_close, "schedule_to_close"),
            queue=queue,
            inline=inline,
            resources={key: value for key, value in wanted.items() if value is not None},
            schedule_to_start=as_duration(schedule_to_start, "schedule_to_start"),
            heartbeat_timeout=as_duration(heartbeat_timeout, "heartbeat_timeout"),
            priority=priority,
        )

        def register(function: Callable[P, R]) -> Activity[P, R]:
            made = Activity(function, name_of(function, "activity", name), options)
            if inline and made.is_async:
                raise UsageError(f"activity {made.name}: an inline activity must not be async")
            self._register(self.activities, "activity", made.name, made)
            return made

        return register if function is None else register(function)

    @overload
    def orchestration(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> Orchestration[P, R]: ...
    @overload
    def orchestration(
        self, function: Callable[Concatenate[Any, P], Generator[Any, Any, R]], /
    ) -> Orchestration[P, R]: ...
    @overload
    def orchestration(
        self, /, *, name: str | None = None, version: str = ""
    ) -> Callable[[Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]], Orchestration[P, R]]: ...
    def orchestration(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        version: str = "",
    ) -> Any:
        """Register an ``async def`` or generator function as an orchestration.

        Its first parameter is the ``OrchestrationContext``; the others are its input.

        Args:
            name: the stored name; default is the function's own.
            version: of this code, such as ``"2"`` or ``"2.1"``. Several versions of one name may stand
                side by side: new instances get the newest, running ones stay with theirs.

        Raises:
            UsageError: there is one of this name, and version, already.
        """

        def register(function: Callable[..., Any]) -> Orchestration[..., Any]:
            made: Orchestration[..., Any] = Orchestration(
                function,
                name_of(function, "orchestration", name),
                check_id("version", version) if version != "" else "",
            )
            versions = self.versions.setdefault(made.name, {})
            if made.version in versions:
                raise self._taken("orchestration", made.name, "name= or version=")
            versions[made.version] = made
            self.orchestrations[made.name] = max(versions.values(), key=_age)
            return made

        return register if function is None else register(function)

    def schedule(
        self, id: str, spec: Recurrence, target: Target, args: Sequence[Any] = (), **options: Any
    ) -> None:
        """Declare a schedule: every host that starts makes it, or brings it up to date; idempotent.

        What is as declared is left alone, also if it is paused. Where hosts of two releases differ, the one
        that started last counts. A schedule that is not declared any more stays until it is deleted.

        Args:
            id, spec, target, args: as ``Schedules.create``; the target is one of this app.
            options: ``overlap``, ``catch_up``, ``jitter``, ``start_at``, ``end_at``, ``runs``, likewise.

        Raises:
            UsageError: something does not fit, or the id is declared already.
        """
        made = define(self, spec, target, args, **options)
        self._register(self.schedules, "schedule", check_schedule_id(id), made)

    def find_entity(self, entity: str | type[Any]) -> EntityDefinition:
        """Return an entity by its stored name, or by its class; raises ``NotRegistered``."""
        if isinstance(entity, str):
            found = built_in(entity) if entity.startswith(RESERVED) else None
            return found or _find(self.entities, "entity", entity, self.hub)
        for definition in self.entities.values():
            if definition.cls is entity:
                return definition
        return _find(self.entities, "entity", getattr(entity, "__name__", repr(entity)), self.hub)

    def find_operation(self, entity: str, operation: str) -> Operation:
        """Return an operation of an entity; raises ``NotRegistered``."""
        return self.find_entity(entity).find(operation)

    def find_activity(self, name: str) -> Activity[Any, Any]:
        """Return the activity registered as ``name``; raises ``NotRegistered``."""
        return _find(self.activities, "activity", name, self.hub)

    def find_orchestration(self, name: str) -> Orchestration[Any, Any]:
        """Return the orchestration registered as ``name``; raises ``NotRegistered``."""
        return _find(self.orchestrations, "orchestration", name, self.hub)

    def code_to_start(self, name: str, version: str = "") -> Orchestration[Any, Any]:
        """Return the code of a new instance: that version, or else the newest; raises ``NotRegistered``."""
        newest = self.find_orchestration(name)
        return newest if version in ("", newest.version) else self.code_of(name, version, pinned=True)

    def code_of(self, name: str, version: str, *, pinned: bool) -> Orchestration[Any, Any]:
        """Return the code that runs an instance.

        Args:
            pinned: it was started by code of exactly this version; else by code without one.

        Raises:
            NotRegistered: that code is not here.
        """
        newest = self.find_orchestration(name)
        wanted = version if pinned else ""
        found = newest if newest.version == wanted else self.versions.get(name, {}).get(wanted)
        if found is None:
            which = f"version {wanted!r}" if wanted else "version without a name"
            listed = _listed(known or "(none)" for known in self.versions.get(name, {}))
            raise NotRegistered(
                f"no {which} of orchestration {name!r} in app {self.hub!r}; there are: {listed}"
            )
        return found

    def retention(
        self,
        *,
        default: dt.timedelta | float | None = None,
        completed: dt.timedelta | float | None = None,
        failed: dt.timedelta | float | None = None,
        terminated: dt.timedelta | float | None = None,
        canceled: dt.timedelta | float | None = None,
        orchestration: Orchestration[Any, Any] | str | None = None,
        archive: Place | None = None,
    ) -> None:
        """Purge instances by themselves, some time after they ended. Without this they are kept for ever.

        Hosts do it, a bounded number at a time; how late depends on how much there is. An instance that has
        not ended is never purged. What is said for all counts for orchestrations that the app does not have
        (any more), too; they are found after a while. To keep those of one for longer, name it.

        Args:
            default: how long those are kept that no other argument speaks of (timedelta, or seconds).
            completed, failed, terminated, canceled: how long those are kept that ended so.
            orchestration: of this one only; what is said for it replaces what is said for all.
            archive: where each instance is written before it is purged: a folder, or an address such as
                ``s3://bucket/path`` (needs ``lungfish[archive]``). What cannot be written is kept, reported
                and tried again. Read it with ``client.archived``.

        Raises:
            UsageError: no time, a negative one, or something else that cannot be used.
        """
        name = orchestration.name if isinstance(orchestration, Orchestration) else orchestration
        if name is not None:
            check_id("orchestration name", name)
        self.retentions[name or ""] = Retention.of(
            archive, default, completed=completed, failed=failed, terminated=terminated, canceled=canceled
        )

    def find_retentions(self) -> dict[str, Retention]:
        """Return the retention of every orchestration that has one and is known here, by name."""
        general = self.retentions.get("")
        names = {**dict.fromkeys(self.orchestrations), **dict.fromkeys(filter(None, self.retentions))}
        found = {name: self.retentions.get(name, general) for name in names}
        return {name: retention for name, retention in found.items() if retention is not None}

    def queues(self) -> list[str]:
        """Return the names of all queues that this app's activities use, sorted."""
        named = (a.settings.queue for a in self.activities.values())
        return sorted({DEFAULT_QUEUE, *self.queue_limits, *named})

    @overload
    def stateless(self, cls: C, /) -> C: ...
    @overload
    def stateless(
        self, /, *, name: str | None = None, max_local: int = MAX_LOCAL, pool: str | None = None
    ) -> Callable[[C], C]: ...
    def stateless(
        self,
        cls: type[Any] | None = None,
        /,
        *,
        name: str | None = None,
        max_local: int = MAX_LOCAL,
        pool: str | None = None,
    ) -> Any:
        """Register a plain class as stateless workers: up to ``max_local`` run at once in each host process.

        As ``[StatelessWorker]`` in Orleans: no state, no identity, any host, or any of a pool. Its public
        methods are operations, called with ``client.stateless(Cls).call(Cls.method, ...)`` and by the same of
        contexts. Sync ones run in threads. A process makes a worker when it needs one, and keeps it.

        A call is durable once it is accepted, runs at least once, again if its host dies, and is
        answered once; what it raises is the caller's, and not tried again.

        Args:
            name: the stored name; default is the class's own.
            max_local: how many operations run at once in one host process, and how many workers it makes.
            pool: as in ``entity``.

        Raises:
            UsageError: a class that cannot be one, the name is taken, or there is no such pool.
        """

        def register(cls: C) -> C:
            chosen = self._pinned(name_of(cls, "stateless", name), pool)
            definition = plugged_in.kind_class(ENTITY).stateless_definition(cls, chosen, max_local)
            self._register(self.entities, "entity", chosen, definition)
            self.stateless_classes[cls] = chosen
            return cls

        return register if cls is None else register(cls)

    def stateless_name(self, worker: type[Any] | str) -> str:
        """Return the stored name of a class of stateless workers; raises ``NotRegistered``."""
        if isinstance(worker, str):
            return worker
        found = self.stateless_classes.get(worker)
        if found is None:
            listed = _listed(self.stateless_classes.values())
            raise NotRegistered(f"{worker!r} is not registered with @app.stateless; there are: {listed}")
        return found

    def _pinned(self, name: str, pool: str | None) -> str:
        """Return the stored name of an entity that is in a pool, or in none."""
        if POOL_MARK in check_id("entity name", name):
            raise UsageError(
                f"entity {name!r}: no {POOL_MARK!r} in a name; what follows one is its pool (pool=)"
            )
        if pool is None:
            return name
        if pool not in self.pools:
            raise UsageError(
                f"entity {name!r}: app {self.hub!r} has no pool {pool!r}; there are: {_listed(self.pools)}. "
                f"Declare it: App({self.hub!r}, pools={{{pool!r}: HostPool(...)}})"
            )
        return check_id("entity name", f"{name}{POOL_MARK}{pool}")

    def _register(self, table: dict[str, Any], sort: str, name: str, made: Any) -> None:
        if name in table:
            raise self._taken(sort, name)
        table[name] = made

    def _taken(self, sort: str, name: str, ways: str = "name=") -> UsageError:
        return UsageError(
            f"app {self.hub!r} has an {sort} named {name!r} already; pass {ways} to tell them apart"
        )

    def __repr__(self) -> str:
        return (
            f"<lungfish.App {self.hub!r}: {len(self.entities)} entities, "
            f"{len(self.orchestrations)} orchestrations, {len(self.activities)} activities>"
        )


def _find(table: Mapping[str, T], sort: str, name: str, hub: str) -> T:
    found = table.get(name)
    if found is None:
        raise NotRegistered(f"no {sort} named {name!r} in app {hub!r}; there are: {_listed(table)}")
    return found


def _age(orchestration: Orchestration[Any, Any]) -> list[tuple[int, int, str]]:
    """Order versions: none is the oldest, numbers between dots count as numbers."""
    parts = orchestration.version.split(".") if orchestration.version else []
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
