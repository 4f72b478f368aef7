"""From one who waits to the next: gathers the facts, and builds the chain.

Rules:

* It is a client like any other: it reads the store, and asks hosts by messages that change nothing.
* It always ends, and soon: who does not answer within ``ASK_S`` is told of as such, a circle is named, and
  depth and number of subjects are bounded.
* The facts are not of one instant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from lungfish.runtime import codec
from lungfish.runtime.declared import plugged_in
from lungfish.runtime.declared.reminders import from_rows
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import (
    DeadlineExceeded,
    FailureDetails,
    InstanceNotFound,
    LungfishError,
    NotRegistered,
)
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId, check_id
from lungfish.runtime.messages.messages import Inspect, Message, Query, Response
from lungfish.runtime.messages.status import EntityStatus, RuntimeStatus, entity_status, from_ms
from lungfish.runtime.session.connection import Connection, raise_usage_error
from lungfish.runtime.session.dead_letters import DeadLetters
from lungfish.runtime.store.queues import QueueInfo
from lungfish.runtime.store.whole import with_values
from lungfish.runtime.telemetry.overview import HubStatus, read_hub

from .facts import (
    WAITS,
    ActivityWait,
    EntityFacts,
    Facts,
    InstanceFacts,
    Nobody,
    Place,
    QueueFacts,
    QueueName,
    Recorded,
    Subject,
)
from .reasons import Reason, Why
from .rules import Finding, findings

#: Longest wait for a host's answer (s).
ASK_S: Final = 3.0
#: How far the walk goes.
DEPTH_MAX: Final = 8
SUBJECTS_MAX: Final = 40


async def why(connection: Connection, subject: Subject) -> Why:
    """Return why somebody waits.

    Raises:
        InstanceNotFound: there is no such instance.
        StoreUnavailable: the store cannot be reached.
    """
    walk = _Walk(connection, await read_hub(connection.store))
    facts = await walk.facts(subject)
    if isinstance(facts, Nobody):
        raise InstanceNotFound(f"no orchestration instance {facts.actor.key!r}")
    await walk.explain(subject, facts, (), "")
    return Why.of(walk.chain, from_ms(walk.hub.now_ms))


async def subject_of(connection: Connection, text: str) -> Subject:
    """Return what a text names: ``q:<queue>``, an instance id, or ``Type/key``."""
    if text.startswith("q:"):
        return QueueName(check_id("queue", text[2:]))
    instance = ActorId(ORCHESTRATION, "", check_id("instance id", text))
    name, slash, key = text.partition("/")
    if not (slash and name and key):
        return instance
    (stored,) = await connection.store.instances([(connection.partition(instance), text)], history=False)
    return instance if stored.row is not None else ActorId(ENTITY, name, key)


class _Walk:
    """One walk: who was visited, and what was found."""

    def __init__(self, connection: Connection, hub: HubStatus) -> None:
        self._connection = connection
        self.hub = hub
        self.chain: list[Reason] = []
        self._seen: set[Subject] = set()

    async def explain(self, subject: Subject, facts: Facts, path: tuple[Subject, ...], asker: str) -> None:
        """Add the reasons of a subject to the chain, and of all that it waits for."""
        self._seen.add(subject)
        path = (*path, subject)
        me = subject.key if isinstance(subject, ActorId) and subject.kind == ORCHESTRATION else ""
        for finding in findings(facts, asker):
            self.chain.append(replace(finding.reason, depth=len(path) - 1))
            if finding.lock:
                await self._follow_lock(finding, path, me)
            else:
                for following in finding.then:
                    await self._follow(following, path, me)

    async def _follow(self, subject: Subject, path: tuple[Subject, ...], asker: str) -> None:
        told = self._told(subject, path)
        if told is not None:
            self.chain.append(told)
        else:
            await self.explain(subject, await self.facts(subject), path, asker)

    def _told(self, subject: Subject, path: tuple[Subject, ...]) -> Reason | None:
        """Return what is said instead of going further, if that is so."""
        depth, name = len(path), str(subject)
        if subject in path:
            circle = " → ".join(map(str, (*path[path.index(subject) :], subject)))
            text = f"is where this began: they wait in a circle: {circle}"
            return Reason("cycle", name, text, who="cancel or terminate one of them", depth=depth)
        if subject in self._seen:
            return Reason("seen", name, "is told of above", depth=depth)
        if depth > DEPTH_MAX or len(self._seen) >= SUBJECTS_MAX:
            return Reason("more", name, "is not followed further; ask about it", depth=depth)
        return None

    async def _follow_lock(self, finding: Finding, path: tuple[Subject, ...], asker: str) -> None:
        """Entities are locked in order: the first that is not the asker's is what it waits for."""
        for entity in finding.then:
            if self._told(entity, path) is not None:
                await self._follow(entity, path, asker)
                return
            facts = await self.facts(entity)
            status = facts.status if isinstance(facts, EntityFacts) else None
            if status is None or status.holder != asker:
                await self.explain(entity, facts, path, asker)
                return

    # --- facts ---

    async def facts(self, subject: Subject) -> Facts:
        """Gather what is known of a subject."""
        if isinstance(subject, QueueName):
            return await self._queue(subject)
        return await (self._entity(subject) if subject.kind == ENTITY else self._instance(subject))

    async def _queue(self, queue: QueueName) -> QueueFacts:
        state = await self._connection.store.queue_state(queue.name)
        live = [worker for worker in self.hub.workers if worker.alive and queue.name in worker.queues]
        return QueueFacts(queue, QueueInfo.of(queue.name, state), len(live))

    async def _place(self, actor: ActorId) -> Place:
        number = await self._connection.place(actor)
        if number >= len(self.hub.partitions):  # its pool was added after we had looked
            self.hub = await read_hub(self._connection.store)
        partition = self.hub.partitions[number]
        load, dead = partition.load, 0
        if load.dead:
            letters = DeadLetters(self._connection, str(actor), (number,))
            dead = len([letter async for letter in letters])
        pool = "" if self.hub.hosts_of(partition.pool) else partition.pool
        note = self.hub.pool_notes.get(pool, "")
        return Place(number, bool(partition.host), load.inbox, load.outbox, dead, pool, note)

    async def _instance(self, actor: ActorId) -> InstanceFacts | Nobody:
        place = await self._place(actor)
        key = (place.partition, actor.key)
        (found,) = await self._connection.store.instances([key], history=True)
        stored = await with_values(self._connection.store, found)
        if stored.row is None:
            return Nobody(actor)
        kind = plugged_in.kind_class(ORCHESTRATION)
        facts = InstanceFacts(actor, kind.read_status(actor.key, stored.row), place)
        if facts.status.runtime_status.is_terminal:
            return facts
        recorded: Recorded = kind.read_waits(actor, stored.row, stored.history)
        facts = replace(facts, recorded=await self._with_attempts(recorded, place.partition))
        if place.hosted and facts.status.runtime_status is not RuntimeStatus.PENDING:
            facts = await self._asked(facts)
        return facts

    async def _with_attempts(self, recorded: Recorded, partition: int) -> Recorded:
        kind, rows = plugged_in.kind_class(ORCHESTRATION), recorded.rows or {}
        stored = await self._connection.store.activity_rows([(partition, row) for row in rows.values()])
        attempts = {
            id: kind.read_attempt(row) for id, row in zip(rows, stored, strict=True) if row is not None
        }
        waits = tuple(
            replace(wait, attempt=attempts.get(wait.id)) if isinstance(wait, ActivityWait) else wait
            for wait in recorded.waits
        )
        return replace(recorded, waits=waits)

    async def _asked(self, facts: InstanceFacts) -> InstanceFacts:
        """Ask the code what it waits for; whatever is wrong with it is a fact, too."""
        actor, me = facts.actor, self._connection.me

        args = encode_arguments((facts.recorded.ids,), {}, WAITS)

        def make(request: str) -> Query:
            return Query(actor, WAITS, args, request, me)

        try:
            told = await self._ask(actor, make)
        except NotRegistered as error:
            return replace(facts, problem=f"no host has its code: {error}")
        except DeadlineExceeded:
            return facts
        except LungfishError as error:
            return replace(facts, problem=str(error))
        waits = plugged_in.kind_class(ORCHESTRATION).with_answer(facts.recorded.waits, told)
        return replace(facts, asked=True, recorded=replace(facts.recorded, waits=waits))

    async def _entity(self, actor: ActorId) -> EntityFacts:
        place = await self._place(actor)
        (row,) = await self._connection.store.snapshots([(place.partition, actor.name, actor.key)])
        stored = [] if row is None else codec.decode(row, f"state of {actor}")
        reminders = dict(from_rows(stored[3])) if len(stored) > 3 else {}
        facts = EntityFacts(actor, row is not None, place)
        if reminders:
            name, reminder = min(reminders.items(), key=lambda each: each[1].due_ms)
            facts = replace(facts, reminder=name, reminder_ms=reminder.due_ms)
        if not place.hosted:
            return facts
        try:
            return replace(facts, status=await self._inspected(actor))
        except LungfishError as error:
            return replace(facts, problem=str(error))

    async def _inspected(self, actor: ActorId) -> EntityStatus:
        return entity_status(
            await self._ask(actor, lambda request: Inspect(actor, request, self._connection.me))
        )

    async def _ask(self, actor: ActorId, make: Callable[[str], Message]) -> Any:
        what = f"question to {actor}"
        response: Response = await self._connection.request(actor, make, timeout_s=ASK_S, what=what)
        if response.failure is not None:
            raise_usage_error(response.failure)
            raise _Refused(response.failure)
        return codec.decode(response.result or b"", what)


class _Refused(LungfishError):
    """The host answered with an error."""

    def __init__(self, details: FailureDetails) -> None:
        super().__init__(details.message)
