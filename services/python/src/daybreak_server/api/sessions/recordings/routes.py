"""The routes of recordings. The field ``model`` of a request decides what answers the request:

* the name of a model of workers: a worker;
* the name of a pool of kind ``sessions``, or of its model: a session of the pool, which transcribes or translates the
  recording;
* the name of a serving pool: a group of the pool.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import Caller, Principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import ApiError
from daybreak_server.api.http.multipart import read_form
from daybreak_server.api.http.request_body import header, too_large
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.api.openai.routes import ModelRequests
from daybreak_server.api.routing.request_body import ForwardedBody
from daybreak_server.api.sessions import opening, specs
from daybreak_server.api.sessions.recordings.form import parse
from daybreak_server.api.sessions.recordings.run import RecordingRun, StreamedText
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.api.task_api.fast_path import Handler

TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"


def handlers(ctx: Dependencies) -> dict[str, Handler]:
    """The handlers by path. A route and its fast path use the same handler."""
    recordings = Recordings(ctx, SessionService(ctx))
    return {TRANSCRIPTIONS: recordings.transcribe, TRANSLATIONS: recordings.translate}


def add(routes: APIRouter, ctx: Dependencies) -> None:
    """Add the routes to the API's documentation. The requests themselves take the fast path."""
    found = handlers(ctx)

    @routes.post(TRANSCRIPTIONS, **specs.recording("transcription"))
    async def transcriptions(request: Request, caller: Caller) -> Response:
        """Turn a recording into text, as OpenAI does."""
        return await found[TRANSCRIPTIONS](request, caller)

    @routes.post(TRANSLATIONS, **specs.recording("translation"))
    async def translations(request: Request, caller: Caller) -> Response:
        """Translate a recording into any language that the model supports, with OpenAI's API."""
        return await found[TRANSLATIONS](request, caller)


class Recordings:
    """Answers requests that send a recording."""

    def __init__(self, ctx: Dependencies, service: SessionService) -> None:
        self._model_requests = ModelRequests(ctx)
        self._service = service
        self._settings = ctx.services.settings.router

    async def transcribe(self, request: Request, caller: Principal) -> Response:
        """The response of ``/v1/audio/transcriptions``."""
        return await self._answer(request, caller, translates=False)

    async def translate(self, request: Request, caller: Principal) -> Response:
        """The response of ``/v1/audio/translations``."""
        return await self._answer(request, caller, translates=True)

    async def _answer(self, request: Request, caller: Principal, *, translates: bool) -> Response:
        async def answer_named(name: str | None, body: ForwardedBody) -> Response:
            model = await self._model_requests.model(name)
            if model is not None:
                return await self._model_requests.answer_by(model, request, caller, body)
            entry = self._service.pools.find(name)
            if entry is None:
                return await self._model_requests.answer_by_pool(name, request, caller, body)
            return await self._run(entry, request, caller, body, translates=translates)

        return await self._model_requests.read_name(request, answer_named)

    async def _run(
        self, entry: PoolEntry, request: Request, caller: Principal, body: ForwardedBody, *, translates: bool
    ) -> Response:
        await body.read_beginning(self._settings.max_body_bytes)
        if not body.complete:
            raise too_large(self._settings.max_body_bytes)
        fields = read_form(bytes(body.buffered), header(request, b"content-type") or "")
        wanted = parse(fields, translates=translates)
        with opening.traced(self._service.ctx, request) as trace:
            record = await self._service.open(
                caller,
                trace=trace,
                pool=entry.name,
                source=wanted.language,
                target=wanted.target,
                client="recording",
            )
            run = RecordingRun(self._service, record, wanted)
            response = StreamedText(run) if wanted.stream else await self._finish(run)
            return opening.with_trace(response, record)

    async def _finish(self, run: RecordingRun) -> Response:
        """The response with the whole text."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return (await run.finish()).response(run.wanted.response_format)
        except TimeoutError as exc:
            raise ApiError(
                ErrorCode.DEADLINE_PASSED,
                "The recording was not processed in time. Send a shorter recording, or use stream=true.",
            ) from exc
