"""What an orchestration's code has others do for it: activities and other orchestrations."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from lungfish.runtime import codec
from lungfish.runtime.declared.definitions import Activity, ActivityOptions, Orchestration
from lungfish.runtime.declared.retry import RetryPolicy
from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.errors import UsageError
from lungfish.runtime.ids import check_id

from .retrying import retried
from .tasks import Task

if TYPE_CHECKING:
    from .replay import Execution

P = ParamSpec("P")
R = TypeVar("R")

_DEFAULT_OPTIONS: Final = ActivityOptions()


class Calls:
    """The part of an orchestration's context that calls activities and starts orchestrations."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    @overload
    def call_activity(
        self, activity: Activity[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Task[R]: ...
    @overload
    def call_activity(self, activity: Activity[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Task[R]: ...
    @overload
    def call_activity(self, activity: str, /, *args: Any, **kwargs: Any) -> Task[Any]: ...
    def call_activity(self, activity: Any, /, *args: Any, **kwargs: Any) -> Task[Any]:
        """Run an activity; the task has its result.

        Args:
            activity: the activity (``fn.options(...)`` for other options), or its registered name.

        Raises:
            InvalidArguments, SerializationError, PayloadTooLarge: at once, for the arguments.
            ActivityFailed: at the await, after all retries.
            ActivityTimedOut: at the await; the last attempt did not end in time.
            NotRegistered: at the await.
        """
        found: Activity[Any, Any]
        if isinstance(activity, Activity):
            found = activity
        elif not isinstance(activity, str):
            raise UsageError(f"call_activity takes an @app.activity or its name, not {activity!r}")
        elif activity in self._execution.app.activities:
            found = self._execution.app.activities[activity]
        else:
            encoded = encode_arguments(args, kwargs, activity, self._bytes_max)
            return self._execution.schedule_activity(activity, encoded, _DEFAULT_OPTIONS, _plain)
        encoded = found.signature.encode(args, kwargs, self._bytes_max)
        return self._execution.schedule_activity(
            found.name, encoded, found.settings, found.signature.decode_result
        )

    @overload
    def call_orchestration(
        self, orchestration: Orchestration[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Task[R]: ...
    @overload
    def call_orchestration(
        self,
        orchestration: Orchestration[..., R],
        /,
        *args: Any,
        id: str,
        retry: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> Task[R]: ...
    @overload
    def call_orchestration(
        self,
        orchestration: Orchestration[..., R],
        /,
        *args: Any,
        retry: RetryPolicy,
        **kwargs: Any,
    ) -> Task[R]: ...
    @overload
    def call_orchestration(
        self,
        orchestration: str,
        /,
        *args: Any,
        id: str | None = None,
        retry: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> Task[Any]: ...
    def call_orchestration(  # type: ignore[misc]  # `id` and `retry` are ours, whatever P says
        self,
        orchestration: Any,
        /,
        *args: Any,
        id: str | None = None,
        retry: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> Task[Any]:
        """Run a sub-orchestration; the task has its result.

        Cancelling the task (a time-out does) asks the sub-orchestration to end, as ``handle.cancel`` does,
        and does not wait until it has. If this orchestration fails or is cancelled, its sub-orchestrations
        are cancelled; if it is terminated, they are terminated. If it completes without waiting, they go on.

        Args:
            orchestration: the orchestration, or its registered name.
            id: its instance id; default: made from this execution's id and the position. A child that this
                instance had under it before (in a loop, before a restart or continue-as-new) makes way if
                it has ended, as in Durable Functions; anybody else's instance does not.
            retry: start it again when it has failed; under the same ``id`` if one was given.

        Raises:
            OrchestrationFailed: at the await; ``OrchestrationTerminated`` if it was terminated,
                ``OrchestrationCanceled`` if it was cancelled.
            InstanceExists, NotRegistered: at the await; the first is that the id is taken, by another's
                instance or by a child that has not ended.
        """
        instance = None if id is None else check_id("instance id", id)
        name, encoded, decode, version = self._orchestration(
            orchestration, args, kwargs, "call_orchestration"
        )

        def begin(attempt: int) -> Task[Any]:
            reuse = "restart" if attempt > 1 else ""
            return self._execution.start_child(name, instance, encoded, decode, version, reuse=reuse)

        if retry is None:
            return begin(1)
        return retried(self._execution, begin, retry, name)

    def start_orchestration(
        self,
        orchestration: Orchestration[..., Any] | str,
        /,
        *args: Any,
        id: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Start an orchestration that lives by itself, and return its instance id at once.

        It is started if and when this turn is committed, exactly once. Nothing of it comes back here: if the
        id is taken, the instance that has it stays as it is.

        Args:
            orchestration: the orchestration, or its registered name.
            id: its instance id; default: made from this execution's id and the position.

        Raises:
            InvalidArguments, SerializationError, PayloadTooLarge, InvalidId: at once.
        """
        instance = None if id is None else check_id("instance id", id)
        name, encoded, _, version = self._orchestration(orchestration, args, kwargs, "start_orchestration")
        return self._execution.start_other(name, instance, encoded, version)

    def _orchestration(
        self, orchestration: Any, args: tuple[Any, ...], kwargs: dict[str, Any], where: str
    ) -> tuple[str, bytes, Callable[[bytes | None], Any], str]:
        """Return the name, the encoded arguments, how to read the result, and the version.

        The object says which code is meant; a name means the newest.
        """
        version = ""
        if isinstance(orchestration, str):
            found = self._execution.app.orchestrations.get(orchestration)
            if found is None:
                encoded = encode_arguments(args, kwargs, orchestration, self._bytes_max)
                return orchestration, encoded, _plain, version
            orchestration = found
        elif isinstance(orchestration, Orchestration):
            version = orchestration.version
        else:
            raise UsageError(f"{where} takes an @app.orchestration or its name, not {orchestration!r}")
        signature = orchestration.signature
        encoded = signature.encode(args, kwargs, self._bytes_max)
        return orchestration.name, encoded, signature.decode_result, version

    @property
    def _bytes_max(self) -> int:
        return self._execution.app.payloads.bytes_max


def _plain(payload: bytes | None) -> Any:
    return None if payload is None else codec.decode(payload, "result")
