"""The pytest plugin: fixtures for users' tests.

It stands outside of the package because pytest imports every installed plugin in every run, and importing
anything of ``lungfish`` imports all of it (a third of a second). Only a test that uses a fixture pays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lungfish.testing import CrashReport, Environment, Replayer


@pytest.fixture
def lungfish_environment() -> Callable[..., Environment]:
    """Give a test what ``lungfish.testing`` calls ``environment``, without an import."""
    from lungfish.testing import environment

    return environment


@pytest.fixture(params=[True, False], ids=["always_replay", "live"])
def lungfish_always_replay(request: pytest.FixtureRequest) -> bool:
    """Run a test twice: ``environment(app, always_replay=...)``, as in production too."""
    return bool(request.param)


@pytest.fixture
def lungfish_crash_everywhere() -> Callable[..., CrashReport]:
    """Give a test what ``lungfish.testing`` calls ``crash_everywhere``, without an import."""
    from lungfish.testing import crash_everywhere

    return crash_everywhere


@pytest.fixture
def lungfish_replayer() -> type[Replayer]:
    """Give a test what ``lungfish.testing`` calls ``Replayer``, without an import."""
    from lungfish.testing import Replayer

    return Replayer
