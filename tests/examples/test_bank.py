"""The bank: no money is made or lost, and no transfer happens twice."""

from __future__ import annotations

from collections import Counter

import lungfish
from examples import bank
from lungfish.testing import crash_everywhere, environment
from tests.local import RunApp


async def checked(client: lungfish.Client, transfers: int) -> tuple[int, int]:
    """Run it; return the sum at the end, and how many transfers there are in the statements."""
    total, audits = await bank.main(client, transfers)
    assert audits == [400, 400, 400], "an audit saw money on its way"
    seen: Counter[str] = Counter()
    for key in ("ann", "bob", "cat", "dan"):
        seen.update(
            id
            for id in await client.entity(bank.Account, key).call(bank.Account.statement)
            if "audit" not in id
        )
    done = {
        number
        for number in range(transfers)
        if await client.orchestration(f"transfer-{number}").result(timeout=60)
    }
    assert seen == {f"transfer-{number}": 2 for number in done}
    return total, len(seen)


async def test_on_the_real_store(run_app: RunApp) -> None:
    async with run_app(bank.app) as runtime:
        total, done = await checked(runtime.client, 40)
        assert total == 400
        assert done > 10


async def test_replayed_at_every_turn() -> None:
    async with environment(bank.app, hosts=2) as env:
        total, _ = await checked(env.client, 20)
        assert total == 400


def test_a_crash_at_any_instant_changes_nothing() -> None:
    async def scenario(client: lungfish.Client) -> tuple[int, int]:
        return await checked(client, 3)

    report = crash_everywhere(bank.app, scenario)
    assert not report.findings
