"""Schedules over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.http.app import app
from tests.http.conftest import ServeApp, Served
from tests.http.test_orchestrations import problem

HOURLY: dict[str, Any] = {"every": 3_600, "orchestration": "echo", "args": ["x"], "paused": True}
BACK: dict[str, str] = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T02:00:00Z"}


@pytest.fixture
async def served(serve_app: ServeApp) -> AsyncIterator[Served]:
    async with serve_app(app) as served:
        yield served


async def test_made_looked_at_changed_and_deleted(served: Served) -> None:
    http = served.http
    made = await http.put("/schedules/s", json={**HOURLY, "note": "at first"})
    assert made.status_code == 201, made.text
    assert made.json() == {
        "scheduleId": "s",
        "every": 3600.0,
        "offset": 0.0,
        "spec": "every 1:00:00",
        "target": "echo",
        "overlap": "skip",
        "paused": True,
        "note": "at first",
        "createdTime": made.json()["createdTime"],
        "nextTimes": [],
        "running": [],
        "recent": [],
        "buffered": None,
        "started": 0,
        "skipped": 0,
        "missed": 0,
        "remaining": None,
        "backfilling": False,
    }
    changed = await http.put("/schedules/s", json={**HOURLY, "every": 60, "overlap": "allow", "runs": 3})
    assert changed.status_code == 200
    found = (await http.get("/schedules/s")).json()
    assert found == changed.json()
    assert (found["every"], found["overlap"], found["remaining"], found["paused"]) == (60, "allow", 3, True)
    await http.put("/schedules/a", json={"cron": "0 9 * * *", "tz": "Europe/Berlin", "orchestration": "echo"})
    listed = (await http.get("/schedules")).json()
    assert [each["scheduleId"] for each in listed] == ["a", "s"]
    assert (listed[0]["cron"], listed[0]["tz"], len(listed[0]["nextTimes"])) == (
        "0 9 * * *",
        "Europe/Berlin",
        5,
    )
    assert (await http.delete("/schedules/s")).status_code == 204
    problem(await http.get("/schedules/s"), 404, "no schedule 's'")
    problem(await http.delete("/schedules/s"), 404, "no schedule")


async def test_paused_resumed_triggered_and_filled_in(served: Served) -> None:
    http = served.http
    await http.put("/schedules/s", json={**HOURLY, "overlap": "allow"})
    resumed = (await http.post("/schedules/s/resume?reason=go")).json()
    assert (resumed["paused"], resumed["note"], len(resumed["nextTimes"])) == (False, "go", 5)
    paused = (await http.post("/schedules/s/pause?reason=stop")).json()
    assert (paused["paused"], paused["note"]) == (True, "stop")
    triggered = await http.post("/schedules/s/trigger", headers={"Idempotency-Key": "t"})
    assert triggered.status_code == 202
    run = triggered.json()["instanceId"]
    again = await http.post("/schedules/s/trigger", headers={"Idempotency-Key": "t"})
    assert again.json()["instanceId"] == run
    assert await served.client.orchestration(run).result(timeout=60) == "x"
    assert (await http.post("/schedules/s/backfill", json=BACK)).status_code == 202
    for hour in range(3):
        handle = served.client.orchestration(f"s-2026-01-01T0{hour}:00:00Z")
        assert await handle.result(timeout=60) == "x"
    found = (await http.get("/schedules/s")).json()
    assert {each["instanceId"] for each in (*found["running"], *found["recent"])} >= {run}


async def test_an_entity_is_signalled(served: Served) -> None:
    target = {"name": "Counter", "key": "ticks", "operation": "add"}
    body = {"every": 3_600, "entity": target, "args": [5], "paused": True}
    assert (await served.http.put("/schedules/e", json=body)).json()["target"] == "Counter/ticks.add"
    await served.http.post("/schedules/e/trigger")
    assert await served.client.entity("Counter", "ticks").call("add", 1) in (1, 6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"every": None}, "either cron or every"),
        ({"cron": "* * * * *"}, "either cron or every"),
        ({"every": None, "cron": "nonsense"}, "nonsense"),
        ({"every": 0.1}, "interval"),
        ({"every": 1e300}, "number of seconds"),
        ({"orchestration": None}, "either orchestration, or entity"),
        ({"orchestration": "nothing"}, "nothing"),
        ({"args": [1, 2, 3]}, "argument"),
        ({"overlap": "maybe"}, "overlap"),
        ({"runs": 0}, "runs"),
        ({"startAt": "2026-01-01T00:00:00"}, "time zone"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_wrong_schedules_are_refused(served: Served, changes: dict[str, Any], says: str) -> None:
    problem(await served.http.put("/schedules/s", json={**HOURLY, **changes}), 400, says)
    assert (await served.http.get("/schedules")).json() == []


async def test_wrong_requests_are_refused(served: Served) -> None:
    http = served.http
    problem(await http.put("/schedules/s"), 400, "JSON object")
    for verb in ("pause", "resume", "trigger"):
        problem(await http.post(f"/schedules/none/{verb}"), 404, "no schedule")
    problem(await http.post("/schedules/none/backfill", json=BACK), 404, "no schedule")
    await http.put("/schedules/s", json=HOURLY)
    problem(await http.post("/schedules/s/trigger?overlap=maybe"), 400, "overlap")
    problem(await http.post("/schedules/s/backfill", json={"start": BACK["end"]}), 400, "end")
    turned = {"start": BACK["end"], "end": BACK["start"]}
    problem(await http.post("/schedules/s/backfill", json=turned), 400, "before start")
