"""Activities whose outcome is known in the turn that asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungfish.runtime import codec
from lungfish.runtime.errors import FailureDetails, NotRegistered

from . import actions, events

if TYPE_CHECKING:
    from lungfish.runtime.declared.app import App


def outcome_at_once(app: App, action: actions.Action) -> events.TaskCompleted | events.TaskFailed | None:
    """Return the outcome of an action that needs no worker; None if it does, or is something else.

    An inline activity is run here: again, if the turn is not committed.
    """
    if not isinstance(action, actions.ScheduleActivity):
        return None
    try:
        activity = app.find_activity(action.name)
    except NotRegistered as error:
        # Recorded, and not raised at the call: another host's app may know the activity, in replay.
        return events.TaskFailed(action.id, FailureDetails.of(error))
    if not action.options.inline:
        return None
    try:
        args, kwargs = activity.signature.decode(action.args)
        value = activity.function(*args, **kwargs)
        result = codec.encode(value, f"result of {action.name}", app.payloads.bytes_max)
    except BaseException as error:  # also SystemExit: user code must not end the host
        return events.TaskFailed(action.id, FailureDetails.of(error))
    return events.TaskCompleted(action.id, result)
