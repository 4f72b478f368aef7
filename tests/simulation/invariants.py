"""What must hold when the faults are over and everything has come to rest.

Every check returns sentences about what is wrong; none: all is well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from lungfish.runtime.host.host import Host
from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.messages.status import OrchestrationStatus
from lungfish.runtime.store.layout import Layout
from lungfish.runtime.store.store import partition_target
from lungfish.runtime.testing.memory_server import Hub, Partition
from tests.simulation import app as sim
from tests.simulation import basins, bells, cries, parcels, purses
from tests.simulation import registers as register_checks
from tests.simulation.model import End, Plan, children, expected, told
from tests.simulation.workload import FAIL, OK, CellOp, Instance, Ledger, Op


class Stored:
    """What the store has at the end, decoded."""

    def __init__(self, hub: Hub) -> None:
        assert hub.meta is not None
        self.hub = hub
        layout = Layout(hub.meta)
        self.logs: dict[str, sim.Log] = {}
        self.cells: dict[str, sim.Cell] = {}
        self.registers: dict[str, register_checks.Register] = {}
        self.purses: dict[str, purses.Purse] = {}
        self.bells: dict[str, bells.Bell] = {}
        self.ear: bells.Ear | None = None
        self.villagers: dict[str, cries.Villager] = {}
        self.basins: dict[str, basins.Basin] = {}
        self.witnesses: dict[str, basins.Witness] = {}
        self.instances: dict[str, OrchestrationStatus] = {}
        self.misplaced: list[str] = []
        for number, rows in hub.partitions.items():
            for (name, key), snapshot in rows.snapshots.items():
                if layout.of(ActorId(ENTITY, name, key)) != number:
                    self.misplaced.append(f"{name}/{key} is in partition {number}")
                if name == "Log":
                    self.logs[key] = sim.Log.lungfish_state(snapshot, key)
                elif name == "Register":
                    self.registers[key] = register_checks.Register.lungfish_state(snapshot, key)
                elif name == "Purse":
                    self.purses[key] = purses.Purse.lungfish_state(snapshot, key)
                elif name == "Bell":
                    self.bells[key] = bells.Bell.lungfish_state(snapshot, key)
                elif name == "Ear":
                    self.ear = bells.Ear.lungfish_state(snapshot, key)
                elif name == f"Villager@{sim.POND}":
                    self.villagers[key] = cries.Villager.lungfish_state(snapshot, key)
                elif name == "Basin":
                    self.basins[key] = basins.Basin.lungfish_state(snapshot, key)
                elif name == "Witness":
                    self.witnesses[key] = basins.Witness.lungfish_state(snapshot, key)
                elif name == "Cell":
                    self.cells[key] = sim.Cell.lungfish_state(snapshot, key)
            for instance, row in rows.instances.items():
                self.instances[instance] = parcels.status_of(rows, instance, row)


# --- rest --------------------------------------------------------------------------------


def unrest(hub: Hub) -> Iterator[str]:
    """Yield what is unfinished, or was left behind."""
    yield from unread(hub)
    for number, rows in list(hub.partitions.items()):
        for what in ("mailbox", "timers", "activities", "outbox"):
            left = getattr(rows, what)
            if left:
                yield f"partition {number}: {len(left)} rows in {what}: {_some(left)}"
        if rows.dead.payloads:
            yield f"partition {number}: set aside: {rows.dead.payloads[:3]}"
        for instance, row in rows.instances.items():
            status = parcels.status_of(rows, instance, row)
            if not status.runtime_status.is_terminal:
                yield f"instance {instance} ({status.name}) is {status.runtime_status.value}"
            elif instance in rows.histories and not rows.histories[instance]:
                yield f"instance {instance} has an empty history"
        for instance in rows.histories.keys() - rows.instances.keys():
            yield f"partition {number}: history of {instance}, which does not exist"
    for queue, group in hub.groups.items():
        stream = hub.streams.get(f"q:{queue}")
        if group.taken or (stream is not None and stream.ids):
            entries = 0 if stream is None else len(stream.ids)
            yield f"queue {queue}: {entries} entries, {len(group.taken)} taken"


def unread(hub: Hub) -> Iterator[str]:
    """Yield inboxes with entries that are not yet part of the state."""
    assert hub.meta is not None
    for number in range(hub.meta.total):
        stream = hub.streams.get(partition_target(number))
        if stream is not None and stream.ids:
            yield f"partition {number}: {len(stream.ids)} entries in the inbox"


def _some(rows: object) -> str:
    return repr(list(rows)[:2])[:200] if isinstance(rows, list | dict) else ""


def memory(hosts: Mapping[str, Host], hub: Hub) -> Iterator[str]:
    """Yield where an owner's memory differs from the store."""
    owned: Counter[int] = Counter()
    for name, host in hosts.items():
        for partition in host._rounds.partitions:
            number = partition.number
            rows = hub.partition(number)
            if rows.token != partition.token:
                yield f"{name} runs partition {number}, which is owned by {rows.host or 'nobody'}"
                continue
            owned[number] += 1
            for what, mine, stored in (
                ("activities", partition._activities, rows.activities),
                ("timers", partition._timers, rows.timers),
                ("sequences", partition._sequences, rows.sequences),
                ("number", partition.committed, rows.number),
                ("mailbox", len(partition._kept) + len(partition._fresh), len(rows.mailbox)),
            ):
                if mine != stored:
                    yield f"{name}, partition {number}: {what} is {mine} in memory and {stored} in the store"
        if host._relay.backlog:
            yield f"{name}: {host._relay.backlog} entries wait in the relay"
    assert hub.meta is not None
    for number in range(hub.meta.total):
        if not owned[number]:
            yield f"partition {number} has no owner that runs it"


def content(rows: Partition) -> tuple[object, ...]:
    """Return what users have in a partition."""
    return rows.snapshots.copy(), rows.instances.copy(), {k: list(v) for k, v in rows.histories.items()}


# --- logs --------------------------------------------------------------------------------


def logs(stored: Stored, ledger: Ledger) -> Iterator[str]:
    """Yield what was lost, doubled, out of order or not rolled back."""
    by_log: dict[str, list[Op]] = defaultdict(list)
    for op in ledger.ops:
        by_log[op.log].append(op)
    expectations = _Expectations(stored, ledger)
    for key in sorted({*by_log, *stored.logs, *expectations.logs}):
        log = stored.logs.get(key)
        entries = log.entries if log is not None else []
        yield from expectations.check(key, entries)
        yield from _order(key, entries, by_log[key])


class _Expectations:
    """Per log and sender: numbers that must be there, numbers that may be."""

    def __init__(self, stored: Stored, ledger: Ledger) -> None:
        self.logs: set[str] = set()
        self._must: dict[tuple[str, str], set[int]] = defaultdict(set)
        self._may: dict[tuple[str, str], set[int]] = defaultdict(set)
        for op in ledger.ops:
            self._expect(op)
        for key, log in stored.logs.items():
            for to, count in log.sent.items():
                self._must[to, f"log:{key}"].update(range(1, count + 1))
        for name, instance in ledger.instances.items():
            status = stored.instances.get(name)
            done = status is not None and status.runtime_status.value == "Completed"
            for key, numbers in told(instance.plan).items():
                (self._must if done else self._may)[key, f"orc:{name}"].update(numbers)
        self.logs.update(key for key, _ in self._must)

    def _expect(self, op: Op) -> None:
        if op.kind in ("fail", "fail_signal", "read", "state"):
            return
        if op.outcome == FAIL:
            if op.kind == "ask":  # it gave up waiting; what it asked for is not undone
                self._may[op.also, f"ask:{op.sender}>{op.log}"].update(op.numbers)
            return
        table = self._must if op.outcome == OK else self._may
        table[op.log, op.sender].update(op.numbers)
        if op.kind == "ask":
            table[op.also, f"ask:{op.sender}>{op.log}"].update(op.numbers)
        if op.kind == "later":
            table[op.also, f"late:{op.sender}>{op.log}"].update(op.numbers)

    def check(self, key: str, entries: list[tuple[str, int]]) -> Iterator[str]:
        """Yield what is wrong with a log."""
        seen: dict[str, list[int]] = defaultdict(list)
        for sender, number in entries:
            seen[sender].append(number)
        for sender in sorted({*seen, *(s for k, s in self._must if k == key)}):
            numbers, must, may = seen[sender], self._must[key, sender], self._may[key, sender]
            doubled = sorted(number for number, count in Counter(numbers).items() if count > 1)
            if doubled:
                yield f"doubled: {key} has {doubled} of {sender} more than once"
            if lost := sorted(must - set(numbers)):
                yield f"lost: {key} lacks {lost} of {sender}"
            if odd := sorted(set(numbers) - must - may):
                yield f"unexpected: {key} has {odd} of {sender}"
            if not sender.startswith("late:") and numbers != sorted(numbers):
                yield f"order: {key} has {numbers} of {sender}"


def _order(key: str, entries: list[tuple[str, int]], ops: list[Op]) -> Iterator[str]:
    """Yield where a log contradicts what clients were told: lengths, readings, what came before what."""
    place = {entry: index for index, entry in enumerate(entries)}
    for op in ops:
        if op.length and (op.length > len(entries) or entries[op.length - 1] != (op.sender, op.numbers[0])):
            yield f"answer: {op} was told that it is number {op.length} of {key}, and is not"
        if op.seen is not None and entries[: len(op.seen)] != op.seen:
            yield f"reading: {op} is not how {key} began"
    # Linearizable: an operation that began after another had ended comes after it.
    timed = []
    for op in ops:
        if op.kind == "state":
            # The last snapshot: what is only acknowledged as durable (signals) may still wait in the inbox.
            yield from _snapshot(key, op, place, ops)
        elif op.seen is not None:
            timed.append((len(op.seen) - 0.5, op))
        elif op.numbers and (op.sender, op.numbers[0]) in place:
            timed.append((float(place[op.sender, op.numbers[0]]), op))
    timed.sort(key=lambda pair: pair[0])
    latest: Op | None = None
    for _, op in timed:
        if latest is not None and op.ended_s < latest.begun_s:
            yield f"stale: in {key}, {op} is later than {latest}, which began after it had ended"
        if latest is None or op.begun_s > latest.begun_s:
            latest = op


def _snapshot(key: str, state: Op, place: Mapping[tuple[str, int], int], ops: list[Op]) -> Iterator[str]:
    for op in ops:
        answered = op.kind in ("call", "later", "ask", "slow") and op.ended_s < state.begun_s
        if (
            state.seen is not None
            and answered
            and place.get((op.sender, op.numbers[0]), -1) >= len(state.seen)
        ):
            yield f"stale: {state} of {key} lacks {op}, which had been answered"


# --- cells -------------------------------------------------------------------------------


def cells(stored: Stored, ledger: Ledger) -> Iterator[str]:
    """Yield cells whose end, or answers on the way, no order of what was sent explains."""
    for key, ops in ledger.cells.items():
        cell = stored.cells.get(key)
        possible: set[int | None] = {None}
        for op in ops:
            possible = _after(possible, op)
            if not possible:
                yield f"answer: cell {key}: {op} was told {op.old}, which it never was"
                break
        else:
            value = None if cell is None else cell.value
            if value not in possible:
                yield f"cell {key} is {value}, not one of {sorted(possible, key=str)}"


def _after(possible: set[int | None], op: CellOp) -> set[int | None]:
    if op.outcome == FAIL:
        return possible
    if op.outcome == OK and op.old is not None:
        possible = {value for value in possible if (value or 0) == op.old}
    reached = {op.value} if possible else set()
    return reached if op.outcome == OK else possible | reached


# --- orchestrations ------------------------------------------------------------------------


def instances(stored: Stored, ledger: Ledger) -> Iterator[str]:
    """Yield instances that did not end as they do when nothing goes wrong."""
    plans: dict[str, Instance] = dict(ledger.instances)
    for name, instance in ledger.instances.items():
        for child, plan in children(name, instance.plan).items():
            plans[child] = Instance(plan if not instance.plan.terminate else _doomed(plan))
    for key, log in stored.logs.items():
        yield from _launched(key, log, stored, ledger, plans)
    for name, instance in plans.items():
        status = stored.instances.get(name)
        if status is None:
            if instance.outcome == OK:
                yield f"lost: instance {name}, whose start was acknowledged, does not exist"
            continue
        if not (ledger.lossy and status.runtime_status.value == "Terminated"):
            yield from _ended(name, instance, status)
    for name in stored.instances.keys() - plans.keys():
        if name.startswith(bells.PREFIX):
            continue
        yield f"unexpected: instance {name} was started by nobody"


def rings(stored: Stored, ledger: Ledger) -> Iterator[str]:
    """Yield what was rung, published, cried and poured, and is not as it was asked for."""
    if not ledger.lossy:
        yield from bells.check(ledger.bells, stored.bells, stored.ear, stored.instances)
        yield from cries.check(ledger.cries, stored.villagers)
        yield from basins.check(ledger.basins, stored.basins, stored.witnesses)


def registers(stored: Stored, ledger: Ledger) -> Iterator[str]:
    """Yield registers whose history no order explains."""
    if not ledger.lossy:
        yield from register_checks.check(ledger.registers, stored.registers)


def sections(stored: Stored, ledger: Ledger) -> Iterator[str]:
    """Yield what critical sections exclude; a store that loses what it acknowledged loses locks, too."""
    if not ledger.lossy:
        known = ((name, one.plan, stored.instances.get(name)) for name, one in ledger.instances.items())
        yield from purses.check(
            stored.purses,
            [
                (name, plan.name, plan.args, s.runtime_status.value)
                for name, plan, s in known
                if s is not None
            ],
        )


def _doomed(plan: Plan) -> Plan:
    return Plan(plan.name, plan.args, plan.events, terminate=True)


def _launched(
    key: str, log: sim.Log, stored: Stored, ledger: Ledger, plans: dict[str, Instance]
) -> Iterator[str]:
    for op in ledger.ops:
        if op.kind == "launch" and op.log == key and (op.sender, op.numbers[0]) in log.entries:
            name = f"{op.sender}-{key}-{op.numbers[0]}"
            plans[name] = Instance(Plan("chain", (2, op.numbers[0])))
            if name not in stored.instances:
                yield f"lost: {key} started {name}, and it does not exist"


def _ended(name: str, instance: Instance, status: OrchestrationStatus) -> Iterator[str]:
    end = End(status.runtime_status.value, status.output if status.failure is None else None)
    ends = expected(instance.plan)
    if end not in ends:
        yield f"instance {name}: {end}, not one of {ends}; {status.failure}"
    if instance.terminated == OK and end.status != "Terminated":
        yield f"instance {name} was terminated, and is {end.status}"
    for told_end in instance.ends:
        if told_end != end:
            yield f"instance {name}: {end}, but a client was told {told_end}"
