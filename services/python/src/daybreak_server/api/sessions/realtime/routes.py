"""The routes of realtime sessions, and the choice of a client's dialect."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.websockets import WebSocket

from daybreak_server.api.sessions.realtime.connection import Dialect, Json, RealtimeConnection, member
from daybreak_server.api.sessions.realtime.openai_events import OpenAIDialect, session_type
from daybreak_server.api.sessions.realtime.transcription import TranscriptionDialect
from daybreak_server.api.sessions.realtime.translation import TranslationDialect
from daybreak_server.api.sessions.realtime.vllm import VllmDialect
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.api.sessions.sockets import Sockets


def add(routes: APIRouter, service: SessionService, sockets: Sockets) -> None:
    """Add the routes."""

    @routes.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        """Transcribe or translate speech as OpenAI's and vLLM's realtime APIs do."""
        await RealtimeConnection(service, sockets, socket, choose).serve()

    @routes.websocket("/v1/realtime/translations")
    async def translations(socket: WebSocket) -> None:
        """Translate speech as OpenAI's realtime API does."""
        await RealtimeConnection(service, sockets, socket, choose_translation).serve()


def choose(connection: RealtimeConnection, update: Json | None) -> Dialect:
    """Choose a client's dialect.

    :param update: The client's first ``session.update``; ``None`` if it has not sent one yet.
    """
    if update is None:
        return OpenAIDialect(connection)
    if "session" not in update:
        return VllmDialect(connection)
    if session_type(update) == "translation" or member(update, "session", "audio", "output", "language"):
        return TranslationDialect(connection)
    return TranscriptionDialect(connection)


def choose_translation(connection: RealtimeConnection, update: Json | None) -> Dialect:
    """Choose the dialect of a client of ``/v1/realtime/translations``."""
    if update is None:
        return OpenAIDialect(connection)
    session_type(update)
    return TranslationDialect(connection)
