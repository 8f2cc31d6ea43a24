"""The gateway: the HTTP app in a process of its own. It needs no Ray, so it answers even while no Ray cluster runs."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from daybreak_server import wiring
from daybreak_server.api.background.gc_tuning import tune_gc
from daybreak_server.api.server import ApiServer
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.settings.child_settings import read_settings
from daybreak_server.settings.tree import Settings


class Gateway(ApiServer):
    """The HTTP server of the app. It calls ``on_started`` when it listens; any thread may call ``stop``."""

    def __init__(self, settings: Settings, *, on_started: Callable[[], None] | None = None) -> None:
        http = settings.http
        super().__init__(wiring.build_app(settings), host=http.host, port=http.port, drain_s=http.drain_s)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then call ``on_started``."""
        await super().startup(sockets)
        tune_gc()
        if self.started and self._on_started is not None:
            self._on_started()

    def stop(self) -> None:
        """Make ``run`` return soon."""
        self.should_exit = True


def serve(gateway: Gateway) -> int:
    """Run until a signal arrives or ``stop`` is called. :returns: 0, or 1 if the gateway could not listen."""
    # uvicorn raises the signal again after its shutdown. Without these handlers, that signal would end the process
    # before it has cleaned up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    gateway.run()
    return 0 if gateway.started else 1


def _ignore(_number: int, _frame: FrameType | None) -> None:
    return None


def run_gateway(settings: Settings) -> int:
    """Answer HTTP until a signal arrives.

    While Redis or the blob store cannot be reached, requests that need it get 503.
    """
    log_to_stderr(settings.log)
    return serve(Gateway(settings))


def main() -> int:
    """``python -m daybreak_server.entrypoints.gateway SETTINGS``, as ``up`` runs it."""
    return run_gateway(read_settings(Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
