"""One trace over the processes of a Ray cluster: each makes its own provider."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SCRIPT = """
import json
import os
import sys

import ray
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

import lungfish
import lungfish.tracing

LEDGER = sys.argv[3]

class Ledger(SpanExporter):
    def export(self, spans):
        with open(LEDGER, "a") as file:
            for span in spans:
                parent = span.parent and span.parent.span_id
                row = [span.name, span.context.trace_id, span.context.span_id, parent, os.getpid()]
                file.write(json.dumps(row) + "\\n")
        return SpanExportResult.SUCCESS

def provider():
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(Ledger()))
    return made

app = lungfish.App("traced")
lungfish.tracing.install(app, provider)

@app.entity
class Path(lungfish.Entity):
    length: int = 0

    def go(self, n: int) -> int:
        self.length += n
        return self.length

@app.activity
def light() -> str:
    return lungfish.headers()["traceparent"]

@app.activity(num_cpus=0.1)
def heavy() -> str:
    return lungfish.headers()["traceparent"]

@app.orchestration
async def walk(ctx: lungfish.OrchestrationContext) -> list[str]:
    await ctx.entity(Path, "p").call(Path.go, 1)
    return [await ctx.call_activity(light), await ctx.call_activity(heavy)]

ray.init(address=sys.argv[1], log_to_driver=False)
runtime = lungfish.start(app, url=sys.argv[2])
try:
    with lungfish.connect_sync(app) as client:
        print(json.dumps(client.start(walk).result(timeout=60)))
finally:
    runtime.shutdown()
"""


async def test_one_trace_over_processes(ray_cluster: Any, durable_store: Server, tmp_path: Path) -> None:
    script, ledger = tmp_path / "script.py", tmp_path / "ledger"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), ray_cluster.address, durable_store.url, str(ledger)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    names = {span: name for name, _trace, span, *_ in rows}
    edges = [(names.get(parent, str(parent)), name) for name, _trace, _span, parent, _pid in rows]
    assert sorted(edges) == sorted(
        [
            ("None", "start walk"),
            ("start walk", "orchestration walk"),
            ("orchestration walk", "activity heavy"),
            ("orchestration walk", "activity light"),
            ("orchestration walk", "entity Path.go"),
        ],
    )
    assert len({trace for _name, trace, *_ in rows}) == 1
    assert len({pid for *_, pid in rows}) >= 3, "the script, a host, a worker"
    light, heavy = (int(text.split("-")[2], 16) for text in json.loads(done.stdout.splitlines()[-1]))
    assert (names[light], names[heavy]) == ("activity light", "activity heavy")
