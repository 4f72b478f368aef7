"""Monitor: look at something now and then, with growing pauses, until it is done or too late.

A cron job starts every time from nothing; this remembers how often it has looked, and changes its pace.
Time is the orchestration's own (``ctx.now()``), so that replay sees the same one.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import lungfish

app = lungfish.App("monitor")


@dataclass
class Watched:
    """What to watch, how often, how long."""

    job: str
    first_pause: timedelta = timedelta(minutes=1)
    longest_pause: timedelta = timedelta(hours=1)
    patience: timedelta = timedelta(days=3)


#: Stands for the service that runs the jobs: how many looks it takes until each is completed.
looks_left = {"nightly-report": 3}
#: Stands for the alerting service. It knows a repeated alert by its key.
alerts: dict[str, str] = {}


@app.activity
def job_status(job: str) -> str:
    """Ask the service."""
    looks_left[job] = looks_left.get(job, 1) - 1
    return "Completed" if looks_left[job] <= 0 else "Running"


@app.activity
def send_alert(text: str) -> str:
    """Tell whoever is on duty, once, however often this runs."""
    alerts[lungfish.activity_info().idempotency_key] = text
    return text


@app.orchestration
async def monitor(ctx: lungfish.OrchestrationContext, watched: Watched) -> str:
    """Look, pause for longer each time, alert once."""
    expires_at = ctx.now() + watched.patience
    pause = watched.first_pause
    looks = 0
    while ctx.now() < expires_at:
        looks += 1
        status = await ctx.call_activity(job_status, watched.job)
        ctx.set_custom_status(f"look {looks}: {status}")
        if status == "Completed":
            await ctx.call_activity(send_alert, f"{watched.job} is done")
            return f"done after {looks} looks"
        await ctx.create_timer(min(ctx.now() + pause, expires_at))
        pause = min(pause * 2, watched.longest_pause)
    await ctx.call_activity(send_alert, f"{watched.job} is not done yet")
    return f"given up after {looks} looks"


async def main(client: lungfish.Client) -> str:
    """Watch a job that is nearly done."""
    watched = Watched("nightly-report", first_pause=timedelta(seconds=0.1))
    return await (await client.start(monitor, watched)).result(timeout=60)


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
