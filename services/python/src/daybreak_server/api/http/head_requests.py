"""Adds HEAD to every route that has GET: the same status and headers without the body.

Starlette does this by itself and FastAPI does not. The HTTP server drops the body. For an event stream, HEAD says
whether the stream exists, and does not open it.
"""

from __future__ import annotations

import copy

from fastapi import APIRouter
from fastapi.routing import APIRoute


def add_head_routes(router: APIRouter) -> APIRouter:
    """Add HEAD to the router's GET routes, except to those that define their own HEAD. :returns: the same router."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    with_head = {route.path for route in routes if "HEAD" in (route.methods or ())}
    for route in routes:
        if "GET" in (route.methods or ()) and route.path not in with_head:
            head = copy.copy(route)  # a new route would analyse its endpoint again
            head.methods, head.include_in_schema = {"HEAD"}, False
            router.routes.append(head)
    return router
