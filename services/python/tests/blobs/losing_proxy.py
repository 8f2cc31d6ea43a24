"""A TCP proxy that forwards a request but can lose the response, so that the client does not know that the request
took effect.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit


class LosingProxy:
    """Forwards to an HTTP server on 127.0.0.1. ``url`` is the address of the proxy; ``lost`` counts lost responses."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (str(parts.hostname), int(parts.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._losing = False
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.lost = 0

    def lose_next_response(self) -> None:
        """When the server next answers with 200, close the connection instead of forwarding the response."""
        self._losing = True

    def __enter__(self) -> LosingProxy:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in (self._listener, *self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(30)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream, timeout=60)
            self._open += [client, server]
            for pump in (self._requests, self._responses):
                thread = threading.Thread(target=pump, args=(client, server))
                self._threads.append(thread)
                thread.start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                server.sendall(data)
        self._end(client, server)

    def _responses(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if self._losing and data.split(b"\r\n", 1)[0].split(b" ")[1:2] == [b"200"]:
                    self._losing = False
                    self.lost += 1
                    break
                client.sendall(data)
        self._end(client, server)

    @staticmethod
    def _end(*connections: socket.socket) -> None:
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
