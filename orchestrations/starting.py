"""How instances come to be: a start, and what it does where the id is taken.

Rules:

* Of several starts with one id exactly one creates the instance: they are taken one after the other, here.
* Whether an id may be used again is decided in the same commit that uses it. The instance before leaves
  nothing behind.
* A start for the same call of the same parent creates nothing more: one that a failover took back in time
  asks again for what it asked for. The child goes on, or tells its outcome again.
* A new instance has a new execution id, so that what is still under way for the one before finds nobody.
"""

from __future__ import annotations

from typing import Any

from lungfish.runtime import codec
from lungfish.runtime.declared.definitions import Orchestration
from lungfish.runtime.errors import InstanceExists, LungfishError
from lungfish.runtime.messages import tags
from lungfish.runtime.messages.messages import Start, TimerFired

from .attempts import timer_id
from .instance import Instance
from .replies import accept
from .resuming import adopt, is_same, start_fork, tell_again
from .row import InstanceRow, Status
from .turns import begin, terminate


def start(instance: Instance, message: Start) -> None:
    """Create the instance that a ``Start`` message asks for, or say why not."""
    try:
        if message.reuse == "adopt" and instance.row is not None:
            adopt(instance, message)
            return
        if message.parent is not None and instance.row is not None and is_same(instance.row, message):
            tell_again(instance, instance.row)
            return
        _check_free(instance, message)
        if message.history:
            _fork(instance, message)
            return
        definition = instance.app.code_to_start(message.name, message.version)
        definition.signature.decode(message.input)
    except LungfishError as error:
        instance.refuse(message, error)
        return
    _make_room(instance)
    instance.row = row = _row(instance, message, definition)
    effects = instance.effects
    accept(effects, message, codec.encode(row.execution))
    if row.begun:
        begin(instance, definition)
        return
    fires = TimerFired(instance.actor, row.execution, 0, message.due_ms, "start")
    effects.timer(timer_id(instance.actor, row.execution, 0, "start"), message.due_ms, fires)
    instance.write_row()


def _row(instance: Instance, message: Start, definition: Orchestration[Any, Any]) -> InstanceRow:
    now_ms = instance.effects.now_ms
    later = message.due_ms > now_ms
    return InstanceRow(
        name=message.name,
        status=Status.PENDING if later else Status.RUNNING,
        created_ms=now_ms,
        updated_ms=now_ms,
        execution=instance.effects.unique(),
        input=message.input,
        parent=message.parent,
        parent_request=message.parent_request,
        version=definition.version or instance.app.version,
        begun=not later,
        due_ms=message.due_ms,
        tags=tags.of_wire(message.tags),
        pinned=bool(definition.version),
        headers=message.headers,
    )


def _fork(instance: Instance, message: Start) -> None:
    definition = instance.app.code_of(message.name, message.version, pinned=bool(message.version))
    row = _row(instance, message, definition)
    row.begun, row.status, row.due_ms = True, Status.RUNNING, 0
    start_fork(instance, message, row, definition)
    accept(instance.effects, message, codec.encode(row.execution))


def _check_free(instance: Instance, message: Start) -> None:
    row = instance.row
    if row is None or message.reuse == "terminate":
        return
    # A child of the same parent makes way as well: else no parent that names its children could be restarted.
    own = message.parent is not None and row.parent == message.parent
    if row.terminal and (own or message.reuse == "restart"):
        return
    raise InstanceExists(f"instance {instance.id!r} exists already ({row.status})")


def _make_room(instance: Instance) -> None:
    """Forget the instance that has the id. One that runs is terminated, and everyone told so."""
    row = instance.row
    if row is None:
        return
    if not row.terminal:
        terminate(instance, row, "replaced by a new start of its id")
    instance.forget()
