"""Routes about pools."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from daybreak.wire import Pool, PoolList
from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Caller, Principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.api.task_api import openapi_specs
from daybreak_server.domain.kinds import PoolKind


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["pools"])

    async def shown(entry: PoolEntry, caller: Principal) -> Pool:
        view = await ctx.pool_views.get(entry.name)
        has_sessions = entry.spec.kind == PoolKind.SESSIONS
        sessions = await ctx.services.sessions.sessions_overview(entry.name) if has_sessions else None
        return serializers.pool(
            entry,
            view,
            ctx.services.now_ms(),
            admin=caller.admin,
            default_routing=ctx.services.settings.router.policy,
            sessions=sessions,
        )

    @routes.get("/v1/pools", **openapi_specs.POOLS)
    async def pools(caller: Caller) -> Response:
        """All pools: queued and running tasks, groups, the wake phase and the schema of the input."""
        return json_response(PoolList(data=[await shown(entry, caller) for entry in ctx.catalog]))

    @routes.get("/v1/pools/{name}", **openapi_specs.POOL)
    async def pool(name: str, caller: Caller) -> Response:
        """One pool."""
        return json_response(await shown(ctx.catalog.get(name), caller))

    return routes
