"""The arguments of a batch of signals, restored column by column.

A batch may hold thousands of argument lists of the same shape. Checking a column at a time leaves the
loops to C and to pydantic's core; one by one is the way only for a batch that does not pass as a whole, so
that a bad element is dropped alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from types import GenericAlias
from typing import Any, Final

from pydantic import ValidationError

from lungfish.runtime import codec
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import InvalidArguments, UsageError

#: Values of exactly these classes fit the annotation without validation.
_EXACT: Final = (int, float, str, bool, bytes)


@dataclass(frozen=True, slots=True)
class Batch:
    """Restored arguments, in order.

    Attributes:
        calls: argument lists or, if ``named``, pairs of positional and keyword arguments.
        refused: why elements were dropped.
    """

    calls: list[Any]
    named: bool = False
    refused: list[UsageError] = field(default_factory=list)


def restore_batch(signature: Signature, rows: list[Any]) -> Batch:
    """Restore the elements of a signal's batch; those that do not fit are left out, with the reason."""
    calls = _by_column(signature, rows)
    return Batch(calls) if calls is not None else _one_by_one(signature, rows)


def _by_column(signature: Signature, rows: list[Any]) -> list[Any] | None:
    """Return the calls, or None if any element needs a look of its own."""
    if set(map(type, rows)) != {list}:
        return None
    lengths = set(map(len, rows))
    if len(lengths) != 1:
        return None
    (length,) = lengths
    known = signature.annotations
    changed: list[tuple[int, list[Any]]] = []
    try:
        signature.check([None] * length, {})
        for at in range(length):
            annotation = known[at] if at < len(known) else signature.rest
            column = list(map(itemgetter(at), rows))
            if annotation is Any or (annotation in _EXACT and set(map(type, column)) == {annotation}):
                continue
            changed.append((at, codec.adapter(GenericAlias(list, (annotation,))).validate_python(column)))
    except (UsageError, ValidationError):
        return None
    return _with_columns(rows, changed) if changed else rows


def _with_columns(rows: list[Any], changed: list[tuple[int, list[Any]]]) -> list[Any]:
    # Copies: the rows are decoded once and may be restored again, if their turn is redone.
    made = [row.copy() for row in rows]
    for at, column in changed:
        for row, value in zip(made, column, strict=True):
            row[at] = value
    return made


def _one_by_one(signature: Signature, rows: list[Any]) -> Batch:
    batch = Batch([], named=True)
    for row in rows:
        try:
            batch.calls.append(restore_one(signature, row))
        except UsageError as error:  # also an annotation that no value can be made for
            batch.refused.append(error)
    return batch


def restore_one(signature: Signature, row: Any) -> tuple[list[Any], dict[str, Any]]:
    """Restore one element of a batch; raises ``InvalidArguments`` if it does not fit."""
    match row:
        case list():
            return signature.restore(row, {})
        case {"args": list(args), "kwargs": dict(kwargs)}:
            return signature.restore(args, kwargs)
        case _:
            raise InvalidArguments(f"{signature.what}: {row!r:.80} is not a list of arguments")
