"""Filters of the HTTP API's lists: from the query's text to what the client is asked. Pure."""

from __future__ import annotations

import datetime as dt
from http import HTTPStatus
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lungfish.runtime.messages.status import RuntimeStatus

from .problems import Problem

#: Entries of one page where the caller does not say, and at most.
TOP: Final = 100
TOP_MAX: Final = 1_000


def _aware(at: dt.datetime) -> dt.datetime:
    """Return an aware datetime: Durable Functions' clients leave the zone out and mean UTC."""
    return at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)


Time = Annotated[dt.datetime, AfterValidator(_aware)]


class Filter(BaseModel):
    """Which instances are meant. What Durable Functions does not know is passed over, as there."""

    model_config = ConfigDict(populate_by_name=True)

    created_from: Time | None = Field(
        None, alias="createdTimeFrom", description="Created at this time or later."
    )
    created_to: Time | None = Field(
        None, alias="createdTimeTo", description="Created at this time or earlier."
    )
    status: str | None = Field(
        None,
        alias="runtimeStatus",
        description="Statuses, separated by commas.",
        examples=["Running,Pending"],
    )
    prefix: str | None = Field(None, alias="instanceIdPrefix", description="The id begins with this.")
    name: str | None = Field(None, description="Of this orchestration.")
    tag: list[str] | None = Field(None, description="Has this tag: name=value; may come more than once.")
    top: int = Field(TOP, ge=1, le=TOP_MAX, description="Most entries of this page.")

    def statuses(self) -> list[RuntimeStatus] | None:
        """Return the wanted statuses; None wants all."""
        if not self.status:
            return None
        return [_status(text.strip()) for text in self.status.split(",") if text.strip()]

    def tags(self) -> dict[str, str] | None:
        """Return the wanted tags."""
        if not self.tag:
            return None
        found = {}
        for text in self.tag:
            name, equals, value = text.partition("=")
            if not equals:
                raise _invalid(f"tag is name=value, not {text!r}")
            found[name] = value
        return found

    def criteria(self) -> dict[str, Any]:
        """Return the arguments of ``Client.instances`` and its like; what is not asked for is left out."""
        given = {
            "status": self.statuses(),
            "name": self.name,
            "id_prefix": self.prefix,
            "tags": self.tags(),
            "created_after": self.created_from,
            "created_before": self.created_to,
        }
        return {name: value for name, value in given.items() if value is not None}


def _status(text: str) -> RuntimeStatus:
    for known in RuntimeStatus:
        if known.value.lower() == text.lower():
            return known
    listed = ", ".join(known.value for known in RuntimeStatus)
    raise _invalid(f"runtimeStatus {text!r} is none of {listed}")


def _invalid(text: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")
