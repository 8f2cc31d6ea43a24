"""The short way: requests that come in numbers pass the app's layers and routing by.

A lane is a function of a request that a route has as well; the answers are the same, problems and all, but a
request on it costs a fraction. What a lane does not take (another method) goes the usual way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from daybreak_server.api import path_prefix, problems
from daybreak_server.api.auth.principal import Principal, principal
from daybreak_server.api.path_prefix import Prefixes
from daybreak_server.settings.tree import HttpSettings

Handler = Callable[[Request, Principal], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class RouteStub:
    """Stands for a route where one is asked for its path."""

    path: str


class FastPath:
    """An ASGI app of one path and method."""

    def __init__(self, path: str, handler: Handler) -> None:
        self._place = RouteStub(path)
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. :raises Exception: what is no problem but a bug."""
        scope["route"] = self._place
        request = Request(scope, receive)
        try:
            response = await self._handler(request, await principal(request))
        except Exception as exc:
            response = problems.answer(request, exc)
        await response(scope, receive, send)


class App(FastAPI):
    """A FastAPI app with lanes beside it, by method and path."""

    lanes: Mapping[tuple[str, str], ASGIApp] = {}
    prefixes = Prefixes(HttpSettings())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, connection or lifespan."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        below, path = self.prefixes.of(scope), self.prefixes.path(scope)
        scope["path"], scope["root_path"] = path, ""
        with path_prefix.using(below):
            lane = self.lanes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
            if lane is not None:
                scope["app"] = self
                await lane(scope, receive, send)
                return
            await super().__call__(scope, receive, send)
