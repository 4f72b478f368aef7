"""Headers: short texts that travel with calls, signals and starts, and on from there.

Rules:

* Whoever handles a message has its headers, and so has everything that is sent from there: from entity to
  entity, from an orchestration to activities, entities and sub-orchestrations, over continue-as-new.
* In an orchestration they come from its start, which is in the history: replay sees the same.
* Registered context variables travel as headers: their values here go out, and are set there.
* They are bounded where they are sent. A message without headers carries no byte for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from lungfish.runtime.errors import LungfishError, PayloadTooLarge, UsageError

#: All headers of one message together (bytes of UTF-8).
HEADERS_BYTES_MAX: Final = 8 * 1024

#: As they travel: name, value, name, value, ...
Wire = tuple[str, ...]

_current: ContextVar[Wire] = ContextVar("lungfish_headers", default=())
_MISSING: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class Carried:
    """A context variable that travels as a header; see ``App.propagate``."""

    var: ContextVar[Any]
    name: str
    encode: Callable[[Any], str]
    decode: Callable[[str], Any]


def headers() -> Mapping[str, str]:
    """Return the headers of what is handled here: an operation, an orchestration, an attempt of an activity.

    Elsewhere: those that ``sending`` has set. The same in every replay.
    """
    return as_mapping(_current.get())


def as_mapping(wire: Wire) -> Mapping[str, str]:
    """Return headers as a mapping that cannot be changed."""
    return MappingProxyType(_mapping(wire))


def as_wire(headers: Mapping[str, str]) -> Wire:
    """Return headers as they travel; raises as ``sending``."""
    return _wire(_checked(headers))


@contextmanager
def sending(headers: Mapping[str, str]) -> Iterator[None]:
    """Send what is sent in the block with these headers, beside those that are there.

    Usable with a client, in operations, activities and orchestrations; also around ``await``.

    Args:
        headers: printable names, any values; together at most 8 KiB. The same name replaces.

    Raises:
        UsageError: not texts.
        PayloadTooLarge: over 8 KiB.
    """
    token = _current.set(_wire({**_mapping(_current.get()), **_checked(headers)}))
    try:
        yield
    finally:
        _current.reset(token)


def outgoing(carried: tuple[Carried, ...]) -> Wire:
    """Return what a message that is sent here takes along.

    Raises:
        UsageError: a context variable's ``encode`` raised, or made no text.
        PayloadTooLarge: over 8 KiB.
    """
    wire = _current.get()
    if not carried:
        return wire
    found = _mapping(wire)
    for each in carried:
        value = each.var.get(_MISSING)
        if value is not _MISSING:
            found.update(_checked({each.name: _encoded(each, value)}))
    return _wire(found) if found else wire


def inside(carried: tuple[Carried, ...], wire: Wire) -> Context:
    """Return a copy of this context for what handles a message with these headers."""
    context = copy_context()
    context.run(adopt, carried, wire)
    return context


def alone(carried: tuple[Carried, ...], wire: Wire) -> Context:
    """Return a context with nothing else in it: what the host has in its own is not repeated in replay."""
    context = Context()
    if wire:
        context.run(adopt, carried, wire)
    return context


def adopt(carried: tuple[Carried, ...], wire: Wire) -> None:
    """Set the headers of what is handled in this context.

    Raises:
        UsageError: a header cannot be decoded; nothing that depends on it may run.
    """
    _current.set(wire)
    if not carried:
        return
    found = _mapping(wire)
    for each in carried:
        if each.name in found:
            try:
                each.var.set(each.decode(found[each.name]))
            except Exception as error:  # the user's
                raise UsageError(f"header {each.name!r} cannot be decoded: {error!r}") from error


def _encoded(carried: Carried, value: Any) -> str:
    try:
        return carried.encode(value)
    except LungfishError:
        raise
    except Exception as error:  # the user's
        raise UsageError(f"the value for header {carried.name!r} cannot be encoded: {error!r}") from error


def _mapping(wire: Wire) -> dict[str, str]:
    return dict(zip(wire[::2], wire[1::2], strict=False))


def _checked(given: Mapping[str, str]) -> Mapping[str, str]:
    headers: Any = given  # whatever the annotation says
    if not isinstance(headers, Mapping):
        raise UsageError(f"headers are a mapping of texts, not {headers!r:.80}")
    for name, value in headers.items():
        if not isinstance(name, str) or not name or not name.isprintable() or not isinstance(value, str):
            raise UsageError(f"a header is a printable name and a text, not {name!r:.80}: {value!r:.80}")
    return given


def _wire(headers: Mapping[str, str]) -> Wire:
    wire = tuple(text for header in headers.items() for text in header)
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in wire)
    if size > HEADERS_BYTES_MAX:
        raise PayloadTooLarge(
            f"headers of {size:,} bytes; at most {HEADERS_BYTES_MAX:,} travel with a message"
        )
    return wire
