"""Queries over all partitions, on the store in memory."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pytest

from lungfish.runtime.client.finding import Finder
from lungfish.runtime.errors import InvalidArguments, InvalidId
from lungfish.runtime.messages.status import OrchestrationStatus, RuntimeStatus, from_ms
from lungfish.runtime.messages.tags import TAGS_MAX, check_tags, of_wire
from lungfish.runtime.store.index import by_name, by_status, by_tag, member
from lungfish.runtime.store.query import EntityQuery, InstanceQuery, Order, Page, read_cursor, write_cursor
from lungfish.runtime.store.store import Commit, HubMeta
from lungfish.runtime.testing.memory_store import MemoryServer, MemoryStore

PARTITIONS = 4


def read_status(instance: str, row: bytes) -> OrchestrationStatus:
    status, created, updated = row.decode().split()
    state = RuntimeStatus(status)
    return OrchestrationStatus(instance, "hello", state, from_ms(int(created)), from_ms(int(updated)))


class Instances:
    """Instances in a store, without code: rows and index entries as an owner would commit them."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.created: dict[str, int] = {}
        self._status: dict[str, str] = {}
        self._commits = [0] * PARTITIONS

    async def set(self, instance: str, status: str | None, created_ms: int = 0, updated_ms: int = 0) -> None:
        """Create an instance, give it a status, or (None) remove it."""
        created_ms = self.created.setdefault(instance, created_ms)
        name = member(created_ms, instance)
        row = None if status is None else f"{status} {created_ms} {updated_ms or created_ms}".encode()
        index: dict[tuple[str, str], int | None] = {
            (by_name("hello"), name): None if row is None else 0,
        }
        if instance in self._status:
            index[by_status(self._status.pop(instance)), name] = None
        if status is not None:
            index[by_status(status), name] = 0
            self._status[instance] = status
        partition = sum(instance.encode()) % PARTITIONS
        await self.store.claim(partition, "A", "t")
        self._commits[partition] += 1
        number = self._commits[partition]
        await self.store.commit([Commit(partition, "t", number, instances={instance: row}, index=index)])


@pytest.fixture
async def instances() -> Instances:
    store = MemoryStore(MemoryServer(), "hub")
    await store.open(HubMeta(PARTITIONS))
    return Instances(store)


async def pages(instances: Instances, size: int, **filters: Any) -> list[Page[OrchestrationStatus]]:
    finder, cursor, found = Finder(instances.store, range(PARTITIONS)), None, []
    while True:
        query = InstanceQuery.of(**filters)
        found.append(await finder.instances_page(query, size, cursor, read_status))
        cursor = found[-1].cursor
        if cursor is None:
            return found


async def ids(instances: Instances, size: int = 7, **filters: Any) -> list[str]:
    return [item.instance_id for page in await pages(instances, size, **filters) for item in page.items]


async def count(instances: Instances, **filters: Any) -> int:
    return await Finder(instances.store, range(PARTITIONS)).count_instances(
        InstanceQuery.of(**filters), read_status
    )


class TestInstances:
    async def test_pages_in_order_of_creation_over_all_partitions(self, instances: Instances) -> None:
        for n in range(50):
            await instances.set(f"i{n}", "Running", 1_000 + n // 3)
        expected = sorted(instances.created, key=lambda one: (instances.created[one], one))
        assert await ids(instances) == expected
        assert await ids(instances, order="newest") == expected[::-1]
        assert [len(page.items) for page in await pages(instances, 20)] == [20, 20, 10]

    @pytest.mark.parametrize("seed", range(20))
    async def test_what_exists_throughout_comes_exactly_once(self, instances: Instances, seed: int) -> None:
        chance = random.Random(seed)
        for n in range(60):
            await instances.set(f"i{n}", "Running", 1_000 + chance.randrange(10))
        stays = set(chance.sample(sorted(instances.created), 30))
        finder, cursor, found = Finder(instances.store, range(PARTITIONS)), None, list[str]()
        order: Order = chance.choice(["oldest", "newest"])
        query = InstanceQuery.of(status=["Running", "Completed"], order=order)
        while True:
            page = await finder.instances_page(query, chance.choice([1, 5, 9]), cursor, read_status)
            found += [item.instance_id for item in page.items]
            if (cursor := page.cursor) is None:
                break
            for _ in range(5):
                await instances.set(f"new{len(instances.created)}", "Running", 1_000 + chance.randrange(12))
            for one in chance.sample(sorted(instances.created), 8):
                await instances.set(one, "Completed" if one in stays else None)
        assert len(found) == len(set(found))
        assert stays <= set(found)

    async def test_filters(self, instances: Instances) -> None:
        for n in range(12):
            await instances.set(f"{'a' if n < 6 else 'b'}{n}", ["Running", "Failed"][n % 2], 100 + n, 200 + n)
        assert await ids(instances, status="Failed", id_prefix="a") == ["a1", "a3", "a5"]
        assert await ids(instances, status=["Failed", RuntimeStatus.TERMINATED], id_prefix="b") == [
            "b7",
            "b9",
            "b11",
        ]
        assert await ids(instances, name="other") == []
        after, before = from_ms(104), from_ms(107)
        assert await ids(instances, created_after=after, created_before=before) == ["a4", "a5", "b6"]
        late = dt.timedelta(microseconds=1)
        assert await ids(instances, created_after=after + late, created_before=before + late) == [
            "a5",
            "b6",
            "b7",
        ]
        updated: dict[str, Any] = {"updated_after": from_ms(202), "updated_before": from_ms(204)}
        assert await ids(instances, **updated) == ["a2", "a3"]
        assert await count(instances, **updated) == 2
        assert await count(instances) == 12
        assert await count(instances, status=["Failed", "Running"], id_prefix="b") == 6
        assert await count(instances, created_before=before, name="hello") == 7

    async def test_a_row_that_has_changed_since_is_left_out(self, instances: Instances) -> None:
        for n in range(9):
            await instances.set(f"i{n}", "Running", n)
        rows = instances.store.server.hub("hub")
        for partition in rows.partitions.values():
            for instance in [one for one in partition.instances if one in ("i3", "i5")]:
                partition.instances[instance] = b"Completed 3 3"
            partition.instances.pop("i4", None)
        assert await ids(instances, size=3, status="Running") == ["i0", "i1", "i2", "i6", "i7", "i8"]

    async def test_a_page_reads_little(self, instances: Instances) -> None:
        for n in range(400):
            await instances.set(f"i{n}", "Running", n)
        read: list[str] = []
        scan_index = instances.store.scan_index

        async def counted(scans: Any, *, count: int) -> Any:
            answers = await scan_index(scans, count=count)
            read.extend(member for found in answers for member in found.members)
            return answers

        instances.store.scan_index = counted  # type: ignore[method-assign]
        finder = Finder(instances.store, range(PARTITIONS))
        page = await finder.instances_page(InstanceQuery.of(), 20, None, read_status)
        assert len(page.items) == 20
        assert len(read) < 120

    async def test_a_page_ends_where_few_rows_fit(
        self, instances: Instances, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lungfish.runtime.client.finding.LOOKED_AT_MAX", 10)
        for n in range(30):
            await instances.set(f"i{n:02}", "Running", n, 1_000 if n == 29 else n)
        found = await pages(instances, 5, updated_after=from_ms(1_000))
        assert [len(page.items) for page in found] == [0, 0, 1] or len(found) > 2
        assert [item.instance_id for page in found for item in page.items] == ["i29"]


class TestEntities:
    async def test_pages_by_key(self) -> None:
        store = MemoryStore(MemoryServer(), "hub")
        await store.open(HubMeta(PARTITIONS))
        keys = [f"{letter}{n}" for letter in "ab" for n in range(20)]
        for p in range(PARTITIONS):
            await store.claim(p, "A", "t")
            mine = keys[p::PARTITIONS]
            listed: dict[tuple[str, str], int | None] = {("entities:E", key): 0 for key in mine}
            snapshots: dict[tuple[str, str], bytes | None] = {("E", key): key.encode() for key in mine}
            await store.commit([Commit(p, "t", 1, index=listed, snapshots=snapshots)])
        finder = Finder(store, range(PARTITIONS))
        found, cursor, query = list[tuple[str, bytes | None]](), None, EntityQuery.of("E", "b")
        while True:
            page = await finder.entities_page(query, 6, cursor, states=True)
            found += page.items
            if (cursor := page.cursor) is None:
                break
        assert found == [(key, key.encode()) for key in sorted(keys) if key[0] == "b"]
        assert await finder.count_entities(query) == 20
        assert await finder.count_entities(EntityQuery.of("E", "")) == 40


class TestCursors:
    def test_a_cursor_goes_through_a_url(self) -> None:
        query = InstanceQuery.of(status="Running")
        cursor = write_cursor(query, "00ünï/☃?&")
        assert cursor.isascii()
        assert not set("/+=&? ") & set(cursor)
        assert read_cursor(query, cursor) == "00ünï/☃?&"
        assert read_cursor(query, None) == ""

    def test_a_cursor_of_another_query_is_refused(self) -> None:
        cursor = write_cursor(InstanceQuery.of(status="Running"), "x")
        with pytest.raises(InvalidArguments, match="other filters"):
            read_cursor(InstanceQuery.of(status="Running", order="newest"), cursor)

    @pytest.mark.parametrize("cursor", ["", "x", "ü", "AAAA", "k5MB", 5, b"x", "_" * 100])
    def test_what_is_no_cursor_is_refused(self, cursor: Any) -> None:
        with pytest.raises(InvalidArguments, match="cursor"):
            read_cursor(InstanceQuery.of(), cursor)


class TestBadInput:
    @pytest.mark.parametrize(
        "filters",
        [
            {"status": "Lost"},
            {"status": []},
            {"status": 5},
            {"id_prefix": None},
            {"id_prefix": "\ud800"},
            {"order": "random"},
            {"tag": "customer"},
            {"tag": ("a", 5)},
            {"tags": {"a": None}},
            {"created_after": dt.datetime(2026, 1, 1)},  # noqa: DTZ001 - the point
            {"created_before": "yesterday"},
            {"updated_after": 5},
        ],
    )
    def test_filters(self, filters: dict[str, Any]) -> None:
        with pytest.raises(InvalidArguments):
            InstanceQuery.of(**filters)

    def test_names(self) -> None:
        with pytest.raises(InvalidId):
            InstanceQuery.of(name="")

    @pytest.mark.parametrize("size", [0, -1, 1_001, True, "5", None, 2.0])
    async def test_page_size(self, instances: Instances, size: Any) -> None:
        with pytest.raises(InvalidArguments, match="page_size"):
            await Finder(instances.store, range(PARTITIONS)).instances_page(
                InstanceQuery.of(), size, None, read_status
            )


class TestTags:
    def test_wire_form(self) -> None:
        assert of_wire(check_tags({"b": "", "a": "ü"})) == {"a": "ü", "b": ""}
        assert check_tags(None) == check_tags({}) == ()

    @pytest.mark.parametrize(
        "tags",
        [
            {"": "x"},
            {"a": 5},
            {5: "a"},
            {"a": "x" * 257},
            {"a\0": "b"},
            {"a": "\ud800"},
            {f"t{n}": "" for n in range(TAGS_MAX + 1)},
            ["a"],
            "a",
        ],
    )
    def test_refused(self, tags: Any) -> None:
        with pytest.raises(InvalidArguments):
            check_tags(tags)

    def test_a_tag_is_not_another_ones_index(self) -> None:
        assert by_tag("a=b", "c") != by_tag("a", "b=c")
