"""What a client says to those who do not enter it, or enter it as the other of the two is entered.

Checkers see none of this: to them these are mistakes, and they say so first.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, NoReturn

from lungfish.runtime.errors import NotDurable, UsageError

#: How each of the two is entered.
_ASYNC: Final = "'async with lungfish.connect(…)'"
_BLOCKING: Final = "'with lungfish.connect_sync(…)'"


def check_place() -> None:
    """Raise ``NotDurable`` where the code of an orchestration runs: nobody would repeat what a client did."""
    if getattr(asyncio._get_running_loop(), "runs_orchestration", False):
        raise NotDurable(
            "a client cannot be opened in an orchestration: replay would not repeat what it does. Use ctx "
            "(call_activity, entity, start_orchestration, send_event), or open the client in an activity"
        )


class EnteredAsync(ABC):
    """A client that is entered with ``async with`` alone."""

    @property
    @abstractmethod
    def _is_entered(self) -> bool:
        """Whether it was entered, and not left yet."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise UsageError(
                f"this client is not entered with a plain 'with': use {_ASYNC}, "
                f"or {_BLOCKING} in code without an event loop"
            )

        def __exit__(self, *_: object) -> None: ...

        def __await__(self) -> Generator[Any, Any, Any]:
            return _awaited(self, self._is_entered, _ASYNC)


class EnteredBlocking(ABC):
    """A client that is entered with ``with`` alone."""

    @property
    @abstractmethod
    def _is_entered(self) -> bool:
        """Whether it was entered, and not left yet."""

    if not TYPE_CHECKING:

        async def __aenter__(self) -> NoReturn:
            raise UsageError(
                f"this client blocks, so it is not entered with 'async with': use {_BLOCKING}, "
                f"or {_ASYNC} on an event loop"
            )

        async def __aexit__(self, *_: object) -> None: ...

        def __await__(self) -> Generator[Any, Any, Any]:
            return _awaited(self, self._is_entered, _BLOCKING)


def _awaited(client: Any, is_entered: bool, how: str) -> Generator[Any, Any, Any]:
    if not is_entered:
        raise UsageError(f"a client is entered, not awaited: use {how}")
    return _itself(client).__await__()


async def _itself(client: Any) -> Any:
    """Return an open client: containers of injection await whatever they can."""
    return client
