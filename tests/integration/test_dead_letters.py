"""Messages that were set aside, on a real store, with both clients."""

from __future__ import annotations

import asyncio

import lungfish
from lungfish.runtime.on_redis.open_store import open_store
from tests.integration.polling import until
from tests.local import RunApp
from tests.servers import Server

old, new = lungfish.App("letters"), lungfish.App("letters")


@old.entity(name="Counter")
class OldCounter(lungfish.Entity):
    value: int = 0


@new.entity(name="Counter")
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int) -> int:
        self.value += n
        return self.value


async def test_signals_that_an_old_release_could_not_apply_are_applied_by_the_next(
    run_app: RunApp, valkey: Server, hub_name: str
) -> None:
    async with run_app(old) as runtime:
        other = lungfish.Client(lambda: open_store(valkey.url, hub_name))
        async with other:
            for n in (1, 2, 3):
                await other.entity("Counter", "hits").signal("add", n)

        async def are_listed() -> bool:
            return len([letter async for letter in runtime.client.dead_letters("Counter")]) == 3

        await until(are_listed, "three signals to be set aside")
    async with run_app(new) as runtime:
        blocking = lungfish.BlockingClient(lungfish.Client(lambda: open_store(valkey.url, hub_name), new))

        def replay() -> tuple[list[str], int]:
            with blocking:
                letters = list(blocking.dead_letters("Counter/hits"))
                reasons = [letter.letter.reason for letter in letters]
                letters[0].replay()
                letters[0].replay()
                letters[1].delete()
                return reasons, blocking.dead_letters().replay()

        reasons, replayed = await asyncio.to_thread(replay)
        assert replayed == 1
        assert all("no operation of Counter named 'add'" in reason for reason in reasons)
        assert await runtime.client.entity(Counter, "hits").call(Counter.add, 0) == 4
        assert [letter async for letter in runtime.client.dead_letters()] == []
