"""What does a commit cost as the state grows? ``python -m benchmarks.state_size``.

One entity, one change per commit, one commit at a time, fsync. Compared: the whole snapshot (what
Lungfish does), only the changed one of 16 top-level fields, only the changed chunk of 16 KiB. The second
and third encode the whole state, too: that is how a change is found.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgpack
import uvloop

from lungfish.runtime.on_redis import embedded
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.store.store import Commit, Committed, Store

from .common import expect

FIELDS = 16
CHUNK = 16_384
SIZES = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 4_000_000)
Rows = dict[tuple[str, str], bytes | None]


def state_of(size: int) -> dict[str, list[str]]:
    """Return a state of about so many bytes: fields that are lists of short texts."""
    each = max(1, size // FIELDS // 34)
    return {f"field{n}": [f"{at:032d}" for at in range(each)] for n in range(FIELDS)}


def whole(state: dict[str, list[str]], known: dict[str, bytes]) -> Rows:
    """Write everything."""
    data: bytes = msgpack.packb(state)
    known["all"] = data
    return {("E", "key"): data}


def changed_fields(state: dict[str, list[str]], known: dict[str, bytes]) -> Rows:
    """Write the fields whose bytes have changed."""
    rows: Rows = {}
    for name, value in state.items():
        data: bytes = msgpack.packb(value)
        if known.get(name) != data:
            known[name] = data
            rows["E", f"key#{name}"] = data
    return rows


def changed_chunks(state: dict[str, list[str]], known: dict[str, bytes]) -> Rows:
    """Write the chunks of the snapshot that have changed."""
    data: bytes = msgpack.packb(state)
    rows: Rows = {}
    for at in range(0, len(data), CHUNK):
        chunk = data[at : at + CHUNK]
        if known.get(str(at)) != chunk:
            known[str(at)] = chunk
            rows["E", f"key#{at}"] = chunk
    return rows


async def median_ms(store: Store, size: int, split: Callable[..., Rows], number: int, rounds: int) -> float:
    """Return the median time of a change, from the state to the acknowledged commit (ms)."""
    state, known, took = state_of(size), dict[str, bytes](), []
    for round_ in range(rounds + 2):
        state["field3"][0] = f"{round_:032d}"
        began = time.perf_counter()
        rows = split(state, known)
        outcome = await store.commit([Commit(0, "token", number + round_, snapshots=rows)])
        took.append((time.perf_counter() - began) * 1_000)
        expect(outcome, [Committed()], "the commit")
    return statistics.median(took[2:])


async def measure(url: str) -> None:
    """Print the table."""
    store = open_store(url, "state-size")
    await store.open()
    await store.claim(0, "host", "token")
    number = 1
    print(f"{'state':>10}  {'whole':>9}  {'fields':>9}  {'chunks':>9}   (ms per commit, median)")
    for size in SIZES:
        rounds = 200 if size < 100_000 else 40
        cells = []
        for split in (whole, changed_fields, changed_chunks):
            cells.append(await median_ms(store, size, split, number, rounds))
            number += rounds + 2
        print(f"{size:>10,}  " + "  ".join(f"{cell:9.3f}" for cell in cells))
    await store.close()


def main() -> None:
    """Run with a store of its own."""
    parent = Path(embedded.FOLDER)
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="size-", dir=parent)).resolve()
    try:
        with (
            embedded.start_child(folder) as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(measure(server.url))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
