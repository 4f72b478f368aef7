"""One host or worker in a process of its own: ``python -m tests.faults.process host URL SLOT``."""

from __future__ import annotations

import asyncio
import logging
import sys

from lungfish.runtime.on_ray.processes import Deployment, HostProcess, WorkerProcess
from tests.faults.app import app


async def main(role: str, url: str, slot: str) -> None:
    deployment = Deployment(app.hub, url)
    if role == "host":
        host = HostProcess(deployment, app, slot=slot)
        await host.start()
        print(f"ready {host.host.host_id}", flush=True)
        print(f"failed {await host.failure()!r}", flush=True)
        sys.exit(1)
    worker = WorkerProcess(deployment, app, slot=slot)
    await worker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(process)d %(name)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
