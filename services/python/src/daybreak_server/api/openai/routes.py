"""Requests of OpenAI's clients: each goes to the model or pool that it names.

A name is looked up among the aliases of models, and then among the names of pools. While a model with a ``fallback``
has no ready replica, its fallback answers, and the header ``Daybreak-Model`` of the answer names the fallback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak.wire.workers import MODEL_HEADER
from daybreak_server.api.auth.principal import Principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import ApiError, from_http
from daybreak_server.api.http.request_body import header, too_large
from daybreak_server.api.openai.group_errors import WithOpenAIErrors
from daybreak_server.api.openai.model_name import model_in, with_model
from daybreak_server.api.routing.failures import too_many_waiting
from daybreak_server.api.routing.forwarding import path_and_query
from daybreak_server.api.routing.model_routers import ServedModel, model_not_found
from daybreak_server.api.routing.proxy import PoolProxy
from daybreak_server.api.routing.request_body import BuffersFullError, ClientGoneError, ForwardedBody
from daybreak_server.domain.serving_headers import CLIENT_GONE
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.router import RouterSettings

ROUTES = (
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"),
    *("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech", "/v1/moderations"),
    *("/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/v1/score"),
    *("/v1/rerank", "/v2/rerank", "/rerank", "/embedding/api", "/reranker/api", "/debug"),
)
"""The routes with a name of their own in metrics and traces. All other routes appear there as :data:`OTHER`."""
OTHER = "/v1/{path}"
_MODEL = MODEL_HEADER.lower().encode()


class ModelRequests:
    """Answers the requests that name a model."""

    def __init__(self, ctx: Dependencies) -> None:
        self._ctx = ctx
        self._settings: RouterSettings = ctx.services.settings.router

    async def answer(self, request: Request, caller: Principal) -> Response:
        """The response to a request. :raises ApiError: if no model or pool answers the request."""

        async def answer_named(name: str | None, body: ForwardedBody) -> Response:
            model = await self.model(name)
            if model is not None:
                return await self.answer_by(model, request, caller, body)
            return await self.answer_by_pool(name, request, caller, body)

        return await self.read_name(request, answer_named)

    async def answer_by_pool(
        self, name: str | None, request: Request, caller: Principal, body: ForwardedBody
    ) -> Response:
        """The answer of a group of the pool ``name``. :raises ApiError: without a name, or if there is no such pool."""
        if name is None:
            raise _no_model(request)
        pool = self._ctx.serving_pools.find(name)
        if pool is None:
            raise model_not_found(name)
        return WithOpenAIErrors(await self.answer_by_proxy(pool.proxy, request, caller, body))

    async def read_name(
        self, request: Request, answer: Callable[[str | None, ForwardedBody], Awaitable[Response]]
    ) -> Response:
        """Read the name of the model and the beginning of the body, and pass them to ``answer``.

        :raises ApiError: if the body cannot be read.
        """
        body = self.new_body(request)
        try:
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    name = await self._name(request, body)
            except TimeoutError as exc:
                raise ApiError(
                    ErrorCode.DEADLINE_PASSED,
                    "The body did not arrive in time. Send it faster, or send less.",
                ) from exc
            return await answer(name, body)
        except BuffersFullError as exc:
            raise too_many_waiting("buffered_bytes") from exc
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
        finally:
            body.drop()

    def new_body(self, request: Request) -> ForwardedBody:
        """The body of a request, before any of the body has been read."""
        return ForwardedBody(
            request, max_bytes=self._settings.max_body_bytes, in_memory=self._ctx.in_memory_bodies
        )

    async def model(self, name: str | None) -> ServedModel | None:
        """The registered model of that name. :raises ApiError: ``model_not_found`` if it has been deleted."""
        if name is None:
            return None
        if self._ctx.registry_cache.latest is None:
            # This gateway has just started. If the store does not respond, pools still answer.
            with suppress(StoreError):
                await self._ctx.registry_cache.refresh()
        model = self._ctx.model_routers.find(name)
        if model is not None and model.record.deleted:
            raise model_not_found(name)
        return model

    async def answer_by(
        self, model: ServedModel, request: Request, caller: Principal, body: ForwardedBody
    ) -> Response:
        """The answer of a worker that runs the model or its fallback."""
        answering = self._answering(model)
        if answering is model:
            return await self.answer_by_proxy(model.proxy, request, caller, body)
        await self._rename(request, body, answering.record.alias)
        with self._ctx.model_demand.answered_elsewhere(model.record.alias):
            return await self.answer_by_proxy(answering.proxy, request, caller, body)

    async def answer_by_proxy(
        self,
        proxy: PoolProxy,
        request: Request,
        caller: Principal,
        body: ForwardedBody,
        *,
        wakes: bool = True,
    ) -> Response:
        """The answer of a group or worker to the request with this body. ``wakes``: see :meth:`.PoolProxy.answer`."""
        return await proxy.answer(
            request,
            tenant=caller.tenant,
            route=route_of(request.scope["path"]),
            target=path_and_query(request.scope),
            body=body,
            wakes=wakes,
        )

    def _answering(self, model: ServedModel) -> ServedModel:
        """The model itself, or its fallback while the model has no ready replica.

        If the fallback has no ready replica either, the request waits for the fallback, which should start sooner.
        """
        if model.ready or model.record.fallback is None:
            return model
        fallback = self._ctx.model_routers.find(model.record.fallback)
        return model if fallback is None or fallback.record.deleted else fallback

    async def _name(self, request: Request, body: ForwardedBody) -> str | None:
        """The name of the model, if the request has one. Reads the whole body only if its beginning lacks the name."""
        await body.read_beginning(self._settings.buffer_bytes)
        named = header(request, _MODEL)
        if named:
            return named
        content_type = header(request, b"content-type") or ""
        found = model_in(body.buffered, content_type, complete=body.complete)
        if found is None and not body.complete:
            await body.read_beginning(self._settings.max_body_bytes)
            found = model_in(body.buffered, content_type, complete=True)
        return found or None

    async def _rename(self, request: Request, body: ForwardedBody, alias: str) -> None:
        """Replace the model's name in the body by the alias of the model that answers: engines refuse other names."""
        await body.read_beginning(self._settings.max_body_bytes)
        if not body.complete:
            raise too_large(self._settings.max_body_bytes)
        body.replace(with_model(body.buffered, header(request, b"content-type") or "", alias))


def route_of(path: str) -> str:
    """The route of a path, for metrics and traces, which need a small number of different values."""
    return path if path in ROUTES else OTHER


def is_model_request(own: frozenset[str]) -> Callable[[str], bool]:
    """A function that says whether a path may belong to OpenAI's API.

    :param own: The first segment after ``/v1/`` of each path of Daybreak's own API.
    """
    known = frozenset(ROUTES)

    def check(path: str) -> bool:
        if path in known:
            return True
        return path.startswith("/v1/") and path[4:].partition("/")[0] not in own

    return check


def _no_model(request: Request) -> ApiError:
    path = request.scope["path"]
    if path not in ROUTES:
        return from_http(HTTPException(404), path)
    return ApiError(
        ErrorCode.INVALID_INPUT,
        "The request names no model. Send JSON (or a form) with the field model, or the header Daybreak-Model. "
        "GET /v1/models lists all models.",
        status=400,
    )
