"""The events of a task's stream."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

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
        """Whether this is the last event of its task."""
        return self in TERMINAL_EVENTS


TERMINAL_EVENTS = frozenset({EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED, EventType.EXPIRED})


class Event(ResponseModel):
    """An event of a task. Ids increase within a task; ``wake``, ``position`` and ``reset`` have no id."""

    id: str | None = None
    task: str
    type: EventType
    at: Time
    attempt: int | None = None
    data: dict[str, Any] = Field(default_factory=dict)
