"""What a host may conclude from heartbeats, and when it looks at them next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lungfish.runtime.host.liveness import (
    HURRY_MS,
    LOOK_MS_MIN,
    Hurry,
    Witness,
    find_silent,
    hear,
    next_look_s,
)
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.store import HostBeat

SETTINGS = HostSettings(heartbeat_ms=500, lease_ms=3_000)
#: The store's clock when the host's own says 0 (ms).
EPOCH_MS = 1_700_000_000_000
#: One that has been heard for long, without a gap, and last at 100 s.
OLD = Witness(0.0, 0.0, 100.0, EPOCH_MS + 100_000)


def heard_at(*times_s: float) -> Witness:
    """Return what a host has seen that was heard at these times."""
    witness = None
    for at_s in times_s:
        witness = hear(witness, at_s, EPOCH_MS + round(at_s * 1_000), SETTINGS)
    assert witness is not None
    return witness


def regularly(until_s: float) -> list[float]:
    return [at * 0.5 for at in range(int(until_s / 0.5) + 1)]


def beats(**ages_ms: int) -> tuple[HostBeat, ...]:
    return tuple(HostBeat(host, b"", age_ms) for host, age_ms in ages_ms.items())


def look_ms(ages_ms: dict[str, int], *, witness: Witness = OLD, hurry: Hurry = Hurry()) -> float:
    return round(next_look_s("me", beats(me=0, **ages_ms), witness, hurry, SETTINGS) * 1_000, 3)


# --- who may judge ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times_s", "judges_in_s"),
    [
        pytest.param([0.0], 3.0, id="a newcomer"),
        pytest.param(regularly(2.5), 0.5, id="half a second early"),
        pytest.param(regularly(3.0), 0.0, id="after a whole lease"),
        pytest.param([*regularly(10), 11.4], 0.0, id="after a small gap"),
        pytest.param(
            [*regularly(10), 11.6], 1.0, id="after half a lease the others have two heartbeats' time"
        ),
        pytest.param([*regularly(10), 11.6, 12.1, 12.5], 0.1, id="not yet"),
        pytest.param([*regularly(10), 11.6, 12.1, 12.6], 0.0, id="they had it"),
        pytest.param([*regularly(10), 13.1], 3.0, id="after a lease it begins anew"),
    ],
)
def test_who_may_judge(times_s: list[float], judges_in_s: float) -> None:
    assert heard_at(*times_s).judges_in_s(SETTINGS) == pytest.approx(judges_in_s)


def test_a_jump_of_the_stores_clock_is_a_gap() -> None:
    jumped = hear(OLD, 100.5, OLD.heard_ms + 3_001, SETTINGS)
    assert jumped.judges_in_s(SETTINGS) == 3.0
    assert hear(OLD, 100.5, OLD.heard_ms - 60_000, SETTINGS).judges_in_s(SETTINGS) == 0.0


def test_steadiness_ends_with_a_lease_of_silence_even_before_the_next_answer() -> None:
    assert OLD.is_steady(103.0, SETTINGS)
    assert not OLD.is_steady(103.1, SETTINGS)
    assert not heard_at(*regularly(2.5)).is_steady(2.5, SETTINGS)
    # Who waits for others to be heard again is steady all the same: nobody could judge sooner.
    assert heard_at(*regularly(10), 11.6).is_steady(11.6, SETTINGS)


def test_silent_is_who_was_not_heard_for_longer_than_the_lease() -> None:
    assert find_silent(beats(a=0, b=3_000, c=3_001, d=-5), SETTINGS) == {"c"}


# --- when to look ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ages_ms", "expected_ms"),
    [
        pytest.param({}, 500, id="alone"),
        pytest.param({"a": 0, "b": 500}, 500, id="all are heard: once per heartbeat"),
        pytest.param({"a": 2_500}, 500, id="it ends with the heartbeat, or later"),
        pytest.param({"a": 2_800}, 201, id="the moment at which it is silent"),
        pytest.param({"a": 2_800, "b": 2_900}, 101, id="the earliest"),
        pytest.param({"a": 3_000}, LOOK_MS_MIN, id="never at once"),
        pytest.param({"a": 3_001}, 500, id="silent and without partitions: nothing presses"),
    ],
)
def test_the_next_look_comes_when_a_lease_ends(ages_ms: dict[str, int], expected_ms: float) -> None:
    assert look_ms(ages_ms) == expected_ms


def test_its_own_lease_is_no_reason_to_look() -> None:
    assert next_look_s("me", beats(me=2_900), OLD, Hurry(), SETTINGS) == 0.5


def test_who_may_not_judge_yet_looks_when_it_may() -> None:
    newcomer = heard_at(*regularly(2.5), 2.9)
    assert look_ms({"a": 9_000}, witness=newcomer) == 100
    assert look_ms({"a": 100}, witness=newcomer) == 500


def test_partitions_without_an_owner_are_looked_at_soon_and_ever_later() -> None:
    hurry, pauses_ms = Hurry(), []
    for _ in range(8):
        hurry = hurry.after({1, 2}, SETTINGS)
        pauses_ms.append(look_ms({}, hurry=hurry))
    assert pauses_ms == [HURRY_MS, 40, 80, 160, 320, 500, 500, 500]


def test_another_partition_without_an_owner_presses_again_and_one_less_does_not() -> None:
    waiting = Hurry(frozenset({1, 2}), 500)
    assert waiting.after({1, 2, 3}, SETTINGS) == Hurry(frozenset({1, 2, 3}), HURRY_MS)
    assert waiting.after({1}, SETTINGS) == Hurry(frozenset({1}), 500)
    assert waiting.after((), SETTINGS) == Hurry()


def test_a_hurry_never_makes_looks_rarer() -> None:
    rare = replace(SETTINGS, heartbeat_ms=10, lease_ms=3_000)
    hurry = Hurry().after({1}, rare)
    assert next_look_s("me", beats(me=0), OLD, hurry, rare) == 0.01
