"""The routes of InfiniSST's scheduler. Requests carry chunks of audio, and each user has one session per language pair.

The routes find a user's session by its pool, tenant, client and languages, so the requests of a user may reach
different gateways. A user should send a chunk only after the answer to the previous one. If a gateway gets several
chunks of a user at once, it processes them one by one.
"""

from __future__ import annotations

import asyncio
from array import array
from typing import Any
from urllib.parse import unquote
from weakref import WeakValueDictionary

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Caller, Principal
from daybreak_server.api.errors import ApiError, invalid_field, not_found
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.sessions import opening, specs
from daybreak_server.api.sessions.audio.formats import AudioFormat, Encoding
from daybreak_server.api.sessions.audio_input import AudioInput
from daybreak_server.api.sessions.infinisst.fields import LoadModel, Translate, read_fields
from daybreak_server.api.sessions.infinisst.serving import shown
from daybreak_server.api.sessions.languages import label
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.domain.sessions import SAMPLE_RATE, SessionRecord, SessionState

_TURN_S = 2.0
"""The longest turn of a model. While less audio than this waits, the model may need more audio before it
writes."""
_QUIET_S = 0.25
"""If a model can begin a turn, it does so within this time."""


def add(routes: APIRouter, service: SessionService) -> None:
    """Add the routes."""
    settings = service.ctx.services.settings
    users = UserSessions(service)

    @routes.post("/load_model", **specs.LOAD_MODEL)
    async def load_model(request: Request, caller: Caller) -> Response:
        """Say whether the model of a pair is loaded. Groups load it when they start."""
        wanted = await read_fields(request, LoadModel, max_bytes=settings.http.max_body_bytes)
        entry, pair = service.pools.choose(
            wanted.pool, lambda languages: languages.parse(wanted.language_pair)
        )
        await _check_device(service, wanted.gpu_id)
        view = await service.ctx.pool_views.get(entry.name)
        health = serializers.pool_health(entry, view, service.ctx.services.now_ms())
        status = "ready" if health.groups_ready else (health.wake.phase if health.wake else "zero")
        answer = {"success": True, "gpu_id": wanted.gpu_id, "language_pair": label(pair), "pool": entry.name}
        return json_response({**answer, "status": status})

    @routes.post("/translate", **specs.TRANSLATE)
    async def translate(request: Request, caller: Caller) -> Response:
        """Translate a chunk of a user's audio, and return the text that it adds."""
        sent = await read_fields(request, Translate, max_bytes=settings.router.max_body_bytes)
        return await users.translate(caller, sent, request)

    # `:path`, because the name of a user may have a slash, which arrives decoded.
    @routes.get("/session/{user:path}/{language}", **specs.user_session("user_session"))
    async def user_session(user: str, language: str, caller: Caller, *, pool: str | None = None) -> Response:
        """Show the session of a user for a language pair."""
        record = await users.find(caller, user, unquote(language), pool)
        text = await service.text(record.session.id)
        return json_response({**shown(record), "user_id": user, "language_pair": language, "text": text})

    @routes.post("/session/{user:path}/{language}/reset", **specs.user_session("reset_user_session"))
    async def reset(user: str, language: str, caller: Caller, *, pool: str | None = None) -> Response:
        """End the session of a user for a language pair, so that the next request begins a new one."""
        record = await users.find(caller, user, unquote(language), pool)
        await service.store.close_session(record.session.id)
        return json_response({"success": True, "session_id": record.session.id, "user_id": user})


async def _check_device(service: SessionService, device: int) -> None:
    """Refuse the number of a device that does not exist. Each group counts as one device. The groups of all pools
    of kind ``sessions`` are numbered together, from 0.

    On Kubernetes, the operator decides how many groups there are, so no number is refused.
    """
    count = 0
    for entry in service.pools.entries.values():
        view = await service.ctx.pool_views.get(entry.name)
        if view.report is not None:
            return
        count += max(entry.settings.groups, len(view.groups))
    if device >= count:
        raise invalid_field(
            "gpu_id",
            f"There is no device {device}. Each group that serves sessions is a device: use 0 to {count - 1}.",
        )


class UserSessions:
    """The sessions of users; each session has one pair of languages."""

    def __init__(self, service: SessionService) -> None:
        self._service = service
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def find(self, caller: Principal, user: str, language: str, pool: str | None) -> SessionRecord:
        """The open session. :raises ApiError: ``not_found``, ``no_such_pool``, or ``invalid_input`` for an unknown
        pair."""
        entry, pair = self._service.pools.choose(pool, lambda languages: languages.parse(language))
        for record in await self._service.store.sessions(entry.name, tenant=caller.tenant):
            new = record.session
            if (new.client, new.source, new.target) == (_client(user), pair.source, pair.target):
                return record
        raise not_found(f"The user {user[:100]!r} has no open session for {label(pair)}.")

    async def translate(self, caller: Principal, sent: Translate, request: Request) -> Response:
        """Store the audio, wait until the model has processed all complete turns, and answer with the new text.

        :raises ApiError: ``deadline_passed`` if the model takes too long, or the reason why no session can be opened.
        """
        lock = self._locks.setdefault((caller.tenant, sent.user_id), asyncio.Lock())
        async with lock:
            record = await self._opened(caller, sent, request)
            return json_response(await self._translate(record, sent), headers=opening.headers(record))

    async def _translate(self, record: SessionRecord, sent: Translate) -> dict[str, Any]:
        audio = AudioInput(self._service, record, AudioFormat(Encoding.FLOAT32))
        before = await self._service.text(record.session.id)
        await audio.append(array("f", sent.audio_data).tobytes())  # values that are too large become inf
        if sent.is_final:
            await audio.end()
        try:
            async with asyncio.timeout(self._service.ctx.services.settings.router.timeout_s):
                await _wait_until_processed(audio)
        except TimeoutError as exc:
            raise ApiError(
                ErrorCode.DEADLINE_PASSED,
                "The model has not processed the audio in time. The audio is kept: once the model has processed it, "
                "its text is in the `full_text` of a later answer.",
            ) from exc
        text = await self._service.text(record.session.id)
        return {
            "success": True,
            "user_id": sent.user_id,
            "language_pair": sent.language_pair,
            "session_id": record.session.id,
            "text": text[len(before) :],
            "full_text": text,
            "is_final": sent.is_final,
        }

    async def _opened(self, caller: Principal, sent: Translate, request: Request) -> SessionRecord:
        try:
            return await self.find(caller, sent.user_id, sent.language_pair, sent.pool)
        except ApiError as exc:
            if exc.code is not ErrorCode.NOT_FOUND:
                raise
        entry, pair = self._service.pools.choose(
            sent.pool, lambda languages: languages.parse(sent.language_pair)
        )
        with opening.traced(self._service.ctx, request) as trace:
            return await self._service.open(
                caller,
                trace=trace,
                pool=entry.name,
                source=pair.source,
                target=pair.target,
                client=_client(sent.user_id),
            )


def _client(user: str) -> str:
    return f"user:{user}"


async def _wait_until_processed(audio: AudioInput) -> None:
    """Wait until the model has no work left for the audio that has arrived, or until the session has ended."""
    clock = asyncio.get_running_loop().time
    seen, quiet_since = "", clock()
    async with audio.watch() as watch:
        while True:
            record = await watch.read()
            if record.state is SessionState.ENDED:
                return
            if record.last_event != seen:
                seen, quiet_since = record.last_event, clock()
            if record.input_ended or record.received - record.consumed >= _TURN_S * SAMPLE_RATE:
                await watch.progress()
                continue
            left_s = quiet_since + _QUIET_S - clock()
            if left_s <= 0:
                return
            await watch.progress(within_s=left_s)
