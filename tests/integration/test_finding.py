"""Finding instances and entities of a running hub."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest

import lungfish
from lungfish import OrchestrationContext, RuntimeStatus
from tests.integration.polling import until
from tests.local import RunApp

app = lungfish.App("finding")


@app.entity
class Cart(lungfish.Entity):
    items: int = 0

    def add(self, n: int) -> int:
        self.items += n
        return self.items

    def clear(self) -> None:
        self.context.delete()


@app.orchestration
async def waits(ctx: OrchestrationContext) -> str:
    answer: str = await ctx.wait_for_external_event("go", str)
    if answer == "fail":
        raise ValueError(answer)
    return answer


@app.orchestration
async def parent(ctx: OrchestrationContext, children: int) -> int:
    await asyncio.gather(
        *(ctx.call_orchestration(waits, id=f"{ctx.instance_id}.{n}") for n in range(children))
    )
    return children


@pytest.fixture(params=["live", "always_replay"])
async def client(
    run_app: RunApp, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[lungfish.Client]:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", str(int(request.param == "always_replay")))
    async with run_app(app) as runtime:
        yield runtime.client


async def ids(client: lungfish.Client, **filters: Any) -> list[str]:
    return [found.instance_id async for found in client.instances(**filters)]


async def test_status_follows_the_instance(client: lungfish.Client) -> None:
    handles = [await client.start(waits, id=f"i{n}") for n in range(4)]
    assert await ids(client, status="Running") == ["i0", "i1", "i2", "i3"]
    assert await ids(client, status="Running", order="newest") == ["i3", "i2", "i1", "i0"]
    await handles[0].raise_event("go", "ok")
    await handles[1].raise_event("go", "fail")
    await handles[2].terminate("enough")
    await handles[3].suspend()
    await handles[0].result(timeout=60)
    with pytest.raises(lungfish.OrchestrationFailed):
        await handles[1].result(timeout=60)
    by_status = {status: await ids(client, status=status) for status in RuntimeStatus}
    assert {status: found for status, found in by_status.items() if found} == {
        RuntimeStatus.COMPLETED: ["i0"],
        RuntimeStatus.FAILED: ["i1"],
        RuntimeStatus.TERMINATED: ["i2"],
        RuntimeStatus.SUSPENDED: ["i3"],
    }
    await handles[3].resume()
    assert await ids(client, status=["Running", "Failed"]) == ["i1", "i3"]
    assert await client.count_instances(status=["Running", "Failed"]) == 2
    assert await client.count_instances(name="waits") == 4
    assert await client.count_instances(name="parent") == 0


async def test_tags(client: lungfish.Client) -> None:
    await client.start(waits, id="a", tags={"customer": "17", "region": "eu"})
    await client.start(waits, id="b", tags={"customer": "17"})
    await client.start(waits, id="c", tags={"customer": "1"})
    await client.start("waits", id="d")
    assert await ids(client, tag=("customer", "17")) == ["a", "b"]
    assert await ids(client, tags={"customer": "17", "region": "eu"}) == ["a"]
    assert await ids(client, tag=("customer", "17"), name="parent") == []
    assert (await client.orchestration("a").status()).tags == {"customer": "17", "region": "eu"}
    await client.orchestration("a").raise_event("go", "ok")
    await client.orchestration("a").result(timeout=60)
    assert await ids(client, tag=("customer", "17"), status="Completed") == ["a"]
    with pytest.raises(lungfish.InvalidArguments, match="not 17"):
        await client.start(waits, id="e", tags={str(n): "" for n in range(17)})
    with pytest.raises(lungfish.InstanceNotFound):
        await client.orchestration("e").status()


async def test_children(client: lungfish.Client) -> None:
    await client.start(parent, 3, id="p", tags={"x": "y"})
    await until(lambda: client.count_instances(parent="p"), "the children begin")
    children = sorted(await ids(client, parent="p"))
    assert children == ["p.0", "p.1", "p.2"]
    assert await ids(client, tag=("x", "y")) == ["p"], "tags are not inherited"
    assert await ids(client, id_prefix="p.", parent="p", order="newest") != []
    assert await ids(client, parent="p.0") == []


async def test_pages_and_times(client: lungfish.Client) -> None:
    await asyncio.gather(*(client.start(waits, id=f"i{n:02}") for n in range(25)))
    every = [found async for found in client.instances(page_size=3)]
    assert sorted(one.instance_id for one in every) == [f"i{n:02}" for n in range(25)]
    assert [one.created_at for one in every] == sorted(one.created_at for one in every)
    page = await client.instances_page(page_size=10, id_prefix="i0")
    assert (len(page.items), page.cursor is None) == (10, False)
    rest = await client.instances_page(page_size=10, id_prefix="i0", cursor=page.cursor)
    assert rest == lungfish.Page(())
    middle = every[12].created_at
    before = await ids(client, created_before=middle)
    after = await ids(client, created_after=middle)
    assert [*before, *after] == [one.instance_id for one in every]
    assert await ids(client, updated_after=every[-1].updated_at + dt.timedelta(days=1)) == []
    with pytest.raises(lungfish.InvalidArguments, match="other filters"):
        await client.instances_page(cursor=page.cursor)


async def test_entities_that_have_a_state(client: lungfish.Client) -> None:
    keys = [f"{letter}{n}" for letter in "ab" for n in range(8)]
    await asyncio.gather(*(client.entity(Cart, key).call(Cart.add, 1) for key in keys))
    await client.entity(Cart, "a3").call(Cart.clear)
    await client.entity(Cart, "a3").state()
    assert [found.key async for found in client.entities(Cart, page_size=3)] == sorted({*keys} - {"a3"})
    assert await client.count_entities(Cart) == 15
    assert await client.count_entities("Cart", prefix="a") == 7
    await client.entity(Cart, "a3").call(Cart.add, 5)
    page = await client.entities_page(Cart, prefix="a", states=True, page_size=4)
    assert [(one.key, one.state.items) for one in page.items if one.state] == [
        ("a0", 1),
        ("a1", 1),
        ("a2", 1),
        ("a3", 5),
    ]
    assert page.cursor is not None
    plain = [one async for one in client.entities("Cart", prefix="b", states=True)]
    assert len(plain) == 8
    assert [one async for one in client.entities("Nobody")] == []


async def test_what_is_listed_survives_a_takeover(run_app: RunApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGFISH_ALWAYS_REPLAY", "0")
    async with run_app(app) as runtime:
        await runtime.client.start(waits, id="i", tags={"a": "b"})
        await runtime.client.entity(Cart, "k").call(Cart.add, 1)
    async with run_app(app) as runtime:
        client = runtime.client
        await client.orchestration("i").raise_event("go", "ok")
        await client.orchestration("i").result(timeout=60)
        assert await ids(client, status="Running") == []
        assert await ids(client, status="Completed", tag=("a", "b")) == ["i"]
        await client.entity(Cart, "k").call(Cart.clear)
        assert await client.count_entities(Cart) == 0


async def test_blocking_client_finds_the_same(run_app: RunApp, hub_name: str, valkey: Any) -> None:
    def look() -> tuple[list[str], int, list[str], int, list[str], list[str]]:
        with lungfish.connect_sync(valkey.url, hub=hub_name) as client:
            client.start("waits", id="c", tags={"late": "yes"})
            return (
                [found.instance_id for found in client.instances(page_size=1)],
                client.count_instances(status="Running"),
                [found.key for found in client.entities("Cart", page_size=1)],
                client.count_entities("Cart"),
                [found.instance_id for found in client.instances_page(tag=("late", "yes")).items],
                [found.key for found in client.entities_page("Cart", prefix="y").items],
            )

    async with run_app(app) as runtime:
        await runtime.client.start(waits, id="a")
        await runtime.client.start(waits, id="b")
        for key in ("x", "y"):
            await runtime.client.entity(Cart, key).call(Cart.add, 1)
        found = await asyncio.to_thread(look)
    assert found == (["a", "b", "c"], 3, ["x", "y"], 2, ["c"], ["y"])
