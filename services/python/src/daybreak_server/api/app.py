"""The app: composes routes, streams, ticks and problems over the services it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from daybreak_server.api import problems
from daybreak_server.api.background.orphan_files import Orphans
from daybreak_server.api.background.ticker import Ticker
from daybreak_server.api.cancellation import ended
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.http.head_requests import with_heads
from daybreak_server.api.http.middleware import RequestMiddleware
from daybreak_server.api.http.origin_check import Guard
from daybreak_server.api.native import openapi
from daybreak_server.api.native.fast_path import App, FastPath
from daybreak_server.api.native.routes import files, ops, pools, streams, submit, tasks
from daybreak_server.api.path_prefix import Prefixes
from daybreak_server.api.services import Services
from daybreak_server.api.streaming.queue_positions import QueuePositions

__all__ = ["ROOMS", "Services", "begin_shutdown", "build_app"]

ROOMS = (submit, tasks, files, streams, pools, ops)
"""The modules of routes; each has a ``router(context)``."""


def build_app(services: Services) -> FastAPI:
    """The FastAPI app. ``api.server.ApiServer`` serves it so that streams end in time.

    :raises UnknownWorkloadError: when a pool's workload is not installed.
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
    app.prefixes = Prefixes(services.settings.http)
    problems.install(app)
    guard = Guard(services.settings.http)
    app.add_middleware(RequestMiddleware, metrics=ctx.metrics, guard=guard)
    for room in ROOMS:
        app.include_router(with_heads(room.router(ctx)))
    openapi.install(app, ctx.catalog)
    with_heads(app.router)
    app.lanes = {
        ("POST", path): RequestMiddleware(FastPath(path, handler), metrics=ctx.metrics, guard=guard)
        for path, handler in submit.lanes(ctx).items()
    }
    return app


def begin_shutdown(app: FastAPI) -> None:
    """End all streams soon and take no new ones. For servers that wait for their connections to end."""
    context: Dependencies = app.state.context
    context.hub.begin_close()


def _tickers(ctx: Dependencies) -> list[Ticker]:
    places = QueuePositions(ctx.hub, ctx.services.store, ctx.numbers, ctx.services.now_ms)
    return [
        Ticker(
            pool=entry.name,
            housekeeper=ctx.services.housekeeper,
            blobs=ctx.services.blobs,
            numbers=ctx.numbers,
            places=places,
            metrics=ctx.metrics,
        )
        for entry in ctx.catalog
    ]


def _orphans(ctx: Dependencies) -> Orphans:
    return Orphans(
        retention_s={entry.name: entry.settings.retention_s for entry in ctx.catalog},
        store=ctx.services.store,
        blobs=ctx.services.blobs,
        now_ms=ctx.services.now_ms,
    )


def _lifespan(ctx: Dependencies):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.create_task(ticker.run(), name=f"tick {ticker.pool}") for ticker in _tickers(ctx)]
        running.append(asyncio.create_task(_orphans(ctx).run(), name="orphans"))
        try:
            yield
        finally:
            await ctx.hub.close()
            await ended(*running)
            await ctx.services.close()

    return lifespan
