"""The command line: ``lungfish …``. What it starts is here; what it looks at is in ``cli.look``.

Rules:

* A mistake of the caller is one line that says what is wrong, where, and what to do; exit code 2, no
  traceback. A traceback is a bug of Lungfish.
* Ray, rich and the store are imported by the commands that need them: ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
from collections.abc import Iterator, Sized

import click

from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import UsageError
from lungfish.runtime.on_redis.embedded import start_child
from lungfish.runtime.on_redis.open_store import URL_VARIABLE, embedded_url

from . import (
    check,
    completion,
    doctor,
    entities,
    histories,
    http,
    instances,
    letters,
    look,
    queues,
    schedules,
    talk,
    top,
)
from .group import Commands
from .output import counted
from .where import Where, where_options

#: Loaded by name: the demo uses all layers, and the runtime imports none above it.
_DEMO = "lungfish.demo.run"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lungfish", prog_name="lungfish")
def main() -> None:
    """Durable virtual actors and orchestrations for Python on Ray, with Redis as the only store."""


for _command in (
    http.http,
    look.status,
    talk.why,
    top.top,
    top.hosts,
    top.workers,
    instances.instances,
    talk.start,
    talk.raise_event,
    talk.query,
    talk.update,
    entities.entities,
    queues.queues,
    schedules.schedules,
    letters.dead_letters,
    histories.export,
    histories.replay,
    check.check,
    doctor.doctor,
    completion.completion,
):
    main.add_command(_command)
#: As it was called at first.
main.add_command(entities.entities, "entity")


@main.command()
@click.option("--flights", type=click.IntRange(1), metavar="N", help="Only the first N flights.")
@click.option("--no-kill", is_flag=True, help="Do not kill a host half-way.")
@click.option("--keep", is_flag=True, help="Leave everything up at the end, until Ctrl-C.")
@click.option("--seed", type=int, default=2013, show_default=True, help="Chooses the host that is killed.")
def demo(flights: int | None, no_kill: bool, keep: bool, seed: int) -> None:
    """A million signals, a killed host, and a check of every figure. About a minute."""
    run = importlib.import_module(_DEMO).run
    try:
        code = run(flights=flights, kill=not no_kill, keep=keep, seed=seed)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        code = 130
    raise SystemExit(code)


@main.command()
@click.argument("target", metavar="MODULE:APP")
@click.option(
    "--metrics-port", type=click.IntRange(0, 65_535), help="Tell figures at this port of 127.0.0.1/metrics."
)
@where_options
def dev(where: Where, metrics_port: int | None) -> None:
    """Run an app in this process, until Ctrl-C. No Ray; an embedded store unless one is named."""
    from lungfish.runtime.entry_points.dev import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = where.app()
    with _store_to_run_on(where) as url:

        def ready(port: int) -> None:
            _announce(app, url)
            if port:
                _say("metrics", f"http://127.0.0.1:{port}/metrics")
            _say("stop", "Ctrl-C; what runs is finished, everything else is durable already")

        draining = functools.partial(click.echo, "draining …")
        serve(app, url, ready=ready, draining=draining, figures_on=metrics_port)
    click.echo("stopped")


@contextlib.contextmanager
def _store_to_run_on(where: Where) -> Iterator[str]:
    url = where.url()
    if url is not None:
        yield url
        return
    with start_child(where.folder()) as server:
        yield server.url


@main.command()
@click.argument("target", metavar="MODULE:APP")
@click.option("--hosts-per-node", type=click.IntRange(0), default=1, show_default=True)
@click.option("--workers-per-node", type=click.IntRange(0), default=1, show_default=True)
@where_options
def up(where: Where, hosts_per_node: int, workers_per_node: int) -> None:
    """Run an app on the Ray cluster, or bring new code to where it runs; returns when it is up."""
    from lungfish.runtime.entry_points.launch import start
    from lungfish.runtime.on_ray.cluster import join

    app = where.app()
    join(where.address)
    url = where.url() or _running_or_embedded(where, app.hub)
    runtime = start(app, url=url, hosts_per_node=hosts_per_node, workers_per_node=workers_per_node)
    _announce(app, runtime.url)
    hosts = runtime.hosts()
    _say("hosts", f"{len(hosts)} on {counted(len({host.node for host in hosts}), 'node')}")
    at = f" --address {where.address}" if where.address else ""
    _say("stop", f"lungfish down --hub {app.hub}{at}")


def _running_or_embedded(where: Where, hub: str) -> str:
    """Return the store of the runtime that is up, else an embedded one if that can serve all nodes."""
    from lungfish.runtime.on_ray.cluster import machines, running_url

    url = running_url(hub) if where.data is None else None
    if url is not None:
        return url
    if (count := len(machines())) > 1:
        raise UsageError(
            f"the Ray cluster has {count} machines, and an embedded store serves only its own: "
            f"name a store that all of them reach, with --redis or {URL_VARIABLE}"
        )
    return embedded_url(where.folder())


@main.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@where_options
def down(where: Where) -> None:
    """Drain and remove an app's hosts and workers from the Ray cluster; its state stays in the store."""
    hub = where.named_hub()
    if hub is None:
        raise UsageError("which app? Say MODULE:APP or --hub NAME")
    from lungfish.runtime.entry_points.launch import attach
    from lungfish.runtime.on_ray.cluster import join

    join(where.address)
    attach(App(hub)).shutdown()
    click.echo(f"hub {hub} is down; its state stays in the store")


@main.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@click.option("--node", metavar="ID", help="Ray's id of the node; default: the one this command runs on.")
@where_options
def drain(where: Where, node: str | None) -> None:
    """Move hosts and workers away from a node that is about to end, and keep them away; then return.

    For a preStop hook, or before 'ray stop': Ray itself ends what runs on a node without a word.
    """
    hub = where.named_hub()
    if hub is None:
        raise UsageError("which app? Say MODULE:APP or --hub NAME")
    from lungfish.runtime.entry_points.launch import attach
    from lungfish.runtime.on_ray.cluster import join, this_node

    join(where.address)
    runtime = attach(App(hub))
    drained = node or this_node()
    runtime.drain(drained)
    click.echo(f"hub {hub} has left node {drained}")


def _announce(app: App, url: str) -> None:
    tables: dict[str, Sized] = {
        "entity": app.entities,
        "orchestration": app.orchestrations,
        "activity": app.activities,
    }
    registered = ", ".join(counted(len(table), one) for one, table in tables.items())
    click.echo(f"{click.style(app.hub, bold=True)} is up: {registered}")
    _say("store", url)
    _say("connect", f'lungfish.connect("{url}", hub="{app.hub}")')
    _say("look", f"lungfish status --redis {url} --hub {app.hub}")


def _say(what: str, text: str) -> None:
    click.echo(f"  {what:<8} {text}")


if __name__ == "__main__":
    main()
