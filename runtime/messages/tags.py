"""Tags: what a caller labels an instance with at its start, and finds it by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from lungfish.runtime.errors import InvalidArguments

#: Tags of one instance. Each is an entry of an index.
TAGS_MAX: Final = 16
#: Length of a tag's name and of its value (characters).
TAG_LENGTH_MAX: Final = 256


def check_tags(tags: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return tags in their wire form: name, value, name, value, ...

    Raises:
        InvalidArguments: not text, empty names, too many, or too long.
    """
    if not tags:
        return ()
    if not isinstance(tags, Mapping):
        raise InvalidArguments(f"tags are a dict of str to str, not {tags!r}")
    if len(tags) > TAGS_MAX:
        raise InvalidArguments(f"an instance takes {TAGS_MAX} tags, not {len(tags)}")
    for name, value in tags.items():
        _check(name, "the name of a tag")
        _check(value, f"the value of tag {name!r}")
        if not name:
            raise InvalidArguments("the name of a tag must not be empty")
    return tuple(text for item in sorted(tags.items()) for text in item)


def of_wire(flat: Sequence[str]) -> dict[str, str]:
    """Read the wire form."""
    return dict(zip(flat[::2], flat[1::2], strict=False))


def check_text(what: str, text: str) -> str:
    """Return text that the store can hold; raises ``InvalidArguments`` for anything else."""
    given: object = text
    if not isinstance(given, str):
        raise InvalidArguments(f"{what} is a str, not {given!r}")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise InvalidArguments(f"{what} has a lone surrogate: {given!r}") from error
    return given


def _check(text: str, what: str) -> None:
    check_text(what, text)
    if len(text) > TAG_LENGTH_MAX:
        raise InvalidArguments(f"{what} has {len(text)} characters; the limit is {TAG_LENGTH_MAX}")
    if "\0" in text:
        raise InvalidArguments(f"{what} must not contain NUL characters: {text!r}")
