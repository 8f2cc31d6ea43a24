"""Serves the busiest routes without FastAPI's middleware stack and routing.

A fast path is a handler that duplicates a route. The handler serves the same method and path as the route and gives the
same responses, errors included, in a fraction of the time. :class:`App` looks for a fast path first and falls back
to the routes, so that other methods, other paths and WebSockets work as usual.

Many paths can share one fast path (``serving`` or ``models``), because their requests are passed on to groups or
workers, whatever the path.

A fast path shares the route's code (for example, ``routes.submit`` defines the route and the fast path), uses the same
``RequestMiddleware`` and reports the route's path to the metrics.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from daybreak_server.api import path_prefix
from daybreak_server.api.auth.principal import Principal, principal
from daybreak_server.api.errors import ErrorRenderer
from daybreak_server.api.http.exception_handlers import METHODS, error_response
from daybreak_server.api.path_prefix import PathPrefixes
from daybreak_server.settings.tree import HttpSettings

Handler = Callable[[Request, Principal], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class RouteStub:
    """Stand-in for a route, so that metrics can read its ``path``."""

    path: str


class FastPath:
    """An ASGI app for one route, or for several routes that share a handler."""

    def __init__(
        self,
        path: str,
        handler: Handler,
        *,
        render: ErrorRenderer,
        route_of: Callable[[str], str] | None = None,
    ) -> None:
        """``route_of`` returns the route of a request's path. Without it, every request has the route ``path``."""
        self._route = RouteStub(path)
        self._route_of = route_of
        self._handler = handler
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. :raises Exception: a bug, which the middleware logs."""
        scope["route"] = self._route if self._route_of is None else RouteStub(self._route_of(scope["path"]))
        request = Request(scope, receive)
        try:
            response = await self._handler(request, await principal(request))
        except Exception as exc:
            response = error_response(request, exc, self._render)
        await response(scope, receive, send)


class App(FastAPI):
    """A FastAPI app that tries its fast paths, by method and path, before its routes."""

    fast_paths: Mapping[tuple[str, str], ASGIApp] = {}
    serving: ASGIApp | None = None
    """The fast path for requests with one of the ``METHODS``, on paths for which ``is_served`` is true."""
    is_served: Callable[[str], bool] = staticmethod(lambda path: False)
    models: ASGIApp | None = None
    """The fast path for ``POST`` requests on paths for which ``is_model_request`` is true."""
    is_model_request: Callable[[str], bool] = staticmethod(lambda path: False)
    prefixes = PathPrefixes(HttpSettings())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, WebSocket or lifespan."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        prefix, path = self.prefixes.of(scope), self.prefixes.path(scope)
        scope["path"], scope["root_path"] = path, ""
        with path_prefix.using(prefix):
            fast_path = self._fast_path(scope, path) if scope["type"] == "http" else None
            if fast_path is not None:
                scope["app"] = self
                await fast_path(scope, receive, send)
                return
            await super().__call__(scope, receive, send)

    def _fast_path(self, scope: Scope, path: str) -> ASGIApp | None:
        found = self.fast_paths.get((scope["method"], path))
        if found is not None:
            return found
        if scope["method"] in METHODS and self.is_served(path):
            return self.serving
        if scope["method"] == "POST" and self.is_model_request(path):
            return self.models
        return None
