"""Hello cities: an orchestration calls one activity three times, one after the other.

Run it: ``python examples/hello_cities.py``. It starts a small Ray cluster and an embedded store.
"""

import asyncio

import lungfish

app = lungfish.App("hello-cities")


@app.activity
def hello(city: str) -> str:
    """Greet a city: the work, done by a worker."""
    return f"Hello, {city}!"


@app.orchestration
async def hello_cities(ctx: lungfish.OrchestrationContext) -> list[str]:
    """Decide what is done; whatever crashes meanwhile, no greeting that was made is made again."""
    tokyo = await ctx.call_activity(hello, "Tokyo")
    seattle = await ctx.call_activity(hello, "Seattle")
    cairo = await ctx.call_activity(hello, "Cairo")
    return [tokyo, seattle, cairo]


async def main(client: lungfish.Client) -> list[str]:
    """Start an instance and wait for its result."""
    instance = await client.start(hello_cities)
    return await instance.result(timeout=60)


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
