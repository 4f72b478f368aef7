"""One trace from a client through an entity, an orchestration and its activities, printed as a tree.

The spans are collected in this process. To send them to a collector instead: docs/tracing.md.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lungfish
import lungfish.tracing
from lungfish.testing import environment

app = lungfish.App("traces")

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
lungfish.tracing.install(app, provider)


class CardRefused(Exception):
    """The first time, always."""


@app.entity
class Sales(lungfish.Entity):
    """How much was sold."""

    total: int = 0

    def add(self, amount: int) -> None:
        """Count a sale."""
        self.total += amount


@app.entity
class Cart(lungfish.Entity):
    """What somebody wants to buy."""

    prices: list[int] = []

    def put(self, price: int) -> None:
        """Put something in."""
        self.prices.append(price)

    def check_out(self) -> str:
        """Start what becomes of it; return the id."""
        return self.context.start(buy, sum(self.prices), id=f"order-of-{self.key}")


@app.activity(retry=lungfish.RetryPolicy(3, timedelta(milliseconds=10)))
def charge(amount: int) -> str:
    """Take the money."""
    if lungfish.activity_info().attempt == 1:
        raise CardRefused(f"no {amount} to be had just now")
    return f"paid {amount}"


@app.orchestration
async def pack(ctx: lungfish.OrchestrationContext) -> None:
    """It takes a while."""
    await ctx.sleep(0.02)


@app.orchestration
async def buy(ctx: lungfish.OrchestrationContext, amount: int) -> str:
    """Charge, pack, wait for the courier, count."""
    paid = await ctx.call_activity(charge, amount)
    await ctx.call_orchestration(pack)
    await ctx.wait_for_external_event("collected")
    ctx.entity(Sales, "today").signal(Sales.add, amount)
    return paid


def tree(told: Sequence[ReadableSpan]) -> str:
    """Return spans as lines, each below its parent, in the order of their ends."""
    below: dict[int | None, list[ReadableSpan]] = {}
    known = {span.context.span_id for span in told if span.context is not None}
    for span in told:
        parent = span.parent.span_id if span.parent is not None else None
        below.setdefault(parent if parent in known else None, []).append(span)
    return "\n".join(_lines(below, None, 0))


def _lines(below: dict[int | None, list[ReadableSpan]], parent: int | None, depth: int) -> Iterable[str]:
    for span in below.get(parent, ()):
        assert span.context is not None
        said = span.attributes or {}
        notes = [f"[{span.kind.name.lower()}]"]
        if "lungfish.attempt" in said:
            notes.append(f"attempt {said['lungfish.attempt']!r}")
        notes += [f"failed: {(event.attributes or {})['exception.message']!r}" for event in span.events]
        yield f"{'  ' * depth}{span.name} {' '.join(notes)}"
        yield from _lines(below, span.context.span_id, depth + 1)


async def main(client: lungfish.Client) -> str:
    """Buy something, in one trace; return the tree."""
    tracer = provider.get_tracer(__name__)
    with tracer.start_as_current_span("a customer"):
        cart = client.entity(Cart, "ada")
        await cart.signal_many(Cart.put, [(3,), (4,)])
        order = client.orchestration(await cart.call(Cart.check_out))
        await order.raise_event("collected")
    await order.result(timeout=60)
    while await client.entity(Sales, "today").state() is None:
        await asyncio.sleep(0.01)
    return tree(spans.get_finished_spans())


async def in_one_process() -> None:
    """Run all of it here, so that all spans are collected here."""
    async with environment(app) as env:
        print(await main(env.client))


if __name__ == "__main__":
    asyncio.run(in_one_process())
