"""What a client returns or raises for a response."""

from __future__ import annotations

from typing import Any

from lungfish.runtime import codec
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import (
    ExecutionFailed,
    Overloaded,
    QueryFailed,
    UpdateFailed,
    UpdateRejected,
    UsageError,
    operation_failed,
)
from lungfish.runtime.ids import check_id
from lungfish.runtime.messages.messages import Response

from .connection import raise_usage_error


def handler_name(handler: Any, sort: str) -> str:
    """Return the name of a query or an update given as a function or a str."""
    name = handler if isinstance(handler, str) else getattr(handler, "__name__", None)
    if not isinstance(name, str):
        raise UsageError(f"a {sort} is a function of the orchestration, or its name, not {handler!r}")
    return check_id(f"{sort} name", name)


def answer(response: Response, failed: type[ExecutionFailed], what: str) -> Any:
    """Return what a query or an update came to, or raise it."""
    details = response.failure
    if details is None:
        return None if response.result is None else codec.decode(response.result, f"result of {what}")
    raise_usage_error(details)
    kind = details.error_type.rpartition(".")[2]
    if kind == Overloaded.__name__:
        raise Overloaded(details.message)
    known = {error.__name__: error for error in (QueryFailed, UpdateFailed, UpdateRejected)}.get(kind)
    if known is not None:
        raise known(details.message, details.cause or details)
    raise failed(f"{what} failed: {details}", details)


def result_of(response: Response, signature: Signature | None, what: str) -> Any:
    """Return what a call or an orchestration came to, or raise it."""
    if response.failure is not None:
        raise_usage_error(response.failure)
        raise operation_failed(what, response.failure)
    if response.result is None:
        return None
    if signature is not None:
        return signature.decode_result(response.result)
    return codec.decode(response.result, f"result of {what}")
