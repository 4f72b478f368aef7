"""Which rows of a block may be written, and which wait for others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lungfish
from lungfish.runtime.client.sink_runs import SHARD_ROWS, Run, runs_of


def told(runs: list[Run]) -> list[tuple[str, int, int]]:
    return [(run.shard, run.start, len(run.rows)) for run in runs]


def test_a_block_is_cut_where_a_shard_ends_and_what_begins_one_comes_first() -> None:
    end = 2 * SHARD_ROWS
    found = runs_of(range(SHARD_ROWS - 3, end + 2), lambda row: row, None)
    assert told(found) == [("#1", SHARD_ROWS, SHARD_ROWS), ("#2", end, 2), ("#0", SHARD_ROWS - 3, 3)]
    assert [run.first for run in found] == [SHARD_ROWS, end, 0]


def test_rows_that_name_their_shard() -> None:
    rows = [("b", 2), ("b", 3), ("a", 0), ("a", 1), ("b", 4)]
    found = runs_of(rows, lambda row: row[1], lambda row: row[0])
    assert told(found) == [("a", 0, 2), ("b", 2, 2), ("b", 4, 1)]
    assert [run.first for run in found] == [0, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 3 * SHARD_ROWS), st.integers(1, 9)), max_size=8))
def test_no_row_is_left_out_and_no_run_has_a_gap(pieces: list[tuple[int, int]]) -> None:
    rows = [at for start, count in pieces for at in range(start, start + count)]
    found = runs_of(rows, lambda row: row, None)
    assert sorted(row for run in found for row in run.rows) == sorted(rows)
    for run in found:
        assert run.rows == list(range(run.start, run.start + len(run.rows)))
        assert {row // SHARD_ROWS for row in run.rows} == {int(run.shard[1:])}


@pytest.mark.parametrize("at", [-1, 1.5, "3", None, True])
def test_a_position_must_be_a_number(at: Any) -> None:
    with pytest.raises(lungfish.UsageError, match="position of a row"):
        runs_of([at], lambda row: row, None)


@pytest.mark.parametrize("shard", ["", "#1", None, 3])
def test_a_shard_must_be_a_text(shard: Any) -> None:
    with pytest.raises(lungfish.UsageError, match="shard of a row"):
        runs_of([0], lambda row: row, lambda row: shard)
