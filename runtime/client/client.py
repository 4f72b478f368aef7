"""The client: how any process talks to a hub. One per event loop; cheap to make, batches by itself."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, TypeVar, overload

from lungfish.runtime.declared import plugged_in
from lungfish.runtime.declared.app import App, EntityClass
from lungfish.runtime.declared.definitions import EntityDefinition, Orchestration, as_duration
from lungfish.runtime.declared.signatures import Signature, encode_arguments
from lungfish.runtime.errors import InstanceExists, OrchestrationFailed, UnknownPool, UsageError
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId, check_id
from lungfish.runtime.messages.headers import Wire
from lungfish.runtime.messages.messages import Response, Start
from lungfish.runtime.messages.payloads import DEFAULT, PayloadSettings
from lungfish.runtime.messages.status import to_ms
from lungfish.runtime.messages.tags import check_tags
from lungfish.runtime.session.connection import TIMEOUT_S, Connection, raise_usage_error
from lungfish.runtime.session.dead_letters import DeadLetters
from lungfish.runtime.session.entering import EnteredAsync, check_place
from lungfish.runtime.session.traced_connection import TracedConnection
from lungfish.runtime.store.existing import HUB_WAIT_S, check_wait
from lungfish.runtime.store.layout import spread_keys
from lungfish.runtime.store.store import Store
from lungfish.runtime.telemetry.hot import HotEntity, read_hot
from lungfish.runtime.telemetry.overview import HubStatus, read_hub
from lungfish.runtime.why.reasons import Why
from lungfish.runtime.why.walk import subject_of, why

from .batches import ClientBatches
from .broadcasts import ClientBroadcasts
from .instance_handle import OrchestrationHandle
from .queue_handle import QueueHandle
from .refs import EntityRef
from .schedules import Schedules
from .sinks import Sink
from .topics import TOPIC, Topic

#: What happens where an instance of the wanted id exists.
IfExists = Literal["return", "raise", "restart_if_ended", "terminate_and_start"]
_REUSE: Final = {
    "return": "",
    "raise": "",
    "restart_if_ended": "restart",
    "terminate_and_start": "terminate",
}

E = TypeVar("E", bound=EntityClass)
W = TypeVar("W")
R = TypeVar("R")


class Client(ClientBatches, ClientBroadcasts, EnteredAsync):
    """A session with a hub. Use it as ``async with lungfish.connect(app) as client``.

    What is sent within one tick of the event loop travels in one batch, so many concurrent calls
    cost little more than one. Not shared between event loops or threads; ``connect_sync``
    gives one for code without a loop.
    """

    def __init__(
        self,
        open_store: Callable[[], Store | Awaitable[Store]],
        app: App | None = None,
        *,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex,
        wait_s: float = HUB_WAIT_S,
    ) -> None:
        """Make a client; ``async with`` opens it.

        Args:
            open_store: makes the store handle of this client, which opens and closes it.
            app: what the hub runs: gives types to names.
            unique: makes ids that were never used in the hub: of sessions, and of instances without an id.
            wait_s: how long ``async with`` waits for a hub that does not exist yet (s).
        """
        self._open_store = open_store
        self._unique = unique
        self._wait_s = check_wait(wait_s)
        self.app = app
        self._definitions: dict[type[Any], EntityDefinition] = {}
        self._places = 0
        self._connection: Connection | None = None
        if app is not None:
            self._definitions = {known.cls: known for known in app.entities.values()}

    async def __aenter__(self) -> Client:
        check_place()
        made = self._open_store()
        store = await made if isinstance(made, Awaitable) else made
        # A new session every time: its numbers begin at 1, and in a used one they would pass for repeats.
        connection = self._make_connection(store)
        try:
            await connection.open(self._wait_s)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return self

    def _make_connection(self, store: Store) -> Connection:
        app = self.app
        if app is None:
            return Connection(store, session=self._unique())
        session, payloads, carried = self._unique(), app.payloads, app.carried
        connection = Connection if app.tracing is None else partial(TracedConnection, app.tracing)
        return connection(store, session=session, payloads=payloads, carried=carried, around=app.around_sends)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session. What was acknowledged is durable and goes on without us."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def hub(self) -> str:
        """Name of the hub."""
        return self._open.store.hub

    @property
    def _payloads(self) -> PayloadSettings:
        return self.app.payloads if self.app is not None else DEFAULT

    @property
    def waiting(self) -> int:
        """How many requests of this client wait for an answer."""
        return self._connection.waiting if self._connection is not None else 0

    @property
    def handing(self) -> bool:
        """Whether a request of this client is on its way to a host, and nowhere else."""
        return self._connection is not None and self._connection.handing

    @property
    def _is_entered(self) -> bool:
        return self._connection is not None

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise UsageError(
                "the client is not open: use it inside of 'async with lungfish.connect(…) as client:'"
            )
        return self._connection

    @overload
    def entity(self, entity: type[E], key: str) -> EntityRef[E]: ...
    @overload
    def entity(self, entity: str, key: str) -> EntityRef[Any]: ...
    def entity(self, entity: Any, key: str) -> EntityRef[Any]:
        """Return a handle to an entity: a local address, whether it exists yet or not.

        Args:
            entity: the class, or its registered name.
            key: which one of its kind.

        Raises:
            InvalidId: a key or name that cannot be used.
        """
        definition = self._definition(entity)
        name = definition.name if definition is not None else str(entity)
        actor = ActorId(ENTITY, check_id("entity name", name), check_id("entity key", key))
        return EntityRef(self._open, actor, definition)

    @overload
    def stateless(self, worker: type[W]) -> EntityRef[W]: ...
    @overload
    def stateless(self, worker: str) -> EntityRef[Any]: ...
    def stateless(self, worker: Any) -> EntityRef[Any]:
        """Return a handle to stateless workers, at another place each time: take one for each call.

        Args:
            worker: a class registered with ``@app.stateless``, or its registered name.

        Raises:
            NotRegistered: the app of this client has no such class.
        """
        name = self.app.stateless_name(worker) if self.app is not None else worker
        if not isinstance(name, str):
            raise UsageError(f"a client without an app knows stateless workers by name, not {worker!r}")
        self._places += 1
        try:
            numbers = self._open.layout.numbers(check_id("entity name", name))
        except UnknownPool:  # added since this client was opened, or wrong: the call will look
            return self.entity(name, str(self._places))
        return self.entity(name, spread_keys(name, len(numbers))[self._places % len(numbers)])

    def _definition(self, entity: Any) -> EntityDefinition | None:
        if isinstance(entity, str):
            return self.app.entities.get(entity) if self.app is not None else None
        if not isinstance(entity, type) or not hasattr(entity, "lungfish_definition"):
            raise UsageError(f"an entity is a subclass of lungfish.Entity, or its name, not {entity!r}")
        known = self._definitions.get(entity)
        if known is None:
            known = self._definitions[entity] = entity.lungfish_definition(entity.__name__)
        return known

    def queue(self, name: str) -> QueueHandle:
        """Return a handle to an activity queue: its backlog and limits. Talks to nobody.

        Raises:
            InvalidId: a name that no queue can have.
        """
        return QueueHandle(self._open, check_id("queue", name))

    def topic(self, name: str) -> Topic:
        """Return a topic: what is published there goes to all who are subscribed. Talks to nobody."""
        return Topic(self.entity(TOPIC, check_id("topic name", name)))

    def sink(self, name: str, shard: str = "") -> Sink:
        """Return a sink: what its ``write`` turns into signals, exactly once over restarts. Talks to nobody.

        Args:
            name: under which it remembers, in the hub, how far it is.
            shard: of a source that several senders read, such as a file's name; each is a sink of its own.

        Raises:
            InvalidId: a name that cannot be used.
        """
        return Sink(self._open, self._definition, name, shard)

    @property
    def schedules(self) -> Schedules:
        """The schedules of this hub: what starts orchestrations at times."""
        return Schedules(self.entity, self.app)

    @overload
    async def start(
        self,
        orchestration: Orchestration[..., R],
        *args: Any,
        id: str | None = None,
        tags: Mapping[str, str] | None = None,
        if_exists: IfExists = "return",
        at: dt.datetime | dt.timedelta | float | None = None,
        version: str = "",
        **kwargs: Any,
    ) -> OrchestrationHandle[R]: ...
    @overload
    async def start(
        self,
        orchestration: str,
        *args: Any,
        id: str | None = None,
        tags: Mapping[str, str] | None = None,
        if_exists: IfExists = "return",
        at: dt.datetime | dt.timedelta | float | None = None,
        version: str = "",
        **kwargs: Any,
    ) -> OrchestrationHandle[Any]: ...
    async def start(
        self,
        orchestration: Any,
        *args: Any,
        id: str | None = None,
        tags: Mapping[str, str] | None = None,
        if_exists: IfExists = "return",
        at: dt.datetime | dt.timedelta | float | None = None,
        version: str = "",
        **kwargs: Any,
    ) -> OrchestrationHandle[Any]:
        """Create an orchestration instance, if its id is free; durable when this returns.

        Atomic: of several starts with one id, exactly one creates it. The others return a handle to that
        one, so a start may be repeated after a time-out without starting twice.

        Args:
            orchestration: the function, or its registered name.
            id: the instance id; default is a new unique one.
            tags: labels to find it by (``instances``), at most 16; sub-orchestrations do not inherit them.
            if_exists: what happens where an instance of that id exists, decided in the commit that creates
                one: ``"return"`` its handle; ``"raise"`` ``InstanceExists``; ``"restart_if_ended"``: start
                anew if it has ended, else return its handle (a singleton: at most one runs);
                ``"terminate_and_start"``: as that, but one that runs is terminated.
            at: when to begin: an aware datetime, or a delay (timedelta, or seconds). The instance is Pending
                until then, and can be cancelled and terminated. A time that has passed is now.
            version: of the code that shall run it; default: the function's own, or for a name the newest.

        Raises:
            NotRegistered, InvalidArguments, SerializationError, PayloadTooLarge: refused; nothing was
            created.
            InstanceExists: the id belongs to another orchestration, or ``if_exists="raise"``.
            DeadlineExceeded, StoreUnavailable: the outcome is unknown; start again with the same id.
        """
        reuse = _REUSE.get(if_exists)
        if reuse is None:
            raise UsageError(f"if_exists is one of {', '.join(_REUSE)}, not {if_exists!r}")
        name, signature = self._orchestration(orchestration)
        instance = check_id("instance id", id) if id is not None else self._unique()
        if signature is not None:
            data = signature.encode(args, kwargs, self._payloads.bytes_max)
        else:
            data = encode_arguments(args, kwargs, name, self._payloads.bytes_max)
        version = version or getattr(orchestration, "version", "")
        connection, labels = self._open, check_tags(tags)
        actor = ActorId(ORCHESTRATION, "", instance)
        due_ms = await self._due_ms(at)

        async def send(travelling: Wire) -> OrchestrationHandle[Any]:
            given = await connection.written_ahead(actor, data)
            make = partial(
                Start,
                actor,
                name,
                given,
                reply_to=connection.me,
                due_ms=due_ms,
                version=version,
                tags=labels,
                reuse=reuse,
                headers=travelling,
            )
            what, handle = f"start of {name}", self._handle(instance, signature)
            response = await connection.request(actor, make, timeout_s=TIMEOUT_S, what=what)
            return await _started(response, handle, name, if_exists)

        return await connection.through("start", name, instance, "", send)

    async def _due_ms(self, at: Any) -> int:
        """Return a time or a delay as Unix milliseconds on the store's clock; 0 is now."""
        if at is None:
            return 0
        if isinstance(at, dt.datetime):
            return to_ms(at)
        delay: dt.timedelta = as_duration(at)
        return await self._open.store.now_ms() + math.ceil(delay / dt.timedelta(milliseconds=1))

    @overload
    async def run(
        self,
        orchestration: Orchestration[..., R],
        *args: Any,
        id: str | None = None,
        if_exists: IfExists = "return",
        timeout: float | None = None,
        **kwargs: Any,
    ) -> R: ...
    @overload
    async def run(
        self,
        orchestration: str,
        *args: Any,
        id: str | None = None,
        if_exists: IfExists = "return",
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any: ...
    async def run(self, orchestration: Any, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Start an orchestration and wait for its result: ``start`` and ``result`` in one.

        Args:
            timeout: longest wait for the result (s); None waits for ever. The instance goes on after it.

        Raises:
            As ``start``, and as ``OrchestrationHandle.result``.
        """
        handle = await self.start(orchestration, *args, **kwargs)
        return await handle.result(timeout)

    async def hot_entities(self) -> list[HotEntity]:
        """Return the busiest entities of each host in the last minutes, the busiest first; sampled."""
        view = await self._open.store.heartbeat("", b"", lease_ms=0, lead=False)
        found = [hot for beat in view.hosts for hot in read_hot(beat.host, beat.record)]
        return sorted(found, key=lambda hot: -hot.share)

    def dead_letters(self, target: str | None = None) -> DeadLetters:
        """Return the messages of the hub that were set aside: iterate over it with ``async for``.

        Set aside is what could not be read, what nobody could apply, and what killed its host, or broke its
        actor, again and again. At most about 10,000 per partition are kept, the latest.

        Args:
            target: only those for this entity (``"Counter/hits"``), all entities of this name
                (``"Counter"``), or this orchestration instance.
        """
        return DeadLetters(self._open, target)

    def orchestration(self, instance_id: str, *, returns: Any = Any) -> OrchestrationHandle[Any]:
        """Return a handle to an instance by its id; talks to nobody.

        Args:
            returns: type of the result, for validation.
        """
        signature = Signature(instance_id, (), 0, 0, {}, returns) if returns is not Any else None
        return self._handle(check_id("instance id", instance_id), signature)

    async def why(self, target: str) -> Why:
        """Say why something waits: since when, until when, and who can unblock it.

        Follows what it waits for, from one to the next. Reads the store, and asks hosts where there are any;
        changes nothing. Answers in a few seconds, also if nobody runs.

        Args:
            target: an instance id, an entity (``"Cart/7"``), or a queue (``"q:gpu"``).

        Raises:
            InstanceNotFound: there is no such instance.
            StoreUnavailable: the store cannot be reached.
        """
        return await why(self._open, await subject_of(self._open, target))

    async def hub_status(self) -> HubStatus:
        """Return hosts, workers and partitions at a glance; not of one instant, and cheap.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        return await read_hub(self._open.store)

    def _orchestration(self, orchestration: Any) -> tuple[str, Signature | None]:
        if isinstance(orchestration, Orchestration):
            return orchestration.name, orchestration.signature
        if not isinstance(orchestration, str):
            raise UsageError(
                "an orchestration is a function with @app.orchestration, not called, or its name; "
                f"not {orchestration!r}"
            )
        name = check_id("orchestration name", orchestration)
        known = self.app.orchestrations.get(name) if self.app is not None else None
        return name, known.signature if known is not None else None

    def _handle(self, instance: str, signature: Signature | None) -> OrchestrationHandle[Any]:
        reader = _orchestrations()
        return OrchestrationHandle(
            self._open,
            instance,
            signature,
            reader.read_status,
            reader.read_history,
            find_archived=self._find_archived,
        )


def _orchestrations() -> Any:
    return plugged_in.kind_class(ORCHESTRATION)


async def _started(
    response: Response, handle: OrchestrationHandle[Any], name: str, if_exists: IfExists
) -> OrchestrationHandle[Any]:
    """Return the handle of what was started, or was there; raise what the host has answered."""
    if response.failure is not None:
        try:
            raise_usage_error(response.failure)
        except InstanceExists:
            if if_exists == "raise" or (await handle.status()).name != name:
                raise
            return handle
        raise OrchestrationFailed(f"start of {name}: {response.failure}", response.failure)
    return handle
