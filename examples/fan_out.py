"""Fan-out and fan-in: a batch of unknown size, all parts at once, then one result.

Two variants: ``total_size`` adds up numbers and fails as a whole if one part fails;
``convert_files`` takes every file through three steps and collects every outcome, failures included.

A crash half-way repeats nothing that was done: results are in the history.
"""

import asyncio
from dataclasses import dataclass, field

import lungfish

app = lungfish.App("fan-out")


@app.activity
def list_files(folder: str) -> list[str]:
    """Find out what there is to do; how much is known only now."""
    return [f"{folder}/{number}.txt" for number in range(20)]


@app.activity
async def measure(path: str) -> int:
    """Work on one part."""
    await asyncio.sleep(0.01)  # as a download would
    return len(path)


@app.activity
def publish(total: int) -> str:
    """Use what the parts came to."""
    return f"{total} bytes in all"


@app.orchestration
async def total_size(ctx: lungfish.OrchestrationContext, folder: str) -> str:
    """F1 gives a batch, F2 runs on each part in parallel, F3 takes the sum."""
    paths = await ctx.call_activity(list_files, folder)
    sizes = await asyncio.gather(*(ctx.call_activity(measure, path) for path in paths))
    return await ctx.call_activity(publish, sum(sizes))


class Unreadable(Exception):
    """The file is no text: trying again will not help."""

    non_retriable = True


@app.activity
def convert(path: str) -> str:
    """Make a PDF of a text."""
    if not path.endswith(".txt"):
        raise Unreadable(f"{path} is no text")
    return path.replace(".txt", ".pdf")


@app.activity
def validate(path: str) -> bool:
    """Look whether the conversion can be used."""
    return not path.startswith("empty")


@app.activity
def store(path: str) -> str:
    """Put it where it belongs."""
    return f"archive/{path}"


@dataclass
class Report:
    """What became of a batch."""

    stored: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@app.orchestration
async def convert_files(ctx: lungfish.OrchestrationContext, paths: list[str]) -> Report:
    """Convert, validate and store every file; one that fails does not hold up the others."""

    async def one(path: str) -> str:
        converted = await ctx.call_activity(convert, path)
        if not await ctx.call_activity(validate, converted):
            raise ValueError(f"{converted} is not valid")
        return await ctx.call_activity(store, converted)

    report = Report()
    outcomes = await asyncio.gather(*map(one, paths), return_exceptions=True)
    for path, outcome in zip(paths, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            report.failed[path] = str(outcome)
        else:
            report.stored.append(outcome)
    return report


async def main(client: lungfish.Client) -> tuple[str, Report]:
    """Run both."""
    total = await client.start(total_size, "inbox")
    converted = await client.start(convert_files, ["a.txt", "b.jpg", "empty.txt"])
    return await total.result(timeout=60), await converted.result(timeout=60)


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
