"""Sinks on a real store: a sender that is started again and again while hosts apply what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import lungfish
from lungfish.runtime.blocking.client import BlockingClient
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("sinks")
ROWS = range(20_000)


@app.entity
class Total(lungfish.Entity):
    total: int = 0
    last: int = -1

    def add(self, row: int) -> None:
        assert row > self.last, "in the order of the rows"
        self.last = row
        self.total += row


class Broken(Exception):
    """The source, in the middle of a row."""


def source(breaks_at: int) -> Iterator[int]:
    for row in ROWS:
        if row == breaks_at:
            raise Broken
        yield row


def send(client: BlockingClient, breaks_at: int) -> lungfish.SinkResult:
    return client.sink("rows").write(
        Total,
        Total.add,
        source(breaks_at),
        key=lambda row: str(row % 11),
        args=lambda row: (row,),
        batch_rows=300,
    )


async def test_every_row_once_over_many_starts(run_app: RunApp, valkey: Server) -> None:
    async with run_app(app) as runtime:

        def senders() -> list[lungfish.SinkResult]:
            results = []
            for breaks_at in (1_000, 1_001, 7_777, 15_000, -1, -1):
                with lungfish.connect_sync(app, hub=runtime.client.hub, url=valkey.url) as client:
                    if breaks_at >= 0:
                        with pytest.raises(Broken):
                            send(client, breaks_at)
                    else:
                        results.append(send(client, breaks_at))
            return results

        first, again = await asyncio.to_thread(senders)
        assert first.position == again.position == len(ROWS)
        assert first.accepted + first.repeated == len(ROWS)
        assert first.accepted <= len(ROWS) - 14_500
        assert again.accepted == 0

        async def total() -> bool:
            states = [await runtime.client.entity(Total, str(key)).state() for key in range(11)]
            return sum(state.total for state in states if state is not None) >= sum(ROWS)

        await until(total, "all rows are applied")
        states = [await runtime.client.entity(Total, str(key)).state() for key in range(11)]
        assert sum(state.total for state in states if state is not None) == sum(ROWS)
