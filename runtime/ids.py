"""Identity: who a message is for, and which partition owns it.

Rules:

* An actor is named by ``(kind, name, key)``. An orchestration instance has an empty
  name, because whoever raises an event knows the instance id and nothing else.
* A key or instance id of the form ``group|rest`` belongs to its group: entities of any class and instances
  of the same group are in one partition. It is seen in the key itself, because whoever sends has nothing
  else: no class, no app, only strings.
* The partition of an actor is a function of its identity and of the hub's fixed
  partition count. Both the count and the hash are stored in the hub and never change:
  a different answer would make two owners for one actor.
* The hash is ours (CRC-32 of the UTF-8 identity), not Python's ``hash()``, which
  differs from one process to the next.
"""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

from .errors import InvalidId, UsageError

ENTITY: Final = "e"
ORCHESTRATION: Final = "o"
#: A client session: not an actor, but replies are addressed to it like to one.
CLIENT: Final = "c"

#: Name of the hash below, as stored in the hub. A new hash gets a new name.
HASH_NAME: Final = "crc32-v1"

#: Ends the group in a key. A key that begins with it has no group.
GROUP_END: Final = "|"

#: Keys and names longer than this are refused (bytes of UTF-8).
ID_BYTES_MAX: Final = 512


class ActorId(NamedTuple):
    """Identity of an actor (or of a client session, to which replies go).

    A named tuple and not a dataclass: it is the key of the hottest dictionaries, and
    tuples hash in C.
    """

    kind: str
    name: str
    key: str

    def __str__(self) -> str:
        match self.kind:
            case "e":
                return f"{self.name}/{self.key}"
            case "o":
                return self.key
            case _:
                return f"client {self.key}"


def chain_name(actor: ActorId) -> str:
    """Return the name of an actor in the chain of a message: one that no other kind of actor can have."""
    return f"orchestration {actor.key}" if actor.kind == ORCHESTRATION else str(actor)


def stable_hash(kind: str, name: str, key: str) -> int:
    """Hash an identity the same way in every process, on every platform, for ever."""
    return zlib.crc32(f"{kind}\x00{name}\x00{key}".encode())


def hash_of(actor: ActorId) -> int:
    """Return what an actor's partition is computed from: the hash of its group, if it has one."""
    kind, name, key = actor
    if GROUP_END in key:
        group = key.partition(GROUP_END)[0]
        if group:
            return stable_hash("g", "", group)
    return zlib.crc32(f"{kind}\x00{name}\x00{key}".encode())


def partition_of(actor: ActorId, partitions: int) -> int:
    """Return which of ``partitions`` (0-based) owns an actor of no pool; see ``layout`` for all others."""
    return hash_of(actor) % partitions


def grouped(group: str, rest: str = "") -> str:
    """Return a key, or an instance id, that belongs to a group: ``grouped("cust-7", "order-1")``.

    Entities and instances of one group share a partition, and so a host: what they send one another
    stays there and takes effect in one commit. A group is never split, so it should be small next to the
    whole, such as a customer's things. The key is ``"cust-7|order-1"``; writing it by hand is the same.

    Args:
        group: not empty, without ``|``.
        rest: what tells its members apart, of one entity class; may be empty.

    Raises:
        InvalidId: a group that cannot be one, or the key would be too long.
    """
    if GROUP_END in check_id("group", group):
        raise InvalidId(f"a group cannot contain {GROUP_END!r}, which ends it in a key: {group!r}")
    return check_id("key", f"{group}{GROUP_END}{rest}")


def check_id(what: str, text: str) -> str:
    """Return ``text`` if it can name something; raise ``InvalidId`` if it cannot.

    Args:
        what: the thing that is named, for the message ("entity key", "instance id").
        text: the proposed name: 1 to ``ID_BYTES_MAX`` bytes of UTF-8, no control characters.
    """
    if not isinstance(text, str):
        raise InvalidId(f"{what} must be a str, not {type(text).__name__}: {text!r}")
    if not text:
        raise InvalidId(f"{what} must not be empty")
    if len(text.encode("utf-8", "surrogatepass")) > ID_BYTES_MAX:
        raise InvalidId(f"{what} is longer than {ID_BYTES_MAX} bytes: {text[:40]!r}…")
    if not text.isprintable():
        raise InvalidId(f"{what} has control or unprintable characters: {text!r}")
    return text


def check_hub(hub: str) -> str:
    """Return ``hub`` if a hub can have that name; raise ``InvalidId`` or ``UsageError`` if it cannot."""
    check_id("hub", hub)
    if any(not (c.isalnum() or c in "-_.") for c in hub):
        raise UsageError(f"hub {hub!r}: only letters, digits, '-', '_' and '.' are allowed")
    return hub
