"""Groups: what is in one group shares a partition, and what its members ask of one another is one commit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import lungfish
from lungfish.runtime.ids import ENTITY, ORCHESTRATION, ActorId, partition_of
from lungfish.runtime.store.store import Commit
from tests.unit.hub import PARTITIONS, Hub, hub_of
from tests.virtual import virtually

app = lungfish.App("groups")


@app.entity
class Customer(lungfish.Entity):
    orders: int = 0

    def add(self) -> int:
        self.orders += 1
        return self.orders


@app.entity
class Order(lungfish.Entity):
    placed: int = 0

    def place(self, customer: str) -> None:
        self.placed += 1
        self.context.signal((Customer, customer), Customer.add)

    async def ask(self, customer: str) -> int:
        self.placed = await self.context.entity(Customer, customer).call(Customer.add)
        return self.placed

    def check_out(self, customer: str, id: str) -> None:
        self.placed += 1
        self.context.start(checkout, customer, id=id)


@app.orchestration
async def checkout(ctx: lungfish.OrchestrationContext, customer: str) -> int:
    return await ctx.entity(Customer, customer).call(Customer.add)


def far_from(key: str) -> str:
    """Return the key of a customer that another partition owns."""
    here = partition_of(ActorId(ENTITY, "Order", key), PARTITIONS)
    keys = (f"far-{number}" for number in range(1_000))
    return next(key for key in keys if partition_of(ActorId(ENTITY, "Customer", key), PARTITIONS) != here)


class Commits:
    """Notes the commits of a host that write something of an actor."""

    def __init__(self, hub: Hub) -> None:
        self.seen: list[Commit] = []
        hub.stores["a"].before_commit = self._note

    def _note(self, commits: Sequence[Commit]) -> None:
        self.seen += [
            one for one in commits if one.snapshots or one.mailbox or one.instances or one.deliveries
        ]

    def with_both(self) -> list[Commit]:
        return [one for one in self.seen if len({name for name, _ in one.snapshots}) == 2]


ORDER = lungfish.grouped("cust-7", "order-1")
NEAR = lungfish.grouped("cust-7")


@pytest.mark.parametrize(("customer", "commits"), [(NEAR, 1), (far_from(ORDER), 2)], ids=["group", "apart"])
def test_a_signal_within_a_group_is_in_the_commit_of_its_sender(customer: str, commits: int) -> None:
    async def test() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a")
            async with hub.client() as client:
                noted = Commits(hub)
                await client.entity(Order, ORDER).signal(Order.place, customer)
                await hub.until(lambda: len(noted.seen) >= commits, "it is committed")
                assert await client.entity(Customer, customer).call(Customer.add) == 2
                assert len(noted.with_both()) == (1 if commits == 1 else 0)
                # The second call was one more.
                assert len([one for one in noted.seen if one.snapshots]) == commits + 1

    virtually(test)


def commits_of_a_call(customer: str) -> list[Commit]:
    found: list[Commit] = []

    async def test() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a")
            async with hub.client() as client:
                noted = Commits(hub)
                assert await client.entity(Order, ORDER).call(Order.ask, customer) == 1
                found.extend(noted.seen)

    virtually(test)
    return found


def test_a_call_within_a_group_takes_fewer_commits_and_goes_nowhere_else() -> None:
    near, far = commits_of_a_call(NEAR), commits_of_a_call(far_from(ORDER))
    assert len(near) < len(far)
    assert {delivery.target[0] for one in near for delivery in one.deliveries} == {"c"}
    assert {delivery.target[0] for one in far for delivery in one.deliveries} == {"c", "p"}


def test_an_orchestration_lives_with_its_entities() -> None:
    async def test() -> None:
        instance = lungfish.grouped("cust-7", "checkout-1")
        assert len({
            partition_of(ActorId(ENTITY, "Order", ORDER), PARTITIONS),
            partition_of(ActorId(ENTITY, "Customer", NEAR), PARTITIONS),
            partition_of(ActorId(ORCHESTRATION, "", instance), PARTITIONS),
        }) == 1  # fmt: skip
        async with hub_of(app) as hub:
            await hub.start_all("a")
            async with hub.client() as client:
                noted = Commits(hub)
                await client.entity(Order, ORDER).call(Order.check_out, NEAR, instance)
                assert await client.orchestration(instance).result() == 1
                assert all(not one.deliveries or one.deliveries[0].target[0] == "c" for one in noted.seen)
                assert len({one.partition for one in noted.seen}) == 1

    virtually(test)


def test_a_client_without_the_app_finds_it() -> None:
    async def test() -> None:
        async with hub_of(app) as hub:
            await hub.start_all("a", "b")
            async with hub.client() as client:
                await client.entity(Order, ORDER).call(Order.place, NEAR)
            async with lungfish.Client(hub.store) as client:
                assert await client.entity("Customer", "cust-7|").call("add") == 2

    virtually(test)
