"""The trace that the example prints."""

from __future__ import annotations

import pytest

from examples import traces
from lungfish.testing import environment

TREE = """\
a customer [internal]
  call Cart.check_out [client]
    entity Cart.check_out [server]
      orchestration buy [server]
        activity charge [consumer] attempt 1 failed: 'no 7 to be had just now'
        activity charge [consumer] attempt 2
        entity Sales.add [consumer]
        event collected [consumer]
        orchestration pack [server]
          timer [internal]
  raise_event collected [producer]
  signal Cart.put [producer]
    entity Cart.put [consumer]"""


@pytest.mark.parametrize("always_replay", [False, True])
async def test_one_trace(always_replay: bool) -> None:
    traces.spans.clear()
    async with environment(traces.app, always_replay=always_replay) as env:
        printed = await traces.main(env.client)
    assert len(printed.splitlines()) == len(TREE.splitlines())
    # What stands beside one another ends in any order.
    assert sorted(printed.splitlines()) == sorted(TREE.splitlines())
    spans = traces.spans.get_finished_spans()
    assert len({span.context.trace_id for span in spans if span.context is not None}) == 1
