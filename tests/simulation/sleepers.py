"""Every host dies while entities are asleep in an operation, and what was sent to them waits behind it.

Rules:

* What waits was acknowledged: it is heard, once and in order, when the operation has been run again.
"""

from __future__ import annotations

import asyncio
from typing import Final

import lungfish
from lungfish.runtime.client.client import Client
from tests.simulation.app import app

#: Enough for every partition of the largest run to be likely.
SLEEPERS: Final = 10
WORDS: Final = 3
#: How long they sleep, and after how long the hosts die (virtual s).
SLEEP_S: Final = 2.0
DEATH_S: Final = 0.5


@app.entity
class Sleeper(lungfish.Entity):
    """Sleeps, and hears nothing meanwhile."""

    heard: list[int] = []

    async def doze(self) -> None:
        """Sleep."""
        await asyncio.sleep(SLEEP_S)
        self.heard.append(0)

    def hear(self, word: int) -> None:
        """Hear something."""
        self.heard.append(word)


async def tell(client: Client) -> None:
    """Send everybody to sleep, and tell them something."""
    for number in range(SLEEPERS):
        sleeper = client.entity(Sleeper, str(number))
        await sleeper.signal(Sleeper.doze)
        for word in range(1, WORDS + 1):
            await sleeper.signal(Sleeper.hear, word)
    await asyncio.sleep(DEATH_S)


async def wrong(client: Client) -> list[str]:
    """Return who has not heard everything once and in order."""
    states = {number: await client.entity(Sleeper, str(number)).state() for number in range(SLEEPERS)}
    heard = {number: [] if state is None else state.heard for number, state in states.items()}
    return [
        f"sleepers: {number} heard {words}"
        for number, words in heard.items()
        if words != list(range(WORDS + 1))
    ]
