"""Figures: how they are kept and told, and that nobody's key becomes a label."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import lungfish
from lungfish.runtime.entry_points.local import LocalRuntime
from lungfish.runtime.on_ray.metrics import RayFigures
from lungfish.runtime.store.store import PartitionLoad
from lungfish.runtime.telemetry import figures
from lungfish.runtime.telemetry.figures import CATALOGUE, UNKNOWN, AttemptFigures, hub_samples
from lungfish.runtime.telemetry.metrics import (
    LATELY_MS,
    Distribution,
    Kind,
    Lately,
    Metric,
    Sample,
    points,
    render,
)
from lungfish.runtime.telemetry.overview import HostStatus, HubStatus, PartitionStatus, WorkerStatus
from lungfish.runtime.testing.memory_store import MemoryStore
from tests.virtual import virtual_server, virtually

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "lungfish.json"

app = lungfish.App("figures")


@app.entity
class Counter(lungfish.Entity):
    value: int = 0

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value


@app.activity(retry=lungfish.RetryPolicy(max_attempts=2))
def stumble(key: str) -> str:
    if lungfish.activity_info().attempt == 1:
        raise ValueError(key)
    return key


@app.orchestration
async def walk(ctx: lungfish.OrchestrationContext, key: str) -> str:
    return await ctx.call_activity(stumble, key)


def by_name(samples: Any) -> dict[tuple[str, ...], Any]:
    return {(sample.metric.name, *sample.labels): sample.value for sample in samples}


def test_a_distribution_counts_each_value_once_and_up_to_its_bound() -> None:
    spread = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 7.0):
        spread.observe(value)
    assert list(spread.cumulative()) == [("1", 2), ("2", 3), ("+Inf", 4)]
    assert (spread.count, spread.total) == (4, 10.0)


def test_the_text_form_is_that_of_prometheus() -> None:
    counter = Metric("lungfish_x_total", Kind.COUNTER, "Of x\\y.", ("name",))
    spread = Distribution((0.5,))
    spread.observe(0.25)
    times = Metric("lungfish_t_seconds", Kind.HISTOGRAM, "Times.")
    first = ((("hub", "a"),), [counter(3, 'q"\n'), times(spread)])
    second = ((("hub", "b"),), [counter(4, "z")])
    assert render(first, second) == (
        "# HELP lungfish_x_total Of x\\\\y.\n"
        "# TYPE lungfish_x_total counter\n"
        'lungfish_x_total{hub="a",name="q\\"\\n"} 3\n'
        'lungfish_x_total{hub="b",name="z"} 4\n'
        "# HELP lungfish_t_seconds Times.\n"
        "# TYPE lungfish_t_seconds histogram\n"
        'lungfish_t_seconds_bucket{hub="a",le="0.5"} 1\n'
        'lungfish_t_seconds_bucket{hub="a",le="+Inf"} 1\n'
        'lungfish_t_seconds_sum{hub="a"} 0.25\n'
        'lungfish_t_seconds_count{hub="a"} 1\n'
    )
    assert render() == ""


def test_a_sample_has_all_its_labels() -> None:
    with pytest.raises(ValueError, match="zip"):
        list(points(Sample(figures.HUB_HOSTS, 1.0)))


def test_metrics_are_named_as_prometheus_wants_it() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE) > 30
    for metric in CATALOGUE:
        assert re.fullmatch(r"lungfish_(hub|host|worker)_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.name.endswith("_seconds") == (metric.kind is Kind.HISTOGRAM)
        assert metric.help.endswith(".")


def test_names_that_nobody_registered_are_one_label() -> None:
    attempts = AttemptFigures({"pay"})
    for name in ("pay", "user-1", "user-2"):
        attempts.ended(name, "failed", 2, 0.5)
    found = by_name(attempts.samples())
    assert found["lungfish_worker_attempts_total", "pay", "failed"] == 1
    assert found["lungfish_worker_attempts_total", UNKNOWN, "failed"] == 2
    assert found["lungfish_worker_retries_total", UNKNOWN] == 2
    assert found["lungfish_worker_attempt_seconds", UNKNOWN].count == 2
    assert not [name for name in found if "user-1" in name]


def test_a_hub_is_told_by_states() -> None:
    def host(alive: bool, draining: bool) -> HostStatus:
        return HostStatus("h", alive, 0, "", 1, draining, 1, 10, 5)

    def worker(alive: bool) -> WorkerStatus:
        return WorkerStatus("w", alive, 0, ("default",), 8, 3, {})

    status = HubStatus(
        hub="h",
        now_ms=0,
        leader="",
        hosts=(host(True, False), host(True, True), host(False, False)),
        workers=(worker(True), worker(False)),
        partitions=(
            PartitionStatus(0, "h", 2, 40, PartitionLoad(inbox=1, dead=3)),
            PartitionStatus(1, "", 1, 2, PartitionLoad(timers=4)),
        ),
    )
    found = by_name(hub_samples(status, {"Running": 7}))
    assert [found["lungfish_hub_hosts", state] for state in ("live", "draining", "dead")] == [1, 1, 1]
    assert found["lungfish_hub_partitions_unowned",] == 1
    assert found["lungfish_hub_activations",] == 20
    assert found["lungfish_hub_commits_total",] == 42
    assert found["lungfish_hub_claims_total",] == 3
    assert (found["lungfish_hub_inbox_batches",], found["lungfish_hub_dead_letters",]) == (1, 3)
    assert found["lungfish_hub_timers_pending",] == 4
    assert (found["lungfish_hub_worker_slots",], found["lungfish_hub_activities_running",]) == (8, 3)
    assert found["lungfish_hub_instances", "Running"] == 7


async def run_something() -> dict[tuple[str, ...], Any]:
    server = virtual_server()
    async with LocalRuntime(app, lambda: MemoryStore(server, app.hub)) as runtime:
        await runtime.client.entity(Counter, "secret-key").call(Counter.add, 5)
        assert await runtime.client.run(walk, "secret-argument") == "secret-argument"
        told = list(runtime.samples())
        text = render(*(((("process", name),), samples) for name, samples in told))
        assert "secret" not in text
        return by_name(sample for _, samples in runtime.samples() for sample in samples)


def test_a_host_and_a_worker_tell_what_they_have_done() -> None:
    found = virtually(run_something)
    assert found["lungfish_host_messages_total",] >= 4
    assert found["lungfish_host_commits_total",] >= 3
    assert found["lungfish_host_commit_seconds",].count >= 3
    assert found["lungfish_host_round_seconds",].count >= 3
    assert found["lungfish_host_activations",] == 2
    assert found["lungfish_worker_attempts_total", "stumble", "failed"] == 1
    assert found["lungfish_worker_attempts_total", "stumble", "succeeded"] == 1
    assert found["lungfish_worker_retries_total", "stumble"] == 1
    assert found["lungfish_host_store_errors_total", "commit"] == 0


class Gauge:
    """Stands in for Ray's, which needs no cluster either, but tells nobody what it was set to."""

    made: dict[str, Gauge]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.tag_keys = tag_keys
        self.told: dict[tuple[str, ...], float] = {}

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        self.told[tuple(tags.values())] = value


def test_ray_is_told_the_same_numbers() -> None:
    made: dict[str, Gauge] = {}

    def make(name: str, **options: Any) -> Gauge:
        assert name not in made
        made[name] = Gauge(name, **options)
        return made[name]

    spread = Distribution((1.0,))
    told = RayFigures("shop", "host-0", make)
    for count in (1, 2):
        spread.observe(0.5)
        told.tell(lambda count=count: iter([figures.HOST_MESSAGES(count), figures.HOST_COMMIT_S(spread)]))  # type: ignore[misc]
    assert made["lungfish_host_messages_total"].told == {("shop", "host-0"): 2}
    buckets = made["lungfish_host_commit_seconds_bucket"].told
    assert buckets == {("shop", "host-0", "1"): 2, ("shop", "host-0", "+Inf"): 2}


def test_rays_own_gauge_takes_all_names() -> None:
    """What Ray would refuse is refused when a gauge is made, also without a cluster."""
    from ray.util.metrics import Gauge as RayGauge

    for metric in CATALOGUE:
        for name in metric.series:
            RayGauge(name, description=metric.help, tag_keys=("hub", "process", *metric.labels))


def test_the_dashboard_uses_only_what_is_told() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    told = {name for metric in CATALOGUE for name in metric.series}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    used = {name for query in queries for name in re.findall(r"lungfish_[a-z_]+", query)}
    assert len(queries) > 15
    assert used <= told
    # Figures of processes come through Ray, with its prefix; those of the hub from /metrics.
    for query in queries:
        for prefix, name in re.findall(r"(ray_)?(lungfish_[a-z]+)_", query):
            assert bool(prefix) == (name != "lungfish_hub"), query


def test_lately_tells_of_the_last_seconds_only() -> None:
    times = Distribution((0.001, 0.01, 0.1))
    lately = Lately(times)
    assert lately.told(1, 0.5, 0.99) == (0.0, 0.0)
    for seconds in (0.0005, 0.0005, 0.005, 0.05):
        times.observe(seconds)
    assert lately.told(2, 0.5, 0.75, 0.99) == (0.001, 0.01, 0.1)
    lately.told(1 + LATELY_MS, 0.5)
    times.observe(0.05)
    assert lately.told(2 + LATELY_MS, 0.5) == (0.01,)  # with those of the ten seconds before
    lately.told(1 + 2 * LATELY_MS, 0.5)
    assert lately.told(2 + 2 * LATELY_MS, 0.5) == (0.1,)
    lately.told(1 + 3 * LATELY_MS, 0.5)
    assert lately.told(2 + 3 * LATELY_MS, 0.5) == (0.0,)


def test_what_is_above_all_bounds_is_told_as_the_last_one() -> None:
    times = Distribution((0.001, 0.01))
    lately = Lately(times)
    times.observe(5.0)
    assert lately.told(1, 0.5) == (0.01,)
