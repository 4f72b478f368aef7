"""The large values of one instance: which payloads are its own, and their contents while they are needed.

Rules:

* The code sees values, the store sees tokens. What arrives is resolved before it is processed; what goes into
  the history, the row or a message is put beside it if it is large.
* Nothing is processed before all that the run may need is here: items keep their order.
* A payload belongs to the history, the row, or a held item of the instance. What was in a history that goes,
  and is not taken over in the same run, goes in the same commit; so does what a finished message brought
  and nothing recorded.
* Contents are kept for one run only: a live instance holds its large values as its code does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeVar

from lungfish.runtime.errors import StoreUnavailable
from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.messages import Control, LockQuery, Message, Query, Start, Watch
from lungfish.runtime.messages.payloads import carried, carrying, inlined, is_token, offloaded, tokens_in
from lungfish.runtime.partitions.kinds import Effects, Item, Stored

if TYPE_CHECKING:
    from .instance import Instance

log = logging.getLogger("lungfish.orchestrations")

BACKOFF_S: Final = (0.02, 1.0)

M = TypeVar("M", bound=Message)


class LargeValues:
    """Keeps account of an instance's payloads. Costs small values a look at their length."""

    __slots__ = ("_actor", "_condemned", "_contents", "_kept", "_over", "_tokens", "fetching")

    def __init__(self, actor: ActorId, stored: Stored, over: int) -> None:
        """Make the account of an instance as the store has it; ``over`` is what counts as large (bytes)."""
        self._actor = actor
        self._over = over
        self._kept = {token for each in (stored.row, *stored.history) if each for token in tokens_in(each)}
        self._condemned: set[bytes] = set()
        self._contents: dict[bytes, bytes] = {}
        self._tokens: dict[bytes, bytes] = {}
        self.fetching = False

    # --- before a run ---

    def missing(self, instance: Instance) -> list[bytes]:
        """Return the tokens whose contents must be fetched before the inbox can be processed."""
        wanted = [carried(item.message) for item in (*instance.inbox, *instance.held)]
        if self._kept and _needs_code(instance):
            if instance.row is not None:
                wanted += (instance.row.input, instance.row.output)
            if instance.execution is None or instance.always_replay:
                wanted += instance.history.tokens()
        return [token for token in dict.fromkeys(wanted) if is_token(token) and token not in self._contents]  # type: ignore[misc]

    async def fetch(self, effects: Effects, tokens: list[bytes]) -> None:
        """Have the contents; what is gone from the store is left as it is, and cannot be decoded."""
        wait_s = BACKOFF_S[0]
        found: dict[bytes, bytes] = {}
        try:
            while True:
                try:
                    found = await effects.payloads.fetch(tokens)
                    break
                except StoreUnavailable:
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, BACKOFF_S[1])
                except Exception:  # a bug of ours: worse than a value that cannot be read is one waited for
                    log.exception("instance %s: its payloads cannot be read", self._actor.key)
                    break
        finally:
            self.fetching = False
        for token in tokens:
            content = self._contents[token] = found.get(token, token)
            if content is token:
                # Not yet an error: a host that was frozen and has lost the partition looks for what the new
                # owner has purged since. Where it is one, the instance fails and says so.
                log.warning("instance %s: a payload is gone from the store", self._actor.key)
            else:
                self._tokens[content] = token

    # --- reading ---

    def value(self, value: bytes | None) -> bytes | None:
        """Return what a value or a token stands for."""
        return self._contents.get(value, value) if value is not None and is_token(value) else value

    def resolved(self, message: Message) -> Message:
        """Return the message with its value in it."""
        value = carried(message)
        if value is None or not is_token(value):
            return message
        return carrying(message, self._contents.get(value, value))

    def inlined(self, batches: Iterable[bytes]) -> list[bytes]:
        """Return batches of a history with the values in them."""
        return [inlined(batch, self._contents) for batch in batches]

    # --- writing ---

    def stored(self, effects: Effects, value: bytes | None) -> bytes | None:
        """Return what the row keeps of a value."""
        if value is None or len(value) <= self._over:
            if self._condemned and is_token(value):
                self._kept.add(value)  # type: ignore[arg-type]
            return value
        return self._keep(effects, value)

    def batch(self, effects: Effects, packed: bytes) -> bytes:
        """Return what the history keeps of a batch."""
        if len(packed) <= self._over:
            return packed
        return offloaded(packed, self._over, lambda value: self._keep(effects, value))

    def _keep(self, effects: Effects, value: bytes) -> bytes:
        token = self._tokens.get(value)
        if token is None:
            token = effects.payloads.offload(self._actor, value)
            self._tokens[value], self._contents[token] = token, value
        self._kept.add(token)
        effects.payloads.adopt(token)
        return token

    def sent(self, effects: Effects, message: M) -> M:
        """Return a message to another actor as it travels: with a copy of a large value for its receiver."""
        return sent(effects, message, self._over)

    # --- letting go ---

    def hold(self, effects: Effects, item: Item) -> None:
        """An item waits in the mailbox, for days perhaps: its payload is not to be swept meanwhile."""
        value = carried(item.message)
        if value is not None and is_token(value):
            effects.payloads.adopt(value)

    def finished(self, item: Item) -> None:
        """An item is finished. If nothing recorded what it brought, nobody ever will."""
        value = carried(item.message)
        if value is not None and is_token(value) and value not in self._kept:
            # Not at once: a repeat of the message may be in the same run, behind it or before.
            self._condemned.add(value)

    def condemn(self) -> None:
        """The history goes; what is recorded again in this run stays."""
        self._condemned |= self._kept
        self._kept.clear()

    def settle(self, effects: Effects) -> None:
        """End a run: delete what is not needed any more, and forget the contents."""
        for token in sorted(self._condemned - self._kept):
            effects.payloads.forget(token)
        self._condemned.clear()
        self._contents.clear()
        self._tokens.clear()


def sent(effects: Effects, message: M, over: int) -> M:
    """Return a message as it travels, see ``LargeValues.sent``."""
    value = carried(message)
    if value is None or len(value) <= over:
        return message
    return carrying(message, effects.payloads.offload(message.target, value))


def _needs_code(instance: Instance) -> bool:
    """Tell whether anything in the inbox may look at the code, at the input or at the output."""
    messages = [item.message for item in instance.inbox]
    if instance.row is None or instance.row.terminal:
        return any(map(_is_of_the_past, messages))
    return any(not isinstance(message, Watch | LockQuery) for message in messages)


def _is_of_the_past(message: Message) -> bool:
    match message:
        case Query() | Start(reuse="adopt") | Control(verb="rewind" | "restart"):
            return True
        case _:
            return False
