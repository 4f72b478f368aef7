"""Crash everywhere: a scenario is run once per instant at which a host or a worker can die.

Rules:

* All runs are on a loop without chance, so call 17 of one run is call 17 of every run, and a finding comes
  back as often as it is looked for.
* Who dies is replaced at once: a new host, or worker, on the same store. The client lives on.
* What must not differ from the undisturbed run is the scenario's outcome: what it returns, or the
  class and message of what it raises. What the scenario wants to be judged by, it must return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

from lungfish.runtime.client.client import Client
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import UsageError
from lungfish.runtime.host.host import Host
from lungfish.runtime.worker.worker import Worker

from .deaths import CallLog, Death, MortalStore
from .environment import Environment
from .loop import run_virtually
from .memory_store import MemoryStore

#: A run that has not ended by then (virtual seconds, durable time not counted) hangs.
HANGS_S: Final = 300.0
#: How many findings a report spells out.
SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: a value, or an exception in words."""

    value: Any = None
    error: str = ""

    def __str__(self) -> str:
        return f"raised {self.error}" if self.error else f"returned {self.value!r}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Deaths that changed the outcome.

    Attributes:
        deaths: when, as (number of the call, "before" or "after").
        calls: what the calls of that run were, in order.
    """

    deaths: Sequence[Death]
    calls: Sequence[str]
    outcome: Outcome

    def __str__(self) -> str:
        died = " and ".join(f"{d.when} call {d.call} ({self.calls[d.call]})" for d in self.deaths)
        return f"death {died}: it {self.outcome}"


@dataclass(slots=True)
class CrashReport:
    """What ``crash_everywhere`` did and found.

    Attributes:
        outcome: what the undisturbed scenario returned.
        calls: the store calls of the undisturbed run, in order.
        runs: how many disturbed runs there were.
        findings: those with another outcome.
    """

    outcome: Any
    calls: Sequence[str]
    runs: int = 0
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        shown = "\n  ".join(map(str, self.findings[:SHOWN_MAX]))
        more = len(self.findings) - SHOWN_MAX
        return (
            f"{len(self.findings)} of {self.runs} crashes changed the outcome. Undisturbed, it returned "
            f"{self.outcome!r}.\n  {shown}" + (f"\n  and {more} more" if more > 0 else "")
        )


class OutcomeChanged(AssertionError):
    """A crash changed what a scenario comes to; ``report`` tells which."""

    def __init__(self, report: CrashReport) -> None:
        super().__init__(str(report))
        self.report = report


Scenario = Callable[[Client], Coroutine[Any, Any, Any]]


def crash_everywhere(
    app: App,
    scenario: Scenario,
    *,
    pairs: bool = False,
    hosts: int = 1,
    workers: int = 1,
    always_replay: bool = True,
) -> CrashReport:
    """Run a scenario with a crash before and after every store call of hosts and workers, one a run.

    Call it from a plain test, without a running event loop. The scenario runs some hundred times: it must
    begin anew each time, and use no real I/O, thread or clock.

    Args:
        scenario: starts things with the client it is given, waits for them, returns what must not change.
        pairs: follow each crash by a second one at each later call, also of the recovery: many runs.
        hosts, workers, always_replay: as in ``environment``.

    Raises:
        OutcomeChanged: some crash changed the outcome; its message says which call it was.
        UsageError: two undisturbed runs differ, so no difference would mean anything.
    """

    def run(*deaths: Death) -> tuple[Outcome, CallLog]:
        log = CallLog(deaths)
        environment = _Mortal(app, log, hosts=hosts, workers=workers, always_replay=always_replay)
        return run_virtually(lambda: environment.play(scenario, reraises=not deaths)), log

    expected, log = run()
    _check_same(expected, log, *run())
    report = CrashReport(expected.value, log.calls)

    def judge(*deaths: Death) -> CallLog:
        outcome, log = run(*deaths)
        if len(log.died) == len(deaths):  # else what came before has made the call needless
            report.runs += 1
            if outcome != expected:
                report.findings.append(Finding(deaths, log.calls, outcome))
        return log

    for first in _points(0, len(log.calls)):
        disturbed = judge(first)
        if pairs:
            for second in _points(first.call + 1, len(disturbed.calls)):
                judge(first, second)
    if report.findings:
        raise OutcomeChanged(report)
    return report


def _points(begin: int, end: int) -> list[Death]:
    return [death for call in range(begin, end) for death in (Death(call, "before"), Death(call, "after"))]


def _check_same(one: Outcome, log: CallLog, other: Outcome, other_log: CallLog) -> None:
    if one != other:
        raise UsageError(
            f"the scenario is not repeatable: one undisturbed run {one}, the next {other}. "
            "Everything that it changes outside of the hub must be set back at its beginning."
        )
    for number, (call, other_call) in enumerate(zip_longest(log.calls, other_log.calls)):
        if call != other_call:
            raise UsageError(
                f"the scenario is not repeatable: call {number} was {call}, in the next run {other_call}. "
                "It depends on chance, a clock, or the order of a set: give ids of your own, for example."
            )


class _Mortal(Environment):
    """An environment whose hosts and workers die as the log says, and are replaced."""

    def __init__(self, app: App, log: CallLog, **options: Any) -> None:
        self._log = log
        self._replacing: set[asyncio.Task[None]] = set()
        super().__init__(app, **options)

    async def play(self, scenario: Scenario, *, reraises: bool) -> Outcome:
        """Run the scenario once."""
        self._log.kill = self._kill
        async with self:
            self._log.recording = True
            try:
                async with asyncio.timeout(HANGS_S):
                    return Outcome(await scenario(self.client))
            except Exception as error:
                if reraises:
                    raise
                return Outcome(error=f"{type(error).__name__}: {error}")
            finally:
                self._log.recording = False
                for task in self._replacing:
                    task.cancel()
                await asyncio.gather(*self._replacing, return_exceptions=True)

    def _open_store(self, process: str) -> MemoryStore:
        if process.startswith("client"):
            return super()._open_store(process)
        return MortalStore(self._server, self.app.hub, process, self._log)

    def _kill(self, process: str) -> None:
        host, worker = self._hosts.pop(process, None), self._workers.pop(process, None)
        self._server.bury(process)
        is_host = process.startswith("host")
        replacing = asyncio.get_running_loop().create_task(self._replace(host, worker, is_host=is_host))
        self._replacing.add(replacing)

    async def _replace(self, host: Host | None, worker: Worker | None, *, is_host: bool) -> None:
        # Neither says goodbye to the store, which does not listen to the dead any more.
        if host is not None:
            await host.stop(drain=False)
        if worker is not None:
            await worker.kill()
        if is_host:
            await self._add_host()
        else:
            await self._add_worker()
