"""The Lua scripts: their texts, and how to call one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .link import Command

_FOLDER: Final = Path(__file__).with_name("lua")
_TEXTS: Final = {path.stem: path.read_text("utf-8") for path in sorted(_FOLDER.glob("*.lua"))}
_DIGESTS: Final = {
    name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _TEXTS.items()
}

#: Sent first on every connection: EVALSHA then finds its script, except after SCRIPT FLUSH.
LOAD_ALL: Final[tuple[Command, ...]] = tuple(("SCRIPT", "LOAD", text) for text in _TEXTS.values())


def script(name: str, keys: Sequence[str], *args: str | bytes | int) -> Command:
    """Return the command that runs ``lua/<name>.lua``."""
    return ("EVALSHA", _DIGESTS[name], len(keys), *keys, *args)
