"""Heartbeats: a long conversion that goes on where it was, after a failure and after the death of its worker.

Without them a film of three hours begins again from its first minute. With them each attempt says how far it
is, and the next one begins there; a converter that hangs is noticed in a minute, and one whose order was
cancelled stops.
"""

import asyncio
from dataclasses import dataclass, field

import lungfish

app = lungfish.App("heartbeats")


@dataclass
class Progress:
    """What an attempt leaves to the next one."""

    minutes_done: int = 0


@dataclass
class Converter:
    """Stands for the program that converts, and what it has written so far."""

    written: list[int] = field(default_factory=list)
    #: Minutes of film at which it fails, once each.
    fails_at: set[int] = field(default_factory=set)

    def convert_minute(self, minute: int) -> None:
        """Convert one minute of film."""
        if minute in self.fails_at:
            self.fails_at.remove(minute)
            raise OSError(f"the disk was full at minute {minute}")
        self.written.append(minute)


converter = Converter()


@app.activity(
    heartbeat_timeout=60,
    retry=lungfish.RetryPolicy(max_attempts=5, retry_on=(OSError, TimeoutError), jitter=0.2),
)
def convert(film: str, minutes: int) -> str:
    """Convert a film, from where the last attempt was."""
    info = lungfish.activity_info()
    progress = info.heartbeat_details(Progress) or Progress()
    for minute in range(progress.minutes_done, minutes):
        converter.convert_minute(minute)
        # Raises ActivityCancelled if nobody waits for the film any more.
        info.heartbeat(Progress(minute + 1))
    return f"{film}: {minutes} minutes in {info.attempt} attempts"


@app.orchestration
async def publish(ctx: lungfish.OrchestrationContext, film: str, minutes: int) -> str:
    """Convert, but not for ever."""
    try:
        return await ctx.call_activity(convert, film, minutes)
    except lungfish.ActivityTimedOut as error:
        return f"{film}: given up ({error.timeout})"


async def main(client: lungfish.Client) -> str:
    """Convert a film on a disk that is full now and then."""
    converter.fails_at = {30, 100}
    return await (await client.start(publish, "Metropolis", 153)).result(timeout=60)


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
