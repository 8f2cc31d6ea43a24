"""Builds the FastAPI app, with its routes, streams, background tasks and error renderer, from the given services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from daybreak_server.api.asyncio_tasks import cancel_and_wait
from daybreak_server.api.background.orphan_files import OrphanFileSweeper
from daybreak_server.api.background.ticker import Ticker, report_ages
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.embedding_api import batching_routes
from daybreak_server.api.embedding_api import routes as embedding_routes
from daybreak_server.api.errors import ErrorRenderer
from daybreak_server.api.http import exception_handlers
from daybreak_server.api.http.head_requests import add_head_routes
from daybreak_server.api.http.middleware import RequestMiddleware
from daybreak_server.api.http.origin_check import OriginCheck
from daybreak_server.api.openai import routes as openai_routes
from daybreak_server.api.openai.errors import openai_response
from daybreak_server.api.path_prefix import PathPrefixes
from daybreak_server.api.registry_api import models, overview, workers
from daybreak_server.api.services import Services
from daybreak_server.api.sessions import routes as session_routes
from daybreak_server.api.sessions.recordings import routes as recording_routes
from daybreak_server.api.streaming.queue_positions import QueuePositions
from daybreak_server.api.task_api import openapi
from daybreak_server.api.task_api.fast_path import App, FastPath, Handler
from daybreak_server.api.task_api.problem_json import problem_response
from daybreak_server.api.task_api.routes import files, logs, ops, pools, serve, streams, submit, tasks

__all__ = ["ROUTE_MODULES", "Services", "begin_shutdown", "build_app"]

ROUTE_MODULES = (
    *(submit, tasks, files, session_routes, streams, logs, pools, serve),
    *(batching_routes, embedding_routes, models, workers, overview, ops),
)
"""The modules of routes; each has a ``router(ctx)``."""


def build_app(services: Services) -> FastAPI:
    """The FastAPI app. Serve it with ``api.server.ApiServer``, which ends streams in time at shutdown.

    :raises UnknownWorkloadError: if a pool's workload is not installed.
    """
    ctx = Dependencies.of(services)
    app = App(
        title="Daybreak",
        version=openapi.VERSION,
        lifespan=_lifespan(ctx),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = ctx
    app.state.admin_token = services.settings.admin.token
    app.prefixes = PathPrefixes(services.settings.http)
    exception_handlers.install(app, problem_response)
    origin_check = OriginCheck(services.settings.http)
    app.add_middleware(
        RequestMiddleware, metrics=ctx.metrics, origin_check=origin_check, render=problem_response
    )
    routers = [add_head_routes(module.router(ctx)) for module in ROUTE_MODULES]
    for router in routers:
        app.include_router(router)
    openapi.install(app, ctx.catalog)
    add_head_routes(app.router)
    _add_fast_paths(app, ctx, origin_check, own=_own_segments(routers))
    return app


def _add_fast_paths(app: App, ctx: Dependencies, origin_check: OriginCheck, *, own: frozenset[str]) -> None:
    """Serve the busiest routes, and all requests that go to groups and workers, without FastAPI's routing."""

    def fast(
        path: str,
        handler: Handler,
        render: ErrorRenderer = problem_response,
        route_of: Callable[[str], str] | None = None,
    ) -> RequestMiddleware:
        served = FastPath(path, handler, render=render, route_of=route_of)
        return RequestMiddleware(served, metrics=ctx.metrics, origin_check=origin_check, render=render)

    app.fast_paths = {
        **{("POST", path): fast(path, handler) for path, handler in submit.fast_paths(ctx).items()},
        **{
            (route.method, route.path): fast(route.path, handler, route.render)
            for route, handler in embedding_routes.handlers(ctx).items()
        },
        **{
            ("POST", path): fast(path, handler, openai_response)
            for path, handler in recording_routes.handlers(ctx).items()
        },
    }
    app.is_served = lambda path: serve.pool_of_path(path) is not None
    app.serving = fast(serve.PATH, serve.handler(ctx))
    app.is_model_request = openai_routes.is_model_request(own)
    model_requests = openai_routes.ModelRequests(ctx)
    app.models = fast(openai_routes.OTHER, model_requests.answer, openai_response, openai_routes.route_of)


def _own_segments(routers: Iterable[APIRouter]) -> frozenset[str]:
    """The first segments of the API's own paths below ``/v1/``."""
    paths = (getattr(route, "path", "") for router in routers for route in router.routes)
    return frozenset(path[4:].partition("/")[0] for path in paths if path.startswith("/v1/"))


def begin_shutdown(app: FastAPI) -> None:
    """End all streams soon and accept no new ones. Call this before waiting for connections to close."""
    ctx: Dependencies = app.state.context
    ctx.broadcaster.begin_close()
    ctx.serving_pools.begin_close()
    ctx.model_routers.begin_close()


def _tickers(ctx: Dependencies) -> list[Ticker]:
    queue_positions = QueuePositions(ctx.broadcaster, ctx.services.store, ctx.pool_views, ctx.services.now_ms)
    return [
        Ticker(
            pool=entry.name,
            housekeeper=ctx.services.housekeeper,
            blobs=ctx.services.blobs,
            pool_views=ctx.pool_views,
            queue_positions=queue_positions,
            metrics=ctx.metrics,
        )
        for entry in ctx.catalog
    ]


def _orphan_file_sweeper(ctx: Dependencies) -> OrphanFileSweeper:
    return OrphanFileSweeper(
        retention_s={entry.name: entry.settings.retention_s for entry in ctx.catalog},
        store=ctx.services.store,
        blobs=ctx.services.blobs,
        now_ms=ctx.services.now_ms,
    )


def _lifespan(ctx: Dependencies):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.create_task(ticker.run(), name=f"tick {ticker.pool}") for ticker in _tickers(ctx)]
        running.append(asyncio.create_task(report_ages(ctx.metrics), name="ages of ticks"))
        running.append(asyncio.create_task(_orphan_file_sweeper(ctx).run(), name="orphan files"))
        running.append(asyncio.create_task(ctx.registry_cache.run(), name="registry"))
        running.append(asyncio.create_task(ctx.model_demand.run(), name="demand for models"))
        running.append(asyncio.create_task(ctx.manager.run(), name="manager"))
        running += [
            asyncio.create_task(pool.publisher.run(), name=f"demand {pool.name}")
            for pool in ctx.serving_pools
        ]
        try:
            yield
        finally:
            await ctx.broadcaster.close()
            await cancel_and_wait(*running)
            await ctx.services.upstreams.close()
            await ctx.services.close()

    return lifespan
