"""The events of a task's stream."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from daybreak.wire.base import ResponseModel, Time


class EventType(StrEnum):
    """Types of events. ``wake``, ``position`` and ``reset`` are not stored and have no id."""

    QUEUED = "queued"
    STARTED = "started"
    PROGRESS = "progress"
    PREVIEW = "preview"
    LOG = "log"
    CHECKPOINT = "checkpoint"
    ARTIFACT = "artifact"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    WAKE = "wake"
    POSITION = "position"
    RESET = "reset"

    @property
    def terminal(self) -> bool:
        """Whether an event of this type is the last event of its task."""
        return self in TERMINAL_EVENTS


TERMINAL_EVENTS = frozenset({EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED, EventType.EXPIRED})


MAX_LOG_PAGE = 1000
"""The maximum number of lines in one page of a task's log."""


class Event(ResponseModel):
    """An event of a task. Ids increase within a task; ``wake``, ``position`` and ``reset`` have no id."""

    id: str | None = None
    task: str
    type: EventType
    at: Time
    attempt: int | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class EventList(ResponseModel):
    """A page of a task's log: events of the type ``log``. Pass ``next`` as ``after`` to request the following page."""

    object: Literal["list"] = "list"
    data: list[Event]
    has_more: bool = False
    next: str | None = None


class LogLine(ResponseModel):
    """A line that a task's workload has logged, as the client's ``logs`` returns it."""

    id: str
    at: Time
    attempt: int
    line: int | None = None
    """The number of the line within the attempt, from 1; absent if an older server has stored the line."""
    level: str
    message: str
    dropped: int = 0
    """How many lines are missing before this one, because the work logged too fast or the server deleted them."""
