"""Which instances or entities are asked for, and where a page ends: pure values.

Rules:

* A page ends at a member of an index, never at a count: what is created or removed meanwhile moves nothing
  from one page to another. So what exists during the whole listing comes exactly once.
* A cursor is text that any process may keep and pass on, as in a URL. It belongs to its query: with other
  filters or another order it is refused, instead of leaving things out in silence.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Generic, Literal, TypeVar

import msgpack

from lungfish.runtime.errors import InvalidArguments
from lungfish.runtime.ids import check_id
from lungfish.runtime.messages.status import OrchestrationStatus, RuntimeStatus
from lungfish.runtime.messages.tags import check_tags, check_text, of_wire

from . import index
from .index import Scan

T_co = TypeVar("T_co", covariant=True)

Order = Literal["oldest", "newest"]
#: One status, or several of which any will do.
StatusFilter = RuntimeStatus | str | Iterable[RuntimeStatus | str]

PAGE_SIZE: Final = 100
PAGE_SIZE_MAX: Final = 1_000
_CURSOR_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """Some of what was asked for.

    Attributes:
        items: in the order of the query.
        cursor: where the next page begins; None: this was the last one.
    """

    items: tuple[T_co, ...]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceQuery:
    """Filters on instances; all must hold. See ``Client.instances``."""

    statuses: tuple[RuntimeStatus, ...] = ()
    name: str | None = None
    id_prefix: str = ""
    tags: tuple[str, ...] = ()
    parent: str | None = None
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    updated_after: dt.datetime | None = None
    updated_before: dt.datetime | None = None
    newest: bool = False

    @classmethod
    def of(
        cls,
        *,
        status: StatusFilter | None = None,
        name: str | None = None,
        id_prefix: str = "",
        tag: tuple[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        updated_after: dt.datetime | None = None,
        updated_before: dt.datetime | None = None,
        order: Order = "oldest",
    ) -> InstanceQuery:
        """Check what a caller gave; raises ``InvalidArguments``."""
        check_text("id_prefix", id_prefix)
        if order not in ("oldest", "newest"):
            raise InvalidArguments(f"order is 'oldest' or 'newest', not {order!r}")
        return cls(
            statuses=_statuses(status),
            name=None if name is None else check_id("orchestration name", name),
            id_prefix=id_prefix,
            tags=_tags(tag, tags),
            parent=None if parent is None else check_id("instance id", parent),
            created_after=_aware("created_after", created_after),
            created_before=_aware("created_before", created_before),
            updated_after=_aware("updated_after", updated_after),
            updated_before=_aware("updated_before", updated_before),
            newest=order == "newest",
        )

    @property
    def needs_rows(self) -> bool:
        """True if indexes alone do not tell which instances fit."""
        return self.updated_after is not None or self.updated_before is not None

    def scan(self, partition: int, after: str = "") -> Scan:
        """Return what to look for in a partition."""
        return Scan(
            partition=partition,
            indexes=self._indexes(),
            any_of=tuple(map(index.by_status, self._any_of)),
            low="" if self.created_after is None else index.from_time(_ms(self.created_after)),
            high=self._high(),
            after=after,
            newest=self.newest,
            prefix=self.id_prefix,
        )

    def _indexes(self) -> tuple[str, ...]:
        found = [index.by_status(self.statuses[0])] if len(self.statuses) == 1 else []
        if self.name is not None:
            found.append(index.by_name(self.name))
        if self.parent is not None:
            found.append(index.by_parent(self.parent))
        found += [index.by_tag(name, value) for name, value in of_wire(self.tags).items()]
        return tuple(found)

    @property
    def _any_of(self) -> tuple[RuntimeStatus, ...]:
        if len(self.statuses) > 1:
            return self.statuses
        # Every instance has a status: one index less to write.
        return () if self._indexes() else tuple(RuntimeStatus)

    def choices(self) -> list[InstanceQuery]:
        """Return queries that each take one status at most, and find together what this one does."""
        return [replace(self, statuses=(status,)) for status in self._any_of] or [self]

    def _high(self) -> str:
        # What was updated before a time was created before it.
        bounds = [bound for bound in (self.created_before, self.updated_before) if bound is not None]
        return index.from_time(_ms(min(bounds))) if bounds else ""

    def fits(self, found: OrchestrationStatus) -> bool:
        """Tell whether an instance fits as its row is now: it may have changed since the index was read."""
        return (
            (not self.statuses or found.runtime_status in self.statuses)
            and (self.updated_after is None or found.updated_at >= self.updated_after)
            and (self.updated_before is None or found.updated_at < self.updated_before)
        )


@dataclass(frozen=True, slots=True)
class EntityQuery:
    """Entities of one class whose keys begin alike. See ``Client.entities``."""

    name: str
    prefix: str = ""

    @classmethod
    def of(cls, name: str, prefix: str) -> EntityQuery:
        """Check what a caller gave; raises ``InvalidArguments``."""
        check_text("prefix", prefix)
        return cls(name, prefix)

    def scan(self, partition: int, after: str = "") -> Scan:
        """Return what to look for in a partition."""
        low, high = index.of_prefix(self.prefix)
        return Scan(partition, (index.by_entity(self.name),), low, high, after)


def check_page_size(page_size: int) -> int:
    """Return a page size that can be used; raises ``InvalidArguments``."""
    given: object = page_size
    if type(given) is not int or not 1 <= given <= PAGE_SIZE_MAX:
        raise InvalidArguments(f"page_size is a number from 1 to {PAGE_SIZE_MAX:,}, not {page_size!r}")
    return page_size


def write_cursor(query: object, after: str) -> str:
    """Return the cursor of a page that ends behind the member ``after``."""
    packed = msgpack.packb([_CURSOR_VERSION, _digest(query), after])
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def read_cursor(query: object, cursor: str | None) -> str:
    """Return the member that the next page begins behind; raises ``InvalidArguments``."""
    if cursor is None:
        return ""
    try:
        packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        version, digest, after = msgpack.unpackb(packed)
        if version != _CURSOR_VERSION or not isinstance(after, str):
            raise ValueError(f"cursor of version {version!r}")
    except (TypeError, ValueError, binascii.Error, msgpack.UnpackException) as error:
        raise InvalidArguments(f"not a cursor of a page: {cursor!r}") from error
    if digest != _digest(query):
        raise InvalidArguments("the cursor belongs to a query with other filters or another order")
    return after


def _digest(query: object) -> bytes:
    return hashlib.sha256(repr(query).encode("utf-8", "backslashreplace")).digest()[:6]


def _statuses(status: StatusFilter | None) -> tuple[RuntimeStatus, ...]:
    if status is None:
        return ()
    try:
        given = [status] if isinstance(status, str) else list(status)
        found = {RuntimeStatus(each) for each in given}
    except (TypeError, ValueError) as error:
        known = ", ".join(RuntimeStatus)
        raise InvalidArguments(f"no status {status!r}; there are: {known}") from error
    if not found:
        raise InvalidArguments("status is an empty list: leave it out to take any status")
    return tuple(sorted(found))


def _tags(tag: tuple[str, str] | None, tags: Mapping[str, str] | None) -> tuple[str, ...]:
    wanted = dict(tags or {})
    if tag is not None:
        try:
            name, value = tag
        except (TypeError, ValueError) as error:
            raise InvalidArguments(f"tag is a pair of name and value, not {tag!r}") from error
        wanted[name] = value
    return check_tags(wanted)


def _aware(what: str, time: dt.datetime | None) -> dt.datetime | None:
    if time is None:
        return None
    given: object = time
    if not isinstance(given, dt.datetime) or given.tzinfo is None:
        raise InvalidArguments(f"{what} is a datetime with a time zone, not {time!r}")
    return time.astimezone(dt.UTC)


def _ms(time: dt.datetime) -> int:
    """Return the first whole millisecond at or after a time, as Unix ms."""
    return -((dt.datetime.fromtimestamp(0, dt.UTC) - time) // dt.timedelta(milliseconds=1))
