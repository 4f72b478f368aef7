"""Queues, dead letters and hot entities over HTTP, and who may do what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lungfish.runtime.http.access import ApiKey, Scope
from lungfish.runtime.http.service import CONTINUATION
from lungfish.runtime.ids import ENTITY, ActorId
from lungfish.runtime.messages.messages import Signal
from tests.http.app import Counter, app
from tests.http.conftest import ServeApp, Served
from tests.http.test_orchestrations import problem
from tests.integration.polling import until

SECRETS = {scope: f"{scope.name.lower()}-secret-0123456789" for scope in Scope}
KEYS = [ApiKey.of(scope.name.lower(), scope.name, secret) for scope, secret in SECRETS.items()]


@pytest.fixture
async def served(serve_app: ServeApp) -> AsyncIterator[Served]:
    async with serve_app(app) as served:
        yield served


async def test_queues_and_their_limits(served: Served) -> None:
    http = served.http
    listed = (await http.get("/queues")).json()
    assert [each["name"] for each in listed] == ["default"]
    unlimited = {"concurrency": None, "workerConcurrency": None, "rate": None}
    assert listed[0] == {
        "name": "default",
        "paused": False,
        "backlog": 0,
        "running": 0,
        "backlogByPriority": {},
        "runningByWorker": {},
        "limits": unlimited,
    }
    limited = await http.put("/queues/default", json={"concurrency": 3, "rate": 2.5})
    assert limited.json()["limits"] == {**unlimited, "concurrency": 3, "rate": 2.5}
    await http.put("/queues/default", json={"concurrency": None})
    assert (await http.get("/queues/default")).json()["limits"] == {**unlimited, "rate": 2.5}
    assert (await http.delete("/queues/default/limits")).json()["limits"] == unlimited
    assert (await http.get("/queues/nobody")).json()["backlog"] == 0


async def test_a_paused_queue_keeps_what_waits(served: Served) -> None:
    assert (await served.http.post("/queues/default/pause")).json()["paused"] is True
    handles = []

    async def waits() -> bool:  # workers follow within about a second: the first may still be taken
        handles.append(await served.client.start("hello"))
        found = (await served.http.get("/queues/default")).json()
        assert sum(found["backlogByPriority"].values()) == found["backlog"]
        return bool(found["backlog"])

    await until(waits, "an activity in its queue")
    assert (await served.http.post("/queues/default/resume")).json()["paused"] is False
    for handle in handles:
        assert len(await handle.result(timeout=60)) == 3


@pytest.mark.parametrize("body", [None, [], {}, {"surprise": 1}, {"concurrency": 0}, {"rate": "much"}])
async def test_wrong_limits_are_refused(served: Served, body: Any) -> None:
    problem(await served.http.put("/queues/default", json=body), 400, "")
    assert (await served.http.get("/queues/default")).json()["limits"]["concurrency"] is None


async def set_aside(served: Served, *keys: str) -> list[dict[str, Any]]:
    """Send what nobody can apply; return what is set aside."""
    for key in keys:
        actor = ActorId(ENTITY, "Counter", key)
        await served.client._open.send(actor, [Signal(actor, "gone", b"\x91\x90")])

    async def is_there() -> bool:
        return len((await served.http.get("/dead-letters")).json()) == len(keys)

    await until(is_there, "the dead letters")
    found: list[dict[str, Any]] = (await served.http.get("/dead-letters")).json()
    return found


async def test_dead_letters_are_listed_page_by_page(served: Served) -> None:
    keys = [f"k{number}" for number in range(5)]
    found = await set_aside(served, *keys)
    assert {each["target"] for each in found} == {f"Counter/{key}" for key in keys}
    assert all(each["what"] == "Signal gone" and "gone" in each["reason"] for each in found)
    pages, token = list[str](), dict[str, str]()
    while True:
        page = await served.http.get("/dead-letters?top=2", headers=token)
        pages += [each["id"] for each in page.json()]
        if CONTINUATION not in page.headers:
            break
        token = {CONTINUATION: page.headers[CONTINUATION]}
    assert pages == [each["id"] for each in found]
    chosen = (await served.http.get("/dead-letters?target=Counter/k1")).json()
    assert [each["target"] for each in chosen] == ["Counter/k1"]
    problem(await served.http.get("/dead-letters", headers={CONTINUATION: "nonsense"}), 400, "nonsense")


async def test_dead_letters_are_deleted_and_sent_again(served: Served) -> None:
    first, second, third = (each["id"] for each in await set_aside(served, "a", "b", "c"))
    assert (await served.http.delete(f"/dead-letters/{first}")).json() == {"messagesDeleted": 1}
    problem(await served.http.delete(f"/dead-letters/{first}"), 404, first)
    problem(await served.http.post("/dead-letters/nonsense/replay"), 404, "nonsense")
    assert (await served.http.post(f"/dead-letters/{second}/replay")).json() == {"messagesReplayed": 1}

    async def is_back() -> bool:  # nobody can apply it now either
        ids = {each["id"] for each in (await served.http.get("/dead-letters")).json()}
        return len(ids) == 2 and third in ids and second not in ids

    await until(is_back, "the message that was sent again")
    assert (await served.http.post("/dead-letters/replay?target=Note")).json() == {"messagesReplayed": 0}
    assert (await served.http.delete("/dead-letters?target=Counter")).json() == {"messagesDeleted": 2}
    assert (await served.http.get("/dead-letters")).json() == []


async def test_hot_entities(served: Served) -> None:
    for _ in range(40):
        await served.client.entity(Counter, "hot").call(Counter.add, 1)

    async def is_told() -> bool:
        found = (await served.http.get("/hot-entities")).json()
        return bool(found) and found[0]["entityId"] == {"name": "Counter", "key": "hot"}

    await until(is_told, "a heartbeat that tells it")


async def test_a_broadcast(served: Served) -> None:
    for key in ("eu/1", "eu/2", "us/1"):
        await served.client.entity(Counter, key).call(Counter.add, 1)
    assert (await served.http.post("/entities/Counter?op=add&prefix=eu/", json=10)).status_code == 202

    async def all_got_it() -> bool:
        listed = (await served.http.get("/entities/Counter?fetchState=true")).json()
        return [each["state"]["value"] for each in listed] == [11, 11, 1]

    await until(all_got_it, "the broadcast")
    problem(await served.http.post("/entities/Counter?op=nothing"), 400, "no operation")
    problem(await served.http.post("/entities/Counter?op=add", json="many"), 400, "argument 1")


ROUTES = [
    ("GET", "/schedules", Scope.READ),
    ("GET", "/schedules/s", Scope.READ),
    ("POST", "/schedules/s/pause", Scope.OPERATE),
    ("POST", "/schedules/s/resume", Scope.OPERATE),
    ("POST", "/schedules/s/trigger", Scope.OPERATE),
    ("POST", "/schedules/s/backfill", Scope.OPERATE),
    ("PUT", "/schedules/s", Scope.ADMIN),
    ("DELETE", "/schedules/s", Scope.ADMIN),
    ("GET", "/queues", Scope.READ),
    ("GET", "/queues/q", Scope.READ),
    ("POST", "/queues/q/pause", Scope.OPERATE),
    ("POST", "/queues/q/resume", Scope.OPERATE),
    ("PUT", "/queues/q", Scope.ADMIN),
    ("DELETE", "/queues/q/limits", Scope.ADMIN),
    ("GET", "/dead-letters", Scope.READ),
    ("POST", "/dead-letters/replay", Scope.OPERATE),
    ("POST", "/dead-letters/0:1-1/replay", Scope.OPERATE),
    ("DELETE", "/dead-letters", Scope.ADMIN),
    ("DELETE", "/dead-letters/0:1-1", Scope.ADMIN),
    ("GET", "/hot-entities", Scope.READ),
    ("POST", "/entities/Counter?op=add", Scope.ADMIN),
    ("POST", "/batch/terminate?name=none", Scope.ADMIN),
]


async def test_scopes(serve_app: ServeApp) -> None:
    async with serve_app(app, keys=KEYS) as served:
        for method, path, needed in ROUTES:
            assert (await served.http.request(method, path)).status_code == 401, path
            for scope, secret in SECRETS.items():
                headers = {"x-functions-key": secret}
                status = (await served.http.request(method, path, headers=headers)).status_code
                assert (status == 403) == (scope < needed), (method, path, scope, status)
                assert status < 500


async def test_every_deployment_is_a_primary_one(served: Served) -> None:
    answered = await served.http.post("/makeprimary")
    assert (answered.status_code, answered.content) == (200, b"")
