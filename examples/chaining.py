"""Function chaining: each step takes the result of the one before; if one fails, what was done is undone.

After a crash the chain goes on at the step where it was: results are in the history.
"""

import asyncio

import lungfish

app = lungfish.App("chaining")


@app.activity
def extract(source: str) -> list[str]:
    """F1: read what there is."""
    return source.split(",")


@app.activity
def transform(rows: list[str]) -> list[int]:
    """F2: make numbers of it; fails for what is none."""
    return [int(row) for row in rows]


@app.activity
def load(numbers: list[int]) -> str:
    """F3: write it, and return where."""
    return f"table-of-{len(numbers)}"


@app.activity
def announce(table: str) -> str:
    """F4: tell the readers."""
    return f"{table} is ready"


@app.activity
def discard(source: str, reason: str) -> str:
    """Undo what was done."""
    return f"{source!r} was discarded: {reason}"


@app.orchestration
async def chain(ctx: lungfish.OrchestrationContext, source: str) -> str:
    """F1 → F2 → F3 → F4, with a compensation."""
    try:
        rows = await ctx.call_activity(extract, source)
        numbers = await ctx.call_activity(transform, rows)
        table = await ctx.call_activity(load, numbers)
        return await ctx.call_activity(announce, table)
    except lungfish.ActivityFailed as error:
        return await ctx.call_activity(discard, source, str(error.details and error.details.message))


async def main(client: lungfish.Client) -> list[str]:
    """One source that works, one that does not."""
    started = [await client.start(chain, source) for source in ("1,2,3", "1,two,3")]
    return [await instance.result(timeout=60) for instance in started]


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(*await main(client), sep="\n")


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
