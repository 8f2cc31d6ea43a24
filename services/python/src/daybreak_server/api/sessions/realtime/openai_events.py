"""The parts that OpenAI's two dialects share: their errors, the first event, and the fields of a session."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError, invalid_field
from daybreak_server.api.sessions.realtime.connection import (
    Json,
    RealtimeConnection,
    member,
    text_of,
    unknown_event,
)
from daybreak_server.api.sessions.realtime.whisper_live_full import wait_fields
from daybreak_server.domain.sessions import SessionEvent

RATE = 24_000
"""The sample rate of a client's audio, if the client does not name one."""
_TYPES = (None, "transcription", "translation", "realtime")
_SHOWN = ("audio", "target_language")
"""The fields of an update that :meth:`OpenAIDialect.shown` returns."""


class OpenAIDialect:
    """The base class of OpenAI's dialects. Until its first ``session.update``, a connection uses this class itself."""

    ends_connection = True
    kind = "transcription"
    events = "session.update"

    def __init__(self, connection: RealtimeConnection) -> None:
        self.connection = connection
        self._fields: Json = {}
        """The fields of the session, as all updates so far have set them."""

    async def on_client(self, event: Json) -> None:
        """See the protocol."""
        if event["type"] == "connect":
            # OpenAI's clients read `session`. vLLM's clients also read `id` and `created`.
            created = int(time.time())
            await self.connection.send(
                "session.created", session=self.shown(), id=self.connection.id, created=created
            )
        elif event["type"].startswith("input_audio_buffer."):
            raise ApiError(
                ErrorCode.INVALID_INPUT,
                f"Send {self.events} before {event['type'][:60]}, to choose the kind of session.",
            )
        else:
            raise unknown_event(event["type"], self.events)

    async def on_session(self, event: SessionEvent) -> None:
        """See the protocol. Before the first ``session.update`` there is no session, so this does nothing."""

    async def send_error(self, error: ApiError, event: Json | None = None) -> None:
        """See the protocol."""
        cause = event.get("event_id") if event else None
        shown = {
            "type": "server_error" if error.status >= 500 else "invalid_request_error",
            "code": error.code.value,
            "message": error.detail,
            "param": error.errors[0].field if error.errors else None,
            "event_id": cause if isinstance(cause, str) else None,
        }
        await self.connection.send("error", error=shown, **wait_fields(error, self.connection.uid))

    async def send_failure(self, event: SessionEvent) -> None:
        """Send the reason why a session ended before the end of its input."""
        error = event.data.get("error") or {}
        shown = {
            "type": "server_error",
            "code": str(error.get("code") or f"session_{event.data.get('reason')}"),
            "message": str(error.get("message") or f"The session has ended: {event.data.get('reason')}."),
            "param": None,
            "event_id": None,
        }
        await self.connection.send("error", error=shown)

    def with_earlier(self, event: Json) -> Json:
        """This ``session.update``, merged with the earlier ones, because clients may send only what changes.

        :raises ApiError: if there is no such type of session.
        """
        session_type(event)
        return {"session": _merged(self._fields, member(event, "session") or {})}

    async def update(self, event: Json) -> None:
        """Store the fields of an accepted update, and confirm the update to the client."""
        self._fields = event["session"]
        await self.connection.send("session.updated", session=self.shown())

    def shown(self) -> dict[str, Any]:
        """The session as the client sees it."""
        changed = {name: self._fields[name] for name in _SHOWN if self._fields.get(name) is not None}
        usual = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": RATE}}}}
        return {
            "id": self.connection.id,
            "object": f"realtime.{self.kind}_session",
            "type": self.kind,
            "model": (self.connection.wanted and self.connection.wanted.model) or self.connection.model or "",
            "expires_at": None,
            **_merged(usual, changed),
        }


def _merged(old: Any, new: Any) -> Any:
    """A copy of ``old`` with the fields of ``new``. Objects inside of objects are merged in the same way."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


def session_type(event: Json) -> str | None:
    """The type of session that an update names. :raises ApiError: if there is no such type."""
    named = text_of(event, "session", "type")
    if named not in _TYPES:
        listed = ", ".join(kind for kind in _TYPES if kind)
        raise invalid_field(
            "session.type", f"There is no session of the type {named[:60]!r}. Use one of: {listed}."
        )
    return named


def rate_of(event: Json) -> int:
    """The sample rate of the client's audio. :raises ApiError: if the format is not PCM, or the rate is no integer."""
    path = ("session", "audio", "input", "format")
    form = member(event, *path)
    if form is None:
        return RATE
    kind = member(event, *path, "type") or "audio/pcm"
    if kind != "audio/pcm":
        raise invalid_field(".".join(path), f"The format {kind!r} is not supported. Use audio/pcm.")
    rate = member(event, *path, "rate")
    if rate is None:
        return RATE
    if not isinstance(rate, int) or isinstance(rate, bool):
        raise invalid_field(".".join((*path, "rate")), "The rate must be a number such as 24000.")
    return rate
