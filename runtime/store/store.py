"""The Store protocol: everything durable, and the only I/O of hosts, clients and workers.

Rules (each implementation is held to them by one contract suite):

* A *target* is where a batch of messages can be put: a partition's inbox (``p:17``), an
  activity queue (``q:default``) or a client's replies (``c:<client>``).
* A *producer* is who puts it there, with a sequence number per target that starts at 1.
  A repeat is answered as the first time; a gap is refused. So a target never holds a
  double, whatever was retried. Clients' replies take no sequence: a request id is
  answered once, later answers are passed over.
* Only the owner of a partition writes it. Every commit shows the owner token and the next commit
  number; the store checks both before it writes anything, and writes all or nothing.
* Methods raise ``StoreUnavailable`` when the connection broke. The outcome is then
  unknown and *the same call* may be made again: every method here is safe to repeat.
* Where a hub is spread over several servers and only some answer, ``append``, ``commit`` and ``owners``
  say for each item what is known, and reads return what the others have. They raise if none answered.
* Implementations never retry by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol, TypeAlias

from lungfish.runtime.messages.payloads import Payload

from .index import Counted, Found, Scan
from .layout import HubMeta as HubMeta  # noqa: PLC0414 - part of this protocol
from .queues import QueueState
from .readers import Entry as Entry  # noqa: PLC0414 - part of this protocol
from .readers import Listener as Listener  # noqa: PLC0414
from .readers import QueueEntry as QueueEntry  # noqa: PLC0414
from .readers import QueueReader as QueueReader  # noqa: PLC0414
from .readers import Reader as Reader  # noqa: PLC0414
from .readers import Take as Take  # noqa: PLC0414

#: The position before the first entry of any stream.
START: Final = "0-0"


def partition_target(partition: int) -> str:
    """Return the target that is the inbox of ``partition``."""
    return f"p:{partition}"


def queue_target(queue: str) -> str:
    """Return the target that is the activity queue ``queue``."""
    return f"q:{queue}"


def client_target(client: str) -> str:
    """Return the target that holds the replies to ``client``."""
    return f"c:{client}"


# --- appending -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Append:
    """One batch for one target.

    Attributes:
        sequence: 1, 2, 3 … per (producer, target); 0 where the target takes none.
        payloads: one stream entry each. Inboxes and clients get one packed batch; a
            queue gets one entry per activity, so that workers can share them.
        resync: accept a gap and go on from ``sequence``: only for the first entry of an outbox that is not
            known to have arrived. Its target lost acknowledged writes, or a generation begins.
        after: take it only if the last number taken is this one, and go on from ``sequence``, which may be
            any larger one: then sequence numbers are positions in a source. Anything else but a repeat is
            a gap. Without payloads only the number is written.
        yields: refuse it (``CROWDED``) while too many messages of the target wait in its mailbox.
    """

    target: str
    producer: str
    sequence: int
    payloads: tuple[bytes, ...]
    resync: bool = False
    after: int | None = None
    yields: bool = False


class Appended(Enum):
    """Outcome of an ``Append``."""

    #: It is stored, now or by an earlier try of the same sequence number.
    OK = "ok"
    #: Refused: an earlier sequence number is missing. Send from there, in order.
    GAP = "gap"
    #: Refused: the target has reached its length limit. Nothing was stored; try later.
    FULL = "full"
    #: Its server did not answer, others did: make the same append again.
    UNKNOWN = "unknown"
    #: Refused: it yields, and the target's mailbox is full. Nothing was stored; try later.
    CROWDED = "crowded"


# --- ownership -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A committed batch that is not yet known to be delivered."""

    id: str
    target: str
    sequence: int
    payloads: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PartitionImage:
    """A partition as its new owner finds it: everything but snapshots and histories.

    Attributes:
        position: id of the last inbox entry that is part of the state.
        sequences: last sequence number used per target of the outbox.
        mailbox: accepted, unfinished messages by row id; timers: id → (due ms, payload).
        deaths: how many owners in a row did not let go, each soon after its claim (see ``generations``).
        base: the numbers of this owner lie behind it (see ``generations``); 0: it counts on.
        doubled: lane → batches up to this number were taken although they are in the inbox, too (``direct``).
    """

    partition: int
    token: str
    epoch: int
    commit_number: int
    position: str
    sequences: dict[str, int]
    mailbox: dict[str, bytes]
    timers: dict[str, tuple[int, bytes]]
    activities: dict[str, bytes]
    outbox: list[OutboxEntry]
    deaths: int = 0
    base: int = 0
    doubled: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """Who owns a partition, as anyone may read it. An empty ``host``: nobody does.

    Attributes:
        number: last commit number.
        known: False where the server could not be asked; the other fields mean nothing then.
    """

    host: str
    epoch: int
    number: int = 0
    known: bool = True


@dataclass(frozen=True, slots=True)
class PartitionLoad:
    """How much waits in a partition.

    Attributes:
        inbox: batches that were sent to it and are not part of its state yet.
        outbox: batches not yet known to be delivered.
        dead: payloads that could not be read, set aside.
        mailbox: messages accepted and not finished.
        activities, timers: those that are pending.
    """

    inbox: int = 0
    outbox: int = 0
    dead: int = 0
    mailbox: int = 0
    activities: int = 0
    timers: int = 0

    def __add__(self, other: PartitionLoad) -> PartitionLoad:
        return PartitionLoad(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


# --- committing ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """Messages for another partition, a queue or a client, as part of a commit."""

    target: str
    sequence: int
    payloads: tuple[bytes, ...]


@dataclass(slots=True)
class Commit:
    """All consequences of one round of one partition: applied together or not at all.

    In every mapping ``None`` deletes. ``deliveries`` are put into the outbox, or straight
    into their targets in the same atomic step where the store can (see ``Committed``).

    Attributes:
        number: last commit number + 1.
        position: new inbox position, the id of the last entry that this commit consumes; entries up to it
            are trimmed. It must still be in the inbox. None: unchanged.
        snapshots: (entity name, key) → snapshot.
        instances: instance id → row of metadata.
        histories: instance id → batches to append, after ``forget_histories`` is applied.
        index: (index, member) → score: entries of the partition's indexes (see ``index``).
        delivered: outbox ids that have reached their target and can go.
        dead: messages that are set aside, as ``letters`` packs them.
        direct: lane → first and last number of its batches that were handed over and are taken with this
            commit. The lane's mark must be the number before, or higher: then some are in the inbox, too.
        undoubled: lane → number of its last such double that ``position`` has passed.
        ahead: not part of it: payloads that must be in the store before it is sent (``put_payloads``).
        forgotten: ids of payloads to delete.
    """

    partition: int
    token: str
    number: int
    position: str | None = None
    snapshots: dict[tuple[str, str], bytes | None] = field(default_factory=dict)
    instances: dict[str, bytes | None] = field(default_factory=dict)
    forget_histories: set[str] = field(default_factory=set)
    histories: dict[str, list[bytes]] = field(default_factory=dict)
    mailbox: dict[str, bytes | None] = field(default_factory=dict)
    timers: dict[str, tuple[int, bytes] | None] = field(default_factory=dict)
    activities: dict[str, bytes | None] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    index: dict[tuple[str, str], int | None] = field(default_factory=dict)
    direct: dict[str, tuple[int, int]] = field(default_factory=dict)
    undoubled: dict[str, int] = field(default_factory=dict)
    ahead: list[Payload] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Committed:
    """The commit is applied (now, or by an earlier try with the same number).

    Attributes:
        outbox: those of its deliveries that wait in the outbox; the others have arrived.
    """

    outbox: tuple[OutboxEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another token owns the partition. Drop its activations; nothing was written."""

    owner: str = ""


@dataclass(frozen=True, slots=True)
class StoreBehind:
    """The store lost writes: reload. Nothing was written.

    Its commit number is not the one before; or it is (``stored == expected``), and the inbox entry at the
    commit's position, or the mark of a lane that it takes directly, is gone. A sender that had no answer
    yet sends that again.
    """

    stored: int
    expected: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """The partition's server did not answer, others did: make the same commit again."""

    reason: str = ""


CommitOutcome: TypeAlias = Committed | LeaseLost | StoreBehind | Unknown


# --- hosts -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostBeat:
    """A host's record and the age of its last heartbeat (ms, on the store's clock)."""

    host: str
    record: bytes
    age_ms: int


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What a heartbeat returns: the store's time, all hosts, the leader, the placement."""

    now_ms: int
    hosts: tuple[HostBeat, ...]
    leader: str
    placement_version: int
    placement: bytes
    #: Of the hub, as it is now; None: the store has lost it.
    meta: HubMeta | None = None


# --- reading ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An orchestration's metadata row and, where asked for, its history batches."""

    row: bytes | None
    history: list[bytes]


class Store(Protocol):
    """A hub's durable half. See the rules at the top of this module."""

    @property
    def hub(self) -> str:
        """Name of the hub."""
        ...

    @property
    def hands_over(self) -> bool:
        """Whether ``hand`` reaches hosts; known once the store is open."""
        ...

    async def open(self, wanted: HubMeta | None = None, *, create: bool = True) -> HubMeta:
        """Connect; create the hub if it does not exist; return what is fixed in it.

        Args:
            wanted: what the caller insists on; None takes the hub as it is.
            create: only hosts do: what they are set to is what a new hub gets, for ever.

        Raises:
            HubNotFound: there is none, and ``create`` is False.
            HubMismatch: the hub exists with another partition count, hash or format.
            UnsafeStore: the server evicts keys when memory is short.
            StoreUnavailable: the server cannot be reached.
        """
        ...

    async def add_pools(self, pools: Mapping[str, int]) -> HubMeta:
        """Give the hub pools of these partition counts; those it has already stay as they are.

        Raises:
            HubMismatch: it has one of them with another count; nothing was added.
        """
        ...

    async def close(self) -> None:
        """Release all connections."""
        ...

    async def append(self, appends: Sequence[Append]) -> list[Appended]:
        """Put batches into their targets, in the order given; one outcome each.

        Durable when this returns. Atomic per append, not over all of them.
        """
        ...

    def reader(self) -> Reader:
        """Return a new blocking reader."""
        ...

    async def commit(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        """Apply commits of different partitions; one outcome each. Atomic per commit.

        A commit whose number is already applied under the same token answers as it
        did the first time. In ``replicated`` mode returns after the replicas have it.
        """
        ...

    async def hand(self, host: str, partitions: Sequence[int], payload: bytes) -> bool:
        """Hand batches for these partitions straight to a host; False: it does not listen. Not durable.

        The host is also told where the inboxes of the partitions end now. True says that it is on its way,
        and no more: only an answer of the host does.
        """
        ...

    def listener(self, host: str) -> Listener:
        """Return what takes batches that are handed to ``host``."""
        ...

    async def dead(self, partition: int, after: str, count: int) -> list[Entry]:
        """Return up to ``count`` of the messages that were set aside, after an id; the oldest first."""
        ...

    async def remove_dead(self, partition: int, ids: Sequence[str]) -> None:
        """Delete messages that were set aside; unknown ids are no error."""
        ...

    async def claim(self, partition: int, host: str, token: str) -> PartitionImage:
        """Make ``token`` the owner, with a higher epoch, and return the partition.

        Unconditional: who may claim is placement's decision. From here on commits of any
        earlier token are refused. Claiming again with the same token keeps the epoch.
        """
        ...

    async def release(self, partition: int, token: str) -> bool:
        """Give the partition up; False if ``token`` did not own it any more."""
        ...

    async def owners(self) -> list[OwnerRow]:
        """Return the owner of every partition, in order."""
        ...

    async def loads(self) -> list[PartitionLoad]:
        """Return how much waits in every partition, in order; not of one instant."""
        ...

    async def heartbeat(self, host: str, record: bytes, *, lease_ms: int, lead: bool = True) -> ClusterView:
        """Renew the host's heartbeat and return the cluster's state, on the store's clock.

        With ``lead``: take or renew the leader's lease if it is free, expired or ours.
        An empty ``host`` beats for nobody and only looks (then without ``lead``).
        """
        ...

    async def place(self, leader: str, version: int, placement: bytes) -> bool:
        """Replace the placement if ``leader`` still leads and ``version`` is the stored one + 1."""
        ...

    async def remove_host(self, host: str, seen_ms: int | None = None) -> bool:
        """Forget a host and its leadership; given when it last beat, as was seen, not if it has since."""
        ...

    async def now_ms(self) -> int:
        """Return the store's clock (Unix ms)."""
        ...

    async def snapshots(self, keys: Sequence[tuple[int, str, str]]) -> list[bytes | None]:
        """Return snapshots for (partition, entity name, key); None where there is none."""
        ...

    async def instances(self, keys: Sequence[tuple[int, str]], *, history: bool) -> list[StoredInstance]:
        """Return orchestrations for (partition, instance id), with or without history.

        Row and history of one instance are read atomically.
        """
        ...

    async def has_activities(self, keys: Sequence[tuple[int, str]]) -> list[bool]:
        """Tell for (partition, row id) whether the activity is still without a result."""
        ...

    async def activity_rows(self, keys: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """Return the rows of activities for (partition, row id); None where there is none."""
        ...

    async def scan_index(self, scans: Sequence[Scan], *, count: int) -> list[Found]:
        """Return up to ``count`` members for each scan, in order; bounded in steps, see ``index``.

        As of one moment per scan, not over all of them.
        """
        ...

    async def count_index(self, scans: Sequence[Scan]) -> list[Counted]:
        """Return how many members each scan (without ``any_of``) has; bounded in steps, see ``index``."""
        ...

    async def ended_before(self, ends: Sequence[tuple[int, str, int]], *, count: int) -> list[list[str]]:
        """Return up to ``count`` members that score lower than the time, lowest first.

        Args:
            ends: (partition, index, Unix ms).
        """
        ...

    async def put_payloads(self, payloads: Sequence[Payload]) -> None:
        """Write payloads ahead of what will refer to them; durable when this returns.

        Each is in the index ``payloads.PENDING`` from its first piece on, until a commit takes it out. A
        late repeat neither changes a payload nor makes it pending again.
        """
        ...

    async def payloads(self, tokens: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the contents by token; those that are not there, or not whole, are left out."""
        ...

    async def sweep_payloads(self, partition: int, ids: Sequence[str], before_ms: int) -> int:
        """Delete those that are pending and were written before that time (Unix ms); return how many."""
        ...

    async def doubled(self, partition: int) -> dict[str, int]:
        """Return what ``PartitionImage.doubled`` holds, as it is now."""
        ...

    async def sweep_producers(self, partition: int, older_ms: int) -> int:
        """Forget producers not seen for ``older_ms``, but no partitions and sinks; return how many."""
        ...

    async def marks(self, producer: str, partitions: Sequence[int]) -> list[int]:
        """Return the last sequence number that each partition has taken from a producer; 0: none."""
        ...

    async def forget_producer(self, producer: str, partitions: Sequence[int]) -> None:
        """Forget a producer's sequence numbers, partition by partition. Safe to repeat."""
        ...

    def queue_reader(self, worker: str) -> QueueReader:
        """Return a new reader of queues for ``worker``."""
        ...

    async def finish_entries(self, entries: Sequence[tuple[str, str]]) -> None:
        """Remove taken entries, named by (queue, id), for good."""
        ...

    async def keep_details(self, details: Mapping[tuple[str, str], bytes]) -> None:
        """Keep something beside taken entries, named by (queue, id), until they are finished.

        Replaces what was kept before, and passes over entries that are finished.
        """
        ...

    async def details_of(self, entries: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """Return what ``keep_details`` kept last for each entry; None where there is nothing."""
        ...

    async def queue_state(self, queue: str) -> QueueState:
        """Return what a queue holds, over all its lanes, and its stored limits."""
        ...

    async def adjust_queue(self, queue: str, fields: Mapping[str, str | None]) -> None:
        """Write stored limits of a queue (see ``queues``); None deletes one. Readers notice in a second."""
        ...

    async def queued_rows(self, queue: str, rows: Sequence[str]) -> set[str]:
        """Return those row ids whose activity has an entry in the queue, taken or not, whatever its lane.

        Entries that come and go meanwhile may be missed; one that is there all the time is found.
        """
        ...

    async def claim_entries(
        self, worker: str, queues: Sequence[str], *, alive_ms: int, count: int
    ) -> list[QueueEntry]:
        """Take over entries of workers that have not beaten for ``alive_ms``.

        Two workers that sweep at once do not get the same entry. Forgets workers that have
        not beaten for long (``WORKER_TTL_MS``) and hold nothing: crashed ones never say goodbye.
        """
        ...

    async def worker_beat(self, worker: str, record: bytes) -> None:
        """Renew a worker's heartbeat."""
        ...

    async def remove_worker(self, worker: str) -> None:
        """Forget a worker's heartbeat: what it holds may be claimed at once."""
        ...

    async def workers(self) -> list[HostBeat]:
        """Return all workers with the age of their heartbeat."""
        ...
