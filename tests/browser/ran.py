"""Which functions of the dashboard have run: so that no button is there that no test has pressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lungfish.runtime.http import dashboard
from tests.browser.chromium import Page

FOLDER = Path(dashboard.__file__).parent / "ui"
#: A function of a script: its file, its name, and where it begins.
Function = tuple[str, str, int]


class Ran:
    """Collects, over all pages, what V8 counts."""

    def __init__(self) -> None:
        self.calls: dict[Function, int] = {}
        self._sessions: dict[int, Any] = {}

    async def begin(self, page: Page) -> None:
        """Count from now on."""
        session = self._sessions[id(page)] = await page.context.new_cdp_session(page)
        await session.send("Profiler.enable")
        await session.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": False})

    async def end(self, page: Page) -> None:
        """Take what was counted for the last time."""
        await self.take(page)
        del self._sessions[id(page)]

    async def take(self, page: Page) -> None:
        """Take what was counted since the last time: with its document, the counts go."""
        session = self._sessions[id(page)]
        for script in (await session.send("Profiler.takePreciseCoverage"))["result"]:
            name = str(script["url"]).rpartition("/ui/")[2]
            if not name.endswith(".js"):
                continue
            for function in script["functions"]:
                first = function["ranges"][0]
                known = (name, str(function["functionName"]), int(first["startOffset"]))
                self.calls[known] = self.calls.get(known, 0) + int(first["count"])

    def never(self) -> list[Function]:
        """Return the functions that nobody has called, except for what is done with a lost connection."""
        return sorted(
            function for function, calls in self.calls.items() if not calls and not _catches(function)
        )


def _catches(function: Function) -> bool:
    name, _, begins = function
    return (FOLDER / name).read_text("utf-8")[:begins].endswith(".catch(")
