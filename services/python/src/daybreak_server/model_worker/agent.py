"""Registers the worker at its gateway, and tells the supervisor which models the manager wants.

A heartbeat goes out every ``heartbeat_s``, and at once when the state of a model changes. The gateway answers with the
list of models to run. While the gateway cannot be reached, everything that runs keeps running. If the gateway does not
know the worker, because Redis has lost its data or the worker's lease has ended, the worker registers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from daybreak.wire import WorkerGpu, WorkerHeartbeat, WorkerRegistration
from daybreak_server.model_worker.gateway_client import (
    GatewayClient,
    GatewayError,
    GatewayUnavailableError,
    RefusedError,
    WorkerForgottenError,
)
from daybreak_server.model_worker.supervisor import ReplicaSupervisor

_log = logging.getLogger(__name__)
_PAUSES_S = (0.5, 1.0, 2.0, 5.0)
_DEREGISTER_S = 3.0

Resources = Callable[[], tuple[list[WorkerGpu], int, int]]
"""Reads the GPUs, the memory of the machine in bytes, and how much of this memory is free."""


class Agent:
    """Registers the worker and sends its heartbeats, until :meth:`run` is cancelled."""

    def __init__(
        self,
        *,
        worker: str,
        url: str,
        version: str,
        gateway: GatewayClient,
        supervisor: ReplicaSupervisor,
        resources: Resources,
        changed: asyncio.Event,
    ) -> None:
        """Prepare.

        :param url: The worker's URL, to which the gateway sends requests.
        :param changed: Set when the next heartbeat should go out at once.
        """
        self.incarnation = secrets.token_hex(8)
        self.draining = False
        self.registered = False
        self._worker = worker
        self._url = url
        self._version = version
        self._gateway = gateway
        self._supervisor = supervisor
        self._resources = resources
        self._changed = changed
        self._failures = 0

    async def run(self) -> None:
        """Keep the worker registered. :raises RefusedError: if the gateway refuses it."""
        while True:
            heartbeat_s = await self._register()
            self.registered = True
            with contextlib.suppress(WorkerForgottenError):
                await self._send_heartbeats(heartbeat_s)
            self.registered = False
            _log.info(
                "the gateway %s does not know this worker; the worker registers again", self._gateway.url
            )

    async def deregister(self) -> None:
        """Tell the gateway that the worker ends. A gateway that cannot be reached notices later that
        heartbeats are missing."""
        if not self.registered:
            return
        try:
            async with asyncio.timeout(_DEREGISTER_S):
                await self._gateway.deregister(self._worker, self.incarnation)
        except (GatewayError, TimeoutError) as exc:
            _log.warning("the gateway has not noted the end of this worker: %s", exc)

    async def _register(self) -> float:
        while True:
            gpus, memory, free = await asyncio.to_thread(self._resources)
            registration = WorkerRegistration(
                id=self._worker,
                incarnation=self.incarnation,
                url=self._url,
                version=self._version,
                engines=self._supervisor.engines(),
                gpus=gpus,
                memory_bytes=memory,
                memory_free_bytes=free,
            )
            try:
                accepted = await self._gateway.register(registration)
            except RefusedError:
                raise
            except GatewayError as exc:
                await self._pause(exc)
            else:
                self._failures = 0
                _log.info(
                    "registered as %s at %s, with %s",
                    self._worker,
                    self._gateway.url,
                    _described(registration),
                )
                return accepted.heartbeat_s

    async def _send_heartbeats(self, heartbeat_s: float) -> None:
        while True:
            self._changed.clear()
            gpus, memory, free = await asyncio.to_thread(self._resources)
            heartbeat = WorkerHeartbeat(
                incarnation=self.incarnation,
                gpus=gpus,
                memory_bytes=memory,
                memory_free_bytes=free,
                draining=self.draining,
                models=self._supervisor.report(),
            )
            try:
                answer = await self._gateway.heartbeat(self._worker, heartbeat)
            except GatewayUnavailableError as exc:
                await self._pause(exc)
                continue
            if self._failures:
                _log.info("the gateway %s answers again", self._gateway.url)
            self._failures = 0
            heartbeat_s = answer.heartbeat_s
            self._supervisor.apply(answer.models)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(heartbeat_s):
                    await self._changed.wait()

    async def _pause(self, exc: GatewayError) -> None:
        """Wait before the next try. Of several failures in a row, only the first is logged."""
        if not self._failures:
            _log.warning("%s; running models keep running, and the worker tries again", exc)
        pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1
        await asyncio.sleep(pause_s)


def _described(registration: WorkerRegistration) -> str:
    names = [gpu.name for gpu in registration.gpus]
    gpus = ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names)) or "no GPU"
    return f"{gpus}; engines: {', '.join(registration.engines) or 'none (no engine program on PATH)'}"
