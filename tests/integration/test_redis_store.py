"""The Redis store when servers stop, forget, refuse, move or lag."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from lungfish.runtime.errors import HubMismatch, InvalidArguments, StoreUnavailable, UnsafeStore
from lungfish.runtime.on_redis.link import Address, Link, key_slot
from lungfish.runtime.on_redis.store import RedisStore
from lungfish.runtime.store.store import (
    START,
    Append,
    Appended,
    Commit,
    Committed,
    Delivery,
    HubMeta,
    LeaseLost,
    OutboxEntry,
    Unknown,
)
from tests.servers import Server, ask, eventually, join_cluster, running


@asynccontextmanager
async def opened(url: str, hub: str, **options: object) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, hub, **options)  # type: ignore[arg-type]
    try:
        await store.open(HubMeta(8))
        yield store
    finally:
        await store.close()


def message(sequence: int, target: str = "p:1") -> Append:
    return Append(target, "session", sequence, (b"m%d" % sequence,))


async def test_scripts_that_the_server_forgot_are_loaded_again(valkey: Server, hub_name: str) -> None:
    async with opened(valkey.url, hub_name) as store:
        await store.claim(1, "A", "t")
        ask(valkey.port, "SCRIPT FLUSH")
        assert await store.append([message(1), message(2)]) == [Appended.OK] * 2
        assert await store.commit([Commit(1, "t", 1)]) == [Committed()]


async def test_killed_server_is_unavailable_until_it_is_back(hub_name: str) -> None:
    with running() as server:
        async with opened(server.url, hub_name) as store:
            await store.claim(1, "A", "t")
            await store.append([message(1)])
            commit = Commit(1, "t", 1, mailbox={"r": b"x"})
            await store.commit([commit])
            reading = asyncio.create_task(store.reader().read({"p:2": START}, block_ms=60_000, count=1))
            await asyncio.sleep(0.01)
            server.kill()
            with pytest.raises(StoreUnavailable):
                await reading
            with pytest.raises(StoreUnavailable):
                await store.append([message(2)])
            with pytest.raises(StoreUnavailable, match="cannot connect"):
                await store.commit([commit])
            server.start()
            assert await store.append([message(1), message(2)]) == [Appended.OK] * 2
            assert await store.commit([commit]) == [Committed()]
            assert (await store.claim(1, "A", "t")).mailbox == {"r": b"x"}


async def test_order_is_kept_while_the_connection_is_made(valkey: Server, hub_name: str) -> None:
    link = Link(Address.of(valkey.url), hub_name)
    calls = [asyncio.create_task(link.call([("RPUSH", hub_name, n)])) for n in range(5)]
    while not calls[4].done():  # newcomers must not overtake those who wait for the connection
        calls.append(asyncio.create_task(link.call([("RPUSH", hub_name, len(calls))])))
        await asyncio.sleep(0)
    lengths = [length for [length] in await asyncio.gather(*calls)]
    assert lengths == list(range(1, len(calls) + 1))
    await link.close()


async def test_silent_server_is_given_up(hub_name: str) -> None:
    with running() as server:
        async with opened(server.url, hub_name, call_timeout_s=0.2) as store:
            server.process.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(StoreUnavailable, match="no answer in time"):
                    await store.append([message(1)])
                with pytest.raises(StoreUnavailable):
                    await store.append([message(1)])
            finally:
                server.process.send_signal(signal.SIGCONT)
            assert await store.append([message(1), message(2)]) == [Appended.OK] * 2


async def test_commit_that_meets_full_memory_is_refused_as_a_whole(hub_name: str) -> None:
    with running() as server:
        async with opened(server.url, hub_name) as store:
            await store.claim(1, "A", "t")
            await store.append([message(1)])
            entry = (await store.reader().read({"p:1": START}, block_ms=0, count=1))["p:1"][0]
            commit = Commit(
                1,
                "t",
                1,
                position=entry.id,
                mailbox={"r": b"x"},
                histories={"o": [b"e"]},
                deliveries=[Delivery("p:2", 1, (b"d",))],
            )
            ask(server.port, "CONFIG SET maxmemory 1")
            with pytest.raises(StoreUnavailable, match="memory"):
                await store.commit([commit])
            with pytest.raises(StoreUnavailable, match="memory"):
                await store.append([message(2)])
            positions = {"p:1": START, "p:2": START}
            assert list(await store.reader().read(positions, block_ms=0, count=9)) == ["p:1"]
            ask(server.port, "CONFIG SET maxmemory 0")
            assert await store.commit([commit]) == [Committed()]
            assert list(await store.reader().read(positions, block_ms=0, count=9)) == ["p:2"]
            assert (await store.instances([(1, "o")], history=True))[0].history == [b"e"]


async def test_evicting_server_is_refused(hub_name: str) -> None:
    with running("--maxmemory-policy", "allkeys-lru") as server:
        store = RedisStore(server.url, hub_name)
        with pytest.raises(UnsafeStore, match="allkeys-lru"):
            await store.open()
        await store.close()


async def test_durability_is_reported(
    valkey: Server, hub_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(valkey.url, hub_name) as store:
        assert store.durability == "fsync"
        assert not caplog.records
    with running("--appendfsync", "everysec") as server:
        async with opened(server.url, hub_name) as store:
            assert store.durability == "everysec"
            assert "last second" in caplog.text


async def test_server_that_forbids_config(hub_name: str, caplog: pytest.LogCaptureFixture) -> None:
    with running("--rename-command", "CONFIG", "") as server:
        async with opened(server.url, hub_name) as store:
            assert store.durability == "unknown"
            assert "does not tell" in caplog.text


async def test_opening_again_does_not_judge_the_server_again(
    hub_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running("--appendfsync", "everysec") as server:
        async with opened(server.url, hub_name) as store:
            ask(server.port, "CONFIG RESETSTAT")
            assert await store.open() == HubMeta(8)
            assert b"cmdstat_config|get" not in ask(server.port, "INFO commandstats")
            assert caplog.text.count("last second") == 1
            with pytest.raises(HubMismatch):
                await store.open(HubMeta(9))
            await store.close()
            await store.open()
            assert caplog.text.count("last second") == 2


async def test_password_and_database(hub_name: str) -> None:
    with running("--requirepass", "secret") as server:
        url = f"redis://:secret@127.0.0.1:{server.port}/3"
        async with opened(url, hub_name) as store:
            assert await store.append([message(1)]) == [Appended.OK]
        with pytest.raises(StoreUnavailable, match="Authentication required"):
            await RedisStore(server.url, hub_name).open()


async def test_single_server_is_no_cluster(valkey: Server, hub_name: str) -> None:
    store = RedisStore(f"redis+cluster://127.0.0.1:{valkey.port}", hub_name)
    with pytest.raises(InvalidArguments, match="not part of a Redis Cluster"):
        await store.open()


async def test_close_leaves_no_connection(valkey: Server, hub_name: str) -> None:
    async with opened(valkey.url, hub_name) as store:
        await store.reader().read({"p:1": START}, block_ms=1, count=1)
        await store.queue_reader("w").take(["a", "b"], block_ms=1, count=1)
        assert hub_name.encode() in ask(valkey.port, "CLIENT LIST")
    await asyncio.to_thread(
        eventually, lambda: hub_name.encode() not in ask(valkey.port, "CLIENT LIST"), "connections to close"
    )


# --- queues ------------------------------------------------------------------------------


async def test_take_keeps_what_it_got_when_another_queue_refuses(valkey: Server, hub_name: str) -> None:
    """A group can go while its reader lives (in a failover): what the others gave must not be stranded."""
    queues = ["lost", "work"]
    async with opened(valkey.url, hub_name) as store:
        reader = store.queue_reader("w")
        assert await reader.take(queues, block_ms=0, count=8) == []
        await store.append([Append("q:work", "p:1", n, (b"%d" % n,)) for n in range(1, 5)])
        taken: list[bytes] = []
        for _ in range(4):
            ask(valkey.port, f"DEL {{{hub_name}:q:lost}}")
            taken += [entry.payload for entry in await reader.take(queues, block_ms=0, count=3)]
        assert sorted(taken) == [b"1", b"2", b"3", b"4"]
        await store.append([Append("q:lost", "p:1", 1, (b"new",))])
        assert [entry.payload for entry in await reader.take(queues, block_ms=10, count=8)] == [b"new"]


async def test_queue_that_is_new_strands_nothing_of_the_others(valkey: Server, hub_name: str) -> None:
    async with opened(valkey.url, hub_name) as store:
        await store.queue_reader("old").take(["work"], block_ms=0, count=1)
        await store.append([Append("q:work", "p:1", 1, (b"a", b"b"))])
        reader = store.queue_reader("new")
        taken: list[bytes] = []
        for _ in range(3):
            taken += [entry.payload for entry in await reader.take(["a", "work"], block_ms=10, count=8)]
        assert taken == [b"a", b"b"]


# --- replicas ----------------------------------------------------------------------------


@asynccontextmanager
async def replicated(*options: str) -> AsyncIterator[tuple[Server, Server]]:
    """Run a primary and a replica that has caught up."""
    at_once = ("--repl-diskless-sync-delay", "0")
    with (
        running(*at_once) as primary,
        running("--replicaof", "127.0.0.1", str(primary.port), *options) as replica,
    ):
        await caught_up(replica)
        yield primary, replica


async def caught_up(replica: Server) -> None:
    def is_up() -> bool:
        linked = b"master_link_status:up" in ask(replica.port, "INFO replication")
        # A fresh replica confirms nothing to be on disk before it has rewritten its append-only file.
        writing = (b"aof_rewrite_in_progress:1", b"aof_rewrite_scheduled:1")
        persistence = ask(replica.port, "INFO persistence")
        return linked and not any(state in persistence for state in writing)

    await asyncio.to_thread(eventually, is_up, "the replica to catch up")


async def test_replicated_mode_waits_for_the_replica(hub_name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        replicated() as (primary, replica),
        opened(primary.url, hub_name, replicas=1, replica_timeout_s=0.5) as store,
    ):
        assert store.durability == "replicated"
        knows_waitaof = b"waitaof" in ask(primary.port, "COMMAND INFO WAITAOF").lower()
        warned = [record for record in caplog.records if record.name.startswith("lungfish")]
        assert bool(warned) is not knows_waitaof
        await store.claim(1, "A", "t")
        assert await store.append([message(1)]) == [Appended.OK]
        commit = Commit(1, "t", 1, deliveries=[Delivery("p:2", 1, (b"d",))])
        expected = Committed((OutboxEntry("1-0", "p:2", 1, (b"d",)),))
        assert await store.commit([commit]) == [expected], "nothing can be read before replicas have it"
        assert ask(replica.port, f"EXISTS {{{hub_name}:1}}:owner") == b":1\r\n"
        replica.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
                await store.append([message(2)])
            with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
                await store.add_pools({"gpu": 2})
            other = RedisStore(primary.url, hub_name, replicas=1, replica_timeout_s=0.05)
            with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
                await other.open()
            await other.close()
        finally:
            replica.process.send_signal(signal.SIGCONT)
        assert await store.append([message(2)]) == [Appended.OK]
        found = await store.reader().read({"p:1": START}, block_ms=0, count=9)
        assert len(found["p:1"]) == 2


@pytest.mark.parametrize("kind", ["append", "commit"])
async def test_repeat_on_a_new_connection_waits_for_the_replica_too(hub_name: str, kind: str) -> None:
    async with (
        replicated() as (primary, replica),
        opened(primary.url, hub_name, replicas=1, replica_timeout_s=0.2) as store,
    ):
        await store.claim(1, "A", "t")
        commit = Commit(1, "t", 1, deliveries=[Delivery("p:2", 1, (b"d",))])

        async def write() -> object:
            return await (store.append([message(1)]) if kind == "append" else store.commit([commit]))

        replica.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
                    await write()
                ask(primary.port, "CLIENT KILL TYPE normal")
                with pytest.raises(StoreUnavailable, match="lost the store"):
                    await write()
        finally:
            replica.process.send_signal(signal.SIGCONT)
        assert await write()
        found = await store.reader().read({"p:1": START}, block_ms=0, count=9)
        assert len(found.get("p:1", ())) == (1 if kind == "append" else 0)


async def test_writes_that_wait_for_a_replica_one_behind_the_other_keep_their_connection(
    hub_name: str,
) -> None:
    async with (
        replicated() as (primary, replica),
        opened(primary.url, hub_name, replicas=1, replica_timeout_s=0.1, call_timeout_s=0.3) as store,
    ):
        replica.process.send_signal(signal.SIGSTOP)
        try:
            calls = [store.append([message(1, f"p:{partition}")]) for partition in range(5)]
            failures = await asyncio.gather(*calls, return_exceptions=True)
        finally:
            replica.process.send_signal(signal.SIGCONT)
        assert all("only 0 of 1 replicas" in str(failure) for failure in failures), failures


async def test_replica_without_disk_is_warned_about(hub_name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        replicated("--appendonly", "no") as (primary, _),
        opened(primary.url, hub_name, replicas=1, replica_timeout_s=0.1) as store,
    ):
        assert "not the power loss of all" in caplog.text
        assert await store.append([message(1)]) == [Appended.OK]


async def test_replica_refuses_and_the_link_is_made_anew(hub_name: str) -> None:
    with running() as primary, running() as other:
        async with opened(other.url, hub_name) as store:
            await store.append([message(1)])
            ask(other.port, f"REPLICAOF 127.0.0.1 {primary.port}")
            with pytest.raises(StoreUnavailable):
                await store.append([message(2)])
            ask(other.port, "REPLICAOF NO ONE")
            await store.open(HubMeta(8))
            assert await store.append([message(1)]) == [Appended.OK]


async def test_a_replica_does_not_say_where_inboxes_end(hub_name: str) -> None:
    """It may lack what was acknowledged last; and the link must find the primary again."""
    with running() as primary, running() as other:
        async with opened(other.url, hub_name) as store:
            assert await store.hand("nobody", [1], b"x") is False
            ask(other.port, f"REPLICAOF 127.0.0.1 {primary.port}")
            with pytest.raises(StoreUnavailable):
                await store.hand("nobody", [1], b"x")
            assert store.hands_over, "that passes"
            ask(other.port, "REPLICAOF NO ONE")
            assert await store.hand("nobody", [1], b"x") is False


# --- Cluster -----------------------------------------------------------------------------


async def test_moved_slot_is_unavailable_once(valkey_cluster: list[Server], hub_name: str) -> None:
    async with opened(valkey_cluster[0].url, hub_name) as store:
        await store.claim(1, "A", "t")
        assert await store.append([message(1)]) == [Appended.OK]
        slot = key_slot(f"{{{hub_name}:1}}:inbox".encode())
        source = min(2, slot // 5461)
        target = (source + 1) % 3
        move_slot(valkey_cluster, slot, source, target)
        try:
            with pytest.raises(StoreUnavailable):
                await store.append([message(2)])
            assert await store.append([message(2)]) == [Appended.OK]
            assert await store.commit([Commit(1, "t", 1)]) == [Committed()]
            assert await store.commit([Commit(1, "x", 2), Commit(2, "x", 2)]) == [LeaseLost("A"), LeaseLost()]
        finally:
            move_slot(valkey_cluster, slot, target, source)


def move_slot(servers: list[Server], slot: int, source: int, target: int) -> None:
    ids = [ask(server.port, "CLUSTER MYID").split(b"\r\n")[1].decode() for server in servers]
    ask(servers[target].port, f"CLUSTER SETSLOT {slot} IMPORTING {ids[source]}")
    ask(servers[source].port, f"CLUSTER SETSLOT {slot} MIGRATING {ids[target]}")
    raw = ask(servers[source].port, f"CLUSTER GETKEYSINSLOT {slot} 100").decode().split("\r\n")
    for key in (line for line in raw if line and line[0] not in "*$"):
        ask(servers[source].port, f'MIGRATE 127.0.0.1 {servers[target].port} "{key}" 0 5000')
    for server in (servers[target], servers[source], *servers):
        ask(server.port, f"CLUSTER SETSLOT {slot} NODE {ids[target]}")


async def test_cluster_is_found_through_any_server(valkey_cluster: list[Server], hub_name: str) -> None:
    for server in valkey_cluster:
        async with opened(f"redis+cluster://127.0.0.1:{server.port}", hub_name) as store:
            appends = [message(1, f"p:{p}") for p in range(8)]
            assert await store.append(appends) == [Appended.OK] * 8


async def test_shards_that_are_well_answer_while_one_is_away() -> None:
    hub = "away"  # its keys are spread over all shards, as the asserts would tell
    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    with ExitStack() as stack:
        servers = [stack.enter_context(running(*options)) for _ in range(3)]
        join_cluster(servers)
        places = [min(2, key_slot(f"{{{hub}:{p}}}:owner".encode()) // 5461) for p in range(8)]
        queues = ["a", "b", "c"]  # each on a server of its own; every lane of the lost one takes a time-out
        at_queues = [min(2, key_slot(f"{{{hub}:q:{q}}}".encode()) // 5461) for q in queues]
        # Not the one that has the hub's own keys.
        gone = next(at for at in range(3) if at != min(2, key_slot(f"{{{hub}}}:meta".encode()) // 5461))
        url = servers[(gone + 1) % 3].url
        async with opened(url, hub, call_timeout_s=0.3) as store:
            for partition in range(8):
                await store.claim(partition, "A", "t")
            worker = store.queue_reader("w")
            assert await worker.take(queues, block_ms=0, count=99) == []
            appends = [message(1, f"p:{partition}") for partition in range(8)]
            fills = [message(1, f"q:{queue}") for queue in queues]
            assert await store.append([*appends, *fills]) == [Appended.OK] * 11
            commits = [Commit(partition, "t", 1) for partition in range(8)]
            positions = {f"p:{partition}": START for partition in range(8)}
            servers[gone].process.send_signal(signal.SIGSTOP)
            try:
                for turn in range(3):
                    began_s = asyncio.get_running_loop().time()
                    outcomes = await store.commit(commits)
                    assert [isinstance(outcome, Unknown) for outcome in outcomes] == [
                        p == gone for p in places
                    ]
                    expected = [Appended.UNKNOWN if p == gone else Appended.OK for p in places]
                    assert await store.append(appends) == expected
                    assert [row.known for row in await store.owners()] == [p != gone for p in places]
                    found = await store.reader().read(positions, block_ms=0, count=9)
                    assert list(found) == [f"p:{n}" for n, p in enumerate(places) if p != gone]
                    took_s = asyncio.get_running_loop().time() - began_s
                    assert turn == 0 or took_s < 0.25, "it is not waited for again and again"
                taken = await worker.take(queues, block_ms=0, count=99)
                here = {queue for queue, at in zip(queues, at_queues, strict=True) if at != gone}
                assert {entry.queue for entry in taken} == here
                assert {entry.queue for entry in await worker.retake(queues, count=99)} == here
                away = [commit for commit, at in zip(commits, places, strict=True) if at == gone]
                with pytest.raises(StoreUnavailable):
                    await store.commit(away)
            finally:
                servers[gone].process.send_signal(signal.SIGCONT)

            async def all_is_well() -> None:
                while await store.append(appends) != [Appended.OK] * 8:
                    await asyncio.sleep(0.05)

            await asyncio.wait_for(all_is_well(), 60)
            assert await store.commit(commits) == [Committed()] * 8
            assert all(row.known and row.number == 1 for row in await store.owners())
            assert len(await store.reader().read(positions, block_ms=0, count=9)) == 8
