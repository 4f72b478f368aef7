"""What a doctor finds, fact by fact."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from lungfish.runtime.on_redis.persistence import Persistence
from lungfish.runtime.store.queues import QueueInfo, QueueLimits
from lungfish.runtime.store.store import PartitionLoad
from lungfish.runtime.telemetry import doctor
from lungfish.runtime.telemetry.doctor import (
    PACKAGES,
    Facts,
    HttpFacts,
    HubFacts,
    MachineFacts,
    RayFacts,
    ServerFacts,
    Severity,
    StoreFacts,
    diagnose,
    exit_code,
    parse_version,
)
from lungfish.runtime.telemetry.overview import HostStatus, HubStatus, PartitionStatus, WorkerStatus

GOOD_SETTINGS = Persistence(appendonly=True, appendfsync="always", save="", maxmemory_policy="noeviction")
SERVER = ServerFacts("store:6379", "7.2.4", GOOD_SETTINGS)
STORE = StoreFacts("store:6379", servers=(SERVER,), write_ms=1.0, skew_ms=3)
MACHINE = MachineFacts("1.0", {"redis": "5.2.0"})
HOST = HostStatus("a", True, 10, "node", 1, False, 1, 5, 9, release="1.0", code="abc")
WORKER = WorkerStatus("w", True, 10, ("default",), 8, 0, {})
STATUS = HubStatus("shop", 0, "a", (HOST,), (WORKER,), (PartitionStatus(0, "a", 1, 9, PartitionLoad()),))
HUB = HubFacts("shop", status=STATUS, wanted=("default",))
WELL = Facts(MACHINE, STORE, HUB, RayFacts("auto", nodes=1), HttpFacts("127.0.0.1", True))


def server(**changes: object) -> Facts:
    return replace(WELL, store=replace(STORE, servers=(replace(SERVER, **changes),)))  # type: ignore[arg-type]


def settings(**changes: object) -> Facts:
    return server(persistence=replace(GOOD_SETTINGS, **changes))  # type: ignore[arg-type]


def store(**changes: object) -> Facts:
    return replace(WELL, store=replace(STORE, **changes))  # type: ignore[arg-type]


def hub(**changes: object) -> Facts:
    return replace(WELL, hub=replace(HUB, **changes))  # type: ignore[arg-type]


def status(**changes: object) -> Facts:
    return hub(status=replace(STATUS, **changes))  # type: ignore[arg-type]


def load(**waiting: int) -> tuple[PartitionStatus, ...]:
    return (PartitionStatus(0, "a", 1, 9, PartitionLoad(**waiting)),)


def pooled(**waiting: int) -> tuple[PartitionStatus, ...]:
    return (*load(), PartitionStatus(1, "", 0, 0, PartitionLoad(**waiting), "gpu"))


PAUSED = QueueInfo("default", QueueLimits(), True, 3, 0, {}, {})
DEAD_HOST = replace(HOST, id="b", alive=False)

FINDINGS = [
    ("package-old", 2, replace(WELL, machine=MachineFacts("1.0", {"redis": "5.1.9"})), "at least 5.2"),
    ("package-missing", 2, replace(WELL, machine=MachineFacts("1.0", {"hiredis": ""})), "hiredis"),
    ("store-unreachable", 2, store(error="no route", servers=()), "no route"),
    ("store-old", 2, server(version="6.0.16"), "Redis 6.0.16"),
    ("store-evicts", 2, settings(maxmemory_policy="allkeys-lru"), "allkeys-lru"),
    ("store-policy-unknown", 1, settings(maxmemory_policy=None), "does not tell"),
    ("store-not-durable", 1, settings(appendfsync="everysec"), "last second"),
    ("store-not-durable", 1, settings(appendonly=False, save="3600 1"), "RDB snapshot"),
    ("store-not-durable", 1, settings(appendonly=False), "everything"),
    ("store-durability-unknown", 1, settings(appendonly=None), "unknown"),
    ("store-disk", 2, server(aof_failing=True), "append-only file"),
    ("store-replicas", 2, store(replicas=1), "0 replicas, and 1 must"),
    ("store-memory", 1, server(used_bytes=90, limit_bytes=100), "90%"),
    ("store-slow", 1, store(write_ms=25.0), "25.0 ms"),
    ("clock-skew", 1, store(skew_ms=-1500), "-1.5 s"),
    ("ray-unreachable", 2, replace(WELL, ray=RayFacts("auto", "no Ray")), "no Ray"),
    ("ray-metrics", 1, replace(WELL, ray=RayFacts("auto", tells_metrics=False)), "dashboard"),
    ("ray-hub", 1, replace(WELL, ray=RayFacts("auto", runs_hub=False)), "not deployed"),
    ("http-open", 2, replace(WELL, http=HttpFacts("0.0.0.0", False)), "anyone"),
    ("http-keys", 2, replace(WELL, http=HttpFacts("0.0.0.0", False, 0, "key 1 is not")), "key 1"),
    ("hub-unusable", 2, hub(status=None, error="storage format is 9"), "format is 9"),
    ("no-hosts", 2, status(hosts=()), "no host runs"),
    ("partitions-unowned", 2, status(partitions=(PartitionStatus(0, "", 1, 9, PartitionLoad()),)), "1 of 1"),
    ("pool-without-hosts", 1, status(partitions=pooled()), "pool 'gpu' has no host: its entities"),
    ("pool-without-hosts", 2, status(partitions=pooled(inbox=3, timers=2)), "5 batches"),
    ("pool-without-hosts", 1, status(partitions=pooled(), pool_notes={"gpu": "no node"}), "host (no node):"),
    (
        "pool-host-waits",
        1,
        status(hosts=(HOST, replace(HOST, id="g", pools=("gpu",))), pool_notes={"gpu": "w"}),
        "pool 'gpu' has fewer hosts than it should: w",
    ),
    ("hosts-dead", 1, status(hosts=(HOST, DEAD_HOST)), ": b"),
    ("releases-differ", 1, status(hosts=(HOST, replace(HOST, id="b", release="1.1"))), "1.0, 1.1"),
    ("release-differs", 1, replace(WELL, machine=replace(MACHINE, release="0.9")), "this machine 0.9"),
    ("code-differs", 1, status(hosts=(HOST, replace(HOST, id="b", code="xyz"))), "2 different"),
    ("no-workers", 2, status(workers=(), partitions=load(activities=1)), "1 activities wait"),
    ("no-workers", 1, status(workers=()), "no worker runs"),
    ("queue-without-workers", 2, hub(wanted=("default", "gpu")), ": gpu"),
    ("queue-paused", 1, hub(queues=(PAUSED,)), "3 activities"),
    ("dead-letters", 1, status(partitions=load(dead=2)), "2 messages"),
    ("outbox-stuck", 1, hub(stuck=(3,)), "partitions 3"),
]


def test_nothing_is_wrong_with_what_is_well() -> None:
    assert diagnose(WELL) == []
    assert exit_code([]) == 0
    assert diagnose(Facts(MACHINE, STORE)) == []


@pytest.mark.parametrize(("code", "exits", "facts", "says"), FINDINGS)
def test_each_fact_leads_to_its_finding_and_no_other(code: str, exits: int, facts: Facts, says: str) -> None:
    findings = diagnose(facts)
    assert [finding.code for finding in findings] == [code]
    assert says in findings[0].text
    assert findings[0].advice
    assert exit_code(findings) == exits


def test_all_findings_are_tested() -> None:
    text = Path(doctor.__file__).read_text("utf-8")
    codes = set[str]()
    for shape in (r'(?:_error|_warning)\(\s*"([a-z-]+)"', r'code = "([a-z-]+)"', r'code, text = "([a-z-]+)"'):
        codes.update(re.findall(shape, text))
    assert codes == {code for code, *_ in FINDINGS}


def test_errors_come_first() -> None:
    facts = replace(WELL, store=replace(STORE, skew_ms=9_999), http=HttpFacts("0.0.0.0", False))
    findings = diagnose(facts)
    assert [finding.severity for finding in findings] == [Severity.ERROR, Severity.WARNING]
    assert exit_code(findings) == 2


def test_replicas_cover_for_the_disk() -> None:
    facts = replace(settings(appendfsync="everysec"))
    covered = replace(facts.store, replicas=1, servers=(replace(facts.store.servers[0], replicas=1),))
    assert diagnose(replace(WELL, store=covered)) == []


@pytest.mark.parametrize(
    ("text", "numbers"), [("7.2.4", (7, 2, 4)), ("5.2.0rc1", (5, 2, 0)), ("9", (9,)), ("", ()), ("1.x", (1,))]
)
def test_versions_are_read(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_version(text) == numbers


def test_the_oldest_packages_are_those_that_the_package_asks_for() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    asked = dict(re.split(r"(?:\[\w+\])?>=", each.partition(";")[0]) for each in project["dependencies"])
    for name, oldest in PACKAGES.items():
        assert name == "hiredis" or parse_version(asked[name]) == oldest
