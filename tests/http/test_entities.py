"""Entities over HTTP: Durable Functions' routes, and calls with a result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from lungfish.runtime.http.access import ApiKey, Scope
from lungfish.runtime.http.service import CONTINUATION
from tests.http.app import Counter, app
from tests.http.conftest import ServeApp, Served
from tests.http.test_orchestrations import problem


@pytest.fixture
async def served(serve_app: ServeApp) -> AsyncIterator[Served]:
    async with serve_app(app) as served:
        yield served


async def test_signal_call_and_read(served: Served) -> None:
    http = served.http
    problem(await http.get("/entities/Counter/hits"), 404, "Counter/hits")
    assert (await http.post("/entities/Counter/hits?op=add", json=5)).status_code == 202
    called = await http.post("/entities/Counter/hits/call/add", json=1)
    assert (called.status_code, called.json()) == (200, 6)
    assert (await http.get("/entities/Counter/hits")).json() == {"value": 6}
    assert (await http.post("/entities/Counter/hits/call/get")).json() == 6


async def test_what_is_refused_is_forbidden(served: Served) -> None:
    problem(await served.http.post("/entities/Counter/hits/call/refuse"), 403, "not for you")


async def test_a_text_that_is_not_json_is_a_text(served: Served) -> None:
    sent: dict[str, Any] = {"content": b"raw words", "headers": {"content-type": "text/plain"}}
    assert (await served.http.post("/entities/Note/n?op=write", **sent)).status_code == 202
    await served.http.post("/entities/Note/n/call/write", json='"quoted"')
    assert (await served.http.get("/entities/Note/n")).json() == {"text": '"quoted"'}


async def test_lists(served: Served) -> None:
    for number in range(5):
        await served.client.entity(Counter, f"k{number}").call(Counter.add, number)
    await served.client.entity(Counter, "other").call(Counter.add, 1)
    first = await served.http.get("/entities/Counter?prefix=k&top=3")
    assert [each["entityId"]["key"] for each in first.json()] == ["k0", "k1", "k2"]
    assert all(each["state"] is None for each in first.json())
    token = {CONTINUATION: first.headers[CONTINUATION]}
    rest = await served.http.get("/entities/Counter?prefix=k&top=3&fetchState=true", headers=token)
    assert [(each["entityId"]["key"], each["state"]) for each in rest.json()] == [
        ("k3", {"value": 3}),
        ("k4", {"value": 4}),
    ]
    assert CONTINUATION not in rest.headers


async def test_all_types_are_listed_type_by_type(served: Served) -> None:
    for number in range(4):
        await served.client.entity(Counter, f"k{number}").call(Counter.add, number)
    await served.client.entity("Note", "k9").call("write", "kept")
    headers: dict[str, str] = {}
    found: list[list[tuple[str, str, Any]]] = []
    while CONTINUATION in headers or not found:
        answered = await served.http.get("/entities?prefix=k&top=2&fetchState=true", headers=headers)
        found.append(
            [(each["entityId"]["name"], each["entityId"]["key"], each["state"]) for each in answered.json()]
        )
        token = answered.headers.get(CONTINUATION)
        headers = {} if token is None else {CONTINUATION: token}
    counters = [("Counter", f"k{number}", {"value": number}) for number in range(4)]
    assert [each for page in found for each in page] == [*counters, ("Note", "k9", {"text": "kept"})]
    assert [len(each) for each in found] == [2, 2, 1]
    problem(await served.http.get("/entities", headers={CONTINUATION: "Nothing:"}), 400, "none of this list")


async def test_a_list_by_time_is_refused_and_not_passed_over(served: Served) -> None:
    for path in ("/entities", "/entities/Counter"):
        answered = await served.http.get(f"{path}?lastOperationTimeTo=2026-01-01T00:00:00Z")
        problem(answered, 400, "lastOperationTimeTo")


async def test_a_failing_operation_says_why(served: Served) -> None:
    failed = await served.http.post("/entities/Counter/c/call/fail")
    problem(failed, 422, "it does not work")
    assert "Traceback" not in failed.text


async def test_a_call_with_an_idempotency_key_happens_once(served: Served) -> None:
    headers = {"Idempotency-Key": "once"}
    url = "/entities/Counter/once/call/add"
    answers = await asyncio.gather(*(served.http.post(url, json=1, headers=headers) for _ in range(5)))
    assert [each.json() for each in answers] == [1] * 5
    assert (await served.http.post(url, json=1)).json() == 2


async def test_another_request_under_the_same_idempotency_key_is_refused(served: Served) -> None:
    headers = {"Idempotency-Key": "k"}
    url = "/entities/Counter/twice"
    assert (await served.http.post(f"{url}?op=add", json=1, headers=headers)).status_code == 202
    # Passed over in silence, they would be lost.
    problem(await served.http.post(f"{url}?op=add", json=2, headers=headers), 422, "another request")
    problem(await served.http.post(f"{url}?op=remove", json=1, headers=headers), 422, "another request")
    assert (await served.http.post(f"{url}/call/get")).json() == 1


@pytest.mark.parametrize(
    ("path", "sent", "status", "says"),
    [
        ("/entities/Nothing/x?op=add", {}, 400, "no entity named 'Nothing'"),
        ("/entities/Counter/x?op=nothing", {}, 400, "no operation"),
        ("/entities/Counter/x", {}, 400, "op"),
        ("/entities/Counter/x?op=add", {"json": "many"}, 400, "argument 1"),
        ("/entities/Counter/x?op=add", {"content": b"{"}, 400, "not JSON"),
        ("/entities/Counter/" + "x" * 2_000 + "?op=add", {}, 400, "entity key"),
        ("/entities/Counter/x/call/nothing", {}, 400, "no operation"),
        ("/entities/Counter/x/call/add?timeout=-1", {}, 400, "timeout"),
    ],
)
async def test_wrong_requests_are_refused(
    served: Served, path: str, sent: dict[str, Any], status: int, says: str
) -> None:
    problem(await served.http.post(path, **sent), status, says)
    assert (await served.http.get("/entities/Counter/x")).status_code == 404


SECRETS = {scope: f"{scope.name.lower()}-secret-0123456789" for scope in Scope}
KEYS = [ApiKey.of(f"{scope.name.lower()}-key", scope.name, secret) for scope, secret in SECRETS.items()]


def code(scope: Scope) -> dict[str, str]:
    return {"x-functions-key": SECRETS[scope]}


async def test_a_state_is_edited_and_purged_by_hand(serve_app: ServeApp) -> None:
    async with serve_app(app, keys=KEYS) as served:
        http, url = served.http, "/entities/Counter/edited"
        admin, reader = code(Scope.ADMIN), code(Scope.READ)
        await http.post(f"{url}/call/add", json=5, headers=admin)
        edited = await http.put(f"{url}?reason=it was wrong", json={"value": 70}, headers=admin)
        assert (edited.status_code, edited.content) == (204, b"")
        assert (await http.get(url, headers=reader)).json() == {"value": 70}
        (record,) = (await http.get(f"{url}/edits", headers=reader)).json()
        assert (record["reason"], record["by"], record["before"]) == (
            "it was wrong",
            "key admin-key",
            {"value": 5},
        )
        inspected = (await http.get(f"{url}/inspect", headers=reader)).json()
        assert (inspected["holder"], inspected["operations"], inspected["edits"]) == (None, 0, 1)
        assert (await http.delete(f"{url}?reason=done", headers=admin)).status_code == 202
        problem(await http.get(url, headers=reader), 404, "Counter/edited")
        assert (await http.get(f"{url}/edits", headers=reader)).json() == []


async def test_delete_is_an_operation(serve_app: ServeApp) -> None:
    async with serve_app(app, keys=KEYS) as served:
        http, url, admin = served.http, "/entities/Counter/kept", code(Scope.ADMIN)
        for asked in (f"{url}/call/delete", f"{url}?op=delete"):
            await http.post(f"{url}/call/add", json=5, headers=admin)
            assert (await http.post(asked, headers=admin)).status_code in (200, 202)
            assert (await http.post(f"{url}/call/get", headers=admin)).json() == 0


@pytest.mark.parametrize("scope", [Scope.READ, Scope.OPERATE])
async def test_only_administrators_edit(serve_app: ServeApp, scope: Scope) -> None:
    async with serve_app(app, keys=KEYS) as served:
        url = "/entities/Counter/kept"
        await served.http.post(f"{url}/call/add", json=5, headers=code(Scope.ADMIN))
        for asked in (
            served.http.put(f"{url}?reason=x", json={"value": 1}, headers=code(scope)),
            served.http.delete(url, headers=code(scope)),
            served.http.post(f"{url}?op=delete", headers=code(scope)),
            served.http.post(f"{url}/call/delete", headers=code(scope)),
        ):
            problem(await asked, 403, "")
        assert (await served.http.get(url, headers=code(scope))).json() == {"value": 5}


@pytest.mark.parametrize(
    ("query", "sent", "says"),
    [
        ("", {"json": {"value": 1}}, "reason"),
        ("?reason=", {"json": {"value": 1}}, "reason"),
        ("?reason=" + "x" * 1_001, {"json": {"value": 1}}, "reason"),
        ("?reason=x", {"json": {"value": "many"}}, "value"),
        ("?reason=x", {"json": {"other": 1}}, "other"),
        ("?reason=x", {"json": [1]}, "object"),
        ("?reason=x", {}, "JSON"),
    ],
)
async def test_wrong_edits_are_refused(served: Served, query: str, sent: dict[str, Any], says: str) -> None:
    problem(await served.http.put(f"/entities/Counter/x{query}", **sent), 400, says)
    assert (await served.http.get("/entities/Counter/x")).status_code == 404


@pytest.mark.parametrize("key", ["a/b", "/", "a//b/", "100%2F", "x?y#z", "ä/ö"])
async def test_keys_with_slashes(serve_app: ServeApp, key: str) -> None:
    async with serve_app(app) as served:
        path = f"/entities/Counter/{quote(key, safe='')}"
        assert (await served.http.post(f"{path}/call/add", json=3)).json() == 3
        assert (await served.http.get(path)).json() == {"value": 3}
        state = await served.client.entity(Counter, key).state()
        assert state is not None
        assert state.value == 3
