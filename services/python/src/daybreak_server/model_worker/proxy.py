"""Passes one request to an engine, and the answer to the client, part by part and no faster than the client reads.

A request names its model in the header ``Daybreak-Model``, or in the field ``model`` of its JSON body. With the header,
the worker can refuse a request before it reads the body.

The header ``Daybreak-Deadline-S`` says how long a request may take; the worker's ``timeout_s`` is the default and the
maximum. If the client goes away or this time has passed, the connection to the engine is closed, so that the engine
stops working on the request. After the first byte of an answer, an error can only cut the answer off.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daybreak.wire.workers import MODEL_HEADER
from daybreak_server.api.errors import ApiError
from daybreak_server.api.http.request_body import header
from daybreak_server.api.routing.client_watch import ClientWatch, WatchTimer
from daybreak_server.api.routing.forwarding import WORKER_ID_HEADER, Header, forwarded_headers
from daybreak_server.api.routing.request_body import (
    BufferedBytes,
    BuffersFullError,
    ClientGoneError,
    ForwardedBody,
)
from daybreak_server.domain import policy
from daybreak_server.domain.serving_headers import (
    BROKE_HEADER,
    CLIENT_GONE,
    DEADLINE_HEADER,
    REFUSED_HEADER,
    SESSION_HEADER,
    Refusal,
)
from daybreak_server.model_worker.refusals import RequestFailedError
from daybreak_server.model_worker.replica import RunningReplica
from daybreak_server.model_worker.supervisor import ReplicaSupervisor
from daybreak_server.ports.upstreams import (
    MAX_STALE,
    AnswerCutOffError,
    NoAnswerError,
    UnreachableError,
    UpstreamAnswer,
    UpstreamRequest,
    Upstreams,
)
from daybreak_server.settings.workers import WorkerSettings

_log = logging.getLogger(__name__)
_DEADLINE = DEADLINE_HEADER.encode()
MAX_BUFFERED_BYTES = 512 << 20
"""How much memory the bodies of all requests together may use."""
BUFFER_BYTES = 1 << 20
"""A body of up to this size can be sent again to an engine that has just closed an idle connection. The worker looks
for the field ``model`` in such bodies only."""
_MODEL = MODEL_HEADER.lower().encode()
_OWN_HEADERS = frozenset({_MODEL, SESSION_HEADER.encode()})
_MESSAGES = {
    Refusal.BUSY: "All engines of the model {alias} on this worker are full. Retry.",
    Refusal.STARTING: "The model {alias} is starting on this worker. Retry later.",
    Refusal.FAILED: "The engine of the model {alias} has failed on this worker, and starts again. Retry later.",
    Refusal.DRAINING: "This worker takes no more requests for the model {alias}. Use another worker.",
    Refusal.OTHER: "The worker that the request is for has left, and another worker has its address.",
    Refusal.UNKNOWN: "This worker does not run the model {alias}.",
}


class WorkerProxy:
    """Answers the requests that one worker receives for its models."""

    def __init__(
        self, *, worker: str, supervisor: ReplicaSupervisor, upstreams: Upstreams, settings: WorkerSettings
    ) -> None:
        self.draining = False
        """Whether the worker refuses all requests, because it ends."""
        self._worker = worker
        self._supervisor = supervisor
        self._upstreams = upstreams
        self._timeout_s = settings.timeout_s
        self._token = settings.token
        self._in_memory = BufferedBytes(MAX_BUFFERED_BYTES)
        self._watch_timer = WatchTimer()

    async def answer(self, request: Request) -> Response:
        """The response to a request."""
        watch: ClientWatch | None = None
        try:
            deadline = asyncio.get_running_loop().time() + self._seconds_left(request)
            watch = ClientWatch(request.receive, deadline=deadline, timer=self._watch_timer)
            return await self._answer(request, watch)
        except BaseException as exc:
            if watch is not None:
                watch.stop()
            if isinstance(exc, ClientGoneError) or (isinstance(exc, TimeoutError) and watch and watch.gone):
                return Response(status_code=CLIENT_GONE)
            if isinstance(exc, TimeoutError):
                exc = RequestFailedError(
                    504, "deadline_passed", "The deadline passed before the answer began."
                )
            if isinstance(exc, ApiError):
                exc = RequestFailedError(exc.status, exc.code, exc.detail)
            if isinstance(exc, RequestFailedError):
                return exc.response()
            raise

    async def _answer(self, request: Request, watch: ClientWatch) -> Response:
        if (header(request, WORKER_ID_HEADER) or self._worker) != self._worker:
            raise _refused(Refusal.OTHER, "")
        body = ForwardedBody(request, max_bytes=policy.REQUEST_BODY_MAX_BYTES, in_memory=self._in_memory)
        try:
            return await self._answer_with(request, watch, body)
        except BuffersFullError as exc:
            raise RequestFailedError(
                503, "queue_full", "The worker has no memory for the body of this request. Retry later."
            ) from exc
        finally:
            body.drop()

    async def _answer_with(self, request: Request, watch: ClientWatch, body: ForwardedBody) -> Response:
        alias = header(request, _MODEL)
        if alias is None:
            async with watch.block():
                await body.read_beginning(BUFFER_BYTES)
            alias = _model_in(body)
        replica = self._choose(alias)
        replica.begin()
        try:
            if not body.buffered and not body.complete:
                async with watch.block():
                    await body.read_beginning(BUFFER_BYTES)
            if body.complete:
                watch.start()
            async with watch.block():
                answer = await self._send(replica, self._forwarded(request, body))
            if body.complete:
                watch.start()
        except BaseException:
            replica.end()
            raise
        return _EngineAnswer(answer, watch, alias=alias, ended=replica.end)

    def _choose(self, alias: str) -> RunningReplica:
        found = Refusal.DRAINING if self.draining else self._supervisor.choose(alias)
        if isinstance(found, Refusal):
            raise _refused(found, alias)
        return found

    async def _send(self, replica: RunningReplica, request: UpstreamRequest) -> UpstreamAnswer:
        """Send the request. Repeat it if an idle connection turns out to be closed.

        :raises RequestFailedError: if the engine gives no answer.
        """
        stale = 0
        while True:
            try:
                if not replica.endpoint:
                    raise UnreachableError("it has ended")
                return await self._upstreams.send(replica.endpoint, request)
            except UnreachableError as exc:
                if stale:  # an earlier try of this request may have broken the engine
                    raise _broke(replica, exc) from exc
                raise _refused(Refusal.FAILED, replica.model.alias) from exc
            except NoAnswerError as exc:
                stale += 1
                if exc.stale and request.rest is None and stale <= MAX_STALE:
                    continue
                raise _broke(replica, exc) from exc
            except AnswerCutOffError as exc:
                raise _broke(replica, exc) from exc

    def _forwarded(self, request: Request, body: ForwardedBody) -> UpstreamRequest:
        scope = request.scope
        query: bytes = scope["query_string"]
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        headers: list[Header] = [
            (name, value)
            for name, value in forwarded_headers(
                scope["headers"], request_id=header(request, b"x-request-id")
            )
            if name not in _OWN_HEADERS and not (self._token is not None and name == b"authorization")
        ]
        return UpstreamRequest(
            method=scope["method"].encode(),
            target=path.partition(b"?")[0] + (b"?" + query if query else b""),
            headers=headers,
            body=body.buffered,
            rest=body.rest,
            length=body.length,
        )

    def _seconds_left(self, request: Request) -> float:
        stated = header(request, _DEADLINE)
        if stated is None:
            return self._timeout_s
        try:
            seconds = float(stated)
        except ValueError:
            seconds = math.nan
        if math.isnan(seconds):
            raise RequestFailedError(
                400, "bad_header", "Daybreak-Deadline-S must be a number of seconds, such as 30."
            )
        if seconds <= 0:
            raise RequestFailedError(
                504, "deadline_passed", "The deadline passed before the request arrived."
            )
        return min(seconds, self._timeout_s)


class _EngineAnswer(Response):
    """The answer of an engine, passed on as it arrives."""

    def __init__(
        self,
        answer: UpstreamAnswer,
        watch: ClientWatch,
        *,
        alias: str,
        ended: Callable[[], None],
    ) -> None:
        self.status_code = answer.status
        self.background = None
        self.body = b""
        self.raw_headers = [found for found in answer.headers if found[0] != b"date"]
        self._answer = answer
        self._watch = watch
        self._alias = alias
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. If the engine's answer breaks off, return early; the server then closes the connection."""
        try:
            async with self._watch.block():
                await self._send_all(send)
        except AnswerCutOffError as exc:
            _log.warning("model %s: an answer broke off: %s", self._alias, exc)
        except TimeoutError:
            if not self._watch.gone:
                _log.warning("model %s: the deadline of a request cuts its answer off", self._alias)
        finally:
            self._watch.stop()
            self._answer.close()
            self._ended()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while True:
            part = await self._answer.read()
            more = not self._answer.ended
            await send({"type": "http.response.body", "body": part, "more_body": more})
            if not more:
                return


def _model_in(body: ForwardedBody) -> str:
    """The field ``model`` of a JSON body. :raises RequestFailedError: if there is none."""
    if body.complete:
        try:
            found = json.loads(body.buffered)
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("model"), str):
            return str(found["model"])
    raise RequestFailedError(
        400,
        "no_model",
        f"The request does not name its model. Send the header {MODEL_HEADER}, or JSON of at most {BUFFER_BYTES} bytes "
        "with the field model.",
    )


def _refused(refusal: Refusal, alias: str) -> RequestFailedError:
    headers = {REFUSED_HEADER: refusal.value}
    detail = _MESSAGES[refusal].format(alias=alias)
    if refusal is Refusal.UNKNOWN:
        return RequestFailedError(404, "model_not_found", detail, headers=headers)
    return RequestFailedError(503, "not_ready", detail, headers=headers | {"Retry-After": "1"})


def _broke(replica: RunningReplica, cause: Exception) -> RequestFailedError:
    alias = replica.model.alias
    _log.warning("model %s: its engine gave no answer: %s", alias, cause)
    return RequestFailedError(
        502,
        "engine_failed",
        f"The engine of the model {alias} gave no answer: {cause}.",
        headers={BROKE_HEADER: "engine"},
    )
