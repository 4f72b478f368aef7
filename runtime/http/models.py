"""The JSON of the HTTP API as models: for its OpenAPI document, and for whoever generates a client from it.

The routes make their answers by hand, in the shapes of Durable Functions. That these models tell the truth
about them is what ``tests/http/test_document.py`` checks, with answers of a running hub.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from lungfish.runtime.messages.status import RuntimeStatus


class Body(BaseModel):
    """What all have in common: nothing is there that is not told of."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class ProblemBody(Body):
    """What went wrong (RFC 9457)."""

    type: str = Field(examples=["urn:lungfish:error:InstanceNotFound"])
    title: str
    status: int
    detail: str


class InstanceBody(Body):
    """How an instance stands."""

    name: str
    instance_id: str
    runtime_status: RuntimeStatus
    input: Any
    custom_status: Any
    output: Any
    created_time: dt.datetime
    last_updated_time: dt.datetime
    history_events: list[dict[str, Any]] | None = None


class ManagementBody(Body):
    """An instance's id, and where everything is that can be done with it."""

    id: str
    status_query_get_uri: str
    send_event_post_uri: str
    terminate_post_uri: str
    purge_history_delete_uri: str
    restart_post_uri: str
    suspend_post_uri: str
    resume_post_uri: str
    rewind_post_uri: str


class CountBody(Body):
    """How many there are."""

    count: int


class DeletedBody(Body):
    """How many instances were purged."""

    instances_deleted: int


class RefusalBody(Body):
    """An instance that was not, or perhaps not, acted on."""

    instance_id: str
    error: str
    detail: str


class BatchBody(Body):
    """What one step of a batch came to."""

    verb: str
    count_only: bool
    matched: int
    done: list[str]
    refused: list[RefusalBody]
    unknown: list[RefusalBody]
    continuation: str | None


class EntityIdBody(Body):
    """Which entity."""

    name: str
    key: str


class ListedEntityBody(Body):
    """An entity that has a state; the state where it was asked for."""

    entity_id: EntityIdBody
    state: Any


class InspectionBody(Body):
    """Who holds an entity, and what waits there."""

    holder: str | None
    since: dt.datetime | None
    waiting: list[str]
    operations: int
    running: list[str]
    size: int
    edits: int


class EditBody(Body):
    """The record of one edit by hand."""

    number: int
    at: dt.datetime
    reason: str
    by: str
    before: Any
    before_hash: str
    after_hash: str


class ScheduleRunBody(Body):
    """A run of a schedule."""

    instance_id: str
    nominal_time: dt.datetime
    begun_time: dt.datetime
    ended_time: dt.datetime | None
    outcome: str
    detail: str


class ScheduleShownBody(Body):
    """A schedule: when it is due, its runs, what was skipped or missed."""

    model_config = ConfigDict(extra="allow")  # cron and tz, or every and offset

    schedule_id: str
    spec: str
    target: str
    overlap: str
    paused: bool
    note: str
    created_time: dt.datetime
    next_times: list[dt.datetime]
    running: list[ScheduleRunBody]
    recent: list[ScheduleRunBody]
    buffered: dt.datetime | None
    started: int
    skipped: int
    missed: int
    remaining: int | None
    backfilling: bool


class TriggeredBody(Body):
    """The run that was asked for; null if it was skipped."""

    instance_id: str | None


class QueueLimitsBody(Body):
    """Limits of a queue; null is unlimited."""

    concurrency: int | None
    worker_concurrency: int | None
    rate: float | None


class QueueChangeBody(Body):
    """Limits that shall change: null is unlimited; what is not named stays."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    concurrency: int | None = Field(None, ge=1)
    worker_concurrency: int | None = Field(None, ge=1)
    rate: float | None = Field(None, gt=0)


class QueueBody(Body):
    """What an activity queue does."""

    name: str
    paused: bool
    backlog: int
    running: int
    backlog_by_priority: dict[str, int]
    running_by_worker: dict[str, int]
    limits: QueueLimitsBody


class DeadLetterBody(Body):
    """A message that was set aside, and why."""

    id: str
    target: str
    what: str
    reason: str
    time: dt.datetime | None
    size: int


class ReplayedBody(Body):
    """How many messages were sent again."""

    messages_replayed: int


class ForgottenBody(Body):
    """How many messages were deleted."""

    messages_deleted: int


class HotEntityBody(Body):
    """One of the busiest entities of a host."""

    entity_id: EntityIdBody
    host: str
    share: float


class ReasonBody(Body):
    """Why something waits: one link of the chain."""

    kind: str
    subject: str
    text: str
    since: dt.datetime | None
    until: dt.datetime | None
    at: str
    who: str
    depth: int


class WhyBody(Body):
    """Why something waits."""

    text: str
    chain: list[ReasonBody]
