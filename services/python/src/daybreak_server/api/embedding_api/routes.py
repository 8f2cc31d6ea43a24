"""The routes that embed and rerank, and ``GET /debug``. If a request names a model that workers serve, it goes to this
model. Any other request goes to a group of the pool that :mod:`.chosen_pool` chooses. If that pool has no ready group,
the gateway itself answers ``GET /debug``.

The workload of the group reads the body and makes the answer. So ``/v1/embeddings`` gives the same answers as
``/v1/pools/{name}/serve/v1/embeddings``, except that its errors have OpenAI's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import Caller, Principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.embedding_api import specs
from daybreak_server.api.embedding_api.chosen_pool import EMBED, RERANK, ChosenPools
from daybreak_server.api.embedding_api.debug_at_zero import debug_at_zero
from daybreak_server.api.errors import ApiError, ErrorRenderer
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.openai.errors import openai_response
from daybreak_server.api.openai.group_errors import WithOpenAIErrors
from daybreak_server.api.openai.routes import ModelRequests
from daybreak_server.api.routing.request_body import ForwardedBody
from daybreak_server.api.task_api.fast_path import Handler
from daybreak_server.api.task_api.problem_json import problem_response


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbedRoute:
    """A route. ``role``: the workload of its default pool."""

    method: str
    path: str
    role: str
    render: ErrorRenderer
    spec: Mapping[str, Any]
    summary: str


DEBUG = EmbedRoute(
    method="GET",
    path="/debug",
    role=EMBED,
    render=problem_response,
    spec=specs.DEBUG,
    summary="The memory, load and batches of a group, or the state of the pool if no group is ready. Starts no group.",
)
ROUTES = (
    EmbedRoute(
        method="POST",
        path="/v1/embeddings",
        role=EMBED,
        render=openai_response,
        spec=specs.EMBEDDINGS,
        summary="Turn texts into vectors, as OpenAI does.",
    ),
    EmbedRoute(
        method="POST",
        path="/embedding/api",
        role=EMBED,
        render=problem_response,
        spec=specs.EMBEDDING_API,
        summary="Turn texts into vectors, and return a bare list.",
    ),
    EmbedRoute(
        method="POST",
        path="/v1/rerank",
        role=RERANK,
        render=problem_response,
        spec=specs.RERANK_V1,
        summary="Rank documents by a query, as Cohere and Jina do.",
    ),
    EmbedRoute(
        method="POST",
        path="/v2/rerank",
        role=RERANK,
        render=problem_response,
        spec=specs.RERANK_V2,
        summary="Like `/v1/rerank`.",
    ),
    EmbedRoute(
        method="POST",
        path="/rerank",
        role=RERANK,
        render=problem_response,
        spec=specs.RERANK_TEI,
        summary="Rank texts by a query, as Text Embeddings Inference does.",
    ),
    EmbedRoute(
        method="POST",
        path="/reranker/api",
        role=RERANK,
        render=problem_response,
        spec=specs.RERANKER_API,
        summary="Score pairs of questions and texts, and return a bare list.",
    ),
    DEBUG,
)


def handlers(ctx: Dependencies) -> dict[EmbedRoute, Handler]:
    """The handler of each route, which the route and its fast path share."""
    pools = ChosenPools(ctx.catalog, ctx.services.settings.http.default_pools)
    return {route: _handler(route, ctx, pools) for route in ROUTES}


def router(ctx: Dependencies) -> APIRouter:
    """The routes, for the documentation. Requests take the fast path."""
    routes = APIRouter(tags=["embeddings and reranking"])
    for route, handle in handlers(ctx).items():
        _add(routes, route, handle)
    return routes


def _add(routes: APIRouter, route: EmbedRoute, handle: Handler) -> None:
    async def answer(request: Request, caller: Caller) -> Response:
        return await handle(request, caller)

    answer.__doc__ = route.summary
    routes.add_api_route(route.path, answer, methods=[route.method], **route.spec)


def _handler(route: EmbedRoute, ctx: Dependencies, pools: ChosenPools) -> Handler:
    model_requests = ModelRequests(ctx)

    async def answer(request: Request, caller: Principal) -> Response:
        async def answer_named(name: str | None, body: ForwardedBody) -> Response:
            model = await model_requests.model(name)
            if model is not None:
                return await model_requests.answer_by(model, request, caller, body)
            pool = ctx.serving_pools.get(pools.of(route.role, name))
            found = await model_requests.answer_by_proxy(pool.proxy, request, caller, body)
            return WithOpenAIErrors(found) if route.render is openai_response else found

        return await model_requests.read_name(request, answer_named)

    async def answer_debug(request: Request, caller: Principal) -> Response:
        name = request.query_params.get("model")
        model = await model_requests.model(name)
        if model is not None:
            return await model_requests.answer_by(model, request, caller, model_requests.new_body(request))
        entry = ctx.catalog.get(pools.of(route.role, name))
        proxy = ctx.serving_pools.get(entry.name).proxy
        view = await ctx.pool_views.get(entry.name)
        if proxy.router.groups:
            try:
                return await model_requests.answer_by_proxy(
                    proxy, request, caller, model_requests.new_body(request), wakes=False
                )
            except ApiError as exc:
                if exc.code is not ErrorCode.NOT_READY or proxy.router.groups:
                    raise
                # The last group went away while it had the request, so the answer describes the pool.
        return json_response(debug_at_zero(entry, view, ctx.services.now_ms()))

    return answer_debug if route is DEBUG else answer
