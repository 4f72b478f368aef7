"""The checker of histories itself: it must take what is right and refuse what is not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.linearizability import NEVER, UNKNOWN, Operation, explains


def put(value: int, old: Any, began: float, ended: float = NEVER) -> Operation:
    return Operation(f"put {value}", lambda state: (value, state), old, began, ended)


def get(value: Any, began: float, ended: float = NEVER) -> Operation:
    return Operation("get", lambda state: (state, state), value, began, ended)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [put(1, 0, 0, 1), get(1, 2, 3)],
        [put(1, 0, 0, 3), get(0, 1, 2)],
        [put(1, 0, 0, 3), get(1, 1, 2)],
        [put(1, 0, 0, 3), put(2, 1, 0, 3), get(2, 4, 5)],
        [put(1, UNKNOWN, 0), get(0, 1, 2), get(1, 3, 4)],
        [put(1, UNKNOWN, 0), get(0, 5, 6)],
    ],
)
def test_what_some_order_explains(history: list[Operation]) -> None:
    assert explains(history, 0)


@pytest.mark.parametrize(
    "history",
    [
        [put(1, 0, 0, 1), get(0, 2, 3)],
        [put(1, 0, 0, 4), get(1, 1, 2), get(0, 2.5, 3)],
        [put(1, 0, 0, 3), put(2, 0, 0, 3)],
        [put(1, UNKNOWN, 2), get(1, 0, 1)],
        [put(1, UNKNOWN, 0), get(1, 1, 2), get(0, 3, 4)],
        [put(1, 0, 0, 1), put(2, 1, 2, 3), get(1, 4, 5)],
    ],
)
def test_what_no_order_explains(history: list[Operation]) -> None:
    assert not explains(history, 0)


@pytest.mark.parametrize("seed", range(20))
def test_random_histories_of_a_real_register_and_one_wrong_answer(seed: int) -> None:
    rng = random.Random(seed)
    state, history = 0, []
    for at in range(60):
        moment = float(at)
        began, ended = moment - rng.random() * 4, moment + rng.random() * 4
        known = rng.random() < 0.9
        if rng.random() < 0.5:
            history.append(put(at + 1, state if known else UNKNOWN, began, ended if known else NEVER))
            state = at + 1
        else:
            history.append(get(state, began, ended))
    assert explains(history, 0)
    history.append(get(-1, 70, 71))
    assert not explains(history, 0)
