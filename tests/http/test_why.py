"""Why something waits, over HTTP."""

from __future__ import annotations

import lungfish.http
from tests.http.app import Counter, app, wait
from tests.http.conftest import ServeApp
from tests.integration.polling import until


async def test_an_instance_an_entity_and_a_queue(serve_app: ServeApp) -> None:
    async with serve_app(app) as served:
        await served.client.start(wait, id="w-1")

        async def waits() -> bool:
            return "external event 'go'" in (await served.http.get("/instances/w-1/why")).json()["text"]

        await until(waits, "the instance to wait")
        told = (await served.http.get("/instances/w-1/why")).json()
        (reason,) = told["chain"]
        assert told["text"].startswith("w-1 waits for the external event 'go' since ")
        assert (reason["kind"], reason["subject"], reason["depth"]) == ("event", "w-1", 0)
        assert (reason["since"][-1], reason["until"]) == ("Z", None)
        assert reason["who"] == "raise event 'go' for w-1"
        await served.client.entity(Counter, "hits").call(Counter.add)
        told = (await served.http.get("/entities/Counter/hits/why")).json()
        assert told["text"] == "entity Counter/hits is idle: nothing waits there"
        told = (await served.http.get("/queues/default/why")).json()
        assert told["chain"][0]["subject"] == "queue default"


async def test_an_instance_that_is_not_there(serve_app: ServeApp) -> None:
    async with serve_app(app) as served:
        answered = await served.http.get("/instances/none/why")
        assert (answered.status_code, "none" in answered.json()["detail"]) == (404, True)


async def test_who_may_only_read_may_ask(serve_app: ServeApp) -> None:
    keys = lungfish.http.parse_keys("viewer:read:secret-of-the-viewer")
    async with serve_app(app, keys=keys) as served:
        assert (await served.http.get("/queues/default/why")).status_code == 401
        headers = {"Authorization": "Bearer secret-of-the-viewer"}
        assert (await served.http.get("/queues/default/why", headers=headers)).status_code == 200
