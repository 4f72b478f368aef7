"""A hub in Redis or Valkey: the ``Store`` for one server and for a Redis Cluster.

Rules:

* One connection carries all writes of a process (appends and commits), so that their
  order is the callers' order and WAIT covers what was written before it. Everything
  else goes over other connections.
* On one server a batch is one script call, however many partitions it touches. On a Cluster it is one
  call per slot, pipelined per server, and deliveries go through the outbox: a script
  there cannot write another partition's slot.
* In replicated mode deliveries go through the outbox, too: what is put into a target can be read
  at once, and nothing may be read that a failover could still take back.
* The clock is the server's, inside the scripts.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from lungfish.runtime.errors import HubNotFound, InternalError, InvalidArguments, StoreUnavailable
from lungfish.runtime.messages.payloads import Payload
from lungfish.runtime.store.hub_meta import check_meta, check_pools, meta_of
from lungfish.runtime.store.index import Counted, Found, Scan
from lungfish.runtime.store.queues import QueueState
from lungfish.runtime.store.store import (
    Append,
    Appended,
    ClusterView,
    Commit,
    CommitOutcome,
    Entry,
    HostBeat,
    HubMeta,
    OwnerRow,
    PartitionImage,
    PartitionLoad,
    QueueEntry,
    StoredInstance,
)

from .checks import REPLICA_TIMEOUT_S, choose_confirmation, read_persistence
from .commit import (
    Limits,
    append_command,
    claim_commands,
    commit_command,
    numbers_in,
    pairs,
    read_appended,
    read_image,
    read_outcome,
)
from .index import ended_calls, read_counted, read_found, scan_call
from .keys import INBOX_LENGTH_MAX, MAILBOX_LENGTH_MAX, QUEUE_LENGTH_MAX, WORKER_TTL_MS, Keys
from .link import CALL_TIMEOUT_S, Address, Reply
from .payloads import assembled, put_calls, read_calls, sweep_calls
from .persistence import Durability, judge
from .queues import RedisQueueReader, finish_calls, holders_of, keep_calls, rows_in, state_of, take_over
from .readers import RedisListener, RedisReader
from .scripts import script
from .servers import ADMIN, WRITE, Call, Confirmation, Servers, connect

logger = logging.getLogger(__name__)

B = TypeVar("B", Append, Commit)


class RedisStore:
    """One process's connections to a hub in Redis."""

    def __init__(
        self,
        url: str,
        hub: str,
        *,
        replicas: int = 0,
        replica_timeout_s: float = REPLICA_TIMEOUT_S,
        inbox_length_max: int = INBOX_LENGTH_MAX,
        queue_length_max: int = QUEUE_LENGTH_MAX,
        mailbox_length_max: int = MAILBOX_LENGTH_MAX,
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """Bind to a hub; nothing is connected before the first call.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``, as in redis-py. A Redis Cluster is recognised
                by itself; ``redis+cluster://`` (``rediss+cluster://``) or ``?cluster=true`` insist on one.
            hub: the hub's name.
            replicas: how many replicas must confirm each append and commit (``replicated`` mode).
            replica_timeout_s: how long the server may wait for them before the call fails.
            inbox_length_max: entries an inbox takes before it answers ``FULL``.
            queue_length_max: the same for activity queues.
            mailbox_length_max: unfinished messages of a partition before appends that yield get ``CROWDED``.
            call_timeout_s: a server that is silent for this long is taken for gone.
        """
        if replicas < 0:
            raise InvalidArguments(f"replicas must be 0 or more, not {replicas}")
        self._keys = Keys(hub)
        self._address = Address.of(url)
        self._name = f"lungfish:{hub}:{uuid.uuid4().hex[:8]}"
        self._replicas = replicas
        self._replica_timeout_s = replica_timeout_s
        self._limits = Limits(inbox_length_max, queue_length_max, mailbox_length_max)
        self._call_timeout_s = call_timeout_s
        self._servers: Servers | None = None
        self._confirmation: Confirmation | None = None
        self._connecting = asyncio.Lock()
        self._partitions = 0
        self._readers: set[RedisReader | RedisQueueReader | RedisListener] = set()
        self._may_hand_over = True
        self._closed = False
        self._durability = Durability.UNKNOWN
        self._is_judged = False

    @property
    def hub(self) -> str:
        """Name of the hub."""
        return self._keys.hub

    @property
    def hands_over(self) -> bool:
        """See ``Store.hands_over``: on one server, and if the user has rights to channels."""
        return self._may_hand_over and self._servers is not None and self._servers.is_single

    @property
    def durability(self) -> str:
        """What an acknowledged commit survives: a ``Durability`` value or ``replicated``."""
        return "replicated" if self._replicas else self._durability.value

    # --- connecting --------------------------------------------------------------------

    async def open(self, wanted: HubMeta | None = None, *, create: bool = True) -> HubMeta:
        """See ``Store.open``."""
        self._closed = False
        servers = await self._connected()
        where = str(self._address)
        if not self._is_judged:
            self._durability = judge(await read_persistence(servers), where, replicas=self._replicas)
            self._is_judged = True
        new, key = wanted or HubMeta(), self._keys.meta
        fixed = (new.partitions if create else 0, new.format_version, new.hash_name)
        fields = (await servers.run(WRITE, [(key, script("open", [key], *fixed))]))[0]
        if not fields:
            raise HubNotFound.of(self.hub, where)
        return check_meta(self.hub, self._take_meta(fields), wanted)

    async def add_pools(self, pools: Mapping[str, int]) -> HubMeta:
        """See ``Store.add_pools``."""
        key = self._keys.meta
        wanted = [part for name, count in pools.items() for part in (name, count)]
        servers = await self._connected()
        # Where the numbers of a pool were lost, another pool might get them.
        calls = [(key, script("add_pools", [key], *wanted))]
        fields = (await servers.run(WRITE, calls, confirmation=self._confirmation))[0]
        return check_pools(self.hub, self._take_meta(fields), pools)

    def _take_meta(self, fields: list[bytes]) -> HubMeta:
        meta = meta_of(pairs(fields))
        if meta is None:
            raise InternalError(f"hub {self.hub!r} has no meta: it was never opened, or was deleted")
        self._partitions = meta.total
        return meta

    async def _connected(self) -> Servers:
        if self._closed:
            raise StoreUnavailable("this store is closed")
        if self._servers is None:
            async with self._connecting:
                if self._servers is None:
                    servers = await connect(self._address, self._name, self._call_timeout_s)
                    try:
                        self._confirmation = await self._choose_confirmation(servers)
                    except BaseException:
                        await servers.close()
                        raise
                    self._servers = servers
        return self._servers

    async def _choose_confirmation(self, servers: Servers) -> Confirmation | None:
        if not self._replicas:
            return None
        return await choose_confirmation(servers, self._keys, self._replicas, self._replica_timeout_s)

    async def close(self) -> None:
        """See ``Store.close``."""
        self._closed, self._is_judged = True, False
        servers, self._servers = self._servers, None
        for reader in tuple(self._readers):
            await reader.close()
        self._readers.clear()
        if servers is not None:
            await servers.close()

    # --- appending and committing ------------------------------------------------------

    async def append(self, appends: Sequence[Append]) -> list[Appended]:
        """See ``Store.append``."""
        servers = await self._connected()
        batches = _batches(appends, servers, lambda append: self._keys.stream(append.target))
        calls = [(key, append_command(self._keys, batch, self._limits)) for key, batch in batches]
        replies = await servers.run(WRITE, calls, confirmation=self._confirmation, partly=True)
        outcomes = [
            [Appended.UNKNOWN] * len(batch) if isinstance(reply, StoreUnavailable) else read_appended(reply)
            for (_, batch), reply in zip(batches, replies, strict=True)
        ]
        if servers.is_single:
            return outcomes[0] if outcomes else []
        found = _Sorted(batches, outcomes)
        return [found.next(self._keys.stream(append.target)) for append in appends]

    async def commit(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        """See ``Store.commit``."""
        servers = await self._connected()
        batches = _batches(commits, servers, lambda commit: self._keys.partition(commit.partition).owner)
        in_place = servers.is_single and not self._replicas
        calls = [
            (key, commit_command(self._keys, batch, self._limits, in_place=in_place))
            for key, batch in batches
        ]
        replies = await servers.run(WRITE, calls, confirmation=self._confirmation, partly=True)
        outcomes = [
            [reply] * len(batch) if isinstance(reply, StoreUnavailable) else reply
            for (_, batch), reply in zip(batches, replies, strict=True)
        ]
        if servers.is_single:
            return [read_outcome(*pair) for pair in zip(commits, *outcomes, strict=True)] if commits else []
        found = _Sorted(batches, outcomes)
        return [
            read_outcome(commit, found.next(self._keys.partition(commit.partition).owner))
            for commit in commits
        ]

    async def hand(self, host: str, partitions: Sequence[int], payload: bytes) -> bool:
        """See ``Store.hand``."""
        servers = await self._connected()
        inboxes = [self._keys.partition(partition).inbox for partition in partitions]
        call = ("", script("hand", inboxes, self._keys.channel(host), payload))
        try:
            return bool((await servers.run(WRITE, [call]))[0])
        except InternalError as error:
            # A user without rights to channels, or a server without PUBLISH: inboxes are always there.
            logger.info("nothing is handed over to hosts: %s", error)
            self._may_hand_over = False
            return False

    def listener(self, host: str) -> RedisListener:
        """See ``Store.listener``."""
        listener = RedisListener(self._connected, self._keys.channel(host), self._readers.discard)
        self._readers.add(listener)
        return listener

    def reader(self) -> RedisReader:
        """See ``Store.reader``."""
        reader = RedisReader(self._connected, self._keys, self._readers.discard)
        self._readers.add(reader)
        return reader

    async def claim(self, partition: int, host: str, token: str) -> PartitionImage:
        """See ``Store.claim``."""
        servers = await self._connected()
        key = self._keys.partition(partition).owner
        commands = claim_commands(self._keys, partition, host, token)
        replies = await servers.run(ADMIN, [(key, command) for command in commands])
        return read_image(partition, token, replies, counts_on=servers.is_single)

    async def release(self, partition: int, token: str) -> bool:
        """See ``Store.release``."""
        key = self._keys.partition(partition).owner
        return bool(await self._one(WRITE, key, script("release", [key], token)))

    async def owners(self) -> list[OwnerRow]:
        """See ``Store.owners``."""
        servers = await self._connected()
        if not self._partitions:
            raise InternalError("owners() before open()")
        names = [self._keys.partition(partition).owner for partition in range(self._partitions)]
        calls = [(key, ("HMGET", key, "host", "epoch", "n")) for key in names]
        return [_owner_row(reply) for reply in await servers.run(ADMIN, calls, partly=True)]

    async def loads(self) -> list[PartitionLoad]:
        """See ``Store.loads``."""
        servers, calls = await self._connected(), list[Call]()
        for keys in map(self._keys.partition, range(self._partitions)):
            calls += [(key, ("XLEN", key)) for key in (keys.inbox, keys.outbox, keys.dead)]
            calls += [(key, ("HLEN", key)) for key in (keys.mailbox, keys.activities)]
            calls.append((keys.timers, ("ZCARD", keys.timers)))
        counts = iter([int(reply) for reply in await servers.run(ADMIN, calls)])
        return list(map(PartitionLoad, counts, counts, counts, counts, counts, counts))

    async def _one(self, lane: str, key: str, command: tuple[Any, ...]) -> Any:
        return (await (await self._connected()).run(lane, [(key, command)]))[0]

    # --- hosts -------------------------------------------------------------------------

    async def heartbeat(self, host: str, record: bytes, *, lease_ms: int, lead: bool = True) -> ClusterView:
        """See ``Store.heartbeat``."""
        keys = [self._keys.hosts, self._keys.leader, self._keys.placement, self._keys.meta]
        command = script("heartbeat", keys, host, record, lease_ms, int(lead))
        now, rows, leader, version, placement, fields = await self._one(ADMIN, keys[0], command)
        beats = tuple(_beats(rows, int(now)))
        meta = self._take_meta(fields) if fields else None
        return ClusterView(int(now), beats, leader.decode(), int(version), placement, meta)

    async def place(self, leader: str, version: int, placement: bytes) -> bool:
        """See ``Store.place``."""
        keys = [self._keys.leader, self._keys.placement]
        return bool(await self._one(ADMIN, keys[0], script("place", keys, leader, version, placement)))

    async def remove_host(self, host: str, seen_ms: int | None = None) -> bool:
        """See ``Store.remove_host``."""
        keys, seen = [self._keys.hosts, self._keys.leader], "" if seen_ms is None else seen_ms
        return bool(await self._one(ADMIN, keys[0], script("remove_host", keys, host, seen)))

    async def dead(self, partition: int, after: str, count: int) -> list[Entry]:
        """See ``Store.dead``."""
        key = self._keys.partition(partition).dead
        found = await self._one(ADMIN, key, ("XRANGE", key, f"({after}", "+", "COUNT", count))
        return [Entry(entry_id.decode(), fields[1]) for entry_id, fields in found]

    async def remove_dead(self, partition: int, ids: Sequence[str]) -> None:
        """See ``Store.remove_dead``."""
        key = self._keys.partition(partition).dead
        if ids:
            await self._one(ADMIN, key, ("XDEL", key, *ids))

    async def now_ms(self) -> int:
        """See ``Store.now_ms``."""
        return _time_ms(await self._one(ADMIN, self._keys.meta, ("TIME",)))

    # --- reading -----------------------------------------------------------------------

    async def snapshots(self, keys: Sequence[tuple[int, str, str]]) -> list[bytes | None]:
        """See ``Store.snapshots``."""
        named = [(self._keys.partition(p).entities(name), key) for p, name, key in keys]
        return await self._fields("HMGET", named)

    async def instances(self, keys: Sequence[tuple[int, str]], *, history: bool) -> list[StoredInstance]:
        """See ``Store.instances``."""
        names = [(self._keys.partition(partition), instance) for partition, instance in keys]
        if not history:
            rows = await self._fields("HMGET", [(name.instances, instance) for name, instance in names])
            return [StoredInstance(row, []) for row in rows]
        calls = [
            (name.instances, script("instance", [name.instances, name.history(instance)], instance))
            for name, instance in names
        ]
        return [
            StoredInstance(row, batches) for row, batches in await (await self._connected()).run(ADMIN, calls)
        ]

    async def has_activities(self, keys: Sequence[tuple[int, str]]) -> list[bool]:
        """See ``Store.has_activities``."""
        named = [(self._keys.partition(p).activities, row_id) for p, row_id in keys]
        servers = await self._connected()
        return [bool(found) for found in await servers.run(ADMIN, [(k, ("HEXISTS", k, f)) for k, f in named])]

    async def activity_rows(self, keys: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """See ``Store.activity_rows``."""
        return await self._fields("HMGET", [(self._keys.partition(p).activities, row) for p, row in keys])

    async def _fields(self, command: str, named: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """Read fields of hashes, one command per hash."""
        wanted: dict[str, list[str]] = {}
        for key, field in named:
            wanted.setdefault(key, []).append(field)
        servers = await self._connected()
        rows = await servers.run(ADMIN, [(key, (command, key, *fields)) for key, fields in wanted.items()])
        found = {key: iter(row) for key, row in zip(wanted, rows, strict=True)}
        return [next(found[key]) for key, _ in named]

    async def scan_index(self, scans: Sequence[Scan], *, count: int) -> list[Found]:
        """See ``Store.scan_index``."""
        calls = [scan_call(self._keys, scan, count) for scan in scans]
        replies = await (await self._connected()).run(ADMIN, calls)
        return [read_found(scan, reply, count) for scan, reply in zip(scans, replies, strict=True)]

    async def count_index(self, scans: Sequence[Scan]) -> list[Counted]:
        """See ``Store.count_index``."""
        calls = [scan_call(self._keys, scan, 0) for scan in scans]
        replies = await (await self._connected()).run(ADMIN, calls)
        return [read_counted(reply) for reply in replies]

    async def ended_before(self, ends: Sequence[tuple[int, str, int]], *, count: int) -> list[list[str]]:
        """See ``Store.ended_before``."""
        replies = await (await self._connected()).run(ADMIN, ended_calls(self._keys, ends, count))
        return [[member.decode() for member in reply] for reply in replies]

    async def put_payloads(self, payloads: Sequence[Payload]) -> None:
        """See ``Store.put_payloads``."""
        servers = await self._connected()
        for calls in put_calls(self._keys, payloads):
            await servers.run(WRITE, calls, confirmation=self._confirmation)

    async def payloads(self, tokens: Sequence[bytes]) -> dict[bytes, bytes]:
        """See ``Store.payloads``."""
        servers, replies = await self._connected(), list[Reply]()
        for calls in read_calls(self._keys, tokens):
            replies += await servers.run(ADMIN, calls)
        return assembled(tokens, replies)

    async def sweep_payloads(self, partition: int, ids: Sequence[str], before_ms: int) -> int:
        """See ``Store.sweep_payloads``."""
        calls = sweep_calls(self._keys, partition, ids, before_ms)
        return sum(map(int, await (await self._connected()).run(ADMIN, calls))) if calls else 0

    async def doubled(self, partition: int) -> dict[str, int]:
        """See ``Store.doubled``."""
        key = self._keys.partition(partition).doubled
        return numbers_in(await self._one(ADMIN, key, ("HGETALL", key)))

    async def sweep_producers(self, partition: int, older_ms: int) -> int:
        """See ``Store.sweep_producers``."""
        keys = self._keys.partition(partition)
        command = script("sweep", [keys.producers, keys.doubled], older_ms)
        return int(await self._one(ADMIN, keys.producers, command))

    async def marks(self, producer: str, partitions: Sequence[int]) -> list[int]:
        """See ``Store.marks``."""
        keys = [self._keys.partition(partition).producers for partition in partitions]
        found = await self._fields("HMGET", [(key, producer) for key in keys])
        return [int(mark.partition(b" ")[0]) if mark is not None else 0 for mark in found]

    async def forget_producer(self, producer: str, partitions: Sequence[int]) -> None:
        """See ``Store.forget_producer``."""
        keys = [self._keys.partition(partition).producers for partition in partitions]
        await (await self._connected()).run(ADMIN, [(key, ("HDEL", key, producer)) for key in keys])

    # --- queues and workers ------------------------------------------------------------

    def queue_reader(self, worker: str) -> RedisQueueReader:
        """See ``Store.queue_reader``."""
        reader = RedisQueueReader(self._connected, self._keys, worker, self._readers.discard)
        self._readers.add(reader)
        return reader

    async def finish_entries(self, entries: Sequence[tuple[str, str]]) -> None:
        """See ``Store.finish_entries``."""
        await (await self._connected()).run(ADMIN, finish_calls(self._keys, entries))

    async def keep_details(self, details: Mapping[tuple[str, str], bytes]) -> None:
        """See ``Store.keep_details``."""
        await (await self._connected()).run(ADMIN, keep_calls(self._keys, details))

    async def details_of(self, entries: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """See ``Store.details_of``."""
        return await self._fields("HMGET", [(self._keys.details(queue), id_) for queue, id_ in entries])

    async def queue_state(self, queue: str) -> QueueState:
        """See ``Store.queue_state``."""
        return await state_of(await self._connected(), self._keys, queue)

    async def adjust_queue(self, queue: str, fields: Mapping[str, str | None]) -> None:
        """See ``Store.adjust_queue``."""
        key = self._keys.limits(queue)
        given = [part for name, text in fields.items() if text is not None for part in (name, text)]
        gone = [name for name, text in fields.items() if text is None]
        calls: list[Call] = [(key, ("HSET", key, *given))] if given else []
        calls += [(key, ("HDEL", key, *gone))] if gone else []
        await (await self._connected()).run(ADMIN, calls)

    async def queued_rows(self, queue: str, rows: Sequence[str]) -> set[str]:
        """See ``Store.queued_rows``."""
        return await rows_in(await self._connected(), self._keys, queue, rows)

    async def claim_entries(
        self, worker: str, queues: Sequence[str], *, alive_ms: int, count: int
    ) -> list[QueueEntry]:
        """See ``Store.claim_entries``."""
        servers = await self._connected()
        holders = await holders_of(servers, self._keys, queues)
        beats = await self.workers()
        alive = {beat.host for beat in beats if beat.age_ms <= alive_ms} | {worker}
        dead = {queue: [name for name in names if name not in alive] for queue, names in holders.items()}
        entries = await take_over(servers, self._keys, worker, dead, count)
        # What a worker of other queues holds stays claimable: who is not among the beats is dead.
        held = set[str]().union(*holders.values())
        gone = [b.host for b in beats if b.age_ms > max(alive_ms, WORKER_TTL_MS) and b.host not in held]
        if gone:
            key = self._keys.workers
            await self._one(ADMIN, key, script("prune", [key], max(alive_ms, WORKER_TTL_MS), *gone[:1000]))
        return entries

    async def worker_beat(self, worker: str, record: bytes) -> None:
        """See ``Store.worker_beat``."""
        key = self._keys.workers
        await self._one(ADMIN, key, script("beat", [key], worker, record))

    async def remove_worker(self, worker: str) -> None:
        """See ``Store.remove_worker``."""
        await self._one(ADMIN, self._keys.workers, ("HDEL", self._keys.workers, worker))

    async def workers(self) -> list[HostBeat]:
        """See ``Store.workers``."""
        key, servers = self._keys.workers, await self._connected()
        rows, time = await servers.run(ADMIN, [(key, ("HGETALL", key)), (key, ("TIME",))])
        return _beats(rows, _time_ms(time))


def _batches(items: Sequence[B], servers: Servers, key_of: Callable[[B], str]) -> list[tuple[str, list[B]]]:
    """Group items by what one script call may touch: everything, or on a Cluster one slot."""
    if servers.is_single:
        return [("", list(items))] if items else []  # in the items' order
    by_key: dict[str, list[B]] = {}
    for item in items:
        by_key.setdefault(key_of(item), []).append(item)
    return list(by_key.items())


class _Sorted:
    """Outcomes of batches, to be handed out in the order of the items they were made of."""

    def __init__(self, batches: Sequence[tuple[str, object]], outcomes: Sequence[Sequence[Any]]) -> None:
        self._by_key = {key: iter(each) for (key, _), each in zip(batches, outcomes, strict=True)}

    def next(self, key: str) -> Any:
        return next(self._by_key[key])


def _owner_row(reply: Reply) -> OwnerRow:
    if isinstance(reply, StoreUnavailable):
        return OwnerRow("", 0, known=False)
    host, epoch, number = reply
    return OwnerRow((host or b"").decode(), int(epoch or 0), int(number or 0))


def _beats(rows: list[bytes], now_ms: int) -> list[HostBeat]:
    beats = []
    for name, value in sorted(pairs(rows).items()):
        beat_ms, _, record = value.partition(b" ")
        beats.append(HostBeat(name, record, now_ms - int(beat_ms)))
    return beats


def _time_ms(reply: list[bytes]) -> int:
    seconds, micros = reply
    return int(seconds) * 1000 + int(micros) // 1000
