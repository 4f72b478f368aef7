"""Ephemeral fields: what belongs to one activation of an entity, and is never stored.

Rules:

* An activation has one set of values. All instances of its state share it: the copies of ``@shared``
  operations, and those that a rollback, an edit or a deletion makes anew. So nothing rolls them back.
* They are no fields to pydantic: snapshots, images, dumps, comparisons and views of a state know nothing of
  them, and their values are never copied or validated.
* A value is made when it is first asked for: who does not need it does not pay for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, overload

from pydantic.fields import FieldInfo

from lungfish.runtime.errors import UsageError

T = TypeVar("T")

#: The slot in which an instance keeps the values; see ``entity.Entity``.
EPHEMERAL_SLOT: Final = "__lungfish_ephemeral__"
_MISSING: Final[Any] = object()


class EphemeralField(property):
    """The attribute that ``ephemeral`` makes: a property, since that is what pydantic leaves alone."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__(self._read, self._write, self._forget)
        self._make = make
        self._name = ""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name
        # pydantic makes a field of whatever is annotated. It looks after this.
        vars(owner).get("__annotations__", {}).pop(name, None)

    def _read(self, state: Any) -> Any:
        held = held_of(state)
        if self._name not in held:
            held[self._name] = self._make()
        return held[self._name]

    def _write(self, state: Any, value: Any) -> None:
        held_of(state)[self._name] = value

    def _forget(self, state: Any) -> None:
        held_of(state).pop(self._name, None)


@overload
def ephemeral(default: T) -> T: ...
@overload
def ephemeral(*, factory: Callable[[], T]) -> T: ...
def ephemeral(default: Any = _MISSING, *, factory: Any = None) -> Any:
    """Make a field of an entity that lives as long as the entity is in memory, and is never stored.

    ``line: Line | None = lungfish.ephemeral(None)``,
    ``known: dict[str, int] = lungfish.ephemeral(factory=dict)``.

    For what cannot or need not be stored: a connection, a lock, a model, a cache. Its value need not be
    serialisable and is not validated. It is no part of ``state()``, of watches, of edits or of any other
    view, and a change of it alone is no change of the state. Each activation begins with the default, made
    when it is first asked for: after the entity was idle, after a crash, and when its partition moves.

    **Nothing rolls it back.** What an operation did to it stays if the operation raises, and is there when
    an operation is run again; deleting the state or editing it leaves it as it is. So it must never decide
    what is stored. ``@shared`` operations share it, and may fill it.

    Args:
        default: the value that an activation begins with; shared by all of them, so immutable.
        factory: makes that value, for one activation.

    Raises:
        UsageError: neither or both, a mutable default, a factory that needs arguments.
    """
    if (default is _MISSING) == (factory is None):
        raise UsageError("an ephemeral field has a default, or a factory that makes it: ephemeral(None)")
    if factory is None:
        if type(default).__hash__ is None:
            raise UsageError(
                f"an ephemeral default of {type(default).__name__} would be shared by all entities: "
                f"write ephemeral(factory={type(default).__name__})"
            )
        return EphemeralField(lambda: default)
    _check_factory(factory)
    return EphemeralField(factory)


def _check_factory(factory: Any) -> None:
    if not callable(factory):
        raise UsageError(f"the factory of an ephemeral field is a function, not {factory!r:.80}")
    if inspect.iscoroutinefunction(factory):
        raise UsageError("the factory of an ephemeral field cannot be async: set the field in on_activate")
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some that are written in C do not tell
        return
    try:
        signature.bind()
    except TypeError as error:
        raise UsageError(f"the factory of an ephemeral field is called without arguments: {error}") from error


def held_of(state: Any) -> dict[str, Any]:
    """Return the ephemeral values of an instance."""
    held: dict[str, Any] | None = getattr(state, EPHEMERAL_SLOT, None)
    if held is None:
        if not hasattr(type(state), EPHEMERAL_SLOT):
            raise UsageError(f"{type(state).__name__} is no lungfish.Entity: it has no ephemeral fields")
        held = {}
        give_held(state, held)
    return held


def give_held(state: Any, held: dict[str, Any]) -> None:
    """Let an instance have the ephemeral values of its activation."""
    object.__setattr__(state, EPHEMERAL_SLOT, held)


def ephemeral_names(cls: type[Any]) -> tuple[str, ...]:
    """Return the ephemeral fields of a class, also those that it inherits."""
    return tuple(name for name in dir(cls) if _is_ephemeral(inspect.getattr_static(cls, name, None)))


def check_ephemeral(cls: type[Any], reserved: frozenset[str], fields: Mapping[str, FieldInfo]) -> None:
    """Raise ``UsageError`` if a class has an ephemeral field that cannot be one.

    Args:
        reserved: names that mean something to the runtime or to pydantic.
        fields: the class's durable fields.
    """
    declared = {name for base in cls.__mro__ for name, at in vars(base).items() if _is_ephemeral(at)}
    # Where a base class has a durable field of that name, pydantic takes it for the default of that.
    declared.update(name for name, info in fields.items() if _is_ephemeral(info.default))
    for name in sorted(declared):
        what = f"entity {cls.__name__}: {name}"
        if name.startswith("_"):
            raise UsageError(f"{what} is private, and so not stored anyway: take the underscore away")
        if name in reserved:
            raise UsageError(f"{what} cannot be ephemeral: the name belongs to the base class; rename it")
        if name in fields:
            raise UsageError(f"{what} is durable in one class of its line and ephemeral in another")


def _is_ephemeral(value: object) -> bool:
    return isinstance(value, EphemeralField)
