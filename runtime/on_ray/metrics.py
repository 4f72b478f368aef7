"""The figures of a host or worker in Ray's own metrics: its dashboard, and the Prometheus that scrapes it.

Rules:

* Everything goes as a gauge of the value reached so far, counters and buckets, too: Ray renames its own
  counters and takes histograms value by value. So names are the catalogue's with Ray's prefix ``ray_``.
* They are sampled every few seconds, never on the way of a message. A failure is logged once, and harms no
  one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from ray.util.metrics import Gauge

from lungfish.runtime.telemetry.figures import Sampler
from lungfish.runtime.telemetry.metrics import points

logger = logging.getLogger(__name__)

TELL_EVERY_S: Final = 5.0


class RayFigures:
    """Tells Ray the figures of this process."""

    def __init__(self, hub: str, process: str, gauge: Callable[..., Any] = Gauge) -> None:
        """Prepare.

        Args:
            process: stable name of the place that this process takes; a restarted one goes on in its series.
            gauge: makes a gauge of Ray's.
        """
        self._common = (("hub", hub), ("process", process))
        self._make = gauge
        self._gauges: dict[str, Any] = {}
        self._failed = False

    async def tell_forever(self, sample: Sampler) -> None:
        """Tell, again and again."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            try:
                self.tell(sample)
            except (
                Exception
            ) as error:  # Ray's agent, or a release of Ray that differs: no reason to stop working
                if not self._failed:
                    logger.warning("metrics cannot be told to Ray: %r", error)
                self._failed = True

    def tell(self, sample: Sampler) -> None:
        """Tell the figures as they are now."""
        for each in sample():
            for point in points(each, self._common):
                names = [name for name, _ in point.labels]
                gauge = self._gauge(point.name, each.metric.help, names)
                gauge.set(point.value, tags=dict(point.labels))

    def _gauge(self, name: str, description: str, labels: Sequence[str]) -> Any:
        if name not in self._gauges:
            self._gauges[name] = self._make(name, description=description, tag_keys=tuple(labels))
        return self._gauges[name]
