"""The FastAPI app: composes routes, streams, background tasks and the error renderer over the given services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from daybreak_server.api.background.orphan_files import OrphanFileSweeper
from daybreak_server.api.background.ticker import Ticker, report_ages
from daybreak_server.api.cancellation import cancel_and_wait
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.http import exception_handlers
from daybreak_server.api.http.head_requests import add_head_routes
from daybreak_server.api.http.middleware import RequestMiddleware
from daybreak_server.api.http.origin_check import OriginCheck
from daybreak_server.api.online import batching_routes
from daybreak_server.api.online import routes as online_routes
from daybreak_server.api.path_prefix import PathPrefixes
from daybreak_server.api.services import Services
from daybreak_server.api.streaming.queue_positions import QueuePositions
from daybreak_server.api.task_api import openapi
from daybreak_server.api.task_api.fast_path import App, FastPath
from daybreak_server.api.task_api.problem_json import problem_response
from daybreak_server.api.task_api.routes import files, logs, ops, pools, serve, streams, submit, tasks

__all__ = ["ROUTE_MODULES", "Services", "begin_shutdown", "build_app"]

ROUTE_MODULES = (submit, tasks, files, streams, logs, pools, serve, batching_routes, online_routes, ops)
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
    app.prefixes = PathPrefixes(services.settings.http)
    exception_handlers.install(app, problem_response)
    origin_check = OriginCheck(services.settings.http)
    app.add_middleware(
        RequestMiddleware, metrics=ctx.metrics, origin_check=origin_check, render=problem_response
    )
    for module in ROUTE_MODULES:
        app.include_router(add_head_routes(module.router(ctx)))
    openapi.install(app, ctx.catalog)
    add_head_routes(app.router)
    app.fast_paths = {
        ("POST", path): RequestMiddleware(
            FastPath(path, handler, render=problem_response),
            metrics=ctx.metrics,
            origin_check=origin_check,
            render=problem_response,
        )
        for path, handler in submit.fast_paths(ctx).items()
    }
    for route, handler in online_routes.handlers(ctx).items():
        app.fast_paths[route.method, route.path] = RequestMiddleware(
            FastPath(route.path, handler, render=route.render),
            metrics=ctx.metrics,
            origin_check=origin_check,
            render=route.render,
        )
    app.is_served = lambda path: serve.pool_of_path(path) is not None
    app.serving = RequestMiddleware(
        FastPath(serve.PATH, serve.handler(ctx), render=problem_response),
        metrics=ctx.metrics,
        origin_check=origin_check,
        render=problem_response,
    )
    return app


def begin_shutdown(app: FastAPI) -> None:
    """End all streams soon and accept no new ones. Call this before waiting for connections to close."""
    ctx: Dependencies = app.state.context
    ctx.broadcaster.begin_close()
    ctx.serving_pools.begin_close()


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
