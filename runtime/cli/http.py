"""``lungfish http``: serve the HTTP API."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final

import click

from lungfish.runtime.client.client import Client
from lungfish.runtime.errors import UsageError

from .where import Where, where_options

KEYS_VARIABLE: Final = "LUNGFISH_HTTP_KEYS"


@click.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8_080, show_default=True, help="0 takes a free one."
)
@click.option(
    "--keys",
    metavar="NAME:SCOPE:SECRET",
    help=f"API keys, separated by commas; default: ${KEYS_VARIABLE}. Scopes: read, operate, admin.",
)
@where_options
def http(where: Where, host: str, port: int, keys: str | None) -> None:
    """Serve the HTTP API of a hub until Ctrl-C. Without keys it serves this machine only."""
    try:
        from lungfish.runtime.http import access, server
    except ImportError as error:
        raise UsageError("the HTTP API needs more packages: pip install 'lungfish[http]'") from error
    from lungfish.runtime.entry_points.connect import connect
    from lungfish.runtime.http.dashboard import UI_PREFIX
    from lungfish.runtime.http.shapes import PREFIX

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    hub = where.named_hub()
    if hub is None:
        raise UsageError("which hub? Say MODULE:APP or --hub NAME")
    known = access.parse_keys(keys if keys is not None else os.environ.get(KEYS_VARIABLE, ""))
    server.check_address(host, known)

    def started(taken: int) -> None:
        address = f"[{host}]:{taken}" if ":" in host else f"{host}:{taken}"
        click.echo(f"{click.style(hub, bold=True)} is served at http://{address}{PREFIX}")
        click.echo(f"  look     http://{address}{UI_PREFIX}/")
        click.echo(f"  keys     {', '.join(key.name for key in known) or 'none: this machine only'}")

    with where.existing_store() as url:
        client = connect(where.app() if where.target else None, hub=hub, url=url)
        routes = server.make_router(client, keys=known, probes=True)
        api = server.make_server(routes, title=hub)
        # Here it is told in a line; the server could only fail to start.
        asyncio.run(_reach(client))
        server.serve(api, host=host, port=port, started=started, keys=known)


async def _reach(client: Client) -> None:
    async with client:
        pass
