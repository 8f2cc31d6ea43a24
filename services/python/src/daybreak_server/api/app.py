"""The app: composes routes, streams, ticks and problems over the services it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from daybreak_server.api import openapi, problems
from daybreak_server.api.context import Context
from daybreak_server.api.edge import Edge
from daybreak_server.api.ending import ended
from daybreak_server.api.guard import Guard
from daybreak_server.api.heads import with_heads
from daybreak_server.api.lane import App, Lane
from daybreak_server.api.orphans import Orphans
from daybreak_server.api.prefix import Prefixes
from daybreak_server.api.routes import files, ops, pools, streams, submit, tasks
from daybreak_server.api.services import Services
from daybreak_server.api.streams.places import Places
from daybreak_server.api.ticker import Ticker

__all__ = ["ROOMS", "Services", "begin_shutdown", "build_app"]

ROOMS = (submit, tasks, files, streams, pools, ops)
"""The modules of routes; each has a ``router(context)``."""


def build_app(services: Services) -> FastAPI:
    """The FastAPI app. ``api.server.ApiServer`` serves it so that streams end in time.

    :raises UnknownWorkloadError: when a pool's workload is not installed.
    """
    ctx = Context.of(services)
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
    app.add_middleware(Edge, metrics=ctx.metrics, guard=guard)
    for room in ROOMS:
        app.include_router(with_heads(room.router(ctx)))
    openapi.install(app, ctx.catalog)
    with_heads(app.router)
    app.lanes = {
        ("POST", path): Edge(Lane(path, handler), metrics=ctx.metrics, guard=guard)
        for path, handler in submit.lanes(ctx).items()
    }
    return app


def begin_shutdown(app: FastAPI) -> None:
    """End all streams soon and take no new ones. For servers that wait for their connections to end."""
    context: Context = app.state.context
    context.hub.begin_close()


def _tickers(ctx: Context) -> list[Ticker]:
    places = Places(ctx.hub, ctx.services.store, ctx.numbers, ctx.services.now_ms)
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


def _orphans(ctx: Context) -> Orphans:
    return Orphans(
        retention_s={entry.name: entry.settings.retention_s for entry in ctx.catalog},
        store=ctx.services.store,
        blobs=ctx.services.blobs,
        now_ms=ctx.services.now_ms,
    )


def _lifespan(ctx: Context):  # type: ignore[no-untyped-def]
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
