"""What must come of it all when nothing goes wrong: plain Python, none of the product's machinery.

An orchestration's ``Plan`` is its name and arguments; ``expected`` says which ends are right, and ``told``
what it appends to which log. Where the outcome depends on who comes first, several ends are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tests.simulation import books, films, lives, purses

MODULUS: Final = 1_000_003

#: The most attempts of ``flaky``.
FLAKY_ATTEMPTS: Final = 3

#: The orchestrations that clients start.
SORTS: Final = (
    "chain",
    "fan",
    "stubborn",
    "sleeper",
    "listener",
    "impatient",
    "racer",
    "family",
    "courier",
    "roller",
    "doomed",
    "steps",
    *purses.SORTS,
    *films.SORTS,
    *books.SORTS,
    *lives.SORTS,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """An orchestration to start.

    Attributes:
        events: external events to raise: name → payload.
        terminate: to be terminated from outside.
        suspend: to be suspended and resumed meanwhile.
    """

    name: str
    args: tuple[Any, ...]
    events: tuple[tuple[str, int], ...] = ()
    terminate: bool = False
    suspend: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """An end of an orchestration: its status, and its output (None: it failed)."""

    status: str
    output: Any = None


def step(number: int, value: int) -> int:
    """Mix a number into a value, as the activity does."""
    return (value * 31 + number) % MODULUS


def expected(plan: Plan) -> list[End]:
    """Return the ends that are right for an orchestration."""
    ends = _ends(plan.name, plan.args, dict(plan.events))
    if plan.terminate:
        ends = [*ends, End("Terminated")]
    return ends


def _ends(name: str, args: tuple[Any, ...], events: dict[str, int]) -> list[End]:
    match name:
        case "chain":
            return [End("Completed", _chain(*args))]
        case "fan":
            width, value = args
            return [End("Completed", sum(step(n, value) for n in range(width)) % MODULUS)]
        case "stubborn":
            number, failures = args
            if failures >= FLAKY_ATTEMPTS:
                return [End("Failed")]
            return [End("Completed", 2 * number)]
        case "sleeper":
            return [End("Completed", len(args[0]))]
        case "listener":
            return [End("Completed", [events[f"event{n}"] for n in range(args[0])])]
        case "impatient":
            return [End("Completed", "late"), *(End("Completed", str(v)) for v in events.values())]
        case "racer":
            number, _, _ = args
            return [End("Completed", "late"), End("Completed", f"done {number}")]
        case "family":
            children, value = args
            outcomes = [str(_chain(n + 1, value)) for n in range(children)]
            return [End("Completed", [*outcomes, "OrchestrationFailed"])]
        case "broken":
            return [End("Failed")]
        case "tidy":
            return [End("Canceled")]
        case "ailing":
            depth, width = args
            return [End("Completed", depth + step(0, width))]
        case "courier":
            logs, rounds = args
            return [End("Completed", 2 * len(logs) * rounds)]
        case "roller":
            return [End("Completed", args[2])]
        case "steps":
            width, value = args
            return [End("Completed", sum(step(n, step(0, value)) for n in range(width)) % MODULUS)]
        case "doomed":
            return []
        case name if name in books.SORTS:
            return [End("Completed", sorted(events.values()))]
        case name if name in films.SORTS:
            return [End("Completed", output) for output in films.outputs(args)]
    return [End("Completed", output) for output in purses.outputs(name, args)]


def _chain(steps: int, value: int) -> int:
    for number in range(steps):
        value = step(number, value)
    return value


def told(plan: Plan) -> dict[str, list[int]]:
    """Return what an orchestration that completes appends: log → numbers, in order."""
    found: dict[str, list[int]] = {}
    match plan.name:
        case "courier":
            logs, rounds = plan.args
            number = 0
            for _ in range(rounds):
                for key in logs:
                    found.setdefault(key, []).extend((number + 1, number + 2))
                    number += 2
        case "roller":
            log, first, until = plan.args
            found[log] = list(range(first, until + 1))
    return found


def children(instance: str, plan: Plan) -> dict[str, Plan]:
    """Return the sub-orchestrations of an orchestration, by their ids."""
    match plan.name:
        case "family":
            count, value = plan.args
            found = {f"{instance}.{n}": Plan("chain", (n + 1, value)) for n in range(count)}
            return {**found, f"{instance}.broken": Plan("broken", (value,))}
        case "doomed":
            return {f"{instance}.{n}": Plan("doomed", (0,), terminate=True) for n in range(plan.args[0])}
        case name if name in lives.SORTS:
            return {id: Plan(*known) for id, known in lives.children(instance, name, plan.args).items()}
    return {}
