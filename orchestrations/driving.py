"""How user code is run and, where it waits for what can never come, how that is told."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.errors import NotDurable, UsageError
from lungfish.runtime.messages import headers

from .loop import close_quietly
from .matching import NOT_USERS

if TYPE_CHECKING:
    from .replay import Execution

T = TypeVar("T")


def context_of(execution: Execution) -> contextvars.Context:
    """Return a context for code of an execution: with the headers of its start, and nothing of the host's.

    Raises:
        UsageError: a header cannot be decoded.
    """
    started = execution.started
    return headers.alone(execution.app.carried, started.headers if started is not None else ())


def coroutine_of(
    definition: Orchestration[Any, Any], context: Any, args: list[Any], kwargs: dict[str, Any]
) -> Coroutine[Any, Any, Any]:
    """Call an orchestration; nothing of its body runs yet."""
    made: Any = definition.function(context, *args, **kwargs)
    if definition.is_generator:
        return _drive(made)
    coroutine: Coroutine[Any, Any, Any] = made
    return coroutine


async def _drive(generator: Generator[Any, Any, T]) -> T:
    """Run a generator orchestration: each task it yields is awaited and its outcome sent back."""
    resume: Callable[[], Any] = _sender(generator, None)
    try:
        while True:
            try:
                waited = resume()
            except StopIteration as stop:
                result: T = stop.value
                return result
            try:
                value = await _awaitable(waited)
            except GeneratorExit:
                raise
            except BaseException as error:
                resume = _thrower(generator, error)
            else:
                resume = _sender(generator, value)
    finally:
        close_quietly(generator)


def _sender(generator: Generator[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: generator.send(value)


def _thrower(generator: Generator[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: generator.throw(error)


def _awaitable(waited: Any) -> Any:
    if not hasattr(waited, "__await__"):
        raise UsageError(
            f"a generator orchestration yields tasks, not {waited!r}; for several use when_all(...)"
        )
    return waited


def taught(error: BaseException) -> BaseException:
    """Turn asyncio's complaint about a foreign awaitable into an error that says what to do."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    if "attached to a different loop" not in text and "got bad yield" not in text:
        return error
    better = NotDurable(
        f"the orchestration awaited something that does not belong to it ({text}). It may await tasks "
        "of its ctx and asyncio's own tools; put everything else into an activity."
    )
    better.__cause__ = error
    return better


def stuck(main: asyncio.Task[Any]) -> NotDurable:
    """Return the error of code that waits while nothing durable is outstanding."""
    return NotDurable(
        f"the orchestration waits at {_where(main.get_coro())} for what no activity, timer, event, entity or "
        "sub-orchestration will ever bring: a future that is set from outside (await such things in an "
        "activity), or an asyncio.Event, Lock or Queue that none of its tasks will release"
    )


def _where(coroutine: Any) -> str:
    """Return ``file:line`` of the innermost user coroutine that waits."""
    line = "an unknown line"
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(NOT_USERS):
            line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return line
