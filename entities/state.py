"""An entity's state to a snapshot and back, and into memory images for rollback.

Rules:

* A snapshot is ``[format, schema version, fields]`` in msgpack. What is not a declared field is not
  durable: private attributes and cached properties end with the activation.
* A snapshot is made only of a state that can be read back. A field that was set to something
  that does not fit its annotation fails the operation that set it, today, and not
  whoever activates the entity next month.
* Falsy is not deleted: a state exists from its first write until ``delete``.
* A state that does not fit is never guessed at, and never replaced by defaults: it raises ``StateMismatch``,
  also where a later release wrote it, and stays as it is stored.
* An entity's reminders follow its fields (``[..., fields, reminders]``), where there are any; then the
  number of edits by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from lungfish.runtime import codec
from lungfish.runtime.declared import reminders
from lungfish.runtime.errors import SerializationError, StateMismatch

from .ephemeral import ephemeral_names, give_held, held_of
from .fields import Copier, copier_of, exact_type, is_plain

FORMAT: Final = 1

#: The slot in which an instance keeps its context; see ``entity.Entity``.
CONTEXT_SLOT: Final = "__lungfish_context__"

#: Where an instance keeps its reminders: beside its fields, so that every image of these has them, too.
REMINDERS: Final = "__lungfish_reminders__"

#: Where an instance keeps how often it was edited by hand, likewise.
EDITS: Final = "__lungfish_edits__"

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StatePlan:
    """How states of one entity class are copied, stored and read.

    Attributes:
        what: names the state in errors.
        names: all fields.
        exact: one class per field, if a state of exactly these classes is sure to be readable.
        copiers: the fields that need more than a copied reference, and how.
        plain: the codec stores the fields as they are; otherwise pydantic dumps them.
        limit: largest snapshot (bytes).
        ephemeral: it has fields that are not a part of the state.
    """

    cls: type[Any]
    what: str
    schema_version: int
    names: tuple[str, ...]
    exact: tuple[type, ...] | None
    copiers: tuple[tuple[str, Copier], ...]
    plain: bool
    limit: int = codec.PAYLOAD_BYTES_MAX
    ephemeral: bool = False

    @property
    def immutable(self) -> bool:
        """True if no field can change but by assignment, so that an image costs next to nothing."""
        return not self.copiers

    def capture(self) -> Callable[[Fields], Fields]:
        """Return the function that copies the fields of a state, for a later ``restore``."""
        return _copy_fields if self.immutable else self._capture_deeply

    def _capture_deeply(self, fields: Fields) -> Fields:
        image = fields.copy()
        try:
            for name, copier in self.copiers:
                if name in image:
                    image[name] = copier(image[name])
        except Exception as error:  # refers to itself, or has something that refuses to be copied
            raise SerializationError(f"{self.what} cannot be copied: {error!r}") from error
        return image


def plan_of(cls: Any, name: str) -> StatePlan:
    """Return the plan of an entity class that is stored as ``name``; worked out once."""
    return _plan_of(cls, name)


@lru_cache(maxsize=1024)
def _plan_of(cls: type[BaseModel], name: str) -> StatePlan:
    fields = cls.model_fields
    copiers = [(field, copier_of(info.annotation)) for field, info in fields.items()]
    decorators = cls.__pydantic_decorators__
    checked = bool(decorators.validators or decorators.field_validators or decorators.model_validators)
    dumped = bool(decorators.field_serializers or decorators.model_serializers)
    exact = [exact_type(info.annotation) for info in fields.values() if not info.metadata]
    known = tuple(kind for kind in exact if kind is not None)
    annotated = any(info.metadata or info.exclude for info in fields.values())
    return StatePlan(
        cls=cls,
        what=f"state of {name}",
        schema_version=cls.schema_version,  # type: ignore[attr-defined]
        names=tuple(fields),
        exact=known
        if len(known) == len(fields) and not checked and not cls.model_config.get("strict")
        else None,
        copiers=tuple((field, copier) for field, copier in copiers if copier is not None),
        plain=not dumped and not annotated and all(is_plain(info.annotation) for info in fields.values()),
        limit=cls.lungfish_options.state_bytes_max,  # type: ignore[attr-defined]
        ephemeral=bool(ephemeral_names(cls)),
    )


def _copy_fields(fields: Fields) -> Fields:
    return fields.copy()


def restore(state: Any, image: Fields) -> None:
    """Put an image back, in place: bound methods of ``state`` stay valid. An image is used once."""
    fields = state.__dict__
    fields.clear()
    fields.update(image)


def shell(plan: StatePlan, state: Any, fields: Fields) -> Any:
    """Return another instance over ``fields``, with the private and ephemeral values of ``state``."""
    made = object.__new__(plan.cls)
    set_attribute = object.__setattr__
    set_attribute(made, "__dict__", fields)
    set_attribute(made, "__pydantic_fields_set__", state.__pydantic_fields_set__)
    set_attribute(made, "__pydantic_extra__", state.__pydantic_extra__)
    set_attribute(made, "__pydantic_private__", state.__pydantic_private__)
    if plan.ephemeral:
        give_held(made, held_of(state))
    return made


def fresh_state(plan: StatePlan) -> Any:
    """Return the state of an entity that was never written.

    Raises:
        SerializationError: the class cannot be made from its defaults.
    """
    try:
        return plan.cls()
    except Exception as error:  # a default factory or a validator of the user's raised
        raise SerializationError(f"{plan.what} cannot be made from its defaults: {error}") from error


def encode_state(plan: StatePlan, state: Any, slack: int = 0) -> bytes:
    """Return the snapshot of a state.

    Args:
        slack: how far it may pass the limit (bytes).

    Raises:
        SerializationError: a field holds what cannot be stored, or what could not be read back.
        PayloadTooLarge: the snapshot is over the limit.
    """
    row = [FORMAT, plan.schema_version, _stored_fields(plan, state)]
    set_reminders = state.__dict__.get(REMINDERS)
    if set_reminders:
        row.append(reminders.to_rows(set_reminders))
    if EDITS in state.__dict__:
        row[3:] = [reminders.to_rows(set_reminders or reminders.NONE), state.__dict__[EDITS]]
    data = codec.encode(row, plan.what, plan.limit + slack)
    if plan.exact is None or tuple(map(type, state.__dict__.values())) != plan.exact:
        decode_state(plan, data)
    return data


def _stored_fields(plan: StatePlan, state: Any) -> Fields:
    try:
        if not plan.plain:
            dumped: Fields = state.model_dump(round_trip=True, warnings=False)
            return dumped
        fields: Fields = state.__dict__
        # More than the fields are in there when a cached_property was used.
        return fields if len(fields) == len(plan.names) else {name: fields[name] for name in plan.names}
    except Exception as error:  # pydantic, a serializer of the user's, or a field that was deleted
        raise SerializationError(f"{plan.what} cannot be stored: {error!r}") from error


def decode_state(plan: StatePlan, data: bytes, key: str = "") -> Any:
    """Read a snapshot, through the class's ``migrate`` if its schema version is older.

    Args:
        plan: the class's.
        data: the snapshot.
        key: names the entity in errors.

    Raises:
        StateMismatch: a later version, no migration, or it does not fit the model.
        SerializationError: not a snapshot, or the class cannot read what it wrote.
    """
    what = f"{plan.what}/{key}" if key else plan.what
    row = codec.decode(data, what)
    fields = _fields_of(plan, row, what)
    try:
        # By name, too: nested models are stored under the names of their fields, whatever their aliases.
        state = plan.cls.__pydantic_validator__.validate_python(fields, by_alias=True, by_name=True)
    except ValidationError as error:
        raise StateMismatch(
            f"{what} does not fit its model (schema version {plan.schema_version}): {explain(error)}. "
            "If the class has changed, raise schema_version and define migrate(); one wrong state is mended "
            "with 'lungfish entities edit'."
        ) from error
    except Exception as error:  # a validator or model_post_init of the user's raised
        raise SerializationError(f"{what} cannot be read: {error!r}") from error
    if len(row) > 3 and row[3]:
        state.__dict__[REMINDERS] = reminders.from_rows(row[3])
    if len(row) > 4:
        state.__dict__[EDITS] = row[4]
    return state


def is_later(plan: StatePlan, data: bytes) -> bool:
    """Tell whether a snapshot is of a later release; one that is not a snapshot at all is not."""
    try:
        snapshot_format, version, *_ = codec.decode(data, plan.what)
        return bool(snapshot_format > FORMAT or version > plan.schema_version)
    except (SerializationError, TypeError, ValueError):
        return False


def beside_fields(data: bytes) -> Fields:
    """Return what a snapshot whose fields cannot be read has beside them, as far as that can be read."""
    try:
        row = codec.decode(data, "state")
        found: Fields = {REMINDERS: reminders.from_rows(row[3])} if len(row) > 3 and row[3] else {}
        return {**found, EDITS: int(row[4])} if len(row) > 4 else found
    except Exception:  # whatever is there
        return {}


def _fields_of(plan: StatePlan, row: Any, what: str) -> Fields:
    try:
        snapshot_format, version, fields, *_ = row
    except (TypeError, ValueError) as error:
        raise SerializationError(f"{what}: the stored bytes are not a snapshot") from error
    if snapshot_format != FORMAT or not isinstance(version, int) or not isinstance(fields, dict):
        raise SerializationError(f"{what}: snapshot format {snapshot_format!r} is unknown to this release")
    if version > plan.schema_version:
        raise StateMismatch(
            f"{what} was stored with schema version {version}; this process knows {plan.schema_version}. "
            "It is read again by a process that has that release."
        )
    return fields if version == plan.schema_version else _migrated(plan, fields, version, what)


def _migrated(plan: StatePlan, fields: Fields, version: int, what: str) -> Fields:
    try:
        migrated: Fields = plan.cls.migrate(fields, version)
    except SerializationError as error:
        raise StateMismatch(f"{what}: {error}") from error
    except Exception as error:  # the user's code
        raise StateMismatch(f"{what}: migrate() from schema version {version} raised {error!r}") from error
    if not isinstance(migrated, dict):
        raise StateMismatch(f"{what}: migrate() must return the fields as a dict, not {migrated!r:.80}")
    return migrated


def explain(error: ValidationError) -> str:
    """Return what does not fit, field by field; the first five."""
    rows = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, row['loc']))}: {row['msg']}" for row in rows[:5])
