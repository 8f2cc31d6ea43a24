"""A worker as a whole, from its start to its end.

It listens before it registers, so that a second worker at the same address fails at once. After SIGTERM or SIGINT, it
refuses new requests, and its next heartbeat says so. It gives the requests in flight up to ``drain_s`` to end, stops
its engines and deregisters. After a second signal, it does not wait for requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from daybreak.wire import WorkerGpu
from daybreak_server.adapters.upstreams.client import HttpUpstreams
from daybreak_server.model_worker import memory
from daybreak_server.model_worker.agent import Agent
from daybreak_server.model_worker.app import WorkerApp
from daybreak_server.model_worker.gateway_client import GatewayClient, RefusedError
from daybreak_server.model_worker.gpus import Gpus
from daybreak_server.model_worker.proxy import WorkerProxy
from daybreak_server.model_worker.supervisor import ReplicaSupervisor
from daybreak_server.settings.tree import visible_gpus
from daybreak_server.settings.workers import WorkerSettings

_log = logging.getLogger(__name__)
_ENGINE_KEEP_ALIVE_S = 3.0
"""Shorter than engines keep idle connections: uvicorn (vLLM, SGLang) and llama.cpp's server close them after 5 s."""
_KEEP_ALIVE_S = 120
"""Longer than any gateway keeps an idle connection."""
_GRACE_S = 2
"""How long answers may still be sent once the engines have ended."""
_KILLED_S = 10.0
"""How long the end of a killed process may take. A process that waits for a broken device does not end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAddress:
    """The id of a worker, where it listens, where its gateway is, and where gateways reach it."""

    id: str
    host: str
    port: int
    manager_url: str
    public_url: str | None = None
    """The URL at which gateways reach the worker. If unset, the worker derives it from the other addresses."""


class ListenError(Exception):
    """The worker cannot listen at its address."""


class ModelWorker:
    """One worker. Await :meth:`run` on the main thread."""

    def __init__(self, address: WorkerAddress, settings: WorkerSettings) -> None:
        """Listen. :raises ListenError: if the address is in use."""
        self._socket = _listener(address.host, address.port)
        self.url = address.public_url or _url(address, self._socket.getsockname()[1])
        self._id = address.id
        self._stop_s = max(engine.stop_s for engine in settings.engines.values()) + _KILLED_S
        self._changed = asyncio.Event()
        self._to_engines = HttpUpstreams(keep_alive_s=_ENGINE_KEEP_ALIVE_S)
        self._to_gateway = HttpUpstreams()
        gpus = Gpus(visible=visible_gpus())
        self._supervisor = ReplicaSupervisor(
            settings,
            upstreams=self._to_engines,
            machine_has_gpus=bool(gpus.read()),
            changed=self._changed.set,
        )
        self._agent = Agent(
            worker=address.id,
            url=self.url,
            version=_version(),
            gateway=GatewayClient(address.manager_url, token=settings.token, upstreams=self._to_gateway),
            supervisor=self._supervisor,
            resources=lambda: _resources(gpus),
            changed=self._changed,
        )
        self._proxy = WorkerProxy(
            worker=address.id, supervisor=self._supervisor, upstreams=self._to_engines, settings=settings
        )
        app = WorkerApp(
            proxy=self._proxy, supervisor=self._supervisor, token=settings.token, health=self._health
        )
        self._server = _Server(app)

    async def run(self) -> int:
        """Run until a signal arrives, or the gateway refuses this worker.

        :returns: the exit code; 1 if the gateway refused this worker, or after a bug.
        """
        signals = _Signals()
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        talking = asyncio.create_task(self._agent.run())
        _log.info("worker %s listens on %s", self._id, self.url)
        try:
            await asyncio.wait({serving, talking, signals.first}, return_when=asyncio.FIRST_COMPLETED)
            code = _exit_code(talking)
            await self._end(talking, signals)
        finally:
            signals.close()
            self._server.should_exit = True
            await serving
            await self._to_engines.close()
            await self._to_gateway.close()
        return code

    async def _end(self, talking: asyncio.Task[None], signals: _Signals) -> None:
        """Wait for the requests in flight, but not after a second signal; then stop the engines, and deregister."""
        self._proxy.draining = self._agent.draining = True
        self._changed.set()
        self._supervisor.drain()
        ended = asyncio.create_task(self._supervisor.ended())
        await asyncio.wait({ended, signals.second}, return_when=asyncio.FIRST_COMPLETED)
        self._supervisor.stop()
        await asyncio.wait({ended}, timeout=self._stop_s)
        if not ended.done():
            _log.error("an engine cannot be killed; its guardian keeps trying after the end of this worker")
        talking.cancel()
        await asyncio.wait({talking})
        await self._agent.deregister()

    def _health(self) -> dict[str, Any]:
        return {"id": self._id, "registered": self._agent.registered, "draining": self._agent.draining}


class _Server(uvicorn.Server):
    """A uvicorn server that installs no signal handlers, because the worker handles SIGTERM and SIGINT itself."""

    def __init__(self, app: Any) -> None:
        super().__init__(
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

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers, unlike the method that this overrides."""
        yield


class _Signals:
    """Handles SIGTERM and SIGINT: the first of them completes the future ``first``, and the next one ``second``."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = self._loop.create_future()
        self.second: asyncio.Future[None] = self._loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal)

    def close(self) -> None:
        """Restore the default handling of the signals, so that a signal can end a worker whose shutdown hangs."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if not self.first.done():
            _log.info(
                "the worker ends once its requests have ended; after a second signal it does not wait for them"
            )
            self.first.set_result(None)
        elif not self.second.done():
            self.second.set_result(None)


def _exit_code(talking: asyncio.Task[None]) -> int:
    if not talking.done():
        return 0
    reason = talking.exception()
    if isinstance(reason, RefusedError):
        _log.error("the gateway refuses this worker, so it ends: %s", reason)
    elif reason is not None:
        _log.error("the worker has a bug, so it ends", exc_info=reason)
    return 1


def _resources(gpus: Gpus) -> tuple[list[WorkerGpu], int, int]:
    return gpus.read(), *memory.total_and_free()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        raise ListenError(
            f"cannot listen on {host}, port {port}: {exc.strerror}; choose another --port"
        ) from exc


def _url(address: WorkerAddress, port: int) -> str:
    """The URL of the socket. If it listens on all networks, the URL has the address from which this machine connects to
    the gateway."""
    host = address.host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - not bound here
        host = _own_address(address.manager_url) or "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _own_address(url: str) -> str | None:
    """The address from which this machine would connect to ``url``. Sends nothing."""
    parts = urlsplit(url)
    with contextlib.suppress(OSError):
        family, _, _, _, where = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    return None


def _version() -> str:
    try:
        return version("daybreak-server")
    except PackageNotFoundError:
        return "unknown"
