"""Waiting for a condition that nothing announces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

TIMEOUT_S = 60.0


async def until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait until a condition holds."""
    deadline_s = asyncio.get_running_loop().time() + TIMEOUT_S
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline_s, f"timed out: {what}"
        await asyncio.sleep(0.005)
