"""Where commands go: to the one server, or to the primaries of a Redis Cluster.

Rules:

* A *lane* is a connection per server for one kind of traffic, so that writes keep their
  order and nothing waits behind a blocking read or a slow scan.
* A call can be made *partly*: then the replies of servers that do not answer are ``StoreUnavailable``
  errors among the others. A server of a Cluster that did not answer is left out of such calls until it
  answers a PING. While a shard is away the others only go on with ``cluster-require-full-coverage no``.
* A Cluster that moved (MOVED, ASK, a lost primary) is not chased: the caller gets
  ``StoreUnavailable`` and repeats; the next call looks at the slots again.
* A script that a server does not know is loaded and called again: it did not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol, TypeAlias

from lungfish.runtime.errors import InternalError, InvalidArguments, StoreUnavailable

from .link import (
    CALL_TIMEOUT_S,
    Address,
    Command,
    Link,
    Reply,
    ResponseError,
    check,
    error_code,
    key_slot,
    needs_scripts,
    says_moved,
    says_replica,
)
from .scripts import LOAD_ALL

#: A key that tells the slot, and the command.
Call: TypeAlias = tuple[str, Command]

#: A server looks at its clock ten times a second: it may end a wait that much later, and more under load.
_LATE_S: Final = 0.2

#: How often a server that does not answer is asked, at first and at last (s).
PROBE_S: Final = (0.05, 1.0)

WRITE: Final = "write"
ADMIN: Final = "admin"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What to ask a server for after writes, on the same connection, before they count as done.

    Attributes:
        commands: WAIT (the replicas' memory), or WAIT and WAITAOF (their disks, and the server's own).
        replicas: how many must have the writes.
        wait_s: how long the server may wait for them, per command.
    """

    commands: tuple[Command, ...]
    replicas: int
    wait_s: float

    @classmethod
    def of(cls, replicas: int, wait_s: float, *, on_disk: bool) -> Confirmation:
        """Return what asks for ``replicas``."""
        wait_ms = max(1, int(wait_s * 1000))  # 0 would be for ever
        wait: Command = ("WAIT", replicas, wait_ms)
        if not on_disk:
            return cls((wait,), replicas, wait_s)
        # WAITAOF alone takes a second: it asks the replica at once, while that has the writes but has not
        # yet synced them, and the replica's next report comes with its cron. After WAIT it has synced.
        return cls((wait, ("WAITAOF", 1, replicas, wait_ms)), replicas, wait_s)

    def check(self, replies: Sequence[Reply]) -> None:
        """Raise ``StoreUnavailable`` if too few replicas have confirmed."""
        for command, reply in zip(self.commands, replies, strict=True):
            here, reached = check(reply) if command[0] == "WAITAOF" else (1, check(reply))
            if here < 1 or reached < self.replicas:
                raise StoreUnavailable(
                    f"only {reached} of {self.replicas} replicas confirmed in {self.wait_s:g} s "
                    f"({command[0]}): the outcome is unknown"
                )


class ServerAway(StoreUnavailable):
    """A server was not even asked: it did not answer a moment ago."""


class Servers(Protocol):
    """The servers of one store."""

    #: Keys of several partitions may be in one command.
    is_single: bool

    async def run(
        self,
        lane: str,
        calls: Sequence[Call],
        *,
        confirmation: Confirmation | None = None,
        expected: frozenset[str] = frozenset(),
        partly: bool = False,
    ) -> list[Reply]:
        """Run commands; those for one server in the order given, pipelined.

        Args:
            lane: which connection.
            calls: what to run.
            confirmation: what must hold before this returns.
            expected: codes of refusals to return, as ``ResponseError``, instead of raising them.
            partly: return ``StoreUnavailable`` in the place of replies that did not come, if others did.
        """
        ...

    async def everywhere(self, commands: Sequence[Command]) -> list[list[Reply]]:
        """Run commands on every primary; refusals are among the replies."""
        ...

    def link(self, name: str) -> Link:
        """Return a connection of its own (for blocking reads; a single server only)."""
        ...

    async def close(self, lane: str | None = None) -> None:
        """Close one lane, or everything."""
        ...


async def connect(address: Address, name: str, call_timeout_s: float = CALL_TIMEOUT_S) -> Servers:
    """Find out what is at an address: one server, or a Cluster."""
    single = SingleServer(address, name, call_timeout_s)
    try:
        info = bytes((await single.run(ADMIN, [("", ("INFO", "cluster"))]))[0])
        is_cluster = b"cluster_enabled:1" in info
        if address.wants_cluster and not is_cluster:
            raise InvalidArguments(f"the server at {address} is not part of a Redis Cluster")
    except BaseException:
        await single.close()
        raise
    if not is_cluster:
        return single
    await single.close()
    return ClusterServers(address, name, call_timeout_s)


class SingleServer:
    """One server."""

    is_single = True

    def __init__(self, address: Address, name: str, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Nothing is connected before the first call."""
        self._address = address
        self._name = name
        self._call_timeout_s = call_timeout_s
        self._links: dict[str, Link] = {}

    def link(self, name: str) -> Link:
        """See ``Servers.link``."""
        full_name = f"{self._name}:{name}"
        return Link(self._address, full_name, greeting=LOAD_ALL, call_timeout_s=self._call_timeout_s)

    async def run(
        self,
        lane: str,
        calls: Sequence[Call],
        *,
        confirmation: Confirmation | None = None,
        expected: frozenset[str] = frozenset(),
        partly: bool = False,
    ) -> list[Reply]:
        """See ``Servers.run``."""
        replies = await self.run_each(lane, calls, confirmation=confirmation, expected=expected)
        return _some(replies) if partly else _all(replies)

    async def run_each(
        self,
        lane: str,
        calls: Sequence[Call],
        *,
        confirmation: Confirmation | None = None,
        expected: frozenset[str] = frozenset(),
    ) -> list[Reply]:
        """Like ``run``; refusals that pass are ``StoreUnavailable`` among the replies."""
        link = self._links.get(lane)
        if link is None:
            link = self._links[lane] = self.link(lane)
        replies = await run_on(link, [command for _, command in calls], confirmation)
        return [_checked(reply, expected) for reply in replies]

    async def everywhere(self, commands: Sequence[Command]) -> list[list[Reply]]:
        """See ``Servers.everywhere``."""
        codes = frozenset({"ERR", "NOPERM"})
        return [await self.run(ADMIN, [("", command) for command in commands], expected=codes)]

    async def close(self, lane: str | None = None) -> None:
        """See ``Servers.close``."""
        for name in [lane] if lane else list(self._links):
            link = self._links.pop(name, None)
            if link is not None:
                await link.close()


class ClusterServers:
    """The primaries of a Redis Cluster."""

    is_single = False

    def __init__(self, address: Address, name: str, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Nothing is connected before the first call."""
        self._seed = address
        self._name = name
        self._call_timeout_s = call_timeout_s
        self._nodes: dict[tuple[str, int], SingleServer] = {}
        self._by_slot: list[SingleServer | None] = []
        self._looking = asyncio.Lock()
        #: Servers that did not answer, and the tasks that wait until they do.
        self._away: dict[SingleServer, asyncio.Task[None]] = {}
        self._closed = False

    def link(self, name: str) -> NoReturn:
        """See ``Servers.link``: on a Cluster there is no one server to wait at."""
        raise InternalError(f"{name}: no blocking reads over the slots of a Cluster")

    async def run(
        self,
        lane: str,
        calls: Sequence[Call],
        *,
        confirmation: Confirmation | None = None,
        expected: frozenset[str] = frozenset(),
        partly: bool = False,
    ) -> list[Reply]:
        """See ``Servers.run``."""
        by_slot = await self._slots()
        replies: list[Reply] = [None] * len(calls)
        places: dict[SingleServer, list[int]] = {}
        for place, (key, _) in enumerate(calls):
            node = by_slot[key_slot(key.encode())]
            if node is None:
                self._by_slot = []
                replies[place] = StoreUnavailable(
                    f"no server of the Redis Cluster at {self._seed} serves {key!r}"
                )
            else:
                places.setdefault(node, []).append(place)
        if not partly:
            _all(replies)  # nothing is sent if it cannot be sent to all
        asked = {node: at for node, at in places.items() if not (partly and node in self._away)} or places
        answers = await asyncio.gather(
            *(
                node.run_each(lane, [calls[p] for p in at], confirmation=confirmation, expected=expected)
                for node, at in asked.items()
            ),
            return_exceptions=True,
        )
        found = dict(zip(asked, answers, strict=True))
        for node, at in places.items():
            answer = found.get(node) or ServerAway("this server did not answer a moment ago")
            if isinstance(answer, BaseException):
                self._note(node, answer)
                answer = [answer] * len(at)
            for place, reply in zip(at, answer, strict=True):
                replies[place] = reply
        if any(isinstance(reply, StoreUnavailable) for reply in replies):
            self._by_slot = []  # look again: the Cluster may have moved
        return _some(replies) if partly else _all(replies)

    def _note(self, node: SingleServer, error: BaseException) -> None:
        """Note that a server did not answer; raise what is no such thing."""
        if not isinstance(error, StoreUnavailable):
            self._by_slot = []
            raise error
        by_us = isinstance(error.__cause__, ConnectionAbortedError)
        if node not in self._away and not by_us and not self._closed:
            task = asyncio.get_running_loop().create_task(self._await(node), name="lungfish await server")
            self._away[node] = task

    async def _await(self, node: SingleServer) -> None:
        """Ask a server until it answers, or until the Cluster goes on without it."""
        wait_s = PROBE_S[0]
        try:
            while node in self._nodes.values():
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, PROBE_S[1])
                try:
                    await node.run("probe", [("", ("PING",))])
                except StoreUnavailable:
                    self._by_slot = []  # a replica may have taken its place
                else:
                    await node.close("probe")
                    return
        finally:
            self._away.pop(node, None)

    async def everywhere(self, commands: Sequence[Command]) -> list[list[Reply]]:
        """See ``Servers.everywhere``."""
        nodes = {node for node in await self._slots() if node is not None}
        return [answer for node in nodes for answer in await node.everywhere(commands)]

    async def close(self, lane: str | None = None) -> None:
        """See ``Servers.close``."""
        if lane is None:
            self._closed = True
            tasks = tuple(self._away.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for node in self._nodes.values():
            await node.close(lane)

    async def _slots(self) -> list[SingleServer | None]:
        if not self._by_slot:
            async with self._looking:
                if not self._by_slot:
                    self._by_slot = await self._look()
        return self._by_slot

    async def _look(self) -> list[SingleServer | None]:
        """Ask the known servers, the seed last, who serves which slot."""
        if self._closed:
            raise StoreUnavailable("this store is closed")
        failure: StoreUnavailable | None = None
        known = sorted(self._nodes, key=lambda place: self._nodes[place] in self._away)
        for host, port in [*known, *self._seed_place()]:
            server = self._node(host, port)
            try:
                ranges = (await server.run(ADMIN, [("", ("CLUSTER", "SLOTS"))]))[0]
            except StoreUnavailable as error:
                failure = error
                continue
            if ranges:
                return await self._adopt(ranges, host)
        raise failure or StoreUnavailable(f"the Redis Cluster at {self._seed} serves no slots")

    async def _adopt(self, ranges: list[Any], asked: str) -> list[SingleServer | None]:
        by_slot: list[SingleServer | None] = [None] * 16_384
        for first, last, primary, *_ in ranges:
            host = (primary[0] or b"").decode()
            node = self._node(asked if host in ("", "?") else host, int(primary[1]))
            by_slot[first : last + 1] = [node] * (last + 1 - first)
        serving = set(by_slot)
        for place, node in list(self._nodes.items()):
            if node not in serving:
                del self._nodes[place]
                await node.close()
        return by_slot

    def _seed_place(self) -> list[tuple[str, int]]:
        place = (self._seed.arguments.get("host", "localhost"), int(self._seed.arguments.get("port", 6379)))
        return [] if place in self._nodes else [place]

    def _node(self, host: str, port: int) -> SingleServer:
        node = self._nodes.get((host, port))
        if node is None:
            node = SingleServer(self._seed.at(host, port), self._name, self._call_timeout_s)
            self._nodes[(host, port)] = node
        return node


async def run_on(
    link: Link, commands: Sequence[Command], confirmation: Confirmation | None = None, wait_s: float = 0.0
) -> list[Reply]:
    """Run commands on one connection; refusals are among the replies."""
    if confirmation is not None:
        commands = [*commands, *confirmation.commands]
        wait_s += (confirmation.wait_s + _LATE_S) * len(confirmation.commands)
    replies = await link.call(commands, wait_s=wait_s)
    if any(map(needs_scripts, replies)):
        replies = await _repeat_from_first_unknown(link, commands, replies, wait_s)
    for reply in replies:
        if isinstance(reply, ResponseError) and says_replica(reply):
            link.reconnect(reply)
    if confirmation is not None:
        end = len(replies) - len(confirmation.commands)
        confirmation.check(replies[end:])
        del replies[end:]
    return replies


async def _repeat_from_first_unknown(
    link: Link, commands: Sequence[Command], replies: list[Reply], wait_s: float
) -> list[Reply]:
    """Load the scripts and repeat; from the first that did not run, so that WAIT comes last again.

    Whatever is sent together with others is safe to repeat (taking from queues is not, and goes alone).
    """
    first = next(place for place, reply in enumerate(replies) if needs_scripts(reply))
    answers = await link.call([*LOAD_ALL, *commands[first:]], wait_s=wait_s)
    return replies[:first] + answers[len(LOAD_ALL) :]


def _checked(reply: Reply, expected: frozenset[str]) -> Reply:
    if isinstance(reply, ResponseError) and (says_moved(reply) or error_code(reply) not in expected):
        try:
            check(reply)
        except StoreUnavailable as error:
            return error
    return reply


def _all(replies: list[Reply]) -> list[Reply]:
    for reply in replies:
        if isinstance(reply, StoreUnavailable):
            raise reply
    return replies


def _some(replies: list[Reply]) -> list[Reply]:
    if any(not isinstance(reply, StoreUnavailable) for reply in replies):
        return replies
    return _all(replies)
