"""Old histories against today's code: what a deployment would meet, before it is deployed."""

from __future__ import annotations

from typing import Any

from lungfish.runtime.client.client import Client
from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import NonDeterminism, SerializationError
from lungfish.runtime.messages.status import RuntimeStatus

from . import events
from .exporting import ExportedHistory
from .replay import Execution


class Replayer:
    """Replays histories against the orchestrations of an app. Runs no activity and changes nothing."""

    def __init__(self, app: App) -> None:
        self.app = app

    def replay(self, history: str | list[Any], *, instance_id: str = "") -> None:
        """Replay a history.

        Args:
            history: what ``export_history`` returned, or the events of ``OrchestrationHandle.history``.
            instance_id: whose events these are; JSON tells by itself. The code may have asked for it, and
                ``ctx.uuid4()`` and ``ctx.random`` depend on it.

        Raises:
            NonDeterminism: today's code takes another path; the message tells where, and what to do.
            NotRegistered: there is no such orchestration in the app.
            SerializationError: not an exported history.
        """
        if isinstance(history, str):
            exported = ExportedHistory.from_json(history)
        else:
            exported = ExportedHistory(instance_id, history)
        recorded, instance_id = exported.events, exported.instance_id
        began = next((event for event in recorded if isinstance(event, events.ExecutionStarted)), None)
        if began is None:
            if any(
                not isinstance(event, events.ExecutionCompleted | events.TurnStarted) for event in recorded
            ):
                raise SerializationError("a history without the start of its execution cannot be replayed")
            return  # it never began: nothing to repeat
        definition = self.app.code_of(began.name, began.version, pinned=began.pinned)
        execution = Execution(self.app, definition, instance_id)
        try:
            execution.replay(recorded)
            ended = execution.ended
            # What replay itself adds to a history is the end of an instance that took another path.
            if execution.close_turn() and ended is not None and ended.failure is not None:
                raise NonDeterminism(f"{began.name}, instance {instance_id!r}: {ended.failure.message}")
        finally:
            execution.close()

    async def replay_all(
        self, client: Client, *, name: str | None = None, status: RuntimeStatus | str | None = None
    ) -> int:
        """Replay the histories of a hub's instances as they are now; return how many there were.

        Args:
            client: of the hub, production's as well: it is only read.
            name, status: only those of this orchestration, with this status (``"Running"``: those that a
                deployment would meet).

        Raises:
            NonDeterminism: for some of them; the message has all of those.
            NotRegistered: there are instances of an orchestration that the app does not have.
        """
        count = 0
        found: list[str] = []
        async for instance in client.instances(name=name, status=status):
            history = await client.orchestration(instance.instance_id).history()
            count += 1
            try:
                self.replay(history, instance_id=instance.instance_id)
            except NonDeterminism as error:
                found.append(str(error))
        if found:
            raise NonDeterminism(f"{len(found)} of {count} instances:\n" + "\n".join(found))
        return count
