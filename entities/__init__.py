"""Entities: named pieces of durable state with operations (Orleans: grains)."""

from lungfish.runtime.declared.definitions import shared

from .context import EntityContext, EntityRef
from .entity import Entity
from .ephemeral import ephemeral
from .functions import FunctionContext

__all__ = ["Entity", "EntityContext", "EntityRef", "FunctionContext", "ephemeral", "shared"]
