"""The pytest plugin: fixtures for users' tests.

It stands outside of the package because pytest imports every installed plugin in every run, and importing
anything of ``lungfish`` imports all of it (a third of a second). Only a test that uses a fixture pays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lungfish.testing import Environment


@pytest.fixture
def lungfish_environment() -> Callable[..., Environment]:
    """Give a test what ``lungfish.testing`` calls ``environment``, without an import."""
    from lungfish.testing import environment

    return environment
