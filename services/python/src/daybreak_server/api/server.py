"""A uvicorn server that ends event streams before it waits for its connections to close."""

from __future__ import annotations

import math
import socket

import uvicorn
from fastapi import FastAPI

from daybreak.wire.sessions import MAX_FRAME_BYTES
from daybreak_server.api.app import begin_shutdown
from daybreak_server.api.http.gathered_writes import protocol_on
from daybreak_server.api.http.handshake_refusals import RefusingProtocol

KEEP_ALIVE_S = 75
"""How long an idle connection stays open: longer than a proxy keeps it open (nginx and AWS: 60 s). If the server closed
it first, a request that the proxy sends at that moment would fail with 502."""


class ApiServer(uvicorn.Server):
    """A uvicorn server for the app. Await ``serve()`` or call ``run()``; set ``should_exit`` to stop it.

    ``drain_s``: how long responses that are not event streams may take to finish at shutdown, in seconds.
    """

    def __init__(
        self, app: FastAPI, *, host: str, port: int, drain_s: float = 30.0, log_level: str = "warning"
    ) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=protocol_on(),
                ws=RefusingProtocol,
                log_level=log_level,
                log_config=None,  # uvicorn's loggers use the handlers of `observability.logging`
                access_log=False,
                server_header=False,
                ws_max_size=MAX_FRAME_BYTES,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=math.ceil(drain_s),
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then shut down as uvicorn does."""
        begin_shutdown(self._app)
        await super().shutdown(sockets)
