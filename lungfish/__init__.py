"""Lungfish: durable virtual actors and orchestrations for Python on Ray, with Redis as the only store.

Everything that a program needs is here; modules below are for the curious. A first look::

    app = lungfish.App("shop")

    @app.entity
    class Counter(lungfish.Entity):
        value: int = 0

        def add(self, n: int = 1) -> int:
            self.value += n
            return self.value
"""

from lungfish.entities import Entity, EntityContext, FunctionContext, ephemeral
from lungfish.orchestrations import CriticalSection, OrchestrationContext, when_all, when_any
from lungfish.runtime.blocking.client import BlockingClient
from lungfish.runtime.client.batch_steps import BatchRefusal, BatchStep
from lungfish.runtime.client.client import Client
from lungfish.runtime.client.editing import StateEdit
from lungfish.runtime.client.instance_handle import OrchestrationHandle
from lungfish.runtime.client.queries import StoredEntity
from lungfish.runtime.client.queue_handle import QueueHandle
from lungfish.runtime.client.refs import EntityRef
from lungfish.runtime.client.schedules import ScheduleDescription, ScheduleHandle, ScheduleRun, Schedules
from lungfish.runtime.client.sinks import Sink, SinkResult
from lungfish.runtime.client.topics import Topic
from lungfish.runtime.client.watching import StateWatch
from lungfish.runtime.declared.activity_info import ActivityInfo, activity_info
from lungfish.runtime.declared.app import App
from lungfish.runtime.declared.calendar import cron, every
from lungfish.runtime.declared.definitions import Activity, ActivityOptions, Orchestration, reentrant, shared
from lungfish.runtime.declared.middleware import CallNext, Incoming, Outgoing
from lungfish.runtime.declared.pools import HostPool
from lungfish.runtime.declared.reminders import Reminder
from lungfish.runtime.declared.retry import RetryPolicy
from lungfish.runtime.entry_points.connect import connect, connect_sync
from lungfish.runtime.entry_points.launch import attach, start
from lungfish.runtime.errors import (
    ActivationFailed,
    ActivityCancelled,
    ActivityFailed,
    ActivityTimedOut,
    CallCycle,
    CallCycleError,
    CriticalSectionError,
    DeadlineExceeded,
    EntityOperationFailed,
    ExecutionFailed,
    FailureDetails,
    HubMismatch,
    HubNotFound,
    InstanceEnded,
    InstanceExists,
    InstanceNotFound,
    InstanceRunning,
    InternalError,
    InvalidArguments,
    InvalidId,
    LungfishError,
    NonDeterminism,
    NonRetryable,
    NotRegistered,
    OrchestrationCanceled,
    OrchestrationFailed,
    OrchestrationTerminated,
    Overloaded,
    PayloadTooLarge,
    QueryFailed,
    ReadOnly,
    Refused,
    RetryAfter,
    RuntimeNotFound,
    ScheduleExists,
    ScheduleNotFound,
    SerializationError,
    StateMismatch,
    StoreUnavailable,
    Unavailable,
    UnknownPool,
    UnsafeStore,
    UpdateFailed,
    UpdateRejected,
    UsageError,
)
from lungfish.runtime.ids import grouped
from lungfish.runtime.messages.headers import headers, sending
from lungfish.runtime.messages.payloads import PayloadSettings
from lungfish.runtime.messages.status import (
    ArchivedInstance,
    EntityStatus,
    OrchestrationStatus,
    RuntimeStatus,
)
from lungfish.runtime.session.dead_letters import DeadLetter, DeadLetters
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.store.query import Page
from lungfish.runtime.store.queues import QueueInfo, QueueLimits
from lungfish.runtime.store.store import PartitionLoad
from lungfish.runtime.telemetry.hot import HotEntity
from lungfish.runtime.telemetry.overview import HostStatus, HubStatus, PartitionStatus, WorkerStatus
from lungfish.runtime.why.reasons import Reason, Why

__version__ = "0.1.0"

__all__ = [
    "ActivationFailed",
    "Activity",
    "ActivityCancelled",
    "ActivityFailed",
    "ActivityInfo",
    "ActivityOptions",
    "ActivityTimedOut",
    "App",
    "ArchivedInstance",
    "BatchRefusal",
    "BatchStep",
    "BlockingClient",
    "CallCycle",
    "CallCycleError",
    "CallNext",
    "Client",
    "CriticalSection",
    "CriticalSectionError",
    "DeadLetter",
    "DeadLetters",
    "DeadlineExceeded",
    "Entity",
    "EntityContext",
    "EntityOperationFailed",
    "EntityRef",
    "EntityStatus",
    "ExecutionFailed",
    "FailureDetails",
    "FunctionContext",
    "HostPool",
    "HostSettings",
    "HostStatus",
    "HotEntity",
    "HubMismatch",
    "HubNotFound",
    "HubStatus",
    "Incoming",
    "InstanceEnded",
    "InstanceExists",
    "InstanceNotFound",
    "InstanceRunning",
    "InternalError",
    "InvalidArguments",
    "InvalidId",
    "LungfishError",
    "NonDeterminism",
    "NonRetryable",
    "NotRegistered",
    "Orchestration",
    "OrchestrationCanceled",
    "OrchestrationContext",
    "OrchestrationFailed",
    "OrchestrationHandle",
    "OrchestrationStatus",
    "OrchestrationTerminated",
    "Outgoing",
    "Overloaded",
    "Page",
    "PartitionLoad",
    "PartitionStatus",
    "PayloadSettings",
    "PayloadTooLarge",
    "QueryFailed",
    "QueueHandle",
    "QueueInfo",
    "QueueLimits",
    "ReadOnly",
    "Reason",
    "Refused",
    "Reminder",
    "RetryAfter",
    "RetryPolicy",
    "RuntimeNotFound",
    "RuntimeStatus",
    "ScheduleDescription",
    "ScheduleExists",
    "ScheduleHandle",
    "ScheduleNotFound",
    "ScheduleRun",
    "Schedules",
    "SerializationError",
    "Sink",
    "SinkResult",
    "StateEdit",
    "StateMismatch",
    "StateWatch",
    "StoreUnavailable",
    "StoredEntity",
    "Topic",
    "Unavailable",
    "UnknownPool",
    "UnsafeStore",
    "UpdateFailed",
    "UpdateRejected",
    "UsageError",
    "Why",
    "WorkerStatus",
    "activity_info",
    "attach",
    "connect",
    "connect_sync",
    "cron",
    "ephemeral",
    "every",
    "grouped",
    "headers",
    "reentrant",
    "sending",
    "shared",
    "start",
    "when_all",
    "when_any",
]
