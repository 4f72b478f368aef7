"""The base class of entities: a pydantic model whose fields are durable and whose methods are operations."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Self, Unpack

from pydantic import BaseModel, ConfigDict

from lungfish.runtime.declared.definitions import (
    EntityDefinition,
    Operation,
    operations_of,
    with_reentrant_reads,
)
from lungfish.runtime.declared.plugged_in import RESERVED
from lungfish.runtime.declared.signatures import Signature
from lungfish.runtime.errors import StateMismatch, UsageError

from .context import EntityContext
from .ephemeral import EPHEMERAL_SLOT, check_ephemeral
from .hooks import NAMES, hooks_of
from .options import EntityOptions
from .state import CONTEXT_SLOT, decode_state, plan_of

#: Names of this class that neither a field nor an operation can take.
_OWN: Final = frozenset({
    "key", "context", "migrate", "migrations", "schema_version",
    "lungfish_definition", "lungfish_options", "lungfish_state",
})  # fmt: skip
#: pydantic's own methods. The snapshot is made from the fields, so overriding ``model_dump`` and
#: the like would be passed over: refused, rather than a surprise.
_PYDANTIC: Final = frozenset(name for name in dir(BaseModel) if name.startswith("model_"))
_HOOKS: Final = frozenset({"model_post_init"})


class Entity(BaseModel):
    """State with operations; subclass it, and register the subclass with ``@app.entity``.

    Fields are the durable state; each needs a default, because an entity exists before
    anybody wrote to it. Public methods, sync or async, are operations: one at a time
    per entity, in the order of the mailbox; each commits alone, or rolls back its state
    and its messages if it raises. What an operation does elsewhere (prints, HTTP) is not rolled back and may
    happen again: an operation may be run more than once, its effects count once.

    What lives as long as the entity is in memory, and no longer, is declared with ``lungfish.ephemeral``.
    Private attributes (``_cache``) are not stored either, but may be lost whenever something is rolled back.
    Outside the runtime a subclass is a plain model, so that its methods can be tested by calling them.

    ``"delete"`` is an operation of every class that has no method of that name: it deletes the state, as
    ``self.context.delete()`` does, and passes over what it is given (as in Durable Entities).

    Two methods are called by the runtime and are no operations (Orleans: ``OnActivateAsync`` and
    ``OnDeactivateAsync``); they take nothing but ``self`` and may be async. ``on_activate`` runs before the
    first operation of an activation; what it changes is stored, as by an operation. ``on_passivate`` runs
    when an activation is let go on purpose, and never in a crash: nothing may depend on it.

    Options are given with the class: ``class Cart(lungfish.Entity, ttl=timedelta(days=30))``.

    Args:
        ttl: an entity that had no message for so long is deleted, as by ``delete`` (timedelta, or seconds).
        state_bytes_max: largest stored state (bytes, at most 4 MiB); an operation that would make a larger
            one fails with ``PayloadTooLarge`` and is rolled back.
        reentrant: all ``@shared`` operations that are not async are ``@lungfish.reentrant``. Others cannot
            be: what a nested one changed would be lost, or counted twice, if the one around it is run again.

    Attributes:
        schema_version: raise it when stored states change shape, and say in ``migrations`` how.
        migrations: what brings the fields of a version into the shape of the next one, by version.
    """

    __slots__ = (CONTEXT_SLOT, EPHEMERAL_SLOT)

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)

    schema_version: ClassVar[int] = 1
    migrations: ClassVar[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
    lungfish_options: ClassVar[EntityOptions] = EntityOptions()

    @property
    def key(self) -> str:
        """The key of this entity, while an operation runs."""
        return self.context.key

    @property
    def context(self) -> EntityContext:
        """What an operation can do besides changing the state, while it runs.

        Raises:
            UsageError: no operation is running.
        """
        context: EntityContext | None = getattr(self, CONTEXT_SLOT, None)
        if context is None:
            raise UsageError(
                "self.context and self.key are available while the runtime runs an operation only"
            )
        return context

    @classmethod
    def migrate(cls, state: dict[str, Any], from_version: int) -> dict[str, Any]:
        """Bring a stored state of an earlier ``schema_version`` into today's shape.

        Called with the fields as plain data, before they are validated. Goes through ``migrations``, one
        version at a time; override it to do otherwise. What it makes is stored with the next change.

        Raises:
            StateMismatch: a step is missing.
        """
        for version in range(from_version, cls.schema_version):
            step = cls.migrations.get(version)
            if step is None:
                raise StateMismatch(
                    f"{cls.__name__} is stored with schema version {from_version}, and this process has "
                    f"{cls.schema_version}: define {cls.__name__}.migrate, or migrations[{version}]"
                )
            state = step(state)
        return state

    @classmethod
    def lungfish_definition(cls, name: str) -> EntityDefinition:
        """Return the definition of this class under ``name``; used by ``App.entity``.

        Raises:
            UsageError: a field without a default, or a method that cannot be an operation.
        """
        cls._check_versions(name)
        required = [field for field, info in cls.model_fields.items() if info.is_required()]
        if required:
            raise UsageError(
                f"entity {name}: {', '.join(required)} must have a default: "
                "an entity exists before anybody wrote to it"
            )
        if cls.model_config.get("extra") == "allow":
            raise UsageError(
                f"entity {name}: extra='allow' has no durable fields; declare a dict field instead"
            )
        decorators = cls.__pydantic_decorators__
        hooks_of(cls, name)
        called_by_pydantic = {
            *decorators.validators,
            *decorators.field_validators,
            *decorators.root_validators,
            *decorators.field_serializers,
            *decorators.model_serializers,
            *decorators.model_validators,
        }
        operations = operations_of(
            cls,
            name,
            Entity,
            reserved=_OWN | (_PYDANTIC - _HOOKS),
            ignored=_HOOKS | NAMES | called_by_pydantic,
        )
        if cls.lungfish_options.reentrant:
            operations = with_reentrant_reads(operations, name)
        if not name.startswith(RESERVED):
            operations.setdefault("delete", _deletion(name))
        return EntityDefinition(name, cls, operations)

    @classmethod
    def lungfish_state(cls, snapshot: bytes, key: str) -> Self:
        """Read a stored snapshot, as ``state()`` of a handle returns it.

        Raises:
            SerializationError: it does not fit the class.
        """
        state: Self = decode_state(plan_of(cls, cls.__name__), snapshot, key)
        return state

    @classmethod
    def _check_versions(cls, name: str) -> None:
        current = cls.schema_version
        if type(current) is not int or current < 1:
            raise UsageError(f"entity {name}: schema_version is 1, 2, 3 …, not {current!r}")
        steps = sorted(cls.migrations)
        missing = sorted(set(range(steps[0], current)) - set(steps)) if steps else []
        if missing or (steps and steps[-1] >= current):
            raise UsageError(
                f"entity {name}: migrations {steps} do not lead to schema_version {current}: "
                f"each step goes from its number to the next{f'; missing: {missing}' if missing else ''}"
            )

    def __init_subclass__(
        cls,
        *,
        ttl: dt.timedelta | float | None = None,
        state_bytes_max: int | None = None,
        reentrant: bool | None = None,
        **kwargs: Unpack[ConfigDict],
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.lungfish_options = cls.lungfish_options.changed(cls.__name__, ttl, state_bytes_max, reentrant)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        check_ephemeral(cls, _OWN | NAMES | _PYDANTIC, cls.__pydantic_fields__)
        for field in (_OWN | NAMES).intersection(cls.model_fields):
            hint = f"; write {field}: ClassVar[int]" if field == "schema_version" else ""
            raise UsageError(f"entity {cls.__name__}: a field cannot be named {field!r}{hint}")


def _delete(entity: Entity, *_given: Any) -> None:
    entity.context.delete()


def _deletion(name: str) -> Operation:
    signature = Signature.of(_delete, f"{name}.delete", skip=1)
    return Operation("delete", _delete, signature, shared=False, is_async=False, built_in=True)
