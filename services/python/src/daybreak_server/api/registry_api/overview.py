"""Routes that show the workers, and whether models can be served."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Caller
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import MAX_FIELD_CHARS, not_found
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.registry_api import openapi_specs, views
from daybreak_server.api.registry_api.access import Access
from daybreak_server.domain.kinds import PoolKind


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["workers"])
    access = Access(ctx.services.settings)

    @routes.get("/v1/workers", **openapi_specs.WORKERS)
    async def workers(request: Request, caller: Caller) -> Response:
        """All workers that send heartbeats, with their models."""
        trusted = caller.admin or access.allows(request)
        return json_response(views.worker_list(await ctx.registry_cache.get(), trusted=trusted))

    @routes.get("/workers", include_in_schema=False)
    async def workers_without_version(request: Request, caller: Caller) -> Response:
        """All workers that send heartbeats, with their models."""
        return await workers(request, caller)

    @routes.get("/v1/workers/{id}", **openapi_specs.WORKER)
    async def worker(request: Request, id: str, caller: Caller) -> Response:
        """One worker."""
        view = await ctx.registry_cache.get()
        record = next((found for found in view.workers if found.id == id), None)
        if record is None:
            raise not_found(
                f"There is no worker {id[:MAX_FIELD_CHARS]!r}, or its heartbeats have stopped. "
                "GET /v1/workers lists all workers."
            )
        return json_response(
            views.worker(record, view.models, trusted=caller.admin or access.allows(request))
        )

    @routes.get("/health", **openapi_specs.SERVING_HEALTH)
    async def health() -> Response:
        """Workers, the states of models, the manager that places them, and pools of kind `online` or `sessions`."""
        now_ms = ctx.services.now_ms()
        pools = {
            entry.name: serializers.pool_health(entry, await ctx.pool_views.get(entry.name), now_ms)
            for entry in ctx.catalog
            if entry.spec.kind in {PoolKind.ONLINE, PoolKind.SESSIONS}
        }
        return json_response(views.health(await ctx.registry_cache.get(), pools))

    return routes
