"""Activities with resources: each attempt is a Ray task of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
import ray.exceptions

from .activity_info import ActivityInfo, current_activity
from .definitions import Activity


class RayLauncher:
    """Runs attempts as Ray tasks with the resources that the activity asks for."""

    async def run(
        self, activity: Activity[Any, Any], args: list[Any], kwargs: dict[str, Any], info: ActivityInfo
    ) -> Any:
        """Run one attempt as a Ray task; cancelled together with the caller.

        Ray's own retries are off: attempts are counted by the orchestration.
        """
        options = {"num_cpus": 1, **activity.settings.resources}
        task = ray.remote(_attempt).options(max_retries=0, **options)
        ref = task.remote(activity.function, args, kwargs, info)
        try:
            return await ref
        except asyncio.CancelledError:
            ray.cancel(ref, force=True)
            raise
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from error


def _attempt(function: Any, args: list[Any], kwargs: dict[str, Any], info: ActivityInfo) -> Any:
    current_activity.set(info)
    value = function(*args, **kwargs)
    return asyncio.run(value) if asyncio.iscoroutine(value) else value
