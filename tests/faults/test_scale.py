"""The larger proofs, at a size for the suite; their modules are scripts that take any."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from .flood import flood
from .sentries import stand

pytestmark = pytest.mark.slow


async def test_a_flood_loses_doubles_and_reorders_nothing(tmp_path: Path) -> None:
    found = await flood(tmp_path, 40_000, 4)
    assert found.signals == 40_000
    assert 0 < found.singles < found.signals
    assert found.host_kills > 0
    assert (found.wrong, found.missing) == ([], {})


async def test_every_orchestration_of_a_killed_host_answers_elsewhere(tmp_path: Path) -> None:
    found = await stand(tmp_path, 200, 3)
    logging.getLogger("takeover").warning("%s", found)
    assert found.wrong == []
    assert found.timers == 20
    assert len(found.orphans_s) > 40
    assert len(found.orphans_s) + len(found.others_s) == 180
