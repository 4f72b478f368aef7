"""Data sets of Ray Data as sources of signals: docs/ray.md. Needs ``lungfish[data]``.

::

    sink = SignalSink(app, "flights", Airline, Airline.departed, key=..., args=..., position="id")
    ds.write_datasink(sink)
"""

from lungfish.runtime.entry_points.ray_data import SignalSink

__all__ = ["SignalSink"]
