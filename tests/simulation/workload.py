"""What clients do, and what they were told: every operation ends ``ok``, ``fail`` or ``unknown``.

Rules:

* ``ok``: it must have happened, exactly once. ``fail``: it must not have. ``unknown``: it may have, at most
  once; so is everything that a client had under way when it died.
* A sender numbers what it sends to one log, in the order of the calls, whatever is awaited when.
* An error that is none of those is a violation, whatever state it leaves behind.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import lungfish
import tests.simulation.lives as second_lives
from lungfish.runtime.client.client import Client
from lungfish.runtime.client.instance_handle import OrchestrationHandle
from tests.simulation import app as sim
from tests.simulation import basins, bells, books, cries, films, purses, registers
from tests.simulation.model import SORTS, End, Plan
from tests.simulation.purging import Purges, start_and_purge
from tests.simulation.shape import Shape

T = TypeVar("T")

OK: Final = "ok"
FAIL: Final = "fail"
UNKNOWN: Final = "unknown"

#: Entities that ``touch_partitions`` touches: enough for the six partitions of the largest run.
TOUCHES: Final = 12


@dataclass(slots=True)
class Op:
    """One operation on a log.

    Attributes:
        numbers: what it appends under ``sender``, in this order.
        also: (log, sender) where it has the same number appended, by calling or telling.
        length: the log's length that it was told; 0: it was not.
        seen: the entries that it read.
    """

    kind: str
    log: str
    sender: str
    numbers: tuple[int, ...]
    begun_s: float
    ended_s: float = float("inf")
    outcome: str = UNKNOWN
    also: str = ""
    length: int = 0
    seen: list[tuple[str, int]] | None = None


@dataclass(slots=True)
class CellOp:
    """One operation on a client's own cell: ``value`` to put, None to clear; ``old`` is what it was told."""

    value: int | None
    outcome: str = UNKNOWN
    old: int | None = None


@dataclass(slots=True)
class Instance:
    """An orchestration that somebody started.

    Attributes:
        outcome: of the start.
        to_raise, to_resume, to_terminate: what is still owed to it.
        ends: what its result was said to be, by whoever asked.
    """

    plan: Plan
    outcome: str = UNKNOWN
    to_raise: dict[str, int] = field(default_factory=dict)
    to_resume: bool = False
    to_terminate: bool = False
    terminated: str = ""
    ends: list[End] = field(default_factory=list)


@dataclass(slots=True)
class Ledger:
    """All that clients did and were told.

    Attributes:
        lossy: the store may lose what it acknowledged.
        given_up: instances that were ended because of that.
    """

    report: Callable[[str], None]
    lossy: bool = False
    given_up: int = 0
    ops: list[Op] = field(default_factory=list)
    cells: dict[str, list[CellOp]] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    registers: list[registers.RegisterOp] = field(default_factory=list)
    bells: list[bells.Wound] = field(default_factory=list)
    cries: cries.Cries = field(default_factory=cries.Cries)
    basins: basins.Basins = field(default_factory=basins.Basins)
    outcomes: Counter[str] = field(default_factory=Counter)
    #: Sort of operation, name of orchestration → how many of it were begun.
    work: Counter[str] = field(default_factory=Counter)
    purges: Purges = field(default_factory=Purges)


class Program:
    """What one client does."""

    def __init__(self, ledger: Ledger, shape: Shape, name: str, seed: int, until_s: float) -> None:
        self._ledger = ledger
        self._shape = shape
        # Spread over the time of the faults, with bursts.
        self._pause_s = 1.5 * until_s * shape.lanes / shape.operations
        self._name = name
        self._rng = random.Random(f"{seed}:{name}")
        self._numbers: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._left = shape.operations
        self._client: Client
        self._ringing = bells.Ringing(name, ledger.bells)
        self._crying = cries.Crying(name, ledger.cries)
        self._tending: set[asyncio.Task[None]] = set()
        self.done = False

    async def run(self, client: Client) -> None:
        """Do it all."""
        self._client = client
        await asyncio.gather(*(self._lane(number) for number in range(self._shape.lanes)))
        while self._tending:
            await asyncio.gather(*self._tending)
        self.done = True

    async def _lane(self, lane: int) -> None:
        sorts, weights = list(self._shape.work), list(self._shape.work.values())
        while self._left > 0:
            self._left -= 1
            (sort,) = self._rng.choices(sorts, weights)
            if sort == "cell" and lane:
                sort = "call"  # one lane only: its operations have an order
            await self._do(sort)
            if self._rng.random() < 0.7:
                await asyncio.sleep(self._rng.expovariate(1.0) * self._pause_s)

    async def _do(self, sort: str) -> None:
        self._ledger.work[sort] += 1
        match sort:
            case "start":
                await self._start()
            case "purge":
                await self._purge()
            case "cell":
                await self._cell()
            case "read" | "state":
                await self._read(sort)
            case "register":
                await self._register()
            case "bell":
                await self._ring("bell", self._ringing.ring)
            case "cry":
                await self._ring("cry", self._crying.go)
            case "pour" | "gaze":
                act = basins.pour if sort == "pour" else basins.gaze
                await self._ring(sort, partial(act, self._ledger.basins))
            case _:
                await self._log_op(sort)

    async def _ring(self, sort: str, act: Callable[[Client, random.Random, float], Awaitable[str]]) -> None:
        try:
            outcome = await act(self._client, self._rng, self._shape.patience_s)
        except (lungfish.StoreUnavailable, lungfish.DeadlineExceeded, lungfish.Overloaded):
            outcome = UNKNOWN
        except lungfish.LungfishError as error:
            self._ledger.report(f"{self._name}: a {sort} raised {error!r}")
            return
        self._ledger.outcomes[outcome] += 1

    # --- logs --------------------------------------------------------------------------

    def _log(self) -> str:
        return f"log{self._rng.randrange(self._shape.logs)}"

    def _ref(self, log: str) -> lungfish.EntityRef[sim.Log]:
        return self._client.entity(sim.Log, log).options(timeout=self._shape.patience_s)

    def _begin(self, kind: str, log: str, count: int = 1, *, also: str = "") -> Op:
        if kind in ("fail", "fail_signal"):
            self._failed[log] += 1
            numbers: tuple[int, ...] = (-self._failed[log],)
        else:
            first = self._numbers[log] + 1
            self._numbers[log] += count
            numbers = tuple(range(first, first + count))
        op = Op(kind, log, self._name, numbers, self._now_s(), also=also)
        self._ledger.ops.append(op)
        return op

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def _log_op(self, kind: str) -> None:
        log, rng = self._log(), self._rng
        ref, other = self._ref(log), f"log{rng.randrange(self._shape.logs)}x"
        count = rng.randint(2, 6) if kind == "signal_many" else 1
        op = self._begin(kind, log, count, also=other if kind in ("ask", "hop", "later") else "")
        who, number = op.sender, op.numbers[0]
        match kind:
            case "signal":
                work: Awaitable[Any] = ref.signal(sim.Log.add, who, number)
            case "signal_many":
                work = ref.signal_many(sim.Log.add, [(who, n) for n in op.numbers])
            case "call":
                work = ref.call(sim.Log.add, who, number)
            case "fail":
                work = ref.call(sim.Log.fail, who, number)
            case "fail_signal":
                work = ref.signal(sim.Log.fail, who, number)
            case "hop":
                work = ref.signal(sim.Log.hop, who, number, other)
            case "later":
                work = ref.call(sim.Log.later, who, number, other, rng.randint(0, 3_000))
            case "ask":
                work = ref.call(sim.Log.ask, who, number, other)
            case "slow":
                work = ref.call(sim.Log.slow, who, number, rng.choice((0.01, 0.3)))
            case "launch":
                work = ref.signal(sim.Log.launch, who, number, f"{who}-{log}-{number}")
            case _:
                raise AssertionError(kind)
        value = await self._outcome(op, work)
        if op.outcome == OK and kind in ("call", "later", "slow"):
            op.length = value or 0

    async def _outcome(self, op: Op | CellOp, work: Awaitable[T]) -> T | None:
        """Await an operation and note how it ended."""
        value: T | None = None
        try:
            value = await work
            op.outcome = OK
        except (lungfish.StoreUnavailable, lungfish.DeadlineExceeded):
            op.outcome = UNKNOWN
        except lungfish.Overloaded:
            op.outcome = FAIL
        except lungfish.EntityOperationFailed as error:
            op.outcome = FAIL
            self._check_failure(op, error)
        except (lungfish.LungfishError, RuntimeError) as error:
            self._ledger.report(f"{self._name}: {op} raised {error!r}")
        if isinstance(op, Op):
            if op.outcome == OK:  # else it may have its effect at any time yet
                op.ended_s = self._now_s()
            if op.kind == "fail" and op.outcome == OK:
                self._ledger.report(f"{self._name}: {op} was answered with {value!r} instead of its failure")
        self._ledger.outcomes[self._sort(op)] += 1
        return value

    def _sort(self, op: Op | CellOp) -> str:
        # A failure that was asked for is as good as a result.
        return OK if isinstance(op, Op) and op.kind == "fail" and op.outcome == FAIL else op.outcome

    def _check_failure(self, op: Op | CellOp, error: lungfish.EntityOperationFailed) -> None:
        kind = error.details.error_type.rpartition(".")[2] if error.details else ""
        if isinstance(op, Op) and (
            (op.kind == "fail" and kind == "Refused") or (op.kind == "ask" and kind == "DeadlineExceeded")
        ):
            return
        self._ledger.report(f"{self._name}: {op} failed: {error}")

    async def _read(self, kind: str) -> None:
        op = self._begin(kind, self._log(), 0)
        ref = self._ref(op.log)
        if kind == "read":
            op.seen = await self._outcome(op, ref.call(sim.Log.read))
        else:
            state = await self._outcome(op, ref.state())
            if op.outcome == OK:
                op.seen = [] if state is None else state.entries
        if op.seen is not None:
            op.seen = [(sender, number) for sender, number in op.seen]

    # --- registers ---------------------------------------------------------------------

    async def _register(self) -> None:
        op = registers.begin(self._rng, self._now_s())
        self._ledger.registers.append(op)
        try:
            result = await registers.call(self._client, op, self._shape.patience_s)
            op.result, op.outcome, op.ended_s = result, OK, self._now_s()
        except (lungfish.StoreUnavailable, lungfish.DeadlineExceeded):
            op.outcome = UNKNOWN
        except lungfish.Overloaded:
            op.outcome = FAIL
        except (lungfish.LungfishError, RuntimeError) as error:
            self._ledger.report(f"{self._name}: {op} raised {error!r}")
        self._ledger.outcomes[op.outcome] += 1

    # --- cells -------------------------------------------------------------------------

    async def _cell(self) -> None:
        rng = self._rng
        op = CellOp(None if rng.random() < 0.3 else rng.randint(1, 1_000))
        self._ledger.cells.setdefault(self._name, []).append(op)
        ref = self._client.entity(sim.Cell, self._name).options(timeout=self._shape.patience_s)
        if op.value is None:
            op.old = await self._outcome(op, ref.call(sim.Cell.clear))
        elif rng.random() < 0.5:
            op.old = await self._outcome(op, ref.call(sim.Cell.put, op.value))
        else:
            await self._outcome(op, ref.signal(sim.Cell.put, op.value))

    # --- orchestrations ----------------------------------------------------------------

    async def _start(self) -> None:
        plan = self._plan()
        self._ledger.work.update({plan.name: 1, "suspend": plan.suspend, "terminate": plan.terminate})
        instance = Instance(
            plan, to_raise=dict(plan.events), to_resume=plan.suspend, to_terminate=plan.terminate
        )
        name = f"{self._name}-{len(self._ledger.instances)}"
        self._ledger.instances[name] = instance
        handle: OrchestrationHandle[Any] | None = None
        for _ in range(self._rng.randint(1, 3)):
            try:
                handle = await self._client.start(plan.name, *plan.args, id=name)
                instance.outcome = OK
                break
            except (lungfish.StoreUnavailable, lungfish.DeadlineExceeded, lungfish.Overloaded):
                continue
            except lungfish.LungfishError as error:
                self._ledger.report(f"{self._name}: start of {name} raised {error!r}")
                break
        self._ledger.outcomes[instance.outcome] += 1
        if handle is not None:
            task = asyncio.create_task(self._tend(name, instance, handle))
            self._tending.add(task)
            task.add_done_callback(self._tending.discard)

    async def _purge(self) -> None:
        ledger, rng = self._ledger, self._rng
        name, value = f"{self._name}-{ledger.work['purge']}", rng.randrange(100)
        try:
            outcome = await start_and_purge(self._client, ledger.purges, name, value, self._shape.patience_s)
        except lungfish.LungfishError as error:
            outcome = UNKNOWN
            if not (ledger.lossy and isinstance(error, lungfish.InstanceNotFound)):
                ledger.report(f"{self._name}: {name}, which was to be purged: {error!r}")
        ledger.outcomes[outcome] += 1

    def _plan(self) -> Plan:
        rng = self._rng
        suspend = rng.random() < 0.15
        terminate = rng.random() < 0.1
        match rng.choice(SORTS):
            case name if name in second_lives.SORTS:
                return Plan(name, second_lives.arguments(name, rng), (), terminate=False, suspend=suspend)
            case name if name in purses.SORTS:
                terminate = rng.random() < purses.SORTS[name]
                return Plan(name, purses.arguments(name, rng), (), terminate, suspend)
            case name if name in books.SORTS:
                args = books.arguments(rng)
                return Plan(name, args, books.owed(args, rng))
            case name if name in films.SORTS:
                return Plan(name, films.arguments(rng), (), terminate, suspend)
            case "chain":
                return Plan("chain", (rng.randint(0, 4), rng.randrange(100)), (), terminate, suspend)
            case "fan":
                return Plan("fan", (rng.randint(0, 5), rng.randrange(100)), (), terminate, suspend)
            case "stubborn":
                return Plan(
                    "stubborn", (rng.randrange(100), rng.choice((0, 1, 2, 3))), (), terminate, suspend
                )
            case "sleeper":
                naps = [rng.choice((0, 1, 50, 700, 2_000)) for _ in range(rng.randint(1, 4))]
                return Plan("sleeper", (naps,), (), terminate, suspend)
            case "listener":
                events = tuple((f"event{n}", rng.randrange(100)) for n in range(rng.randint(1, 4)))
                return Plan("listener", (len(events),), events, terminate, suspend)
            case "impatient":
                events = (("event0", rng.randrange(100)),) if rng.random() < 0.7 else ()
                return Plan("impatient", (rng.choice((0, 200, 2_000)),), events, terminate, suspend)
            case "racer":
                seconds, wait_ms = rng.choice((0.01, 0.5)), rng.choice((20, 500, 2_000))
                return Plan("racer", (rng.randrange(100), seconds, wait_ms), (), terminate, suspend)
            case "family":
                return Plan("family", (rng.randint(0, 3), rng.randrange(100)), (), terminate, suspend)
            case "courier":
                logs = sorted({f"{self._log()}x" for _ in range(2)})
                return Plan("courier", (logs, rng.randint(1, 2)), (), terminate, suspend)
            case "roller":
                return Plan("roller", (f"{self._log()}x", 1, rng.randint(1, 4)), (), terminate, suspend)
            case "doomed":
                return Plan("doomed", (rng.randint(0, 2),), (), True, suspend)
            case _:
                return Plan("steps", (rng.randint(0, 3), rng.randrange(100)), (), terminate, suspend)

    async def _tend(self, name: str, instance: Instance, handle: OrchestrationHandle[Any]) -> None:
        """Give an instance what it is owed, and ask for its result."""
        rng = self._rng
        try:
            await handle.status()
            if instance.to_resume:
                await asyncio.sleep(rng.expovariate(5.0))
                await _unless_ended(handle.suspend("for a while"))
            for event, value in list(instance.to_raise.items()):
                await asyncio.sleep(rng.expovariate(5.0))
                await books.give(handle, event, value)
                del instance.to_raise[event]
            if instance.to_resume:
                await asyncio.sleep(rng.expovariate(5.0))
                await _unless_ended(handle.resume())
                instance.to_resume = False
            if instance.to_terminate:
                await asyncio.sleep(rng.expovariate(3.0))
                instance.terminated = "ended" if await _unless_ended(handle.terminate("enough")) else OK
                instance.to_terminate = False
            if instance.plan.name in second_lives.SORTS:
                await asyncio.sleep(rng.expovariate(3.0))
                await second_lives.live_again(instance.plan.name, name, handle)
            instance.ends.append(await end_of(handle, self._shape.patience_s))
        except (lungfish.StoreUnavailable, lungfish.DeadlineExceeded, lungfish.Overloaded):
            self._ledger.outcomes[UNKNOWN] += 1
        except lungfish.LungfishError as error:
            if not (self._ledger.lossy and isinstance(error, lungfish.InstanceNotFound)):
                self._ledger.report(f"{self._name}: instance {name}, which was started, answers {error!r}")
        else:
            self._ledger.outcomes[OK] += 1


async def end_of(handle: OrchestrationHandle[Any], timeout_s: float) -> End:
    """Wait for the end of an instance."""
    try:
        return End("Completed", await handle.result(timeout_s))
    except lungfish.OrchestrationTerminated:
        return End("Terminated")
    except lungfish.OrchestrationCanceled:
        return End("Canceled")
    except lungfish.OrchestrationFailed:
        return End("Failed")


async def _unless_ended(control: Awaitable[None]) -> bool:
    """Control an instance; True if it had ended already."""
    try:
        await control
    except lungfish.UsageError as error:
        if type(error).__name__ != "InstanceEnded":
            raise
        return True
    return False


async def settle_debts(client: Client, ledger: Ledger) -> None:
    """Give every instance what its client failed to give; no faults are left to stop us."""
    for name, instance in ledger.instances.items():
        handle: OrchestrationHandle[Any] = client.orchestration(name)
        try:
            await handle.status()
        except lungfish.InstanceNotFound:
            if instance.outcome == OK and not ledger.lossy:
                ledger.report(f"lost: the start of {name} was acknowledged, and it does not exist")
            continue
        if ledger.lossy:  # what was given may be lost
            plan = instance.plan
            instance.to_raise = dict(plan.events)
            instance.to_resume, instance.to_terminate = plan.suspend, plan.terminate
        for event, value in instance.to_raise.items():
            await books.give(handle, event, value)
        if instance.to_resume:
            await _unless_ended(handle.resume())
        if instance.to_terminate:
            instance.terminated = "ended" if await _unless_ended(handle.terminate("enough")) else OK
        if instance.plan.name in second_lives.SORTS:
            await second_lives.live_again(instance.plan.name, name, handle)


async def touch_partitions(client: Client) -> None:
    """Have most partitions commit, with what no account is kept of: it will be lost."""
    for number in range(TOUCHES):
        await client.entity(sim.Cell, f"touched{number}").signal(sim.Cell.put, number)


async def end_the_running(client: Client, ledger: Ledger) -> None:
    """Terminate every instance that has not ended."""
    async for status in client.instances(status="Running"):
        ledger.given_up += 1
        await _unless_ended(client.orchestration(status.instance_id).terminate("its results are lost"))
    await purses.call_on_all(client)


def forget_acknowledgements(ledger: Ledger) -> None:
    """Take every promise for a maybe: the store has lost what it had acknowledged."""
    for op in ledger.ops:
        if op.outcome == OK:
            op.outcome = UNKNOWN
        op.length, op.seen, op.ended_s = 0, None, float("inf")
    for cell in ledger.cells.values():
        for cell_op in cell:
            if cell_op.outcome == OK:
                cell_op.outcome = UNKNOWN
    ledger.purges.acknowledged.clear()
    for instance in ledger.instances.values():
        instance.outcome = UNKNOWN
        instance.terminated = ""
        instance.ends.clear()
