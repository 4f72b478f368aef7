"""Every key that a hub has in Redis: names, types, caps and lifetimes.

Rules:

* No other module builds a key name. What touches one partition carries the hash tag
  ``{hub:p}``, so that a commit, an append and a claim each stay within one slot of a
  Redis Cluster; each queue and each client has a tag, and so a slot, of its own.
* Nothing but replies to clients expires by itself: a client that is gone cannot clean up.

=================================  ======  ====================================================
``{hub}:meta``                     hash    partitions, format, hash: fixed at the hub's creation
``{hub}:hosts``, ``:workers``      hash    name → "<ms of last beat> <record>"
``{hub}:leader``                   string  the leading host, expires with its lease
``{hub}:placement``                hash    version, map
``{hub:p}:owner``                  hash    token, host, epoch, released, n (last commit number),
                                           pos (inbox position), s:<target> (last sequence used)
``{hub:p}:inbox``                  stream  p: one batch of messages
``{hub:p}:producers``              hash    producer → "<last sequence> <ms last seen>"
``{hub:p}:entities:<name>``        hash    key → snapshot
``{hub:p}:instances``              hash    instance id → row
``{hub:p}:history:<id>``           list    event batches, one per commit
``{hub:p}:by:<index>``             zset    members as ``index`` tells; score 0, or when they ended
``{hub:p}:mailbox``                hash    row id → accepted, unfinished message
``{hub:p}:activities``             hash    row id → scheduled, unfinished activity
``{hub:p}:timers``, ``:timer_rows``  zset, hash   timer id → due ms; timer id → what fires
``{hub:p}:outbox``                 stream  t (target), s (sequence), b (payloads); id is
                                           "<commit number>-<index in its deliveries>"
``{hub:p}:dead``                   stream  p: a payload that could not be decoded; capped
``{hub:q:<queue>}``                stream  p: one activity; consumer group ``workers``
``{hub:q:<queue>}:producers``      hash    as for a partition; producers are partitions
``{hub:q:<queue>}:details``        hash    entry id → what its attempt's last heartbeat said
``{hub:q:<queue>}:limits``         hash    d:<limit> (declared), s:<limit> (set), paused; see ``queues``
``{hub:q:<queue>}:meter``          hash    tokens, at (ms): the rate's bucket; turn: entries handed out
``{hub:q:<queue>}:<priority>``     stream  the lane of another priority, with ``:producers`` and ``:details``
``{hub:c:<client>}``               stream  p, p ...: batches of replies; capped, expiring
=================================  ======  ====================================================
"""

from __future__ import annotations

from typing import Final

from lungfish.runtime.errors import InvalidId
from lungfish.runtime.ids import check_id
from lungfish.runtime.store.queues import DEFAULT_PRIORITY, split_lane

#: The one consumer group of a queue.
GROUP: Final = "workers"

#: An inbox that holds this many entries refuses more (back-pressure to the sender).
INBOX_LENGTH_MAX: Final = 10_000
#: A mailbox that holds this many unfinished messages takes none of clients for entities.
MAILBOX_LENGTH_MAX: Final = 100_000
#: A queue that holds this many activities refuses more.
QUEUE_LENGTH_MAX: Final = 1_000_000
#: Replies to a client beyond this many unread batches push out the oldest.
CLIENT_LENGTH_MAX: Final = 10_000
#: Replies to a client that nothing was sent to for this long are dropped.
CLIENT_TTL_MS: Final = 3_600_000
#: A worker that has not beaten for this long, and holds nothing, is forgotten.
WORKER_TTL_MS: Final = 600_000
#: Undecodable payloads kept per partition.
DEAD_LENGTH_MAX: Final = 10_000

#: Would break the hash tag, or make the keys of two hubs meet.
_FORBIDDEN_IN_HUB: Final = frozenset("{}:")


class PartitionKeys:
    """The keys of one partition; all in one slot."""

    __slots__ = (
        "_entities",
        "_tag",
        "activities",
        "dead",
        "doubled",
        "inbox",
        "instances",
        "mailbox",
        "outbox",
        "owner",
        "producers",
        "timer_rows",
        "timers",
    )

    def __init__(self, tag: str) -> None:
        """Build the names once: they are used in every commit."""
        self._tag = tag
        self.owner = f"{tag}:owner"
        self.inbox = f"{tag}:inbox"
        self.producers = f"{tag}:producers"
        self.doubled = f"{tag}:doubled"
        self.instances = f"{tag}:instances"
        self.mailbox = f"{tag}:mailbox"
        self.activities = f"{tag}:activities"
        self.timers = f"{tag}:timers"
        self.timer_rows = f"{tag}:timer_rows"
        self.outbox = f"{tag}:outbox"
        self.dead = f"{tag}:dead"
        self._entities: dict[str, str] = {}

    def entities(self, name: str) -> str:
        """Return the hash with the snapshots of all entities called ``name``."""
        key = self._entities.get(name)
        if key is None:  # names are classes of the app: a few
            key = self._entities[name] = f"{self._tag}:entities:{name}"
        return key

    def by(self, index: str) -> str:
        """Return the sorted set that is an index."""
        return f"{self._tag}:by:{index}"

    def payload(self, payload_id: str) -> str:
        """Return the hash with the pieces of a large value, by their numbers."""
        return f"{self._tag}:payload:{payload_id}"

    def history(self, instance: str) -> str:
        """Return the list with the history of ``instance``."""
        return f"{self._tag}:history:{instance}"


class Keys:
    """The keys of one hub."""

    def __init__(self, hub: str) -> None:
        """Bind to ``hub``; raises ``InvalidId`` for a name that would break hash tags."""
        check_id("hub name", hub)
        if not _FORBIDDEN_IN_HUB.isdisjoint(hub):
            raise InvalidId(f"hub name must not contain '{{', '}}' or ':': {hub!r}")
        self.hub = hub
        self.meta = f"{{{hub}}}:meta"
        self.hosts = f"{{{hub}}}:hosts"
        self.leader = f"{{{hub}}}:leader"
        self.placement = f"{{{hub}}}:placement"
        self.workers = f"{{{hub}}}:workers"
        self._partitions: dict[int, PartitionKeys] = {}
        self._inboxes: dict[str, PartitionKeys] = {}

    def partition(self, partition: int) -> PartitionKeys:
        """Return the keys of a partition."""
        keys = self._partitions.get(partition)
        if keys is None:
            keys = self._partitions[partition] = PartitionKeys(f"{{{self.hub}:{partition}}}")
        return keys

    def queue(self, queue: str) -> str:
        """Return the stream of an activity queue's lane; all lanes of a queue are in one slot."""
        name, priority = split_lane(queue)
        tag = f"{{{self.hub}:q:{name}}}"
        return tag if priority == DEFAULT_PRIORITY else f"{tag}:{priority}"

    def channel(self, host: str) -> str:
        """Return the channel on which things are handed to a host."""
        return f"{{{self.hub}}}:host:{host}"

    def details(self, queue: str) -> str:
        """Return the hash with what the heartbeats of a lane's attempts said."""
        return f"{self.queue(queue)}:details"

    def limits(self, queue: str) -> str:
        """Return the hash with a queue's limits."""
        return f"{self.queue(queue)}:limits"

    def meter(self, queue: str) -> str:
        """Return the hash that meters what a queue hands out."""
        return f"{self.queue(queue)}:meter"

    def stream(self, target: str) -> str:
        """Return the stream that holds what is put into ``target``."""
        kind = target[:2]
        if kind == "p:":
            keys = self._inboxes.get(target)
            if keys is None:  # a few: asked for with every message
                keys = self._inboxes[target] = self.partition(int(target[2:]))
            return keys.inbox
        if kind == "q:":
            return self.queue(target[2:])
        if kind != "c:":
            raise InvalidId(f"not a target: {target!r}")
        return f"{{{self.hub}:{target}}}"

    def producers(self, target: str) -> str:
        """Return the hash with what ``target`` has taken from whom."""
        if target[:2] == "p:":
            return (self._inboxes.get(target) or self.partition(int(target[2:]))).producers
        return f"{self.stream(target)}:producers"

    def mailbox(self, inbox: str) -> str:
        """Return the hash with what is unfinished of what came into an inbox (a target)."""
        return (self._inboxes.get(inbox) or self.partition(int(inbox[2:]))).mailbox
