"""Queries, updates, second lives and purges over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.http.app import BROKEN, app
from tests.http.conftest import ServeApp, Served
from tests.http.test_orchestrations import ended, problem


@pytest.fixture
async def served(serve_app: ServeApp) -> AsyncIterator[Served]:
    BROKEN.clear()
    async with serve_app(app) as served:
        yield served


async def finished(http: httpx.AsyncClient, path: str, body: object = None) -> str:
    """Start something, wait for its end, and return its id."""
    started = (await http.post(path, json=body)).json()
    await ended(http, started["statusQueryGetUri"])
    return str(started["id"])


async def test_queries_and_updates(served: Served) -> None:
    http = served.http
    await http.post("/orchestrators/account/a")
    once = {"Idempotency-Key": "first"}
    answers = [await http.post("/instances/a/update/deposit", json=[5], headers=once) for _ in range(2)]
    assert [each.json() for each in answers] == [5, 5], "one update, told twice"
    assert (await http.post("/instances/a/update/deposit", json={"amount": 2})).json() == 7
    assert (await http.post("/instances/a/query/current")).json() == 7
    problem(await http.post("/instances/a/query/nothing"), 400, "nothing")
    problem(await http.post("/instances/a/update/deposit", json=["much"]), 400, "argument 1")
    problem(await http.post("/instances/nobody/query/current"), 404, "nobody")
    assert (await http.post("/instances/a/raiseEvent/close", json={})).status_code == 202
    await ended(http, "/instances/a")
    problem(await http.post("/instances/a/update/deposit", json=1), 410, "has ended")
    assert (await http.post("/instances/a/query/current")).json() == 7, "also of one that has ended"


async def test_rewind(served: Served) -> None:
    http = served.http
    BROKEN.add("second")
    one = await finished(http, "/orchestrators/visit", "second")
    assert (await http.get(f"/instances/{one}")).json()["runtimeStatus"] == "Failed"
    BROKEN.clear()
    assert (await http.post(f"/instances/{one}/rewind?reason=mended")).status_code == 202
    status = await ended(http, f"/instances/{one}")
    assert status["output"] == ["first is well", "second is well"]
    problem(await http.post(f"/instances/{one}/rewind"), 410, "only a failed one")
    problem(await http.post("/instances/nobody/rewind"), 404, "nobody")


async def test_restart(served: Served) -> None:
    http = served.http
    one = await finished(http, "/orchestrators/echo", {"n": 1})
    again = await http.post(f"/instances/{one}/restart?timeout=60")
    assert (again.status_code, again.json()) == (200, {"n": 1})
    same = await http.post(f"/instances/{one}/restart?restartWithNewInstanceId=false")
    assert (same.status_code, same.json()["id"]) == (202, one)
    assert (await http.get("/count?name=echo")).json() == {"count": 2}
    await http.post("/orchestrators/wait/busy")
    problem(await http.post("/instances/busy/restart"), 409, "has not ended")


async def test_fork(served: Served) -> None:
    http = served.http
    BROKEN.add("second")
    one = await finished(http, "/orchestrators/visit", "second")
    BROKEN.clear()
    history = await served.client.orchestration(one).history()
    at = next(index for index, event in enumerate(history) if type(event).__name__ == "TaskCompleted") - 1
    forked = await http.post(f"/instances/{one}/fork?at={at}&newInstanceId=other")
    assert (forked.status_code, forked.json().get("id")) == (202, "other"), forked.text
    assert (await ended(http, "/instances/other"))["output"] == ["first is well", "second is well"]
    problem(await http.post(f"/instances/{one}/fork"), 400, "at")


async def test_purge(served: Served) -> None:
    http = served.http
    ids = [await finished(http, f"/orchestrators/echo/e{number}", number) for number in range(3)]
    await http.post("/orchestrators/wait/busy")
    assert (await http.delete(f"/instances/{ids[0]}")).json() == {"instancesDeleted": 1}
    problem(await http.delete(f"/instances/{ids[0]}"), 404, ids[0])
    problem(await http.delete("/instances/busy"), 409, "Running")
    problem(await http.delete("/instances"), 400, "createdTimeFrom")
    many = "/instances?createdTimeFrom=2020-01-01T00:00:00Z"
    assert (await http.delete(f"{many}&runtimeStatus=Completed")).json() == {"instancesDeleted": 2}
    problem(await http.delete(many), 404, "no instance")
    assert [each["instanceId"] for each in (await http.get("/instances")).json()] == ["busy"]
