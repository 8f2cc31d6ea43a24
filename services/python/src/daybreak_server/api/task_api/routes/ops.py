"""Routes for operating the server: health, readiness, metrics, and the redirect to the documentation."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from daybreak.wire import ErrorCode
from daybreak_server.api import path_prefix
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import ApiError
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.task_api import openapi_specs
from daybreak_server.observability.prometheus_meter import CONTENT_TYPE
from daybreak_server.ports.store_errors import StoreUnavailableError


class Health(BaseModel):
    """The body of the liveness and readiness routes."""

    status: str


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/", include_in_schema=False)
    async def root() -> Response:
        """A redirect to the documentation."""
        return RedirectResponse(f"{path_prefix.current()}/docs")

    @routes.get("/healthz", **openapi_specs.HEALTH)
    async def healthz() -> Response:
        """Liveness: this process responds. It checks nothing else."""
        return json_response(Health(status="ok"))

    @routes.get("/readyz", **openapi_specs.READY)
    async def readyz() -> Response:
        """Readiness: the task store responds and the server is not shutting down."""
        if ctx.broadcaster.closing:
            raise ApiError(
                ErrorCode.SHUTTING_DOWN, "The server is shutting down. Send requests to another one."
            )
        await asyncio.gather(*(_check_store(ctx, entry.name) for entry in ctx.catalog))
        return json_response(Health(status="ready"))

    @routes.get("/metrics", **openapi_specs.METRICS)
    async def metrics() -> Response:
        """Prometheus metrics. If the task store is down, the metrics of pools have their last known values."""
        await ctx.metrics_reader.refresh()
        ctx.serving_pools.show_state()
        ctx.model_routers.show_state()
        return Response(ctx.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    return routes


async def _check_store(ctx: Dependencies, pool: str) -> None:
    try:
        async with asyncio.timeout(ctx.services.settings.redis.timeout_s):
            await ctx.pool_views.refresh(pool)
    except TimeoutError as exc:
        raise StoreUnavailableError("the task store does not respond in time") from exc
