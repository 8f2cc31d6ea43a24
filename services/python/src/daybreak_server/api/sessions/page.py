"""The page ``/speak``, which translates speech from the browser's microphone. It loads no files from other
servers."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from daybreak_server.api.errors import not_found

_TYPES = {"speak.css": "text/css", "speak.js": "text/javascript", "microphone.js": "text/javascript"}
_HEADERS = {
    # The page may use the microphone. It may load files and fetch URLs only from this server. (The policy does not
    # limit where a WebSocket connects.)
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self)",
    "Cache-Control": "no-cache",
}


def add(routes: APIRouter) -> None:
    """Add the routes. They are not part of the API, so the OpenAPI document does not list them."""

    @routes.get("/speak", include_in_schema=False)
    async def speak() -> Response:
        """A page that translates what you say."""
        return Response(_content("speak.html"), media_type="text/html", headers=_HEADERS)

    @routes.get("/speak/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        """The page's scripts and style."""
        if name not in _TYPES:
            raise not_found("The page has no such file.")
        return Response(_content(name), media_type=_TYPES[name], headers=_HEADERS)


@cache
def _content(name: str) -> str:
    return (files("daybreak_server.api.sessions") / "static" / name).read_text(encoding="utf-8")
