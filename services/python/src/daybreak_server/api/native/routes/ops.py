"""Routes for whoever runs the server: health, readiness, metrics, and where to begin."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from daybreak.wire import ErrorCode
from daybreak_server.api import path_prefix
from daybreak_server.api.dependencies import Dependencies, answer
from daybreak_server.api.native import openapi_specs
from daybreak_server.api.problems import ApiError
from daybreak_server.observability.gateway_metrics import CONTENT_TYPE
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError


class Health(BaseModel):
    """Alive, or ready."""

    status: str


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their context."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/", include_in_schema=False)
    async def root() -> Response:
        """Redirects to the documentation."""
        return RedirectResponse(f"{path_prefix.current()}/docs")

    @routes.get("/healthz", **openapi_specs.HEALTH)
    async def healthz() -> Response:
        """Whether this process answers; asks nobody else."""
        return answer(Health(status="ok"))

    @routes.get("/readyz", **openapi_specs.READY)
    async def readyz() -> Response:
        """Whether requests should be sent here: the task store answers, and the server is not going."""
        if ctx.hub.closing:
            raise ApiError(ErrorCode.SHUTTING_DOWN, "The server is shutting down.")
        await asyncio.gather(*(_asked(ctx, entry.name) for entry in ctx.catalog))
        return answer(Health(status="ready"))

    @routes.get("/metrics", **openapi_specs.METRICS)
    async def metrics() -> Response:
        """Figures for Prometheus. Those of the pools are the last known when the store is away."""
        for entry in ctx.catalog:
            try:
                ctx.metrics.pools.saw(await ctx.numbers.get(entry.name))
            except StoreError:
                continue
        return Response(ctx.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    return routes


async def _asked(ctx: Dependencies, pool: str) -> None:
    try:
        async with asyncio.timeout(ctx.services.settings.redis.timeout_s):
            await ctx.numbers.refresh(pool)
    except TimeoutError as exc:
        raise StoreUnavailableError("the store does not answer in time") from exc
