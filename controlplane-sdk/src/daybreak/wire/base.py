"""The base classes of all wire types."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-11-21T12:00:00.000Z``."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("the time has no time zone; write it as 2026-11-21T12:00:00Z")
    return value


Time = Annotated[
    datetime, AfterValidator(_aware), PlainSerializer(format_time, return_type=str, when_used="json")
]


class ResponseModel(BaseModel):
    """A part of a response. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """The JSON object. Fields that are ``None`` are left out."""
        return self.model_dump(mode="json", exclude_none=True)


class RequestModel(BaseModel):
    """A part of a request. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
