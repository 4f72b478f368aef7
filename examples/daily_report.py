"""Daily report: an orchestration that a schedule starts on working days at nine, Berlin time.

The schedule is declared in code: every host that starts makes it, or brings it up to date. Each day is
started exactly once, whatever crashes, under an id of its own (``daily-report-2026-01-05T08:00:00Z``).
"""

import asyncio
from datetime import timedelta

import lungfish

app = lungfish.App("daily-report")

#: Stands for the sales system and the mail server; the latter knows a repeated mail by its key.
sales = {"Berlin": 1200.0, "Paris": 800.0}
mails: dict[str, str] = {}


@app.activity
def revenue(city: str) -> float:
    """Ask the sales system."""
    return sales[city]


@app.activity(retry=lungfish.RetryPolicy(max_attempts=5, initial_interval=timedelta(seconds=10)))
def send_mail(text: str) -> None:
    """Send a mail, once, however often this runs."""
    mails[lungfish.activity_info().idempotency_key] = text


@app.orchestration
async def report(ctx: lungfish.OrchestrationContext, cities: list[str]) -> str:
    """Gather the numbers, send them."""
    numbers = await asyncio.gather(*(ctx.call_activity(revenue, city) for city in cities))
    text = f"{ctx.now():%A %d %B}: {sum(numbers):.2f}"
    await ctx.call_activity(send_mail, text)
    return text


app.schedule(
    "daily-report",
    lungfish.cron("0 9 * * MON-FRI", tz="Europe/Berlin"),
    report,
    [list(sales)],
    overlap="buffer_one",
    # A report that could not be made for half a day is of no use any more.
    catch_up=timedelta(hours=12),
)


async def main(client: lungfish.Client) -> str:
    """Do not wait until tomorrow: have a report now."""
    schedule = client.schedules.get("daily-report")
    async with asyncio.timeout(30):
        while True:
            try:
                run = await schedule.trigger()
                break
            except lungfish.ScheduleNotFound:  # the first host is about to make it
                await asyncio.sleep(0.05)
    assert run is not None
    text: str = await client.orchestration(run).result(timeout=60)
    return text


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))
        print((await client.schedules.get("daily-report").describe()).next_times)


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
