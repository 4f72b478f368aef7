"""Routes for schedules: list, look, make or change, pause, resume, trigger, backfill, delete."""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

import datetime as dt
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from lungfish.runtime.client.schedules import ScheduleDescription, ScheduleHandle, ScheduleRun
from lungfish.runtime.declared.calendar import Cron, Every, Recurrence, cron, every
from lungfish.runtime.declared.schedule_plan import Overlap
from lungfish.runtime.declared.schedule_target import Target
from lungfish.runtime.errors import ScheduleExists

from .document import IDEMPOTENCY_KEY, Takes, Told, described
from .models import ScheduleShownBody, TriggeredBody
from .paths import ScheduleId
from .problems import Problem, ProblemRoute
from .service import MISSING, Service, answer, checked
from .shapes import shown_time

Reason = Annotated[str, Query(description="For people: kept as the schedule's note.")]

B = TypeVar("B", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class EntityTarget(_Body):
    """The operation of an entity that a schedule signals."""

    name: str
    key: str
    operation: str


class ScheduleBody(_Body):
    """A schedule as it shall be. Durations are in seconds, times in ISO form with an offset."""

    cron: str | None = None
    tz: str = "UTC"
    every: float | None = None
    offset: float = 0
    orchestration: str | None = None
    entity: EntityTarget | None = None
    args: list[Any] = []
    overlap: Overlap = "skip"
    catch_up: float = 3_600
    jitter: float = 0
    start_at: dt.datetime | None = None
    end_at: dt.datetime | None = None
    runs: int | None = None
    paused: bool | None = None
    note: str = ""

    def spec(self) -> Recurrence:
        """Return when it is due."""
        if (self.cron is None) == (self.every is None):
            raise _refused("give either cron or every (seconds)")
        if self.cron is not None:
            return cron(self.cron, self.tz)
        return every(_duration("every", self.every or 0), offset=_duration("offset", self.offset))

    def target(self) -> Target:
        """Return what it starts or signals."""
        if self.entity is not None and self.orchestration is None:
            return (self.entity.name, self.entity.key, self.entity.operation)
        if self.entity is None and self.orchestration is not None:
            return self.orchestration
        raise _refused("give either orchestration, or entity: {name, key, operation}")

    def changes(self) -> dict[str, Any]:
        """Return the rest, as ``Schedules.create`` takes it."""
        return {
            "overlap": self.overlap,
            "catch_up": _duration("catchUp", self.catch_up),
            "jitter": _duration("jitter", self.jitter),
            "start_at": self.start_at,
            "end_at": self.end_at,
            "runs": self.runs,
        }


class BackfillBody(_Body):
    """The nominal times whose runs are wanted, both included."""

    start: dt.datetime
    end: dt.datetime
    overlap: Overlap = "allow"


SHOWN: Final = Told("How it stands.", ScheduleShownBody)
_NIGHTLY: Final = {"cron": "0 3 * * *", "tz": "Europe/Berlin", "orchestration": "report", "args": ["all"]}
_PAST: Final = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-07T00:00:00Z", "overlap": "allow"}


def routes(service: Service) -> list[APIRouter]:
    """Return the routes of schedules, by what a caller must be allowed to do."""
    return [_looking(service), _steering(service), _changing(service)]


def _looking(service: Service) -> APIRouter:
    router = APIRouter(route_class=ProblemRoute, tags=["schedules"], dependencies=[Depends(service.may_read)])

    @router.get("/schedules", **described({200: Told("By id.", [ScheduleShownBody])}))
    async def schedules() -> Response:
        """List all schedules, by id, as last committed."""
        return answer([shown(found) async for found in service.client.schedules.list()])

    @router.get("/schedules/{id}", **described({200: SHOWN}, refuses=(400,)))
    async def schedule(id: ScheduleId) -> Response:
        """Return a schedule: when it is due next, its runs, what was skipped or missed."""
        return await _shown(service.client.schedules.get(id))

    return router


def _steering(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["schedules"], dependencies=[Depends(service.may_operate)]
    )

    @router.post("/schedules/{id}/pause", **described({200: SHOWN}, refuses=(400, 504)))
    async def pause(id: ScheduleId, reason: Reason = "") -> Response:
        """Start nothing from now on; in force when this answers."""
        handle = service.client.schedules.get(id)
        await handle.pause(reason)
        return await _shown(handle)

    @router.post("/schedules/{id}/resume", **described({200: SHOWN}, refuses=(400, 504)))
    async def resume(id: ScheduleId, reason: Reason = "") -> Response:
        """Undo pause, for times from now on."""
        handle = service.client.schedules.get(id)
        await handle.resume(reason)
        return await _shown(handle)

    @router.post(
        "/schedules/{id}/trigger",
        **described(
            {202: Told("It is accepted.", TriggeredBody)},
            refuses=(400, 422, 504),
            parameters=(IDEMPOTENCY_KEY,),
        ),
    )
    async def trigger(
        request: Request,
        id: ScheduleId,
        overlap: Annotated[Overlap | None, Query(description="Instead of the schedule's.")] = None,
    ) -> Response:
        """Have a run now, paused or not; the answer has its instance id, null if it is skipped."""

        async def work() -> Response:
            run = await service.client.schedules.get(id).trigger(overlap=overlap)
            return answer({"instanceId": run}, HTTPStatus.ACCEPTED)

        return await service.once(request, work)

    @router.post(
        "/schedules/{id}/backfill",
        **described(
            {202: Told("It is accepted.")},
            refuses=(400, 413, 504),
            takes=Takes(_PAST, BackfillBody, required=True),
        ),
    )
    async def backfill(request: Request, id: ScheduleId) -> Response:
        """Have the runs of past times: ``{"start": …, "end": …, "overlap": …}``."""
        wanted = _read(BackfillBody, await service.json_body(request))
        handle = service.client.schedules.get(id)
        await handle.backfill(wanted.start, wanted.end, overlap=wanted.overlap)
        return Response(status_code=HTTPStatus.ACCEPTED)

    return router


def _changing(service: Service) -> APIRouter:
    router = APIRouter(
        route_class=ProblemRoute, tags=["schedules"], dependencies=[Depends(service.may_administer)]
    )

    @router.put(
        "/schedules/{id}",
        **described(
            {200: SHOWN, 201: Told("It was made.", ScheduleShownBody)},
            refuses=(400, 413, 504),
            takes=Takes(_NIGHTLY, ScheduleBody, required=True),
        ),
    )
    async def put(request: Request, id: ScheduleId) -> Response:
        """Make a schedule, or change it into this. Without ``paused`` one that is there stays as it is."""
        wanted = _read(ScheduleBody, await service.json_body(request))
        spec, target, args = wanted.spec(), wanted.target(), list(wanted.args)
        _check(service, target, args)
        schedules, changes = service.client.schedules, wanted.changes()
        try:
            handle = await schedules.create(
                id, spec, target, args, paused=bool(wanted.paused), note=wanted.note, **changes
            )
        except ScheduleExists:
            handle = schedules.get(id)
            await handle.update(spec=spec, target=target, args=args, **changes)
            if wanted.paused is not None:
                await (handle.pause if wanted.paused else handle.resume)(wanted.note)
            return await _shown(handle)
        return await _shown(handle, HTTPStatus.CREATED)

    @router.delete("/schedules/{id}", **described({204: Told("It is gone.")}, refuses=(400, 504)))
    async def delete(id: ScheduleId) -> Response:
        """Delete a schedule; runs that have begun go on."""
        await service.client.schedules.get(id).delete()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return router


def shown(found: ScheduleDescription) -> dict[str, Any]:
    """Return a schedule as JSON."""
    return {
        "scheduleId": found.id,
        **_spec(found.spec),
        "spec": str(found.spec),
        "target": found.target,
        "overlap": found.overlap,
        "paused": found.paused,
        "note": found.note,
        "createdTime": shown_time(found.created),
        "nextTimes": [shown_time(at) for at in found.next_times],
        "running": [_run(run) for run in found.running],
        "recent": [_run(run) for run in found.recent],
        "buffered": shown_time(found.buffered) if found.buffered else None,
        "started": found.started,
        "skipped": found.skipped,
        "missed": found.missed,
        "remaining": found.remaining,
        "backfilling": found.backfilling,
    }


def _spec(spec: Recurrence) -> dict[str, Any]:
    match spec:
        case Cron(expression, tz):
            return {"cron": expression, "tz": tz}
        case Every(interval_ms, offset_ms):
            return {"every": interval_ms / 1_000, "offset": offset_ms / 1_000}


def _run(run: ScheduleRun) -> dict[str, Any]:
    return {
        "instanceId": run.id,
        "nominalTime": shown_time(run.nominal),
        "begunTime": shown_time(run.begun),
        "endedTime": shown_time(run.ended) if run.ended else None,
        "outcome": run.outcome,
        "detail": run.detail,
    }


async def _shown(handle: ScheduleHandle, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return answer(shown(await handle.describe()), status)


def _check(service: Service, target: Target, args: list[Any]) -> None:
    """Refuse here and now what every run would fail with."""
    app = service.client.app
    if app is None:
        return
    if isinstance(target, tuple):
        signature = app.find_operation(str(target[0]), target[2]).signature
    else:
        signature = app.find_orchestration(str(target)).signature
    signature.check(args, {})
    checked(args, {}, signature)


def _read(model: type[B], body: Any) -> B:
    if body is MISSING:
        raise _refused("the body must be a JSON object")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
        raise _refused("; ".join(lines)) from error


def _duration(what: str, value: float) -> dt.timedelta:
    try:
        return dt.timedelta(seconds=value)
    except (OverflowError, ValueError) as error:
        raise _refused(f"{what} is a number of seconds, not {value!r}") from error


def _refused(text: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, text, name="InvalidRequest")
