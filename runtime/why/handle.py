"""The part of a handle that says why its actor waits."""

from __future__ import annotations

from lungfish.runtime.ids import ActorId
from lungfish.runtime.session.connection import Connection

from .reasons import Why
from .walk import why


class Explained:
    """A handle that can be asked why."""

    _connection: Connection
    _actor: ActorId

    async def why(self) -> Why:
        """Say what it waits for, since when, and who can unblock it; see ``Client.why``.

        Raises:
            InstanceNotFound: there is no such instance.
            StoreUnavailable: the store cannot be reached.
        """
        return await why(self._connection, self._actor)
