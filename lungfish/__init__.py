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
from lungfish.runtime.activity_info import ActivityInfo, activity_info
from lungfish.runtime.app import App
from lungfish.runtime.batches import BatchRefusal, BatchStep
from lungfish.runtime.blocking import BlockingClient
from lungfish.runtime.calendar import cron, every
from lungfish.runtime.client import Client
from lungfish.runtime.client_queries import StoredEntity
from lungfish.runtime.connect import connect, connect_sync
from lungfish.runtime.dead_letters import DeadLetter, DeadLetters
from lungfish.runtime.definitions import Activity, ActivityOptions, Orchestration, reentrant, shared
from lungfish.runtime.editing import StateEdit
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
from lungfish.runtime.headers import headers, sending
from lungfish.runtime.hot import HotEntity
from lungfish.runtime.ids import grouped
from lungfish.runtime.instance_handle import OrchestrationHandle
from lungfish.runtime.launch import attach, start
from lungfish.runtime.middleware import CallNext, Incoming, Outgoing
from lungfish.runtime.overview import HostStatus, HubStatus, PartitionStatus, WorkerStatus
from lungfish.runtime.payloads import PayloadSettings
from lungfish.runtime.pools import HostPool
from lungfish.runtime.query import Page
from lungfish.runtime.queue_handle import QueueHandle
from lungfish.runtime.queues import QueueInfo, QueueLimits
from lungfish.runtime.refs import EntityRef
from lungfish.runtime.reminders import Reminder
from lungfish.runtime.retry import RetryPolicy
from lungfish.runtime.schedules import ScheduleDescription, ScheduleHandle, ScheduleRun, Schedules
from lungfish.runtime.settings import HostSettings
from lungfish.runtime.sinks import Sink, SinkResult
from lungfish.runtime.status import ArchivedInstance, EntityStatus, OrchestrationStatus, RuntimeStatus
from lungfish.runtime.store import PartitionLoad
from lungfish.runtime.topics import Topic
from lungfish.runtime.watching import StateWatch
from lungfish.runtime.why import Reason, Why

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
