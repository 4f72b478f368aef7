"""One verb for many instances over HTTP: bounded, told of one by one, and to be gone on with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lungfish.runtime.http.service import CONTINUATION
from tests.http.app import BROKEN, app
from tests.http.conftest import ServeApp, Served
from tests.http.test_lives import finished
from tests.http.test_orchestrations import ended, problem
from tests.integration.polling import until


@pytest.fixture
async def served(serve_app: ServeApp) -> AsyncIterator[Served]:
    BROKEN.clear()
    async with serve_app(app) as served:
        yield served


async def waiting(served: Served, *ids: str) -> None:
    """Start instances that wait, and return when they do."""
    for id in ids:
        await served.http.post(f"/orchestrators/wait/{id}")

    async def are_running() -> bool:
        found = (await served.http.get("/count?name=wait&runtimeStatus=Running")).json()["count"]
        return bool(found >= len(ids))

    await until(are_running, "the instances to run")


async def step(served: Served, path: str, **options: Any) -> dict[str, Any]:
    answered = await served.http.post(f"/batch/{path}", **options)
    assert answered.status_code == 200, answered.text
    body: dict[str, Any] = answered.json()
    assert answered.headers.get(CONTINUATION) == body["continuation"]
    return body


async def test_all_of_a_filter_page_by_page(served: Served) -> None:
    ids = [f"w{number}" for number in range(7)]
    await waiting(served, *ids, "other")
    query = "terminate?name=wait&instanceIdPrefix=w&reason=enough"
    counted = await step(served, f"{query}&countOnly=true")
    assert counted == {
        "verb": "terminate",
        "countOnly": True,
        "matched": 7,
        "done": [],
        "refused": [],
        "unknown": [],
        "continuation": None,
    }
    done, token = list[str](), dict[str, str]()
    for _ in range(4):
        found = await step(served, f"{query}&top=2", headers=token)
        assert (len(found["done"]), found["refused"], found["unknown"]) == (found["matched"], [], [])
        done += found["done"]
        if found["continuation"] is None:
            break
        token = {CONTINUATION: found["continuation"]}
    assert sorted(done) == ids
    assert (await ended(served.http, "/instances/w3"))["output"] == "enough"
    assert (await served.http.get("/instances/other")).json()["runtimeStatus"] == "Running"
    assert (await step(served, query))["matched"] == 0, "what is done fits no more"


async def test_every_verb(served: Served) -> None:
    await waiting(served, "a", "b")
    both = "name=wait"
    for verb in ("suspend", "resume"):
        assert sorted((await step(served, f"{verb}?{both}"))["done"]) == ["a", "b"]
    assert (await step(served, f"resume?{both}"))["matched"] == 0, "none is suspended any more"
    raised = await step(served, f"raiseEvent?{both}&instanceIdPrefix=a&event=go", json="now")
    assert raised["done"] == ["a"]
    assert (await ended(served.http, "/instances/a"))["output"] == "now"
    assert (await step(served, f"cancel?{both}&reason=away"))["done"] == ["b"]
    assert (await ended(served.http, "/instances/b"))["runtimeStatus"] == "Canceled"
    assert (await step(served, f"restart?{both}&runtimeStatus=Canceled"))["done"] == ["b"]
    await waiting(served)
    assert (await step(served, f"terminate?{both}"))["done"] == ["b"]
    await ended(served.http, "/instances/b")
    assert sorted((await step(served, f"purge?{both}"))["done"]) == ["a", "b"]
    assert (await served.http.get("/instances")).json() == []


async def test_failed_ones_are_rewound(served: Served) -> None:
    BROKEN.add("second")
    ids = [await finished(served.http, "/orchestrators/visit", "second") for _ in range(3)]
    well = await finished(served.http, "/orchestrators/visit", "third")
    BROKEN.clear()
    rewound = await step(served, "rewind?name=visit&reason=mended")
    assert (rewound["matched"], sorted(rewound["done"])) == (3, sorted(ids))
    for id in ids:
        assert (await ended(served.http, f"/instances/{id}"))["runtimeStatus"] == "Completed"
    assert (await step(served, f"purge?instanceIdPrefix={well}"))["done"] == [well]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("terminate", {}, "give a filter"),
    ("terminate?instanceIdPrefix=", {}, "give a filter"),
    ("terminate?runtimeStatus=Completed", {}, "Completed"),
    ("purge?runtimeStatus=Running", {}, "Running"),
    ("explode?name=wait", {}, "terminate"),
    ("terminate?name=wait&top=0", {}, "top"),
    ("terminate?name=wait&top=1001", {}, "top"),
    ("terminate?name=wait", {"headers": {CONTINUATION: "nonsense"}}, "nonsense"),
    ("terminate?name=wait&event=go", {}, "event"),
    ("raiseEvent?name=wait", {}, "name of an event"),
    ("terminate?name=wait", {"json": {"name": "wait"}}, "body"),
]


async def test_what_makes_no_sense_is_refused(served: Served) -> None:
    await waiting(served, "a")
    for path, options, text in REFUSED:
        problem(await served.http.post(f"/batch/{path}", **options), 400, text)
    assert (await served.http.get("/instances/a")).json()["runtimeStatus"] == "Running"


async def test_a_continuation_belongs_to_its_batch(served: Served) -> None:
    await waiting(served, "a", "b")
    token = (await step(served, "suspend?name=wait&top=1"))["continuation"]
    headers = {CONTINUATION: token}
    problem(await served.http.post("/batch/terminate?name=wait", headers=headers), 400, "suspend")
    problem(await served.http.post("/batch/suspend?tag=a=b", headers=headers), 400, "other filters")
    assert (await step(served, "suspend?name=wait", headers=headers))["done"] == ["b"]


async def test_a_step_is_taken_once_for_each_key(served: Served) -> None:
    await waiting(served, "a", "b")
    once = {"Idempotency-Key": "first"}
    first, again = [await step(served, "suspend?name=wait&top=1", headers=once) for _ in range(2)]
    assert again == first
    further = {**once, CONTINUATION: first["continuation"]}
    problem(await served.http.post("/batch/suspend?name=wait&top=1", headers=further), 422, "new key")


async def test_a_filter_that_is_misspelt_is_refused(served: Served) -> None:
    await waiting(served, "w0")
    answered = await served.http.post("/batch/terminate?name=wait&runtimStatus=Suspended")
    assert answered.status_code == 400, answered.text
    assert "runtimStatus; there are: countOnly" in answered.text
    known = "terminate?name=wait&runtimeStatus=Suspended&connection=Storage"
    assert (await step(served, known))["matched"] == 0
