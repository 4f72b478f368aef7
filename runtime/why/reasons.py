"""Why somebody waits, in words: what ``lungfish why`` and ``handle.why()`` return.

Rules:

* A chain is a walk, depth first: behind a reason stand, one deeper, the reasons of whom it waits for.
* The sentence follows the first reason of each depth; the others are in the chain.
* Times are absolute (UTC) and relative at once: one is for logs, the other for people.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "activity",
    "backlog",
    "call",
    "cancel",
    "child",
    "code",
    "cycle",
    "dead-letters",
    "ended",
    "event",
    "idle",
    "limit",
    "lock",
    "missing",
    "more",
    "no-host",
    "no-workers",
    "paused",
    "pending",
    "queue",
    "running",
    "seen",
    "suspended",
    "timer",
    "update",
    "working",
]


@dataclass(frozen=True, slots=True)
class Reason:
    """One link of a chain.

    Attributes:
        kind: what sort of reason, for programs.
        subject: who waits (``order-17``, ``cart/7``, ``queue gpu``).
        text: what it does or waits for: the words behind the subject.
        since: since when (aware, UTC); None: not known.
        until: when that changes by itself; None: never, or not known.
        at: what happens then ("a timer fires").
        who: who or what can unblock it; empty: nobody needs to.
        depth: 0: the one that was asked about; 1: whom it waits for, and so on.
    """

    kind: Kind
    subject: str
    text: str
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    at: str = ""
    who: str = ""
    depth: int = 0

    def words(self, now: dt.datetime) -> str:
        """Return the text with its times."""
        since = f" since {_clock(self.since, now)} ({_span(now - self.since)})" if self.since else ""
        if self.until is None:
            return self.text + since
        left = self.until - now
        soon = f"in {_span(left)}" if left > dt.timedelta(0) else "due"
        return f"{self.text}{since} ({self.at} at {_clock(self.until, now)}, {soon})"

    def line(self, now: dt.datetime) -> str:
        """Return it as a line of its own."""
        who = f" → {self.who}" if self.who else ""
        return f"{'  ' * self.depth}{self.subject} {self.words(now)}{who}"


@dataclass(frozen=True, slots=True)
class Why:
    """Why somebody waits.

    Attributes:
        text: one sentence.
        chain: what it is made of, and all else that was found; see ``Reason``.
        at: when this was so (aware, UTC; the store's clock).
    """

    text: str
    chain: tuple[Reason, ...]
    at: dt.datetime

    @classmethod
    def of(cls, chain: Sequence[Reason], at: dt.datetime) -> Why:
        """Make the sentence of a chain that is not empty."""
        return cls(_sentence(chain, at), tuple(chain), at)

    def lines(self) -> list[str]:
        """Return the chain as lines, indented by depth, with who can unblock each."""
        return [each.line(self.at) for each in self.chain]

    def __str__(self) -> str:
        return self.text


def _sentence(chain: Sequence[Reason], now: dt.datetime) -> str:
    path = [chain[0]]
    for reason in chain[1:]:
        if reason.depth == 0:
            break
        if reason.depth == path[-1].depth + 1:
            path.append(reason)
    text = f"{path[0].subject} {path[0].words(now)}"
    for before, reason in itertools.pairwise(path):
        # Who was just named needs no name again.
        link = "which" if before.text.endswith(reason.subject) else f"and {reason.subject}"
        text += f", {link} {reason.words(now)}"
    others = sum(1 for reason in chain if reason.depth == 0) - 1
    return text + (f" (and {others} more {'reason' if others == 1 else 'reasons'})" if others else "")


def _clock(at: dt.datetime, now: dt.datetime) -> str:
    form = "%H:%M:%S" if at.date() == now.date() else "%Y-%m-%d %H:%M:%S"
    return f"{at.astimezone(dt.UTC).strftime(form)} UTC"


def _span(span: dt.timedelta) -> str:
    """Return a duration in its two largest units: ``2 h 5 min``."""
    seconds = max(0, round(span.total_seconds()))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
