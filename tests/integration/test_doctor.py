"""``lungfish doctor`` on real servers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import lungfish
from lungfish.runtime.cli.main import main
from tests.local import RunApp
from tests.servers import Server, running

app = lungfish.App("doctor")


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value


@app.activity
def ship(what: str) -> str:
    return what


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LUNGFISH_REDIS_URL", "RAY_ADDRESS", "LUNGFISH_HTTP_KEYS"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def codes(result: Result) -> list[str]:
    return [finding["code"] for finding in json.loads(result.stdout)]


async def test_a_hub_that_is_well_and_then_is_not(run_app: RunApp, valkey: Server, hub_name: str) -> None:
    where = ("--redis", valkey.url, "--hub", hub_name)
    async with run_app(app) as runtime:
        await runtime.client.entity(Counter, "a").call(Counter.add, 1)
        well = await asyncio.to_thread(run, *where)
        assert well.exit_code == 0, well.output
        assert " partitions, 1 host, 1 worker\n" in well.output
        assert "a durable write takes" in well.output
        assert well.output.endswith("nothing to find fault with\n")
        opened = await asyncio.to_thread(run, *where, "--http", "0.0.0.0", "--format", "json")
        assert (opened.exit_code, codes(opened)) == (2, ["http-open"])
        lonely = await asyncio.to_thread(run, *where, "--replicas", "1", "--format", "json")
        assert (lonely.exit_code, codes(lonely)) == (2, ["store-replicas"])
    left = await asyncio.to_thread(run, *where, "--format", "json")
    assert (left.exit_code, codes(left)) == (2, ["no-hosts"])


async def test_weak_and_evicting_servers_are_found(tmp_path: Path) -> None:
    with running("--appendfsync", "everysec") as weak:
        missing = await asyncio.to_thread(run, "--redis", weak.url, "--hub", "none", "--format", "json")
        assert codes(missing) == ["hub-unusable", "store-not-durable"]
    with running("--maxmemory-policy", "allkeys-lru", folder=tmp_path / "evicts") as evicts:
        found = await asyncio.to_thread(run, "--redis", evicts.url, "--hub", "none", "--format", "json")
        assert codes(found)[0] == "store-evicts"


def test_a_store_that_is_not_there_is_a_finding() -> None:
    found = run("--redis", "redis://127.0.0.1:1", "--hub", "none")
    assert found.exit_code == 2
    assert "[store-unreachable]" in found.output
