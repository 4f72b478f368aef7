"""Durable Functions' management API for orchestrations: every route and code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from lungfish.runtime.http.problems import MEDIA_TYPE
from lungfish.runtime.http.service import CONTINUATION
from tests.http.app import app
from tests.http.conftest import ServeApp, Served

ENDED = {"Completed", "Failed", "Terminated", "Canceled"}


@pytest.fixture
async def served(serve_app: ServeApp) -> AsyncIterator[Served]:
    async with serve_app(app) as served:
        yield served


async def ended(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Poll a status as a client of Durable Functions does: while it answers 202."""
    async with asyncio.timeout(60):
        while True:
            response = await http.get(url)
            if response.status_code != 202:
                body: dict[str, Any] = response.json()
                return body
            assert response.headers["retry-after"] == "5"
            assert response.headers["location"].startswith(str(http.base_url).rstrip("/") + "/instances/")
            await asyncio.sleep(0.02)


def problem(response: httpx.Response, status: int, says: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    body = response.json()
    assert body["status"] == status
    assert says in body["detail"]
    assert set(body) == {"type", "title", "status", "detail"}


# --- starting ------------------------------------------------------------------------------------


async def test_start_poll_result(served: Served) -> None:
    http = served.http
    started = await http.post("/orchestrators/hello")
    assert started.status_code == 202
    urls = started.json()
    assert set(urls) == {
        "id",
        "statusQueryGetUri",
        "sendEventPostUri",
        "terminatePostUri",
        "purgeHistoryDeleteUri",
        "restartPostUri",
        "suspendPostUri",
        "resumePostUri",
        "rewindPostUri",
    }
    assert started.headers["location"] == urls["statusQueryGetUri"]
    assert started.headers["retry-after"] == "10"
    status = await ended(http, urls["statusQueryGetUri"])
    assert status["runtimeStatus"] == "Completed"
    assert status["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello Cairo!"]
    assert status["instanceId"] == urls["id"]
    assert status["name"] == "hello"
    assert status["createdTime"] <= status["lastUpdatedTime"]
    assert len(status["createdTime"]) == len("2026-01-01T00:00:00Z")


async def test_start_with_an_id_is_one_instance(served: Served) -> None:
    first, again = [await served.http.post("/orchestrators/wait/order-1") for _ in range(2)]
    assert first.json()["id"] == again.json()["id"] == "order-1"
    problem(await served.http.post("/orchestrators/hello/order-1"), 409, "order-1")


async def test_wait_for_the_result(served: Served) -> None:
    done = await served.http.post("/orchestrators/echo?timeout=60&pollingInterval=1", json={"a": [1, None]})
    assert (done.status_code, done.json()) == (200, {"a": [1, None]})
    late = await served.http.post("/orchestrators/wait?timeout=0.05")
    assert late.status_code == 202
    assert late.json()["statusQueryGetUri"]


async def test_a_failure_that_was_waited_for(served: Served) -> None:
    failed = await served.http.post("/orchestrators/break_down?timeout=60", json="the boiler")
    assert failed.status_code == 200
    assert failed.json()["runtimeStatus"] == "Failed"
    url = "/orchestrators/break_down?timeout=60&returnInternalServerErrorOnFailure=true"
    failed = await served.http.post(url, json="the boiler")
    assert failed.status_code == 500
    assert "the boiler exploded" in failed.json()["output"]


@pytest.mark.parametrize(
    ("name", "body", "output"),
    [
        ("echo", {"any": "thing"}, {"any": "thing"}),
        ("echo", [1, 2], [1, 2]),
        ("divide", [1, 4], 0.25),
        ("divide", {"a": 1, "b": 4}, 0.25),
        ("pay", {"order": {"id": "1", "amount": "9.99"}, "twice": True}, "19.98"),
    ],
)
async def test_input_by_the_parameters(served: Served, name: str, body: Any, output: Any) -> None:
    done = await served.http.post(f"/orchestrators/{name}?timeout=60", json=body)
    assert (done.status_code, done.json()) == (200, output)


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        ("/orchestrators/nothing", {}, "no orchestration named 'nothing'"),
        ("/orchestrators/echo", {"content": b"{not json"}, "not JSON"),
        ("/orchestrators/echo", {"content": b"NaN"}, "NaN"),
        ("/orchestrators/echo", {"content": b"[" * 100_000}, "not JSON"),
        ("/orchestrators/divide", {"json": [1]}, "divide"),
        ("/orchestrators/divide", {"json": ["one", 2]}, "divide: argument 1"),
        ("/orchestrators/pay", {"json": {"order": {"id": 1}}}, "amount"),
        ("/orchestrators/echo?timeout=soon", {}, "timeout is a number of seconds"),
        ("/orchestrators/echo?timeout=1e9", {}, "timeout is a number of seconds"),
        ("/orchestrators/echo/" + "x" * 2_000, {}, "instance id"),
    ],
)
async def test_wrong_starts_are_refused(served: Served, path: str, sent: dict[str, Any], says: str) -> None:
    problem(await served.http.post(path, **sent), 400, says)


async def test_a_start_with_an_idempotency_key_happens_once(served: Served) -> None:
    headers = {"Idempotency-Key": "payment 1"}
    answers = await asyncio.gather(*(served.http.post("/orchestrators/wait", headers=headers) for _ in "abc"))
    assert len({each.json()["id"] for each in answers}) == 1
    other = await served.http.post("/orchestrators/wait", headers={"Idempotency-Key": "payment 2"})
    assert other.json()["id"] != answers[0].json()["id"]


# --- looking -------------------------------------------------------------------------------------


async def test_status_of_one_that_fails(served: Served) -> None:
    started = (await served.http.post("/orchestrators/break_down", json="the boiler")).json()
    status = await ended(served.http, started["statusQueryGetUri"])
    assert status["runtimeStatus"] == "Failed"
    assert "the boiler exploded" in status["output"]
    url = started["statusQueryGetUri"] + "&returnInternalServerErrorOnFailure=true"
    assert (await served.http.get(url)).status_code == 500


async def test_history(served: Served) -> None:
    started = (await served.http.post("/orchestrators/hello")).json()
    url = started["statusQueryGetUri"]
    await ended(served.http, url)
    assert "historyEvents" not in (await served.http.get(url)).json()
    bare = (await served.http.get(url + "&showHistory=true")).json()["historyEvents"]
    assert [each["EventType"] for each in bare] == [
        "ExecutionStarted",
        "TaskCompleted",
        "TaskCompleted",
        "TaskCompleted",
        "ExecutionCompleted",
    ]
    assert not any("Result" in each for each in bare)
    full = (await served.http.get(url + "&showHistory=true&showHistoryOutput=true")).json()["historyEvents"]
    assert [(each["FunctionName"], each["Input"], each["Result"]) for each in full[1:4]] == [
        ("greet", city, f"Hello {city}!") for city in ("Tokyo", "Seattle", "Cairo")
    ]
    assert all(each["ScheduledTime"] <= each["Timestamp"] for each in full[1:4])


@pytest.mark.parametrize("query", ["showHistory=perhaps", "showInput=2"])
async def test_wrong_questions_are_refused(served: Served, query: str) -> None:
    await served.http.post("/orchestrators/wait/one")
    problem(await served.http.get(f"/instances/one?{query}"), 400, query.partition("=")[0])


async def test_the_hub_in_the_url_must_be_ours(served: Served) -> None:
    await served.http.post("/orchestrators/wait/one")
    problem(await served.http.get("/instances/one?taskHub=another"), 404, "another")


async def test_lists_are_filtered_and_paged(served: Served) -> None:
    http = served.http
    for number in range(5):
        await http.post(f"/orchestrators/wait/a-{number}")
    done = (await http.post("/orchestrators/echo/b-1", json=1)).json()
    await ended(http, done["statusQueryGetUri"])

    async def ids(query: str) -> list[str]:
        found = await http.get(f"/instances?{query}")
        assert found.status_code == 200
        return [each["instanceId"] for each in found.json()]

    assert await ids("") == ["b-1", "a-4", "a-3", "a-2", "a-1", "a-0"]
    assert await ids("runtimeStatus=completed") == ["b-1"]
    assert len(await ids("runtimeStatus=Completed,Running")) == 6
    assert await ids("instanceIdPrefix=b-") == ["b-1"]
    assert await ids("name=echo&runtimeStatus=Running") == []
    assert await ids("createdTimeFrom=2999-01-01T00:00:00Z") == []
    assert len(await ids("createdTimeFrom=2020-01-01T00:00:00&createdTimeTo=2999-01-01")) == 6
    assert (await http.get("/count?runtimeStatus=Running")).json() == {"count": 5}

    pages, token = [], ""
    while True:
        page = await http.get("/instances?top=4", headers={CONTINUATION: token} if token else {})
        pages.append([each["instanceId"] for each in page.json()])
        token = page.headers.get(CONTINUATION, "")
        if not token:
            break
    assert pages == [["b-1", "a-4", "a-3", "a-2"], ["a-1", "a-0"]]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("runtimeStatus=Sleeping", "Sleeping"),
        ("top=0", "top"),
        ("top=100000", "top"),
        ("createdTimeFrom=yesterday", "createdTimeFrom"),
        ("tag=red", "name=value"),
    ],
)
async def test_wrong_filters_are_refused(served: Served, query: str, says: str) -> None:
    problem(await served.http.get(f"/instances?{query}"), 400, says)


async def test_a_wrong_continuation_token_is_refused(served: Served) -> None:
    problem(await served.http.get("/instances", headers={CONTINUATION: "garbage"}), 400, "cursor")


# --- steering ------------------------------------------------------------------------------------


async def test_an_event_is_raised(served: Served) -> None:
    started = (await served.http.post("/orchestrators/wait")).json()
    url = started["sendEventPostUri"].replace("{eventName}", "go")
    assert (await served.http.post(url, json="now")).status_code == 202
    assert (await ended(served.http, started["statusQueryGetUri"]))["output"] == "now"
    problem(await served.http.post(url, json="again"), 410, "has ended")


async def test_an_event_must_be_json(served: Served) -> None:
    await served.http.post("/orchestrators/wait/one")
    url = "/instances/one/raiseEvent/go"
    problem(await served.http.post(url, content=b"now"), 400, "application/json")
    wrong: dict[str, Any] = {"content": b"{", "headers": {"content-type": "application/json"}}
    problem(await served.http.post(url, **wrong), 400, "not JSON")


async def test_suspend_and_resume(served: Served) -> None:
    started = (await served.http.post("/orchestrators/wait")).json()
    suspend = started["suspendPostUri"].replace("{text}", "for+a+while")
    assert [(await served.http.post(suspend)).status_code for _ in range(2)] == [202, 202]
    status = await served.http.get(started["statusQueryGetUri"])
    assert (status.status_code, status.json()["runtimeStatus"]) == (202, "Suspended")
    await served.http.post(started["sendEventPostUri"].replace("{eventName}", "go"), json="now")
    assert (await served.http.post(started["resumePostUri"].replace("{text}", ""))).status_code == 202
    assert (await ended(served.http, started["statusQueryGetUri"]))["output"] == "now"


async def test_terminate(served: Served) -> None:
    started = (await served.http.post("/orchestrators/wait")).json()
    url = started["terminatePostUri"].replace("{text}", "enough")
    assert (await served.http.post(url)).status_code == 202
    status = await ended(served.http, started["statusQueryGetUri"])
    assert (status["runtimeStatus"], status["output"]) == ("Terminated", "enough")
    problem(await served.http.post(url), 410, "has ended")


async def test_cancel(served: Served) -> None:
    started = (await served.http.post("/orchestrators/wait/one")).json()
    assert (await served.http.post("/instances/one/cancel?reason=enough")).status_code == 202
    assert (await ended(served.http, started["statusQueryGetUri"]))["runtimeStatus"] == "Canceled"


@pytest.mark.parametrize(
    "path",
    [
        "/instances/nobody",
        "POST /instances/nobody/terminate",
        "POST /instances/nobody/suspend",
        "POST /instances/nobody/resume",
        "POST /instances/nobody/raiseEvent/go",
    ],
)
async def test_who_is_not_there(served: Served, path: str) -> None:
    verb, _, url = path.rpartition(" ")
    problem(await served.http.request(verb or "GET", url, json={} if verb else None), 404, "nobody")


async def test_wrong_verbs_and_paths_are_problems_too(served: Served) -> None:
    problem(await served.http.put("/instances/one"), 404, "Method Not Allowed")
    problem(await served.http.get("/nothing/here"), 404, "Not Found")


async def test_a_body_that_is_too_large(serve_app: ServeApp) -> None:
    async with serve_app(app, body_bytes_max=1_000) as served:
        problem(await served.http.post("/orchestrators/echo", json="x" * 2_000), 413, "1,000 bytes")

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 100

        problem(await served.http.post("/orchestrators/echo", content=endless()), 413, "1,000 bytes")
