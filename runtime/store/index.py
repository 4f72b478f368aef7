"""Indexes of a partition: sorted sets of members, for queries that must not read every row.

Rules:

* An index entry is written in the commit that makes it true, so an index never disagrees with the rows
  beside it.
* A member of an instance's indexes is its time of creation and its id: members are in order of time, and
  the same member names the instance in every index. So a filter by several indexes walks the smallest and
  looks the members up in the others, and a position in the walk is a member, also of one that is gone.
* Members of ``entities`` are the keys. Members of ``ended`` indexes are ids under the time of their end; they
  are for retention only.
* One scan is bounded in steps. Where it stops it says how far it came, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lungfish.runtime.errors import InternalError

#: Members that one scan of one partition looks at, at most.
STEPS_MAX: Final = 5_000

_TIME_DIGITS: Final = 12
#: Above every character that an id can begin with.
_AFTER_ALL: Final = "\U0010ffff"


def by_status(status: str) -> str:
    """Return the index of the instances with a status."""
    return f"status:{status}"


def by_name(name: str) -> str:
    """Return the index of the instances of an orchestration."""
    return f"name:{name}"


def by_tag(tag: str, value: str) -> str:
    """Return the index of the instances with a tag."""
    return f"tag:{tag}\0{value}"


def by_parent(instance: str) -> str:
    """Return the index of the instances that ``instance`` started."""
    return f"parent:{instance}"


def by_end(status: str, name: str) -> str:
    """Return the index of the ended instances of an orchestration; its score is when they ended (Unix ms)."""
    return f"ended:{status}:{name}"


def by_entity(name: str) -> str:
    """Return the index of the entities of a class that have a state."""
    return f"entities:{name}"


def member(created_ms: int, instance: str) -> str:
    """Return an instance's member in all indexes of instances but ``by_end``."""
    return f"{created_ms:0{_TIME_DIGITS}x}{instance}"


def instance_of(member: str) -> str:
    """Return the instance id in a member."""
    return member[_TIME_DIGITS:]


def from_time(created_ms: int) -> str:
    """Return a bound: members created at this time or later are not below it."""
    return f"{max(0, created_ms):0{_TIME_DIGITS}x}"


@dataclass(frozen=True, slots=True)
class Scan:
    """What to look for in one partition.

    Attributes:
        indexes: a member must be in all of these.
        any_of: and in one of these, if there are any.
        low: no member below it; ``high``: none that is not below it; empty: no bound.
        after: go on behind this member of an earlier answer.
        newest: in descending order.
        prefix: what a member's text begins with, from ``prefix_at`` characters (bytes of ASCII) on.
    """

    partition: int
    indexes: tuple[str, ...]
    low: str = ""
    high: str = ""
    after: str = ""
    newest: bool = False
    prefix: str = ""
    prefix_at: int = _TIME_DIGITS
    any_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.indexes or self.any_of):
            raise InternalError("a scan needs an index")

    def is_before(self, one: str, other: str) -> bool:
        """Tell whether the walk comes to ``one`` before ``other``."""
        return one > other if self.newest else one < other

    def bounds(self) -> tuple[str, str]:
        """Return where to begin and where to end, as ZRANGEBYLEX (descending: ZREVRANGEBYLEX) reads it."""
        low = f"[{self.low}" if self.low else "-"
        high = f"({self.high}" if self.high else "+"
        if self.newest:
            return (f"({self.after}" if self.after else high), low
        return (f"({self.after}" if self.after else low), high


@dataclass(frozen=True, slots=True)
class Found:
    """What a scan found, in order.

    Attributes:
        stopped: the member it has looked at last, where more may follow; empty: that was all.
    """

    members: tuple[str, ...]
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """How many members a scan found; ``stopped`` as in ``Found``."""

    count: int
    stopped: str = ""


def merged(scan: Scan, walks: Sequence[Found], count: int) -> Found:
    """Return what several walks of one scan found together, as far as all of them have come."""
    stops = [walk.stopped for walk in walks if walk.stopped]
    stop = "" if not stops else max(stops) if scan.newest else min(stops)
    members = sorted({member for walk in walks for member in walk.members}, reverse=scan.newest)
    if stop:
        members = [member for member in members if not scan.is_before(stop, member)]
    if len(members) > count:
        return Found(tuple(members[:count]), members[count - 1])
    return Found(tuple(members), stop)


def of_prefix(prefix: str) -> tuple[str, str]:
    """Return ``low`` and ``high`` for members (of entities) that begin with ``prefix``."""
    return (prefix, prefix + _AFTER_ALL) if prefix else ("", "")
