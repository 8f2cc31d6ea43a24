"""Runs the app of a leader on a free port of its host, on a thread with a separate event loop.

In the room `engines`, only this module knows uvicorn. The server keeps idle connections open for longer than any
gateway does. Otherwise the server might close a connection just when a gateway sends the next request on it, and the
gateway would treat the group as dead.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Sequence
from typing import Any

import uvicorn

from daybreak_server.domain.log_context import inherited

_KEEP_ALIVE_S = 120
_STARTED_S = 30.0
_POLL_S = 0.01
_GRACE_S = 5
"""How long answers may still be sent after :meth:`HttpServer.stop`. Then the server cuts them off."""


class ServerNotStartedError(RuntimeError):
    """The leader's HTTP server did not start."""


class HttpServer:
    """The HTTP server of a leader.

    :param host: An address of this node that gateways can reach.
    :param ports: The server takes the first port that is free; 0 means any free port.
    :raises ServerNotStartedError: if no port is free.
    """

    def __init__(self, app: Any, *, host: str, ports: Sequence[int] = (0,)) -> None:
        self._socket = _listener(host, ports)
        port = self._socket.getsockname()[1]
        self.endpoint = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        """The URL of the server, without a path."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                log_level="warning",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._thread = threading.Thread(target=inherited(self._run), name="http", daemon=True)

    def start(self) -> None:
        """Start the server, and wait until it answers requests. :raises ServerNotStartedError: if that fails."""
        self._thread.start()
        for _ in range(int(_STARTED_S / _POLL_S)):
            if self._server.started or not self._thread.is_alive():
                break
            self._thread.join(_POLL_S)
        if not self._server.started:
            raise ServerNotStartedError(f"the HTTP server of this group at {self.endpoint} did not start")

    @property
    def running(self) -> bool:
        """Whether the thread of the server runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Close the port of a server that was not started."""
        self._socket.close()

    def stop(self, *, wait: bool = True) -> None:
        """Close the port, and all connections once their answers have ended or a few seconds have passed."""
        self._server.should_exit = True
        if wait and self._thread.ident is not None and threading.current_thread() is not self._thread:
            self._thread.join(_GRACE_S + 5)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _listener(host: str, ports: Sequence[int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        try:
            return socket.create_server((host, port), family=family, backlog=2048)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
    raise ServerNotStartedError(
        f"no port of {host} from {ports[0]} to {ports[-1]} is free; widen `ports` of the pool, or free a port"
    )
