"""The handle to an orchestration instance that a client gives out: an address, making one talks to nobody."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from lungfish.runtime import codec
from lungfish.runtime.declared.signatures import Signature, encode_arguments
from lungfish.runtime.errors import (
    InstanceNotFound,
    OrchestrationCanceled,
    OrchestrationFailed,
    OrchestrationTerminated,
    Overloaded,
    QueryFailed,
    StoreUnavailable,
    UpdateFailed,
    UsageError,
)
from lungfish.runtime.ids import ActorId, check_id
from lungfish.runtime.messages.headers import Wire
from lungfish.runtime.messages.messages import Control, Query, RaiseEvent, Start, Update, Watch
from lungfish.runtime.messages.status import OrchestrationStatus, StatusReader
from lungfish.runtime.session.answers import answer, handler_name, result_of
from lungfish.runtime.session.connection import TIMEOUT_S, Connection, raise_usage_error
from lungfish.runtime.store.store import StoredInstance
from lungfish.runtime.store.whole import with_values
from lungfish.runtime.why.handle import Explained

from .again import fork_of, restart_of, start_like

#: What ``result`` raises, by the type that the failure names.
#: Longest reason of a verb: it goes into the history, and to all who wait for the instance.
REASON_CHARS_MAX: Final = 4_000

_ENDS: Final[dict[str, type[OrchestrationFailed]]] = {
    cls.__name__: cls for cls in (OrchestrationTerminated, OrchestrationCanceled)
}

R = TypeVar("R")


class OrchestrationHandle(Explained, Generic[R]):
    """A handle to one orchestration instance."""

    def __init__(
        self,
        connection: Connection,
        instance_id: str,
        signature: Signature | None,
        read_status: StatusReader,
        read_history: Callable[[Sequence[bytes]], list[Any]],
        *,
        find_archived: Callable[[str], Coroutine[Any, Any, Any]] | None = None,
    ) -> None:
        self._connection = connection
        self._find_archived = find_archived
        self._actor = ActorId("o", "", instance_id)
        self._signature = signature
        self._read_status = read_status
        self._read_history = read_history

    @property
    def id(self) -> str:
        """The instance id."""
        return self._actor.key

    async def status(self) -> OrchestrationStatus:
        """Return the instance as last committed.

        Raises:
            InstanceNotFound: there is no such instance.
            StoreUnavailable: the store cannot be reached.
        """
        row = await self._row()
        whole = await with_values(self._connection.store, StoredInstance(row, []))
        return self._read_status(self.id, whole.row or row)

    async def _row(self) -> bytes:
        partition = self._connection.partition(self._actor)
        (stored,) = await self._connection.store.instances([(partition, self.id)], history=False)
        if stored.row is None:
            raise InstanceNotFound(f"no orchestration instance {self.id!r}")
        return stored.row

    async def history(self) -> list[Any]:
        """Return the events of the current execution, oldest first; of a purged one, from the app's archive.

        Raises:
            InstanceNotFound: there is no such instance.
        """
        partition = self._connection.partition(self._actor)
        (stored,) = await self._connection.store.instances([(partition, self.id)], history=True)
        if stored.row is not None:
            whole = await with_values(self._connection.store, stored)
            return self._read_history(whole.history)
        archived = None if self._find_archived is None else await self._find_archived(self.id)
        if archived is None:
            raise InstanceNotFound(f"no orchestration instance {self.id!r}")
        return list(archived.history)

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return the result.

        Args:
            timeout: longest wait (s); None waits for ever.

        Raises:
            OrchestrationFailed: it failed; ``details`` has the chain of causes.
            OrchestrationTerminated: it was terminated.
            OrchestrationCanceled: it was cancelled.
            InstanceNotFound: there is no such instance.
            DeadlineExceeded: it has not ended in time; it goes on.
        """

        def make(request: str) -> Watch:
            return Watch(self._actor, request, self._connection.me)

        what = f"orchestration {self.id}"
        response = await self._connection.watch(self._actor, make, timeout_s=timeout, what=what)
        details = response.failure
        if details is not None:
            kind = details.error_type.rpartition(".")[2]
            if kind == InstanceNotFound.__name__:
                await self.status()  # raises it, unless it is the instance that failed with one
            if kind == Overloaded.__name__ and not (await self.status()).runtime_status.is_terminal:
                raise Overloaded(details.message)
            raise _ENDS.get(kind, OrchestrationFailed)(f"{what} failed: {details}", details)
        read = replace(response, result=await self._connection.read_back(response.result))
        result: R = result_of(read, self._signature, what)
        return result

    async def raise_event(self, name: str, payload: Any = None) -> None:
        """Send an external event; durable when this returns.

        It is kept until the instance waits for it. One for an instance that has ended is dropped, as in
        Durable Functions, so an event whose outcome is unknown may be sent again. Needs a host only where
        the store does not show the instance (yet): the host tells whether its start is under way.

        Raises:
            InstanceNotFound: there is no such instance (any more); nothing was sent.
            DeadlineExceeded: no host told whether there is; nothing was sent.
            Overloaded: the instance's inbox stayed full; nothing was accepted.
            StoreUnavailable: the outcome is unknown.
        """
        what = f"payload of event {check_id('event name', name)}"
        data = codec.encode(payload, what, self._connection.payloads.bytes_max)

        async def send(travelling: Wire) -> None:
            with contextlib.suppress(StoreUnavailable):  # the send waits for the store for longer than a read
                await self._find()
            sent = await self._connection.written_ahead(self._actor, data)
            await self._connection.send(self._actor, [RaiseEvent(self._actor, name, sent, travelling)])

        await self._connection.through("event", "", self._actor.key, name, send)

    async def _find(self) -> None:
        try:
            await self._row()
        except InstanceNotFound:
            # A start by an entity may still wait in the inbox: the host takes it before this question.
            await self._find_by_host()

    async def _find_by_host(self) -> None:
        try:
            await self._control("find", "")
        except InstanceNotFound:
            raise
        except UsageError:
            pass  # it has ended meanwhile, or its host is of a release that does not know the verb

    async def query(
        self, query: Callable[..., Any] | str, *args: Any, timeout: float | None = TIMEOUT_S, **kwargs: Any
    ) -> Any:
        """Ask the orchestration's code, and return the answer. Works after the end, too; changes nothing.

        The answer is of what is committed: it never tells of a step that a crash could still undo.

        Args:
            query: the name that the code gave to ``ctx.on_query``, or the function.
            timeout: longest wait (s); None waits for ever.

        Raises:
            InstanceNotFound: there is no such instance.
            NotRegistered: the code answers no such query, or no host has the code.
            InvalidArguments: they do not fit the handler.
            ReadOnly: the handler tried to change something.
            QueryFailed: the handler raised, or the instance cannot be replayed.
            UsageError: the instance has not begun.
            DeadlineExceeded: no answer in time.
        """
        name = handler_name(query, "query")
        data = encode_arguments(args, kwargs, f"query {name!r}")

        def make(request: str) -> Query:
            return Query(self._actor, name, data, request, self._connection.me)

        what = f"query {name!r} of {self.id}"
        response = await self._connection.request(self._actor, make, timeout_s=timeout, what=what)
        return answer(response, QueryFailed, what)

    async def update(
        self,
        update: Callable[..., Any] | str,
        *args: Any,
        id: str | None = None,
        timeout: float | None = TIMEOUT_S,
        **kwargs: Any,
    ) -> Any:
        """Ask the orchestration's code for a change, and return what its handler returned.

        It is done once for each id, whatever crashes; asking again with the id tells the same outcome. While
        the instance is suspended, or has not begun, it waits.

        Args:
            update: the name that the code gave to ``ctx.on_update``, or the function.
            id: of this update; default: a new one.
            timeout: longest wait (s); None waits for ever.

        Raises:
            UpdateRejected: its validator refused it; nothing was recorded.
            UpdateFailed: its handler raised, or was cut off by continue-as-new.
            InstanceNotFound, InstanceEnded: nobody can do it any more.
            NotRegistered: the code does no such update.
            InvalidArguments, ReadOnly: refused; nothing was recorded.
            DeadlineExceeded: no outcome in time; it may go on. Ask again with the same id.
        """
        name = handler_name(update, "update")
        data = encode_arguments(args, kwargs, f"update {name!r}")
        unique = check_id("update id", id) if id is not None else uuid.uuid4().hex

        def make(request: str) -> Update:
            return Update(self._actor, name, data, unique, request, self._connection.me)

        what = f"update {name!r} of {self.id}"
        response = await self._connection.request(self._actor, make, timeout_s=timeout, what=what)
        return answer(response, UpdateFailed, what)

    async def terminate(self, reason: str = "") -> None:
        """End the instance now, and its running sub-orchestrations; ``reason`` becomes its output.

        Running activities are not stopped; their results are dropped.

        Raises:
            InstanceNotFound: there is no such instance.
        """
        await self._control("terminate", reason)

    async def cancel(self, reason: str = "") -> None:
        """Ask the instance to end: ``asyncio.CancelledError`` is raised where its code waits.

        Its cleanup code runs and may call activities. The instance is then Canceled, unless the code returns
        (Completed) or raises something else (Failed). Sub-orchestrations that it waits for are cancelled
        with it. A pending instance ends at once, a suspended one is told when it is resumed. When this
        returns the request is durable; a second one changes nothing.

        Raises:
            InstanceNotFound: there is no such instance.
            InstanceEnded: it has ended.
        """
        await self._control("cancel", reason)

    async def rewind(self, reason: str = "") -> None:
        """Let a failed instance go on from where it failed (Durable Functions); durable when this returns.

        The failures that led to the end are taken out of the history and their tasks run again, recursively;
        what has a result is not. With none, the last turn runs again. See docs/orchestrations.md.

        Raises:
            InstanceNotFound, InstanceEnded, InstanceRunning: there is none; it did not fail; it runs.
            UsageError: it failed within a critical section.
        """
        await self._control("rewind", reason)

    async def restart(self, *, new_id: bool = False) -> OrchestrationHandle[R]:
        """Start an instance that has ended once more, with the input of its last execution.

        Args:
            new_id: as an instance of its own, with a new id; else in the place of this one, whose history
                goes.

        Raises:
            InstanceNotFound, InstanceRunning: there is none; it runs.
        """
        if not new_id:
            await self._control("restart", "")
            return self
        return await self._start_like(await restart_of(self._connection, self._actor), None)

    async def fork(self, *, at: int, id: str | None = None) -> OrchestrationHandle[R]:
        """Start a new instance with the beginning of this one's history; this one is not touched.

        What has a result there is not run again; what was under way is asked for again, by the new instance.

        Args:
            at: how many events of ``history()`` it begins with: ``history()[:at]``. Between two steps.
            id: its instance id; default: a new unique one.

        Raises:
            InstanceNotFound, InstanceExists: there is none; the id is taken.
            UsageError: not between two steps (it names the nearest), or today's code does not repeat it.
            PayloadTooLarge: that much history does not fit into one message.
        """
        return await self._start_like(await fork_of(self._connection, self._actor, at), id)

    async def _start_like(self, start: Start, id: str | None) -> OrchestrationHandle[R]:
        instance = await start_like(self._connection, start, id)
        return OrchestrationHandle(
            self._connection, instance, self._signature, self._read_status, self._read_history
        )

    async def suspend(self, reason: str = "") -> None:
        """Take nothing in until ``resume``; idempotent. Timers then fire late, none is lost."""
        await self._control("suspend", reason)

    async def resume(self, reason: str = "") -> None:
        """Undo ``suspend``; idempotent."""
        await self._control("resume", reason)

    async def _control(self, verb: str, reason: str) -> None:
        if not isinstance(reason, str):
            raise UsageError(f"the reason to {verb} an instance is a str, not {reason!r}")
        if len(reason) > REASON_CHARS_MAX:
            raise UsageError(
                f"the reason to {verb} an instance has {len(reason):,} characters; the limit is "
                f"{REASON_CHARS_MAX:,}. It is told to all who wait: say where to read more"
            )

        def make(request: str) -> Control:
            return Control(self._actor, verb, reason, request, self._connection.me)

        what = f"{verb} of {self.id}"
        response = await self._connection.request(self._actor, make, timeout_s=TIMEOUT_S, what=what)
        if response.failure is not None:
            raise_usage_error(response.failure)
            raise OrchestrationFailed(f"{what}: {response.failure}", response.failure)

    def __repr__(self) -> str:
        return f"<orchestration {self.id}>"
