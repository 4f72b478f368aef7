"""What is said about a server's settings, and which are refused."""

from __future__ import annotations

import logging

import pytest

from lungfish.runtime.errors import UnsafeStore
from lungfish.runtime.on_redis.persistence import Durability, Persistence, judge, parse_info

SAFE = {"appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction"}


def settings(**changes: str) -> Persistence:
    return Persistence.of_config(SAFE | {name.replace("_", "-"): value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("found", "durability", "window"),
    [
        (settings(), Durability.FSYNC, None),
        (settings(appendfsync="everysec"), Durability.EVERYSEC, "last second"),
        (settings(appendfsync="no"), Durability.NONE, "about 30 s"),
        (settings(appendonly="no", save="3600 1"), Durability.NONE, "last RDB snapshot"),
        (settings(appendonly="no"), Durability.NONE, "everything, whenever"),
        (Persistence.of_config({}), Durability.UNKNOWN, "does not tell"),
        (Persistence.of_info({"aof_enabled": "0"}), Durability.NONE, "everything"),
        (Persistence.of_info({"aof_enabled": "1"}), Durability.UNKNOWN, "does not tell"),
    ],
)
def test_durability_and_loss_window(
    found: Persistence, durability: Durability, window: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert judge([found], "here") is durability
    if window is None:
        assert not caplog.records
    else:
        assert window in caplog.text


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_eviction_is_refused(policy: str) -> None:
    with pytest.raises(UnsafeStore, match=policy):
        judge([settings(), settings(maxmemory_policy=policy)], "here")


def test_weakest_server_counts() -> None:
    assert judge([settings(), settings(appendfsync="everysec"), settings()], "here") is Durability.EVERYSEC


def test_unknown_policy_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    judge([Persistence(appendonly=True, appendfsync="always")], "here")
    assert "maxmemory-policy" in caplog.text


def test_replicas_cover_for_the_disk(caplog: pytest.LogCaptureFixture) -> None:
    judge([settings(appendonly="no")], "here", replicas=1)
    assert not caplog.records


def test_info_is_read() -> None:
    text = "# Persistence\r\naof_enabled:1\r\n\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n"
    assert parse_info(text) == {"aof_enabled": "1", "maxmemory_policy": "noeviction"}
