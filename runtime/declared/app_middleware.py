"""What an app has around operations, around what is sent, and around attempts of activities."""

from __future__ import annotations

from typing import TypeVar

from .activity_info import ActivityInfo
from .middleware import Chain, Incoming, Middleware, Outgoing, Waiting, Yielding, at_once

In = TypeVar("In", bound=Waiting[Incoming] | Yielding[Incoming])
Out = TypeVar("Out", bound=Waiting[Outgoing] | Yielding[Outgoing])
Attempt = TypeVar("Attempt", bound=Yielding[ActivityInfo])


class AppMiddleware:
    """The middleware of an app, in the order of registration: the first one is outermost.

    Register it where the app is made, before hosts, workers and clients begin.
    """

    around_operations: Chain = ()
    around_sends: Chain = ()
    #: Those of them that never wait: what an operation sends goes through these.
    around_sends_at_once: Chain = ()
    around_attempts: Chain = ()

    def operation_middleware(self, middleware: In) -> In:
        """Put a function around every operation of every entity (Orleans: incoming grain call filter).

        Around each call, each signal (each one of a ``signal_many``, too) and each due reminder, of classes
        and of functions, ``@shared`` and reentrant ones, too. Not around the built-in entities,
        ``on_activate``, ``state()``, watches, locks, edits. Runs on the host, within the operation: its
        changes of the entity and what it sends commit and roll back with it, and as an operation it may run
        more than once.

        ``lungfish.Refused`` refuses the operation: nothing is changed, a caller gets it as ``Refused``, a
        signal is dropped and logged. Whatever else it raises fails the operation, as if that had raised it.
        It cannot make a success of an operation that raised: what it swallows is raised again.

        Args:
            middleware: ``def mw(turn: lungfish.Incoming)``, a generator function that yields once: never
                waits; or ``async def mw(turn, call_next)``, which returns the result: with one of these,
                operations that are not async are run like async ones, each with a snapshot of its own.

        Raises:
            UsageError: neither of the two.
        """
        self.around_operations = (*self.around_operations, Middleware.of(middleware))
        return middleware

    def sending_middleware(self, middleware: Out) -> Out:
        """Put a function around what is sent (Orleans: outgoing grain call filter).

        Around calls, signals, starts and events of clients that have this app: there it may be of either
        form, and goes around the wait for the answer, too. A generator function also goes around calls,
        signals and starts of operations, where they are asked for: again whenever the operation is run
        again. Not around what orchestrations ask for: their code is replayed.

        What it raises is raised where something was to be sent. Before it goes on, nothing is sent.

        Args:
            middleware: as for ``operation_middleware``, with a ``lungfish.Outgoing``, whose ``headers`` it
                may change before it goes on.

        Raises:
            UsageError: neither of the two.
        """
        self.around_sends = (*self.around_sends, Middleware.of(middleware))
        self.around_sends_at_once = at_once(self.around_sends)
        return middleware

    def activity_middleware(self, middleware: Attempt) -> Attempt:
        """Put a generator function around every attempt of an activity that workers run.

        In the attempt's own thread or task; for one that is a Ray task, in the worker, around the wait for
        it. Not around inline activities. What it raises fails the attempt; after ``lungfish.Refused`` it is
        not tried again.

        Args:
            middleware: ``def mw(attempt: lungfish.ActivityInfo)``, which yields once.

        Raises:
            UsageError: no generator function.
        """
        self.around_attempts = (*self.around_attempts, Middleware.of(middleware, may_wait=False))
        return middleware

    def adopt_middleware(self, other: AppMiddleware) -> None:
        """Have the middleware that another app has."""
        self.around_operations = other.around_operations
        self.around_sends = other.around_sends
        self.around_sends_at_once = other.around_sends_at_once
        self.around_attempts = other.around_attempts
