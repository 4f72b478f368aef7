"""What a server tells of its health, for ``lungfish doctor``. It writes one field that hubs have anyway."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Final

from lungfish.runtime.errors import LungfishError
from lungfish.runtime.on_redis.checks import read_persistence
from lungfish.runtime.on_redis.keys import Keys
from lungfish.runtime.on_redis.link import Address
from lungfish.runtime.on_redis.persistence import Persistence, parse_info
from lungfish.runtime.on_redis.servers import ADMIN, WRITE, Call, Servers, connect

from .doctor import ServerFacts, StoreFacts

#: How many durable writes are timed, one after the other.
_WRITES: Final = 7


async def read_store(url: str, *, hub: str | None, replicas: int) -> StoreFacts:
    """Look at a store; one that cannot be reached is a fact, too.

    Args:
        hub: one that exists, to time a durable write; None: nothing is written.
    """
    address = Address.of(url)
    try:
        servers = await connect(address, "lungfish:doctor")
    except LungfishError as error:
        return StoreFacts(str(address), str(error))
    try:
        return StoreFacts(
            str(address),
            servers=await _servers(servers, str(address)),
            replicas=replicas,
            write_ms=None if hub is None else await _write_ms(servers, Keys(hub)),
            skew_ms=await _skew_ms(servers),
        )
    except LungfishError as error:
        return StoreFacts(str(address), str(error))
    finally:
        await servers.close()


async def _servers(servers: Servers, where: str) -> tuple[ServerFacts, ...]:
    settings = await read_persistence(servers)
    answers = await servers.everywhere([("INFO",)])
    found = []
    for number, (persistence, (answer,)) in enumerate(zip(settings, answers, strict=True), 1):
        info = parse_info(answer.decode()) if isinstance(answer, bytes) else {}
        name = where if servers.is_single else f"primary {number} of {where}"
        found.append(_facts(name, persistence, info))
    return tuple(found)


def _facts(name: str, persistence: Persistence, info: Mapping[str, str]) -> ServerFacts:
    return ServerFacts(
        name,
        version=info.get("redis_version", ""),
        persistence=persistence,
        replicas=int(info.get("connected_slaves", 0)),
        aof_failing=info.get("aof_last_write_status", "ok") != "ok",
        used_bytes=int(info.get("used_memory", 0)),
        limit_bytes=int(info.get("maxmemory", 0)),
    )


async def _write_ms(servers: Servers, keys: Keys) -> float:
    probe: Call = (keys.meta, ("HSET", keys.meta, "probed", 1))
    times_ms = []
    for _ in range(_WRITES):
        begun_s = time.perf_counter()
        await servers.run(WRITE, [probe])
        times_ms.append((time.perf_counter() - begun_s) * 1_000)
    return statistics.median(times_ms)


async def _skew_ms(servers: Servers) -> int:
    before_s = time.time()
    seconds, micros = (await servers.run(ADMIN, [("", ("TIME",))]))[0]
    middle_s = (before_s + time.time()) / 2
    return round((int(seconds) + int(micros) / 1_000_000 - middle_s) * 1_000)
