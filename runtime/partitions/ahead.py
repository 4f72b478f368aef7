"""The payloads of a partition's draft: what is written ahead of its commit, and what it deletes.

Until the commit that was sent behind them is acknowledged, contents are found here: an actor of the same
partition gets its message before the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungfish.runtime.ids import ActorId
from lungfish.runtime.messages.payloads import PENDING, Fetch, Payload, carried, is_token, key_of
from lungfish.runtime.store.layout import HubMeta, Layout
from lungfish.runtime.store.store import Commit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .kinds import Effects, Item


class PartitionPayloads:
    """What ``Effects.payloads`` offers to activations, and how it gets into commits."""

    def __init__(
        self,
        effects: Effects,
        unfinished: Sequence[Mapping[int, Item]] = (),
        fetch: Fetch | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Prepare.

        Args:
            unfinished: where the partition has its accepted messages.
            fetch: reads from the store; None where nothing large is ever sent (tests).
            layout: of the hub; None where nothing large is ever sent.
        """
        self._layout = layout or Layout(HubMeta(1))
        self._unfinished = unfinished
        self._effects = effects
        self._fetch = fetch
        self._ahead: list[Payload] = []
        self._forgotten: list[str] = []
        #: Not known to be in the store: number of the commit behind them, content.
        self._unsettled: dict[bytes, tuple[int, bytes]] = {}

    # --- for activations ---

    def offload(self, target: ActorId, value: bytes) -> bytes:
        """Write a large value ahead of the commit, for an actor; return the token that stands for it."""
        payload = Payload(self._layout.of(target), self._effects.unique(), value)
        self._ahead.append(payload)
        self._effects.draft_bytes += len(value)
        token = payload.token
        self._unsettled[token] = (self._effects.commit_number, value)
        return token

    def adopt(self, token: bytes) -> None:
        """What refers to a payload is in this commit, and will delete it: it is not to be swept."""
        self._effects.index(PENDING, key_of(token).id, None)

    def forget(self, token: bytes) -> None:
        """Delete a payload of this partition."""
        self.adopt(token)
        self._forgotten.append(key_of(token).id)

    async def fetch(self, tokens: list[bytes]) -> dict[bytes, bytes]:
        """Return the contents of tokens; those that are gone are left out. Raises ``StoreUnavailable``."""
        found = {token: self._unsettled[token][1] for token in tokens if token in self._unsettled}
        others = [token for token in tokens if token not in found]
        if others and self._fetch is not None:
            found |= await self._fetch(others)
        return found

    # --- for the partition ---

    def __bool__(self) -> bool:
        return bool(self._unsettled or self._forgotten)

    def fill(self, commit: Commit) -> None:
        """Give a commit what it writes ahead and deletes."""
        commit.ahead, self._ahead = self._ahead, []
        commit.forgotten, self._forgotten = self._forgotten, []

    def acknowledged(self, number: int) -> None:
        """Note that a commit is in the store, with all that was written ahead of it."""
        self._unsettled = {token: each for token, each in self._unsettled.items() if each[0] > number}

    def referred_to(self) -> set[str]:
        """Return the ids of payloads that unfinished messages carry."""
        items = (item for each in self._unfinished for item in each.values())
        values = (carried(item.message) for item in items)
        return {key_of(value).id for value in values if value is not None and is_token(value)}
