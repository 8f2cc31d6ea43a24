"""``python -m verification.benchmarks.http.serve KIND PORT [REDIS_URL FOLDER]`` runs one of the servers under test.

``noop`` is a plain FastAPI route. It validates the body with the gateway's pydantic model, and returns a constant
response of the usual size. ``bare`` is ASGI without a framework: no app can be faster on this server program.
``daybreak`` is the gateway. All three run on the gateway's server class or on a class derived from it, so parser, loop
and options are the same.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Response

from daybreak.wire import SubmitRequest
from daybreak_server.api.server import ApiServer
from daybreak_server.entrypoints.gateway import Gateway
from daybreak_server.settings.tree import Settings

ANSWER = (
    b'{"id":"echo_01KAK9Z8M4T2V6XW3Y7N5P1QRS","object":"task","pool":"echo","tenant":"default",'
    b'"state":"queued","cancel_requested":false,"priority":"normal","attempt":0,"strikes":0,"max_strikes":3,'
    b'"releases":0,"queue":{"position":1,"eta_s":0.0},"wake":{"phase":"detect"},"input":{"message":"hi",'
    b'"steps":5,"step_s":0.0,"artifact_bytes":0,"preview":false,"all_ranks":false,"fail_kind":"error",'
    b'"fail_attempts":0},"metadata":{"user":"u-1"},"created_at":"2026-11-21T12:00:00.000Z","artifacts":[],'
    b'"links":{"self":"/v1/tasks/echo_01KAK9Z8M4T2V6XW3Y7N5P1QRS"}}'
)


def noop_app() -> FastAPI:
    """A FastAPI app whose submit only validates the body."""
    app = FastAPI()

    @app.post("/v1/tasks", status_code=202)
    async def submit(body: SubmitRequest) -> Response:
        return Response(ANSWER, status_code=202, media_type="application/json")

    return app


async def bare_app(scope: Any, receive: Any, send: Any) -> None:
    """ASGI without a framework: reads the body and responds."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


class BaselineServer(ApiServer):
    """The gateway's server class for an app without streams."""

    async def shutdown(self, sockets: Any = None) -> None:
        await uvicorn.Server.shutdown(self, sockets)


def settings(port: int, redis_url: str, folder: str) -> Settings:
    """The settings of a gateway with a pool `echo`."""
    return Settings.model_validate(
        {
            "data_dir": folder,
            "redis": {"url": redis_url},
            "http": {"port": port, "max_streams": 20_000, "max_streams_per_tenant": 20_000},
            "pools": {"echo": {"workload": "echo", "max_queued": 10_000_000}},
        }
    )


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM."""
    kind, port = arguments[0], int(arguments[1])
    server: uvicorn.Server
    if kind == "daybreak":
        server = Gateway(settings(port, *arguments[2:]))
    else:
        app: Any = noop_app() if kind == "noop" else bare_app
        server = BaselineServer(app, host="127.0.0.1", port=port)
    server.run()


if __name__ == "__main__":
    main(sys.argv[1:])
