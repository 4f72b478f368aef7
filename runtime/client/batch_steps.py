"""One verb for many instances: what it applies to, what came of a step, and where the next one begins. Pure.

Rules:

* A batch is about what there was when it began, by the store's clock. What is created later is left alone, so
  a batch ends; and what it restarts, or rewinds, is newer than its beginning, so it is not met again.
* A verb looks only at instances in a status in which it can do something. What it does takes an instance
  out of that filter, so a batch that is begun again does nothing twice; ``raise_event`` has no such mark.
* The continuation names verb, beginning and position. Every match is tried in one step, and told of in its
  outcome: as done, as refused, or as unknown.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgpack

from lungfish.runtime.errors import InvalidArguments, UsageError
from lungfish.runtime.ids import check_id
from lungfish.runtime.messages.status import RuntimeStatus, from_ms
from lungfish.runtime.store.query import InstanceQuery, StatusFilter, check_page_size

if TYPE_CHECKING:
    from .queries import InstanceFilters

BatchVerb = Literal["terminate", "cancel", "suspend", "resume", "rewind", "restart", "purge", "raise_event"]

_UNDER_WAY: Final = tuple(status for status in RuntimeStatus if not status.is_terminal)
_ENDED: Final = tuple(status for status in RuntimeStatus if status.is_terminal)
#: In which statuses a verb can do something.
APPLIES: Final[Mapping[BatchVerb, tuple[RuntimeStatus, ...]]] = {
    "terminate": _UNDER_WAY,
    "cancel": _UNDER_WAY,
    "suspend": (RuntimeStatus.PENDING, RuntimeStatus.RUNNING),
    "resume": (RuntimeStatus.SUSPENDED,),
    "rewind": (RuntimeStatus.FAILED,),
    "restart": _ENDED,
    "purge": _ENDED,
    "raise_event": _UNDER_WAY,
}
#: Those after which an instance may fit the filter again.
_RENEWS: Final = ("rewind", "restart")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class BatchRefusal:
    """An instance of a batch that was not, or perhaps not, acted on.

    Attributes:
        instance_id: which one.
        error: name of the error's class.
        detail: what was wrong.
    """

    instance_id: str
    error: str
    detail: str

    @classmethod
    def of(cls, instance_id: str, error: BaseException) -> BatchRefusal:
        """Return how an attempt on one instance ended."""
        return cls(instance_id, type(error).__name__, str(error))


@dataclass(frozen=True, slots=True)
class BatchStep:
    """What one step of ``Client.batch`` came to.

    Attributes:
        verb: what was asked.
        matched: how many instances were tried; with ``count_only`` how many there are.
        done: ids of those it is done to, durably.
        refused: those left as they were, such as one that ended meanwhile.
        unknown: those nobody answered for in time, or for which middleware raised something: done or not.
            The step ended early because of them.
        continuation: where the next step begins; None: there is no more.
    """

    verb: BatchVerb
    matched: int
    done: tuple[str, ...] = ()
    refused: tuple[BatchRefusal, ...] = ()
    unknown: tuple[BatchRefusal, ...] = ()
    continuation: str | None = None


@dataclass(frozen=True, slots=True)
class BatchPosition:
    """Where a batch is: when it began (Unix ms), and behind which page."""

    began_ms: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """What is to be done to each, checked.

    Attributes:
        reason: for whoever reads the history.
        event, payload: of ``raise_event``.
        recursive: of ``purge``: also sub-orchestrations that have ended.
    """

    verb: BatchVerb
    reason: str = ""
    event: str = ""
    payload: Any = None
    recursive: bool = True

    @classmethod
    def of(cls, verb: str, reason: str, event: str | None, payload: Any, recursive: bool) -> BatchOrder:
        """Check what a caller gave; raises ``UsageError``."""
        known = check_verb(verb)
        if not isinstance(reason, str):
            raise UsageError(f"the reason to {verb} instances is a str, not {reason!r}")
        if (known == "raise_event") != (event is not None):
            raise InvalidArguments("raise_event needs the name of an event, and no other verb takes one")
        if payload is not None and event is None:
            raise InvalidArguments(f"{verb} takes no payload; raise_event does")
        name = "" if event is None else check_id("event name", event)
        return cls(known, reason, name, payload, recursive)


def check_verb(verb: str) -> BatchVerb:
    """Return a verb that is known; raises ``InvalidArguments``."""
    for known in get_args(BatchVerb):
        if known == verb:
            found: BatchVerb = known
            return found
    raise InvalidArguments(f"verb is one of {', '.join(get_args(BatchVerb))}, not {verb!r}")


def check_limit(limit: int) -> int:
    """Return how many a step may try; raises ``InvalidArguments``."""
    try:
        return check_page_size(limit)
    except InvalidArguments as error:
        raise InvalidArguments(str(error).replace("page_size", "limit")) from None


def filters_of(verb: BatchVerb, given: InstanceFilters, began_ms: int) -> InstanceFilters:
    """Return the filters of a batch that began at a time.

    Raises:
        InvalidArguments: no filter at all, or a status in which the verb can do nothing.
    """
    if all(value in (None, "", {}) for value in given.values()):
        raise InvalidArguments(f"say which instances to {verb}: give a filter, if only a status")
    found = given.copy()
    found["status"] = _statuses(verb, given.get("status"))
    # What was created in the very millisecond was there.
    end = from_ms(began_ms + 1)
    found["created_before"] = _earlier(given.get("created_before"), end)
    if verb in _RENEWS:
        found["updated_before"] = _earlier(given.get("updated_before"), end)
    return found


def _statuses(verb: BatchVerb, given: StatusFilter | None) -> Sequence[RuntimeStatus]:
    wanted = InstanceQuery.of(status=given).statuses
    wrong = [status for status in wanted if status not in APPLIES[verb]]
    if wrong:
        listed = ", ".join(APPLIES[verb])
        raise InvalidArguments(
            f"{verb} does nothing to instances that are {', '.join(wrong)}, only: {listed}"
        )
    return list(wanted or APPLIES[verb])


def _earlier(given: dt.datetime | None, end: dt.datetime) -> dt.datetime:
    if given is None or given.tzinfo is None:
        return end if given is None else given  # one without a zone is refused with the query
    return min(given, end)


def write_continuation(verb: BatchVerb, position: BatchPosition) -> str:
    """Return the text from which a batch goes on."""
    packed = msgpack.packb([_VERSION, verb, position.began_ms, position.cursor])
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def read_continuation(verb: BatchVerb, text: str) -> BatchPosition:
    """Return where a batch goes on; raises ``InvalidArguments``."""
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        version, known, began_ms, cursor = msgpack.unpackb(packed)
        if version != _VERSION or not isinstance(cursor, str) or type(began_ms) is not int:
            raise ValueError(f"continuation of version {version!r}")
        from_ms(began_ms + 1)
    except (TypeError, ValueError, OverflowError, binascii.Error, msgpack.UnpackException) as error:
        raise InvalidArguments(f"not a continuation of a batch: {text!r}") from error
    if known != verb:
        raise InvalidArguments(f"the continuation belongs to a batch of {known}, not of {verb}")
    return BatchPosition(began_ms, cursor)
