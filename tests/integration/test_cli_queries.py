"""A query where an id may stand, in the commands that look, wait and ask; on a real store."""

# ruff: noqa: F811 - fixtures of another module

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from lungfish.runtime.cli.main import main
from lungfish.runtime.client.client import Client
from tests.integration.test_cli_verbs import (  # noqa: F401 - fixtures
    Cart,
    Run,
    client,
    fragile,
    refused,
    run,
    runtime,
    said,
    twice,
    waits,
)

WALKED = """import lungfish
app = lungfish.App("verbs")
@app.activity
def double(n: int) -> int: ...
@app.orchestration
async def twice(ctx, n: int) -> int:
    doubled = await ctx.call_activity(double, n)
    return doubled
"""
PREFIX = ("--prefix", "o-")


async def test_show_and_history_of_each(run: Run, client: Client) -> None:
    await waits(client, "o-1", "o-2", "other")
    shown = await said(run, "instances", "show", *PREFIX)
    assert [line for line in shown.splitlines() if line.startswith("==")] == ["== o-2", "== o-1"]
    assert shown.count("why: o-") == 2
    assert (await said(run, "instances", "show", *PREFIX, "-o", "ids")).split() == ["o-2", "o-1"]
    told = json.loads(await said(run, "instances", "show", *PREFIX, "-o", "json"))
    assert [(each["instance"], each["name"]) for each in told] == [("o-2", "order"), ("o-1", "order")]
    told = json.loads(await said(run, "instances", "history", "--tag", "shop=o-1", "-o", "json"))
    assert [each["instance"] for each in told] == ["o-1"]
    assert told[0]["history"][1]["event"] == "ExecutionStarted"
    listed = await said(run, "instances", "history", *PREFIX)
    assert (listed.count("== o-"), listed.count("ExecutionStarted")) == (2, 2)


async def test_a_query_that_finds_nothing_is_no_failure(run: Run, client: Client) -> None:
    none = ("--prefix", "none")
    assert json.loads(await said(run, "instances", "show", *none, "-o", "json")) == []
    for command in ("instances show", "instances events", "instances wait", "why", "export", "query stage"):
        verb, *words = command.split()
        result = await run(verb, *words, *none)
        assert (result.exit_code, result.stdout) == (0, ""), command
        assert "no such instances in hub" in result.stderr, command


async def test_neither_or_both_is_refused(run: Run, client: Client) -> None:
    await waits(client, "o-1")
    for command in (
        "instances show",
        "instances history",
        "instances events",
        "instances wait",
        "why",
        "export",
    ):
        assert "say which: instance ids, or a query" in await refused(run, *command.split())
        assert "say which: instance ids, or a query" in await refused(run, *command.split(), "o-1", *PREFIX)
    for verb in ("query", "update"):
        assert f"{verb} takes INSTANCE {verb.upper()} [ARG]..." in await refused(run, verb, "o-1")
        assert f"{verb} takes INSTANCE {verb.upper()} [ARG]..." in await refused(run, verb, *PREFIX)


async def test_wait_for_all_fails_if_one_did(run: Run, client: Client) -> None:
    for n in (1, 2):
        await client.start(twice, n, id=f"o-{n}")
    lines = (await said(run, "instances", "wait", *PREFIX)).splitlines()
    assert sorted(map(json.loads, lines), key=lambda each: each["instance"]) == [
        {"instance": "o-1", "result": 2},
        {"instance": "o-2", "result": 4},
    ]
    await client.start(fragile, id="o-3")
    result = await run("instances", "wait", *PREFIX)
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 2)
    assert "o-3: " in result.stderr
    assert "no stock" in result.stderr


async def test_a_time_out_of_a_wait_is_for_all_of_them(run: Run, client: Client) -> None:
    await waits(client, "o-1", "o-2")
    result = await run("instances", "wait", *PREFIX, "--timeout", "0.2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "o-1: " in result.stderr
    assert "o-2: " in result.stderr


async def test_events_of_each_in_turn(run: Run, client: Client) -> None:
    for n in (1, 2):
        await client.run(twice, n, id=f"o-{n}")
    lines = (await said(run, "instances", "events", *PREFIX)).splitlines()
    assert [line for line in lines if line.startswith("==")] == ["== o-2", "== o-1"]
    assert sum("ExecutionCompleted" in line for line in lines) == 2


async def test_query_and_why_of_each(run: Run, client: Client) -> None:
    await waits(client, "o-1", "o-2", "other")
    answers = [json.loads(line) for line in (await said(run, "query", *PREFIX, "stage")).splitlines()]
    assert sorted(each["instance"] for each in answers) == ["o-1", "o-2"]
    assert {each["answer"] for each in answers} == {"open"}
    told = json.loads(await said(run, "why", *PREFIX, "-o", "json"))
    assert [(each["instance"], each["chain"][0]["kind"]) for each in told] == [
        ("o-2", "event"),
        ("o-1", "event"),
    ]
    assert "== o-1\no-1 waits for the external event" in await said(run, "why", *PREFIX)
    result = await run("query", *PREFIX, "stag")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("no query named 'stag'") == 2


async def test_an_update_of_all_asks_first(run: Run, client: Client) -> None:
    await client.run(twice, 1, id="o-0")  # it has ended: an update is not for it
    await waits(client, "o-1", "o-2", "other")
    assert "update: 2 to be done; nothing was" in await said(run, "update", *PREFIX, "add", "2", "--dry-run")
    assert "nobody confirmed; to update" in await refused(run, "update", *PREFIX, "add", "2")
    assert "--dry-run counts" in await refused(run, "update", "o-1", "add", "2", "--dry-run")
    done = await said(run, "update", *PREFIX, "add", "2", "--id", "u", "--yes")
    assert sorted(json.loads(line)["instance"] for line in done.splitlines()) == ["o-1", "o-2"]
    assert all(json.loads(line)["answer"] == 3 for line in done.splitlines())
    for id, times in (("o-1", 1), ("o-2", 1), ("other", 0)):
        kinds = [type(event).__name__ for event in await client.orchestration(id).history()]
        assert kinds.count("UpdateAccepted") == times, (id, kinds)


async def test_fork_is_about_one(run: Run, client: Client) -> None:
    for n in (1, 2):
        await client.run(twice, n, id=f"o-{n}")
    words = await refused(run, "instances", "fork", *PREFIX, "--at", "3", "--id", "g")
    assert "the query finds 2: o-2, o-1; nothing was done" in words
    assert "the query finds 0: none" in await refused(run, "instances", "fork", "--prefix", "x", "--at", "3")
    forked = await said(run, "instances", "fork", "--prefix", "o-2", "--at", "3", "--id", "g")
    assert forked.strip() == "g"
    assert json.loads(await said(run, "instances", "wait", "g")) == 4


async def test_what_is_exported_of_many_is_replayed(run: Run, client: Client, tmp_path: Path) -> None:
    for n in (1, 2):
        await client.run(twice, n, id=f"o-{n}")
    lines = (await said(run, "export", *PREFIX)).splitlines()
    assert [json.loads(line)["instance_id"] for line in lines] == ["o-2", "o-1"]
    file = tmp_path / "both.json"
    await said(run, "export", *PREFIX, "-f", str(file))
    result = CliRunner().invoke(main, ["replay", str(file), "tests.integration.test_cli_verbs:app"])
    assert (result.exit_code, "history says (2 histories)" in result.stderr) == (0, True), result.output


async def test_a_replay_stops_in_the_debugger(run: Run, client: Client, tmp_path: Path) -> None:
    await client.run(twice, 4, id="t")
    file = tmp_path / "t.json"
    await said(run, "export", "t", "-f", str(file))
    (tmp_path / "walked.py").write_text(WALKED)
    command = [sys.executable, "-m", "lungfish.runtime.cli.main", "replay", str(file), "walked:app", "--pdb"]
    done = await asyncio.to_thread(
        subprocess.run,  # it kills what has not ended in time
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        input="p f'n is {n}'\nnext\np f'twice is {doubled}'\ncontinue\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stopped, _, after = done.stdout.partition("n is 4")
    assert "walked.py(7)twice()" in stopped
    assert "twice is 8" in after
    assert "does what the history says" in done.stderr


async def test_entities_with_a_prefix_are_purged(run: Run, client: Client) -> None:
    for key in ("t-1", "t-2", "kept"):
        await client.entity(Cart, key).call(Cart.add)
    purge = ("entities", "purge", "Cart", "--reason", "test")
    assert "keys, or --prefix" in await refused(run, *purge)
    assert "keys, or --prefix" in await refused(run, *purge, "kept", "--prefix", "t-")
    assert "it takes no keys" in await refused(run, *purge, "kept", "--dry-run")
    assert "2 to be done; nothing was" in await said(run, *purge, "--prefix", "t-", "--dry-run")
    assert "nobody confirmed" in await refused(run, *purge, "--prefix", "t-")
    assert (await said(run, *purge, "--prefix", "t-", "--yes")).split() == ["t-1", "t-2"]
    assert (await said(run, "entities", "list", "Cart", "-o", "ids")).split() == ["kept"]
