"""One shard of a Cluster goes back in time: some partitions forget, others remember what those had sent.

Rules:

* What was sent before is lost, or heard once: at rest there is nothing that could be done again.
* All that is sent afterwards is heard, exactly once, whoever forgot what. No target may take it for a repeat.
* Nobody waits for ever for a child that is forgotten: it is started again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import lungfish
from lungfish.runtime.client import Client
from lungfish.runtime.memory_server import Hub
from tests.simulation.app import app

#: Enough for every pair of the six partitions of the largest run to be likely.
TELLERS: Final = 10
#: How often each tells each before the failover: as many numbers are forgotten.
BEFORE: Final = 3


@app.entity
class Teller(lungfish.Entity):
    """Hears, and tells others."""

    heard: list[str] = []

    def tell(self, word: str) -> None:
        """Tell everybody else."""
        for number in range(TELLERS):
            if str(number) != self.key:
                self.context.signal((Teller, str(number)), Teller.hear, f"{word} {self.key}")

    def hear(self, word: str) -> None:
        """Hear something."""
        self.heard.append(word)


async def tell(client: Client, when: str, times: int) -> None:
    """Have everybody tell everybody else, so many times."""
    for time in range(times):
        for number in range(TELLERS):
            await client.entity(Teller, str(number)).signal(Teller.tell, f"{when} {time}")


def check(hub: Hub) -> Iterator[str]:
    """Yield what was lost afterwards, or doubled."""
    tellers = {
        key: Teller.lungfish_state(snapshot, key)
        for rows in hub.partitions.values()
        for (name, key), snapshot in rows.snapshots.items()
        if name == "Teller"
    }
    for number in range(TELLERS):
        teller = tellers.get(str(number))
        heard = Counter(teller.heard if teller is not None else ())
        doubled = [word for word, count in heard.items() if count > 1]
        if doubled:
            yield f"teller {number} heard twice: {doubled}"
        missing = [f"after 0 {n}" for n in range(TELLERS) if n != number and not heard[f"after 0 {n}"]]
        if missing:
            yield f"teller {number} never heard: {missing}"
