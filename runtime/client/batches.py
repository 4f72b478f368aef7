"""The client's part that acts on many instances: pages of a query, and a verb for each match."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, Unpack, assert_never

from lungfish.runtime import codec
from lungfish.runtime.errors import DeadlineExceeded, InstanceNotFound, LungfishError, Unavailable

from .batch_steps import (
    BatchOrder,
    BatchPosition,
    BatchRefusal,
    BatchStep,
    BatchVerb,
    check_limit,
    filters_of,
    read_continuation,
    write_continuation,
)
from .lives import ClientLives
from .queries import InstanceFilters

if TYPE_CHECKING:
    from .instance_handle import OrchestrationHandle

#: Matches of one step, where the caller does not say.
BATCH_LIMIT: Final = 500
#: Instances that are asked at the same time.
_AT_ONCE: Final = 100
#: A step takes no further page after this (s): whoever waits for it has a time-out, too.
_STEP_S: Final = 15.0


class ClientBatches(ClientLives):
    """The part of ``Client`` that acts on all instances of a filter."""

    @abstractmethod
    def orchestration(self, instance_id: str, *, returns: Any = Any) -> OrchestrationHandle[Any]:
        """Return a handle to an instance by its id."""

    async def batch(
        self,
        verb: BatchVerb,
        *,
        reason: str = "",
        event: str | None = None,
        payload: Any = None,
        recursive: bool = True,
        count_only: bool = False,
        limit: int = BATCH_LIMIT,
        continuation: str | None = None,
        **filters: Unpack[InstanceFilters],
    ) -> BatchStep:
        """Do one thing to the instances that fit a filter, up to ``limit`` of them, the oldest first.

        A batch is about the instances that there were when its first step began. With the continuation of a
        step the next one goes on behind it, from any process; ``batch_all`` does it to the end. What is done
        is durable when this returns. A batch that was interrupted may be begun again: what is done does not
        fit its filter any more, except for ``raise_event`` (a second event) and ``cancel`` (which changes
        nothing). As Temporal's batch operations; Durable Functions has it for purges.

        Args:
            verb: ``"terminate"``, ``"cancel"``, ``"suspend"``, ``"resume"``, ``"rewind"``, ``"restart"`` (in
                place), ``"purge"`` or ``"raise_event"``: what the handle's method of that name does.
            reason: why; kept where the verb keeps it.
            event, payload: of ``raise_event``.
            recursive: of ``purge``: also the sub-orchestrations that have ended.
            count_only: do nothing, and return in ``matched`` how many there are.
            limit: how many this step tries (1 to 1,000); it ends earlier after some 15 s.
            continuation: of the step before, with the same verb and filters.
            filters: as in ``instances``; at least one. Without ``status``: any in which the verb does
                something.

        Raises:
            InvalidArguments, InvalidId, SerializationError, PayloadTooLarge: refused; nothing was done.
            StoreUnavailable, DeadlineExceeded: nothing was done yet.
        """
        order = BatchOrder.of(verb, reason, event, payload, recursive)
        check_limit(limit)
        codec.encode(order.payload, "payload of the event", self._open.payloads.bytes_max)
        if continuation is None:
            position = BatchPosition(await self._open.store.now_ms())
        else:
            position = read_continuation(order.verb, continuation)
        found = filters_of(order.verb, filters, position.began_ms)
        if count_only:
            return BatchStep(order.verb, await self.count_instances(**found))
        return await _Step(self, order, position, found).run(limit)

    async def batch_all(
        self,
        verb: BatchVerb,
        *,
        reason: str = "",
        event: str | None = None,
        payload: Any = None,
        recursive: bool = True,
        **filters: Unpack[InstanceFilters],
    ) -> AsyncIterator[BatchStep]:
        """Do one thing to all instances that fit a filter, and yield each step when it is done.

        Bounded in memory, however many there are. After a step with ``unknown`` instances it ends: whoever
        does not answer now will not for the next ones either.

        Args and Raises: as ``batch``.
        """
        continuation: str | None = None
        while True:
            step = await self.batch(
                verb,
                reason=reason,
                event=event,
                payload=payload,
                recursive=recursive,
                continuation=continuation,
                **filters,
            )
            yield step
            continuation = step.continuation
            if continuation is None or step.unknown:
                return


class _Step:
    """One step, as it goes."""

    def __init__(
        self, client: ClientBatches, order: BatchOrder, position: BatchPosition, filters: InstanceFilters
    ) -> None:
        self._client = client
        self._order = order
        self._position = position
        self._filters = filters
        self._matched = 0
        self._done = list[str]()
        self._refused = list[BatchRefusal]()
        self._unknown = list[BatchRefusal]()

    async def run(self, limit: int) -> BatchStep:
        """Take page after page, until there is enough, or nothing more."""
        clock = asyncio.get_running_loop().time
        until = clock() + _STEP_S
        cursor = self._position.cursor
        while True:
            size = min(_AT_ONCE, limit - self._matched)
            try:
                page = await self._client.instances_page(page_size=size, cursor=cursor, **self._filters)
            except (Unavailable, DeadlineExceeded):
                if not self._matched:
                    raise
                return self._so_far(cursor)  # what was done must be told; the next step meets the error
            await asyncio.gather(*(self._try(found.instance_id) for found in page.items))
            self._matched += len(page.items)
            cursor = page.cursor
            if cursor is None or self._unknown or self._matched >= limit or clock() >= until:
                return self._so_far(cursor)

    def _so_far(self, cursor: str | None) -> BatchStep:
        verb = self._order.verb
        further = None
        if cursor is not None:
            further = write_continuation(verb, BatchPosition(self._position.began_ms, cursor))
        found = tuple(self._done), tuple(self._refused), tuple(self._unknown)
        return BatchStep(verb, self._matched, *found, further)

    async def _try(self, instance_id: str) -> None:
        try:
            await self._act(instance_id)
        except (Unavailable, DeadlineExceeded) as error:
            self._unknown.append(BatchRefusal.of(instance_id, error))
        except LungfishError as error:
            self._refused.append(BatchRefusal.of(instance_id, error))
        except Exception as error:  # of middleware: the others must be told of nevertheless
            self._unknown.append(BatchRefusal.of(instance_id, error))
        else:
            self._done.append(instance_id)

    async def _act(self, instance_id: str) -> None:
        order, handle = self._order, self._client.orchestration(instance_id)
        match order.verb:
            case "terminate":
                await handle.terminate(order.reason)
            case "cancel":
                await handle.cancel(order.reason)
            case "suspend":
                await handle.suspend(order.reason)
            case "resume":
                await handle.resume(order.reason)
            case "rewind":
                await handle.rewind(order.reason)
            case "restart":
                await handle.restart()
            case "purge":
                await self._purge(instance_id)
            case "raise_event":
                await handle.raise_event(order.event, order.payload)
            case _:
                assert_never(order.verb)

    async def _purge(self, instance_id: str) -> None:
        try:
            await self._client.purge(instance_id, recursive=self._order.recursive)
        except InstanceNotFound:
            return  # with its parent, meanwhile
