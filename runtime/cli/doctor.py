"""``lungfish doctor``: looks at what a hub stands on, and says what to do. ``doctor`` judges."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import os
from importlib import metadata
from typing import Final

import click

from lungfish.runtime.errors import HubNotFound, LungfishError, Unavailable, UnsafeStore, UsageError
from lungfish.runtime.on_redis.open_store import open_store
from lungfish.runtime.on_redis.view import RedisView
from lungfish.runtime.release import release
from lungfish.runtime.store.queues import QueueInfo
from lungfish.runtime.telemetry.doctor import (
    PACKAGES,
    Facts,
    Finding,
    HttpFacts,
    HubFacts,
    MachineFacts,
    RayFacts,
    Severity,
    diagnose,
    exit_code,
)
from lungfish.runtime.telemetry.overview import HubStatus, read_hub
from lungfish.runtime.telemetry.redis_health import read_store

from .output import counted
from .where import Where, where_options

#: How long an outbox is looked at to see whether it moves (s).
_LOOK_S: Final = 2.0


@click.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--replicas", type=click.IntRange(0), default=0, help="How many must confirm each write.")
@click.option("--http", "http_host", metavar="HOST", help="Where `lungfish http` is to listen.")
@where_options
def doctor(where: Where, form: str, replicas: int, http_host: str | None) -> None:
    """Look at store, hub, Ray and this machine, and say what is wrong and what to do.

    With MODULE:APP, also whether its queues have workers; with --address, at that Ray cluster, too.
    Exit code 0: nothing found; 1: warnings; 2: errors.
    """
    with where.existing_store() as url:
        facts = asyncio.run(_look(where, url, replicas))
    address = where.address or os.environ.get("RAY_ADDRESS")
    hub = facts.hub.name if facts.hub is not None else None
    facts = dataclasses.replace(
        facts,
        ray=_ray(address, hub) if address else None,
        http=_http(http_host) if http_host else None,
    )
    findings = diagnose(facts)
    if form == "json":
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        _print(facts, findings)
    raise SystemExit(exit_code(findings))


def _print(facts: Facts, findings: list[Finding]) -> None:
    store = facts.store
    click.echo(f"store  {store.where}")
    if store.write_ms is not None:
        click.echo(f"       a durable write takes {store.write_ms:.2f} ms; clock {store.skew_ms:+d} ms")
    if facts.hub is not None and (status := facts.hub.status) is not None:
        counts = {
            "partition": len(status.partitions),
            "host": sum(host.alive for host in status.hosts),
            "worker": sum(worker.alive for worker in status.workers),
        }
        text = ", ".join(counted(count, one) for one, count in counts.items())
        click.echo(f"hub    {status.hub}: {text}")
    for finding in findings:
        color = "red" if finding.severity is Severity.ERROR else "yellow"
        label = click.style(f"{finding.severity}: ", fg=color, bold=True)
        click.echo(f"{label}{finding.text} [{finding.code}]")
        click.echo(f"  → {finding.advice}")
    click.echo(counted(len(findings), "finding") if findings else "nothing to find fault with")


# --- facts --------------------------------------------------------------------------------


async def _look(where: Where, url: str, replicas: int) -> Facts:
    machine = MachineFacts(release(), {name: _installed(name) for name in PACKAGES})
    store = await read_store(url, hub=None, replicas=replicas)
    if store.error:
        return Facts(machine, store)
    try:
        async with RedisView(url) as view:
            name = await where.existing_hub(view)
    except (UsageError, HubNotFound) as error:
        return Facts(machine, store, HubFacts(where.hub or "", str(error)))
    store = await read_store(url, hub=name, replicas=replicas)
    wanted = tuple(where.app().queues()) if where.target and where.app().activities else ()
    return Facts(machine, store, await _hub(url, name, wanted))


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


async def _hub(url: str, name: str, wanted: tuple[str, ...]) -> HubFacts:
    store = open_store(url, name)
    try:
        await store.open(create=False)
        status = await read_hub(store)
        stuck: tuple[int, ...] = ()
        if status.load.outbox:
            await asyncio.sleep(_LOOK_S)
            stuck = _unmoved(status, await read_hub(store))
        names = sorted({queue for worker in status.workers if worker.alive for queue in worker.queues})
        queues = [QueueInfo.of(queue, await store.queue_state(queue)) for queue in names]
        return HubFacts(name, status=status, wanted=wanted, queues=tuple(queues), stuck=stuck)
    except UnsafeStore:
        return HubFacts(name)  # found with the store
    except LungfishError as error:
        return HubFacts(name, str(error))
    finally:
        await store.close()


def _unmoved(before: HubStatus, after: HubStatus) -> tuple[int, ...]:
    """Return the partitions whose outbox is no shorter, and which have committed nothing meanwhile."""
    pairs = zip(before.partitions, after.partitions, strict=False)  # a pool may have been added
    return tuple(
        old.number
        for old, new in pairs
        if 0 < old.load.outbox <= new.load.outbox and old.commits == new.commits
    )


def _ray(address: str, hub: str | None) -> RayFacts:
    try:
        from lungfish.runtime.on_ray.cluster import join, machines, running_url

        join(address)
        runs_hub = hub is None or running_url(hub) is not None
        found = len(machines())
    except (Unavailable, ImportError) as error:
        return RayFacts(address, str(error))
    return RayFacts(address, nodes=found, tells_metrics=_has_default(), runs_hub=runs_hub)


def _has_default() -> bool:
    """Tell whether the packages are there without which Ray's agents tell no metrics."""
    return all(
        importlib.util.find_spec(name) is not None for name in ("aiohttp", "grpc", "prometheus_client")
    )


def _http(host: str) -> HttpFacts:
    from .http import KEYS_VARIABLE

    try:
        from lungfish.runtime.http.access import is_loopback, parse_keys
    except ImportError:
        return HttpFacts(host, is_loopback=True, error="the HTTP API needs: pip install 'lungfish[http]'")
    text = os.environ.get(KEYS_VARIABLE, "")
    try:
        return HttpFacts(host, is_loopback(host), len(parse_keys(text)))
    except UsageError as error:
        return HttpFacts(host, is_loopback(host), error=f"${KEYS_VARIABLE}: {error}")
