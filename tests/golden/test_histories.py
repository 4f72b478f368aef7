"""Histories of every release are replayed by today's code: stored instances outlive deployments.

If one of these fails, do not record it anew: an instance in somebody's store would fail in the same way.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import pytest

from lungfish.orchestrations import events
from lungfish.orchestrations.exporting import ExportedHistory
from lungfish.runtime.errors import NonDeterminism
from lungfish.testing import Replayer
from tests.golden.record import FOLDER, NAMES, app_of, histories_of

FILES = sorted(FOLDER.glob("*.json"))

#: Makes way for a new history, which begins without it.
NOT_RECORDED = {"ContinuedAsNew"}


#: No release has written another schema yet.
NOT_USED = {"ExecutionStarted.schema", "ContinuedAsNew.input"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recorded_history_is_replayed(file: Path) -> None:
    Replayer(app_of(file)).replay(file.read_text("utf-8"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recorded_history_is_read_whole(file: Path) -> None:
    text = file.read_text("utf-8")
    exported = ExportedHistory.from_json(text)
    # Stored and read back it is the same: the stored form has not changed its meaning either.
    again = ExportedHistory(exported.instance_id, events.unpack(events.pack(exported.events)))
    assert again.to_json() == exported.to_json()


def test_everything_is_recorded() -> None:
    missing = [
        name
        for name in NAMES
        if not any(file.stem == name or file.stem.startswith(f"{name}-") for file in FILES)
    ]
    assert missing == [], "python -m tests.golden.record"


def test_every_kind_of_event_is_in_some_history() -> None:
    recorded = {
        type(event).__name__
        for file in FILES
        for event in ExportedHistory.from_json(file.read_text("utf-8")).events
    }
    assert {cls.__name__ for cls in get_args(events.Event)} - recorded == NOT_RECORDED


def test_every_field_of_an_event_is_used_in_some_history() -> None:
    """A field that is always at its default would be read back although it was not written."""
    used = {
        f"{type(event).__name__}.{item.name}"
        for file in FILES
        for event in ExportedHistory.from_json(file.read_text("utf-8")).events
        for item in dataclasses.fields(event)
        if item.default is dataclasses.MISSING or getattr(event, item.name) != item.default
    }
    every = {
        f"{cls.__name__}.{item.name}" for cls in get_args(events.Event) for item in dataclasses.fields(cls)
    }
    assert every - used == NOT_USED


def test_what_ran_before_a_patch_stays_on_its_path() -> None:
    text = (FOLDER / "patched_later.json").read_text("utf-8")
    assert not any(isinstance(event, events.PatchMarked) for event in ExportedHistory.from_json(text).events)
    Replayer(app_of(FOLDER / "patched_later.json")).replay(text)


def test_a_changed_step_would_be_seen() -> None:
    file = FOLDER / "sequence.json"
    changed = file.read_text("utf-8").replace('"name": "work"', '"name": "play"')
    with pytest.raises(NonDeterminism, match="activity 'play'"):
        Replayer(app_of(file)).replay(changed)


async def test_recording_is_repeatable() -> None:
    first, second = await histories_of("fan_out"), await histories_of("fan_out")
    assert first == second
