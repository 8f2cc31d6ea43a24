"""HEAD wherever there is GET: what GET would answer, without its body.

FastAPI, unlike Starlette, does not add it by itself. The HTTP server leaves the body out. An event stream is not
opened for it: only whether there is one is answered.
"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute


def with_heads(router: APIRouter) -> APIRouter:
    """The router, with HEAD for every route that has GET, but for those that have one of their own."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    own = {route.path for route in routes if "HEAD" in (route.methods or ())}
    for route in routes:
        if "GET" in (route.methods or ()) and route.path not in own:
            router.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                status_code=route.status_code,
                response_model=None,
                include_in_schema=False,
            )
    return router
