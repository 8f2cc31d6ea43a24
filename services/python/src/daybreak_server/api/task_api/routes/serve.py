"""The route of serving pools. A request to any path below it is passed to a group."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from daybreak_server.api.auth.principal import Caller, Principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.http.exception_handlers import METHODS
from daybreak_server.api.routing.forwarding import target_of
from daybreak_server.api.task_api import openapi_specs
from daybreak_server.api.task_api.fast_path import Handler

PATH = "/v1/pools/{name}/serve/{path:path}"
_ROUTE = "/v1/pools/{name}/serve/{path}"
_BEFORE, _AFTER = "/v1/pools/", "/serve/"


def pool_of_path(path: str) -> str | None:
    """The name of the pool in ``path``; ``None`` if ``path`` belongs to another route."""
    if not path.startswith(_BEFORE):
        return None
    name, found, _ = path[len(_BEFORE) :].partition(_AFTER)
    return name if found and "/" not in name else None


def handler(ctx: Dependencies) -> Handler:
    """The handler that the route and the fast path share."""

    async def serve(request: Request, caller: Principal) -> Response:
        scope = request.scope
        name = pool_of_path(scope["path"]) or ""
        proxy = ctx.serving_pools.get(name).proxy
        return await proxy.answer(request, tenant=caller.tenant, route=_ROUTE, target=target_of(scope, name))

    return serve


def router(ctx: Dependencies) -> APIRouter:
    """The route, for requests that do not take the fast path, and for the documentation."""
    routes = APIRouter(tags=["serving"])
    serve = handler(ctx)

    @routes.post(PATH, **openapi_specs.SERVE)
    async def post(request: Request, name: str, path: str, caller: Caller) -> Response:
        """Send a request of any method to a group of a serving pool, and return its answer as it is."""
        return await serve(request, caller)

    @routes.api_route(
        PATH, methods=[method for method in METHODS if method != "POST"], include_in_schema=False
    )
    async def other(request: Request, name: str, path: str, caller: Caller) -> Response:
        """Handle the other methods in the same way as POST."""
        return await serve(request, caller)

    return routes
