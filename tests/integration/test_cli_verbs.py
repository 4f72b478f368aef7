"""The command line against a running hub: each verb, each output, wrong input."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import lungfish
from lungfish import OrchestrationContext
from lungfish.runtime.cli.main import main
from lungfish.runtime.client.client import Client
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.on_redis.open_store import open_store
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server

app = lungfish.App("verbs")
broken = {"fail": True}


@app.entity
class Cart(lungfish.Entity):
    total: int = 0

    def add(self, n: int = 1) -> int:
        self.total += n
        return self.total


@app.activity
def double(n: int) -> int:
    return 2 * n


@app.orchestration
async def order(ctx: OrchestrationContext, n: int = 1) -> int:
    ctx.on_query("stage", lambda: "open")
    ctx.on_update("add", lambda by: n + by)
    await ctx.wait_for_external_event("approved")
    return n


@app.orchestration
async def twice(ctx: OrchestrationContext, n: int) -> int:
    return await ctx.call_activity(double, n)


@app.activity
def may_fail() -> str:
    if broken["fail"]:
        raise ValueError("no stock")
    return "done"


@app.orchestration
async def fragile(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(may_fail)


Run = Callable[..., Coroutine[Any, Any, Result]]


@pytest.fixture
async def runtime(run_app: RunApp) -> AsyncIterator[LocalRuntime]:
    broken["fail"] = True
    async with run_app(app) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: LocalRuntime) -> Client:
    return runtime.client


@pytest.fixture
def run(runtime: LocalRuntime, valkey: Server, hub_name: str) -> Run:
    """Run a command beside the hub."""

    async def run(*args: str, input: str | None = None) -> Result:
        given = [*args, "--redis", valkey.url, "--hub", hub_name]
        return await asyncio.to_thread(CliRunner().invoke, main, given, input=input)

    return run


async def said(run: Run, *args: str, code: int = 0, input: str | None = None) -> str:
    result = await run(*args, input=input)
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return str(result.stdout)


async def refused(run: Run, *args: str) -> str:
    result = await run(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return str(result.stderr)


async def waits(client: Client, *ids: str) -> None:
    for id in ids:
        await client.start(order, id=id, tags={"shop": id})

        async def waiting(id: str = id) -> bool:
            return "approved" in (await client.why(id)).text

        await until(waiting, f"{id} to wait")


async def test_an_event_for_all_that_a_query_finds(run: Run, client: Client) -> None:
    await waits(client, "o-1", "o-2", "other")
    assert "2 to be done" in await said(run, "raise-event", "--prefix", "o-", "approved", "--dry-run")
    assert "nobody confirmed" in await refused(run, "raise-event", "--prefix", "o-", "approved")
    done = await said(run, "raise-event", "--prefix", "o-", "approved", '{"by": 1}', "--yes")
    assert sorted(done.split()) == ["o-1", "o-2"]
    for id in ("o-1", "o-2"):
        assert await client.orchestration(id).result(timeout=60) == 1
    assert not (await client.orchestration("other").status()).runtime_status.is_terminal
    assert "INSTANCE EVENT" in await refused(run, "raise-event", "other")
    assert "INSTANCE EVENT" in await refused(run, "raise-event", "--prefix", "o-", "a", "b", "c")


async def test_start_wait_and_the_result(run: Run) -> None:
    assert (await said(run, "start", "twice", "21", "--id", "a")).strip() == "a"
    assert (await said(run, "instances", "wait", "a")).strip() == "42"
    assert (await said(run, "start", "twice", "--named", "n=4", "--wait")).splitlines()[-1] == "8"
    await said(run, "start", "fragile", "--id", "f", code=0)
    assert await said(run, "instances", "wait", "f", code=1) == ""
    await said(run, "start", "fragile", "--wait", code=1)


async def test_an_entity_is_named_as_it_is_printed(run: Run) -> None:
    assert json.loads(await said(run, "entities", "call", "--timeout", "20", "Cart/a/b", "add", "5")) == 5
    assert json.loads(await said(run, "entities", "show", "Cart/a/b")) == {"total": 5}
    assert json.loads(await said(run, "entities", "show", "Cart", "a/b")) == {"total": 5}
    assert "argument" in await refused(run, "entities", "call", "Cart", "a", "add", "no/number")


async def test_a_bare_group_lists(run: Run, client: Client) -> None:
    await waits(client, "o-1")
    assert "o-1" in await said(run, "instances")
    assert "has no schedules" in await said(run, "schedules")
    assert "default" in await said(run, "queues")
    await client.entity(Cart, "7").call(Cart.add)
    listed = ["entities", "list", "--app", f"{__name__}:app", "-o", "json"]
    assert json.loads(await said(run, *listed)) == [{"type": "Cart", "entities": 1}]
    assert "name a type" in await refused(run, "entities")


async def test_what_goes_into_a_pipe_is_not_folded(run: Run, client: Client) -> None:
    long = "a-rather-long-name-of-an-order-that-somebody-chose-for-it"
    await waits(client, long)
    (line,) = [line for line in (await said(run, "instances", "list")).splitlines() if long in line]
    assert "Running" in line


async def test_list_in_each_form(run: Run, client: Client) -> None:
    await waits(client, "o-1", "o-2", "x-1")
    table = await said(run, "instances", "list")
    assert all(word in table for word in ("instance", "o-1", "o-2", "x-1", "order", "Running"))
    assert (await said(run, "instances", "list", "-o", "ids", "--oldest")).split() == ["o-1", "o-2", "x-1"]
    assert (await said(run, "instances", "list", "-o", "ids")).split() == ["x-1", "o-2", "o-1"]
    found = json.loads(await said(run, "instances", "list", "-o", "json", "--prefix", "o-"))
    assert {each["instance"] for each in found} == {"o-1", "o-2"}
    assert (await said(run, "instances", "list", "-o", "ids", "--tag", "shop=o-2")).split() == ["o-2"]
    assert (await said(run, "instances", "list", "-o", "ids", "--name", "twice")) == ""
    assert len((await said(run, "instances", "list", "-o", "ids", "--since", "1h")).split()) == 3
    assert (await said(run, "instances", "list", "-o", "ids", "--since", "2100-01-01")) == ""
    assert "no such instances" in await said(run, "instances", "list", "--status", "Failed")
    assert "and more: --limit 10" in await said(run, "instances", "list", "--limit", "1")


async def test_show_and_history(run: Run, client: Client) -> None:
    await waits(client, "o-1")
    shown = await said(run, "instances", "show", "o-1")
    assert "why: o-1 waits for the external event 'approved'" in shown
    assert "ExecutionStarted" in shown
    told = json.loads(await said(run, "instances", "show", "o-1", "-o", "json"))
    assert (told["instance_id"], told["name"], told["history"][1]["event"]) == (
        "o-1",
        "order",
        "ExecutionStarted",
    )
    assert "TurnStarted" in (await said(run, "instances", "history", "o-1", "-o", "ids")).split()
    assert json.loads(await said(run, "instances", "history", "o-1", "-o", "json"))
    await said(run, "raise-event", "o-1", "approved", '{"by": 1}')
    followed = await said(run, "instances", "events", "o-1")
    assert "EventRaised  name=approved" in followed
    assert "ExecutionCompleted" in followed


async def test_query_update_and_why(run: Run, client: Client) -> None:
    await waits(client, "o-1")
    assert json.loads(await said(run, "query", "o-1", "stage")) == "open"
    assert json.loads(await said(run, "update", "o-1", "add", "2")) == 3
    text = await said(run, "why", "o-1")
    assert text.startswith("o-1 waits for the external event 'approved' since ")
    assert "→ raise event 'approved' for o-1" in text
    chain = json.loads(await said(run, "why", "o-1", "-o", "json"))["chain"]
    assert [(each["kind"], each["depth"]) for each in chain] == [("event", 0)]
    assert (await said(run, "why", "o-1", "-o", "ids")).split() == ["o-1"]
    assert "is idle" in await said(run, "why", "Cart/1") or "does not exist" in await said(
        run, "why", "Cart/1"
    )
    assert "1 live worker" in await said(run, "why", "q:default")


async def test_steering_one_and_many(run: Run, client: Client) -> None:
    await waits(client, "o-1", "o-2", "x-1")
    await said(run, "instances", "suspend", "o-1", "--reason", "audit")
    assert "is suspended (audit)" in await said(run, "why", "o-1")
    await said(run, "instances", "resume", "o-1")
    assert "nobody confirmed; to terminate without being asked, add --yes" in await refused(
        run, "instances", "terminate", "--prefix", "o-"
    )
    await said(run, "instances", "terminate", "x-1", input="n\n", code=2)
    assert (await said(run, "instances", "list", "-o", "ids", "--status", "Running")).split() != []
    assert (await said(run, "instances", "terminate", "--prefix", "o-", "--yes")).split() == ["o-1", "o-2"]
    await said(run, "instances", "cancel", "x-1", input="y\n")
    assert "purge: 2 to be done; nothing was" in await said(
        run, "instances", "purge", "--prefix", "o-", "--dry-run"
    )
    assert "Running" in await refused(run, "instances", "purge", "--status", "Running", "--yes")

    async def all_ended() -> bool:
        return not (await said(run, "instances", "list", "-o", "ids", "--status", "Running")).split()

    await until(all_ended, "all to end")
    assert (await said(run, "instances", "restart", "x-1", "--yes")).split() == ["x-1"]
    await said(run, "instances", "terminate", "x-1", "--yes")
    purged = await said(run, "instances", "purge", "--status", "Terminated", "--yes")
    assert set(purged.split()) == {"o-1", "o-2", "x-1"}
    assert await said(run, "instances", "list", "-o", "ids") == ""


async def test_what_cannot_be_done_to_one_is_done_to_the_others(run: Run, client: Client) -> None:
    await waits(client, "o-1", "o-2")
    await said(run, "instances", "terminate", "o-1", "--yes")
    result = await run("instances", "purge", "o-1", "o-2", "--yes")
    assert result.exit_code == 1
    assert result.stdout.split() == ["o-1"]
    assert "o-2: " in result.stderr
    assert "purge: 1 done, 1 failed" in result.stderr


async def test_rewind_and_fork(run: Run, client: Client) -> None:
    handle = await client.start(fragile, id="f")
    with pytest.raises(lungfish.OrchestrationFailed):
        await handle.result(20)
    broken["fail"] = False
    await said(run, "instances", "rewind", "f")
    assert json.loads(await said(run, "instances", "wait", "f")) == "done"
    assert (await said(run, "instances", "fork", "f", "--at", "3", "--id", "g")).strip() == "g"
    assert json.loads(await said(run, "instances", "wait", "g")) == "done"


async def test_entities(run: Run, client: Client) -> None:
    assert json.loads(await said(run, "entities", "call", "Cart", "7", "add", "5")) == 5
    await said(run, "entities", "signal", "Cart", "8", "add", "--named", "n=2")

    async def applied() -> bool:
        return await client.entity(Cart, "8").state() is not None

    await until(applied, "the signal")
    assert (await said(run, "entities", "list", "Cart", "-o", "ids")).split() == ["7", "8"]
    assert json.loads(await said(run, "entities", "list", "Cart", "--states", "-o", "json"))[0]["state"] == {
        "total": 5
    }
    assert "key" in await said(run, "entities", "list", "Cart")
    assert json.loads(await said(run, "entities", "show", "Cart", "7")) == {"total": 5}
    assert json.loads(await said(run, "entities", "watch", "Cart", "7", "--count", "1")) == {"total": 5}
    await said(run, "entities", "edit", "Cart", "7", '{"total": 9}', "--reason", "wrong sum", "--yes")
    assert json.loads(await said(run, "entity", "show", "Cart", "7")) == {"total": 9}
    await said(run, "entities", "purge", "Cart/7", "--reason", "test", "--yes")
    assert (await said(run, "entities", "list", "Cart", "-o", "ids")).split() == ["8"]
    await said(run, "entities", "purge", "Cart", "7", "8", "--reason", "test", "--yes")
    assert await said(run, "entities", "list", "Cart", "-o", "ids") == ""


async def test_queues(run: Run) -> None:
    assert "default" in (await said(run, "queues", "list", "-o", "ids")).split()
    (row,) = json.loads(await said(run, "queues", "set", "default", "--concurrency", "3", "-o", "json"))
    assert row["concurrency"] == 3
    (row,) = json.loads(await said(run, "queues", "pause", "default", "-o", "json"))
    assert row["paused"] is True
    assert "queue default is paused" in await said(run, "queues", "show", "default")
    await said(run, "queues", "resume", "default")
    (row,) = json.loads(await said(run, "queues", "set", "default", "--concurrency", "none", "-o", "json"))
    assert row["concurrency"] is None
    await said(run, "queues", "reset", "default")


async def test_schedules(run: Run) -> None:
    await said(run, "schedules", "create", "nightly", "twice", "2", "--cron", "0 9 * * *")
    assert (await said(run, "schedules", "list", "-o", "ids")).split() == ["nightly"]
    assert json.loads(await said(run, "schedules", "show", "nightly"))["target"] == "twice"
    started = (await said(run, "schedules", "trigger", "nightly")).strip()
    assert json.loads(await said(run, "instances", "wait", started)) == 4
    await said(run, "schedules", "pause", "nightly", "--note", "holidays")
    (row,) = json.loads(await said(run, "schedules", "list", "-o", "json"))
    assert row["paused"] is True
    await said(run, "schedules", "resume", "nightly")
    await said(run, "schedules", "delete", "nightly", "--yes")
    assert "has no schedules" in await said(run, "schedules", "list")


async def test_hosts_workers_and_top(run: Run, runtime: LocalRuntime) -> None:
    assert (await said(run, "hosts", "-o", "ids")).split() == [runtime.hosts[0].host_id]
    assert json.loads(await said(run, "workers", "-o", "json"))[0]["state"] == "alive"
    picture = await said(run, "top", "--once")
    assert "32 partitions, 0 without a host" in picture
    assert "waiting: inbox" in picture


async def test_dead_letters(run: Run, valkey: Server, hub_name: str, client: Client) -> None:
    async with Client(lambda: open_store(valkey.url, hub_name)) as other:
        for _ in range(2):
            await other.entity("Cart", "5").signal("no_such_operation")

    async def set_aside() -> bool:
        return len((await said(run, "dead-letters", "list", "-o", "ids")).split()) == 2

    await until(set_aside, "two messages to be set aside")
    first, _ = (await said(run, "dead-letters", "list", "--target", "Cart/5", "-o", "ids")).split()
    assert "say which" in await refused(run, "dead-letters", "delete")
    assert "no such message" in await refused(run, "dead-letters", "delete", "0:1-1")
    assert (await said(run, "dead-letters", "delete", first, "--yes")).split() == [first]
    await said(run, "dead-letters", "replay", "--target", "Cart")
    await said(run, "dead-letters", "list")


async def test_export_and_replay(
    run: Run, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.run(twice, 4, id="t")
    file = tmp_path / "t.json"
    await said(run, "export", "t", "-f", str(file))
    assert json.loads(await said(run, "export", "t"))["instance_id"] == "t"
    result = CliRunner().invoke(main, ["replay", str(file), "tests.integration.test_cli_verbs:app"])
    assert (result.exit_code, "does what the history says" in result.stderr) == (0, True)
    (tmp_path / "changed.py").write_text(
        "import lungfish\napp = lungfish.App('verbs')\n"
        "@app.orchestration\nasync def twice(ctx, n):\n    await ctx.sleep(1)\n    return n\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    result = CliRunner().invoke(main, ["replay", str(file), "changed:app"])
    assert (result.exit_code, "replay took another path" in result.stderr) == (1, True)
    sys.modules.pop("changed", None)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_LUNGFISH_COMPLETE" in CliRunner().invoke(main, ["completion", shell]).stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("instances show order-1", "has no orchestration instance 'order-1'; did you mean order-17?"),
        ("why order-1", "did you mean order-17?"),
        ("raise-event order-1 go", "did you mean order-17?"),
        ("instances terminate", "say which: instance ids, or a query"),
        ("instances terminate order-17 --dry-run", "--dry-run counts what a query finds"),
        ("instances terminate order-17 --prefix o", "say which: instance ids, or a query"),
        ("instances lits", "no command 'lits'; did you mean list?"),
        ("instanses list", "no command 'instanses'; did you mean instances?"),
        ("instances list --since yesterday", "a time is 30s, 10m, 2h, 7d ago"),
        ("instances list --tag x", "--tag is name=value, not 'x'"),
        ("instances list --status Done", "is not one of"),
        ("start twice --named n", "--named is name=value, not 'n'"),
        ("start twise --app tests.integration.test_cli_verbs:app", "did you mean twice?"),
        ("queues set gpu", "say what to set"),
        ("queues set gpu --rate fast", "a limit is a number, or 'none', not 'fast'"),
        ("queues set gpu --concurrency 0", "concurrency must be a whole number above 0"),
        ("schedules create s twice", "say when: --cron"),
        ("schedules show none", "there is no schedule 'none'"),
        ("entities show Cart none", "has no entity Cart/none"),
        ("query order-17 stag", "no query named 'stag'; there are: stage"),
        ("entities call Cart 1 ad", "there are: add"),
    ],
)
async def test_wrong_input(run: Run, client: Client, command: str, words: str) -> None:
    await waits(client, "order-17")
    assert words in await refused(run, *command.split())
