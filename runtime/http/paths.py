"""What stands in paths and queries of many routes, with an example of each."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

InstanceId = Annotated[str, Path(description="Instance id.", examples=["order-17"])]
Orchestration = Annotated[str, Path(description="The orchestration's name.", examples=["order"])]
Name = Annotated[str, Path(description="The entity's type.", examples=["Counter"])]
Key = Annotated[str, Path(description="Which one of its type.", examples=["hits"])]
Operation = Annotated[str, Path(description="The entity's operation.", examples=["add"])]
Op = Annotated[str, Query(description="The operation.", examples=["add"])]
Handler = Annotated[str, Path(description="As the orchestration's code calls it.", examples=["progress"])]
Event = Annotated[str, Path(description="The event's name.", examples=["approved"])]
Queue = Annotated[str, Path(description="The queue.", examples=["default"])]
Letter = Annotated[str, Path(description="The message's id.", examples=["7:1732233600000-0"])]
ScheduleId = Annotated[str, Path(description="The schedule's id.", examples=["nightly"])]
Reason = Annotated[str, Query(description="Why, for whoever reads the history.", examples=["recall"])]
