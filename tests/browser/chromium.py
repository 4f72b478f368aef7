"""A Chromium of the machine, and pages that say what went wrong. The only module that knows Playwright."""

# pyright: reportMissingImports=false
# Playwright is in the extra `browser`: who only checks types need not have it.

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Locator, Page, Playwright, async_playwright, expect

__all__ = ["PATIENCE_MS", "Browser", "Locator", "Page", "Sight", "expect", "find_chromium", "launched"]

#: Which browser to take; else the first of these that is on the path.
PROGRAM_VARIABLE = "LUNGFISH_TEST_BROWSER"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
MISSING = (
    "no Chromium was found: the dashboard's tests need one. Install it (apt install chromium, "
    "or: python -m playwright install chromium), or name a program in $" + PROGRAM_VARIABLE
)
#: What a page may wait for (ms): the machine may be busy.
PATIENCE_MS = 60_000.0
expect.set_options(timeout=PATIENCE_MS)


def find_chromium(own: str = "") -> str:
    """Return the program to start; ``own`` is where Playwright would have put its own."""
    named = os.environ.get(PROGRAM_VARIABLE)
    found = named or next(filter(None, map(shutil.which, PROGRAMS)), None) or own
    if not found or shutil.which(found) is None:
        raise FileNotFoundError(
            MISSING if not named else f"${PROGRAM_VARIABLE}: there is no program {named!r}"
        )
    return found


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """Run a browser without a window, which reaches this machine and nothing else."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_chromium(_own(playwright)),
            args=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-sandbox"],
        )
        try:
            yield browser
        finally:
            await browser.close()


def _own(playwright: Playwright) -> str:
    return str(playwright.chromium.executable_path)


class Sight:
    """One page of the dashboard, with all that it complained of and all that it asked for.

    Attributes:
        complaints: what stood in the console, and exceptions that nobody caught.
        strays: requests that left the origin.
        expected: texts in complaints that the test causes on purpose.
        leaving: called before the document goes.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.complaints = list[str]()
        self.strays = list[str]()
        self.expected = list[str]()
        self.leaving: Callable[[], Awaitable[None]] | None = None
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", self._see)

    def _hear(self, message: object) -> None:
        kind, text = getattr(message, "type", ""), getattr(message, "text", "")
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def _see(self, request: object) -> None:
        url = str(getattr(request, "url", ""))
        if not url.startswith((f"{self.origin}/", "data:")):
            self.strays.append(url)

    async def reload(self) -> None:
        """Load the page once more."""
        if self.leaving is not None:
            await self.leaving()
        await self.page.reload()

    async def open(self, path: str = "#/") -> None:
        """Go to a page of the dashboard as one who types its address."""
        await self.page.goto(f"{self.origin}/ui/{path}")

    def button(self, name: str) -> Locator:
        """The button of that name."""
        return self.page.get_by_role("button", name=name, exact=True)

    async def answer(self, verb: str, /, **fields: str) -> None:
        """Fill in the dialog that is open, field by field, and press the button named ``verb``."""
        dialog = self.page.locator("dialog[open]")
        await expect(dialog).to_be_visible(timeout=PATIENCE_MS)
        for name, value in fields.items():
            await dialog.locator(f"[name={name}]").fill(value)
        await dialog.get_by_role("button", name=verb, exact=True).click()

    async def filter(self, label: str, value: str) -> None:
        """Type into the field of that label, and confirm with Enter."""
        field = self.page.get_by_label(label, exact=True)
        await field.fill(value)
        await field.press("Enter")

    async def sees(self, text: str, within: str = "body") -> None:
        """Wait until that text is shown."""
        await expect(self.page.locator(within)).to_contain_text(text)

    async def sees_no(self, text: str, within: str = "body") -> None:
        """Wait until that text is not shown."""
        await expect(self.page.locator(within)).not_to_contain_text(text)

    def check(self) -> None:
        """Raise for anything that the page complained of, or that it asked of somebody else."""
        bad = [text for text in self.complaints if not any(known in text for known in self.expected)]
        assert not bad, bad
        assert not self.strays, f"requests left the origin: {self.strays}"
