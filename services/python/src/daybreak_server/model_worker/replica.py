"""A replica of a model: starts an engine process, starts it again after failures, and stops it.

::

    starting ──health──▶ ready ──unwanted──▶ draining ──no request left──▶ ended
       ▲ │                 │
       │ └─────▶ failed ◀──┘   the process has ended, or has not become ready in time
       └── after a pause ─┘

A replica that is not ready also drains when it is unwanted. A draining replica is stopped after the worker's
``drain_s`` at the latest. A ready replica fails only if its process ends: a slow engine is busy, not dead. The pause
grows with each failure in a row. After the engine has been ready for ``STABLE_S``, the next pause is the shortest one.
After ``FAILED_AFTER`` failures in a row, the state stays ``failed`` during further starts, until one of them succeeds.
At each start, the process gets a free port of this machine's loopback, chosen at random.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

from daybreak.wire import AssignedModel, WorkerModel, WorkerModelState
from daybreak_server.model_worker.commands import CommandError, command_of
from daybreak_server.model_worker.engine_process import EngineProcess, exit_reason, new_lines
from daybreak_server.model_worker.last_error import last_error
from daybreak_server.ports.upstreams import UpstreamError, UpstreamRequest, Upstreams
from daybreak_server.settings.tree import foreign_environment
from daybreak_server.settings.workers import EngineSettings

_log = logging.getLogger(__name__)
HOST = "127.0.0.1"
STABLE_S = 60.0
FAILED_AFTER = 3
_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_HEALTH_PAUSE_S = 0.1
_MAX_HEALTH_PAUSE_S = 1.0
_HEALTH_TIMEOUT_S = 5.0
_PORTS = range(20_000, 32_768)
"""By default, Linux gives outgoing connections only ports above these. So no outgoing connection takes the port of an
engine that has started but does not listen yet."""
_SHOWN_LINES = 10

Start = Callable[..., Awaitable[EngineProcess]]


class RunningReplica:
    """A replica. :meth:`run` keeps it running until :meth:`stop`."""

    def __init__(
        self,
        model: AssignedModel,
        settings: EngineSettings,
        *,
        env: Mapping[str, str],
        upstreams: Upstreams,
        start: Start,
        changed: Callable[[], None],
    ) -> None:
        """Prepare a replica.

        :param env: Variables that the engine gets besides those of its settings.
        :param start: Starts a process, as :meth:`Launcher.start` does.
        :param changed: Called when the state has changed.
        """
        self.model = model
        self.state = WorkerModelState.STARTING
        self.reason: str | None = None
        self.requests = 0
        self.capacity = settings.capacity
        self.endpoint = ""
        """The URL of the process from the moment it is ready until it ends or is stopped; otherwise empty."""
        self._settings = settings
        self._env = {"PYTHONUNBUFFERED": "1", **settings.env, **env}  # unbuffered: no last line is lost
        self._upstreams = upstreams
        self._start = start
        self._changed = changed
        self._failures = 0
        self._failure = ""
        """What is known of the last failure, as a sentence."""
        self._lines = new_lines()
        self._lines_of_failure: list[str] = []
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Count a request as in flight."""
        self.requests += 1
        self._idle.clear()

    def end(self) -> None:
        """Stop counting a request, because its answer has ended."""
        self.requests -= 1
        if not self.requests:
            self._idle.set()

    # ── the life of the process ───────────────────────────────────────────────────────────────────────────

    async def run(self, clear: Awaitable[None]) -> None:
        """Keep the engine running. Returns when all processes of the engine have ended.

        The first start waits for ``clear``, because other replicas may still use this replica's GPUs.
        """
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            waiting = asyncio.ensure_future(clear)
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            while not (stopping.done() or self.state is WorkerModelState.DRAINING):
                await self._run_once(stopping)
                await asyncio.wait({stopping}, timeout=self._pause_s() if self._failures else 0)
        finally:
            stopping.cancel()

    def drain(self) -> None:
        """Take no more requests. The process runs until :meth:`stop`. If it ends earlier, it is not restarted."""
        self._set(WorkerModelState.DRAINING, None)

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()

    def stop(self) -> None:
        """Make :meth:`run` stop the process and return."""
        self._stopping.set()

    def report(self) -> WorkerModel:
        """What heartbeats and ``/health`` say about this replica."""
        lines = list(self._lines)[-_SHOWN_LINES:]
        if self.state is WorkerModelState.READY:
            lines = []
        elif self.state is WorkerModelState.FAILED:
            lines = self._lines_of_failure
        return WorkerModel(
            alias=self.model.alias,
            state=self.state,
            gpus=self.model.gpus,
            reason=self.reason,
            last_lines=lines,
            requests=self.requests,
            capacity=self.capacity,
        )

    async def _run_once(self, stopping: asyncio.Task[bool]) -> None:
        again = f"{self._failure} It is being started again." if self._failures else None
        gives_up = self._failures >= FAILED_AFTER
        self._set(WorkerModelState.FAILED if gives_up else WorkerModelState.STARTING, again)
        self._lines.clear()
        loop = asyncio.get_running_loop()
        port = free_port()
        try:
            command = command_of(self._settings.command, self.model, host=HOST, port=port)
            process = await self._start(
                command,
                name=self.model.alias,
                env=self._env,
                stop_s=self._settings.stop_s,
                lines=self._lines,
            )
        except (CommandError, OSError) as exc:
            self._fail(str(exc))
            return
        ended = asyncio.create_task(process.wait())
        healthy = asyncio.create_task(self._health(f"http://{HOST}:{port}"))
        ready_at = None
        try:
            await asyncio.wait(
                {ended, healthy, stopping},
                timeout=self._settings.start_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if healthy.done() and not ended.done() and not stopping.done():
                ready_at = loop.time()
                self.endpoint = f"http://{HOST}:{port}"
                self._set(WorkerModelState.READY, None)
                await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            on_time = ended.done()
        finally:
            healthy.cancel()
            self.endpoint = ""
            if not ended.done():
                process.stop()
            code = await ended
        if not stopping.done():
            if ready_at is not None and loop.time() - ready_at > STABLE_S:
                self._failures = 0
            late = f"was not ready after {self._settings.start_s:g} s, so it was stopped"
            self._fail(
                exit_reason(code) if on_time else late, self._last_error(on_time, ready_at is not None)
            )

    async def _health(self, endpoint: str) -> None:
        """Return once the engine says that it is ready."""
        request = UpstreamRequest(
            method=b"GET", target=self._settings.health.encode(), headers=[], body=b"", length=0
        )
        pause = _HEALTH_PAUSE_S
        while True:
            with contextlib.suppress(UpstreamError, TimeoutError):
                async with asyncio.timeout(_HEALTH_TIMEOUT_S):
                    answer = await self._upstreams.send(endpoint, request)
                    answer.close()
                if 200 <= answer.status < 300:
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _MAX_HEALTH_PAUSE_S)

    def _last_error(self, has_ended: bool, was_ready: bool) -> str:
        """The line of output that says why the process ended or is not ready. Clients see this line.

        If the process was ready, this returns an empty text, because the line may then be about a client's request.
        """
        if was_ready:
            return ""
        return last_error(self._lines, env=foreign_environment(self._env), only_errors=not has_ended)

    def _fail(self, why: str, error: str = "") -> None:
        self._failures += 1
        pause_s = self._pause_s()
        count = f" (failure {self._failures} in a row)" if self._failures > 1 else ""
        self._failure = f"The engine {self.model.engine} {why}{count}{': ' if error else ''}{error}."
        self._lines_of_failure = list(self._lines)[-_SHOWN_LINES:]
        self._set(WorkerModelState.FAILED, f"{self._failure} It starts again {pause_s:g} s later.")
        tail = "".join(f"\n    {line}" for line in self._lines_of_failure)
        _log.warning(
            "model %s: %s The end of its output:%s", self.model.alias, self.reason, tail or " (none)"
        )

    def _pause_s(self) -> float:
        return _PAUSES_S[min(max(self._failures - 1, 0), len(_PAUSES_S) - 1)]

    def _set(self, state: WorkerModelState, reason: str | None) -> None:
        if self.state is WorkerModelState.DRAINING:
            return
        self.state, self.reason = state, reason
        if state is not WorkerModelState.FAILED:
            _log.info("model %s: %s", self.model.alias, state)
        self._changed()


def free_port(ports: Sequence[int] = _PORTS) -> int:
    """A random port of this machine's loopback that is free now. :raises OSError: if 200 tries find none."""
    tried = min(200, len(ports))
    for port in random.SystemRandom().sample(ports, k=tried):
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind((HOST, port))
            return port
    raise OSError(f"no free port found: {tried} ports from {min(ports)} to {max(ports)} were tried")
