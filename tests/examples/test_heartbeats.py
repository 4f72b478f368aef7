"""The conversion: no minute of film is converted twice, whatever fails, and a hopeless one ends."""

from __future__ import annotations

import pytest

from examples import heartbeats
from examples.heartbeats import Converter
from lungfish.testing import environment


@pytest.fixture(autouse=True)
def converter(monkeypatch: pytest.MonkeyPatch) -> Converter:
    made = Converter()
    monkeypatch.setattr(heartbeats, "converter", made)
    return made


async def test_every_minute_is_converted_once(converter: Converter) -> None:
    converter.fails_at = {30, 100}
    async with environment(heartbeats.app) as env:
        instance = await env.client.start(heartbeats.publish, "Metropolis", 153)
        assert await instance.result(timeout=60) == "Metropolis: 153 minutes in 3 attempts"
    assert converter.written == list(range(153))


async def test_it_gives_up_when_every_attempt_fails(converter: Converter) -> None:
    converter.fails_at = {1, 2, 3, 4, 5}
    async with environment(heartbeats.app) as env:
        instance = await env.client.start(heartbeats.publish, "Metropolis", 153)
        with pytest.raises(Exception, match="the disk was full at minute 5"):
            await instance.result(timeout=60)
    assert converter.written == [0, 1, 2, 3, 4]
