"""Starts and drains replicas until the worker runs what the manager wants, and chooses the replica for each request.

Replicas are compared by what they run: alias, source, engine, args and GPUs. :meth:`ReplicaSupervisor.apply` starts a
replica for each model that is wanted and not running, and drains each replica that is not wanted. A new replica waits
until the replicas that are leaving its GPUs have ended, because the GPUs may not have memory for all of them.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Sequence

from daybreak.wire import AssignedModel, WorkerModel, WorkerModelState
from daybreak_server.domain.serving_headers import Refusal
from daybreak_server.model_worker.engine_process import Launcher
from daybreak_server.model_worker.gpus import environment_of
from daybreak_server.model_worker.replica import RunningReplica
from daybreak_server.ports.upstreams import Upstreams
from daybreak_server.settings.rules.engine_command import words_of
from daybreak_server.settings.workers import EngineSettings, WorkerSettings

_log = logging.getLogger(__name__)


class ReplicaSupervisor:
    """The replicas of one worker."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        upstreams: Upstreams,
        machine_has_gpus: bool,
        changed: Callable[[], None],
    ) -> None:
        """Prepare. ``changed`` is called when the state of a replica has changed."""
        self._settings = settings
        self._upstreams = upstreams
        self._machine_has_gpus = machine_has_gpus
        self._changed = changed
        self._running: dict[RunningReplica, asyncio.Task[None]] = {}
        self._unknown: list[AssignedModel] = []
        self._draining = False
        self._ended = asyncio.Condition()
        self._launcher = Launcher()

    # ── models ────────────────────────────────────────────────────────────────────────────────────────────

    def engines(self) -> list[str]:
        """The engines that this machine can start: those whose program is installed."""
        return [name for name, engine in self._settings.engines.items() if is_installed(engine)]

    def apply(self, wanted: Sequence[AssignedModel]) -> None:
        """Start each replica of ``wanted`` that does not run, and drain each replica that is not in ``wanted``.

        Models whose engine is unknown are not started. Returns at once, without waiting for the replicas. Does nothing
        once the worker drains.
        """
        if self._draining:
            return
        missing = list(wanted)
        for replica in sorted(self._active(), key=_first_to_keep):
            same = next((model for model in missing if _same(model, replica.model)), None)
            if same is None:
                self._leave(replica)
            else:
                missing.remove(same)
        unknown = [model for model in missing if model.engine not in self._settings.engines]
        for model in missing:
            if model.engine in self._settings.engines:
                self._add(model, self._settings.engines[model.engine])
        if unknown != self._unknown:
            self._unknown = unknown
            for model in unknown:
                _log.warning("model %s: this worker has no engine %s", model.alias, model.engine)
            self._changed()

    def report(self) -> list[WorkerModel]:
        """The state of all replicas, and of the wanted models whose engine this worker does not have."""
        unknown = [
            WorkerModel(
                alias=model.alias,
                state=WorkerModelState.FAILED,
                gpus=model.gpus,
                reason=f"This worker has no engine {model.engine}. It has {', '.join(self._settings.engines)}.",
                capacity=0,
            )
            for model in self._unknown
        ]
        return [replica.report() for replica in self._running] + unknown

    def choose(self, alias: str) -> RunningReplica | Refusal:
        """The replica with the smallest share of its capacity in use, or why no replica takes the request."""
        mine = [replica for replica in self._running if replica.model.alias == alias]
        ready = [replica for replica in mine if replica.state is WorkerModelState.READY]
        free = [replica for replica in ready if replica.requests < replica.capacity]
        if free:
            return min(free, key=lambda replica: replica.requests / replica.capacity)
        if ready:
            return Refusal.BUSY
        states = {replica.state for replica in mine}
        for state in (WorkerModelState.STARTING, WorkerModelState.FAILED, WorkerModelState.DRAINING):
            if state in states:
                return Refusal(state)
        return Refusal.FAILED if any(model.alias == alias for model in self._unknown) else Refusal.UNKNOWN

    def ready(self) -> list[str]:
        """The aliases that have a ready replica, sorted. The replica may be full."""
        ready = {replica.model.alias for replica in self._running if replica.state is WorkerModelState.READY}
        return sorted(ready)

    # ── shutting down ─────────────────────────────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """Take no more requests and start nothing. Replicas stop when their requests end, or after ``drain_s``."""
        self._draining = True
        for replica in self._active():
            self._leave(replica)

    def stop(self) -> None:
        """Stop all replicas now, even those with requests."""
        self.drain()
        for replica in self._running:
            replica.stop()

    async def ended(self) -> None:
        """Wait until all replicas have ended."""
        async with self._ended:
            await self._ended.wait_for(lambda: not self._running)

    # ── starting and stopping replicas ────────────────────────────────────────────────────────────────────

    def _on_change(self) -> None:
        self._upstreams.keep([replica.endpoint for replica in self._running if replica.endpoint])
        self._changed()

    def _active(self) -> list[RunningReplica]:
        return [replica for replica in self._running if replica.state is not WorkerModelState.DRAINING]

    def _add(self, model: AssignedModel, settings: EngineSettings) -> None:
        replica = RunningReplica(
            model,
            settings,
            env=environment_of(model.gpus, machine_has_gpus=self._machine_has_gpus),
            upstreams=self._upstreams,
            start=self._launcher.start,
            changed=self._on_change,
        )
        leaving = [other for other in self._running if set(other.model.gpus) & set(model.gpus)]
        self._running[replica] = asyncio.create_task(self._run(replica, leaving))
        self._changed()

    async def _run(self, replica: RunningReplica, leaving: Sequence[RunningReplica]) -> None:
        leaving = [other for other in leaving if other.state is WorkerModelState.DRAINING]
        if leaving:
            replica.reason = f"It waits for the end of a replica of {leaving[0].model.alias} on the same GPU."
        try:
            await replica.run(self._wait_for(leaving))
        except Exception:
            _log.exception("model %s: a bug of the worker ended the replica", replica.model.alias)
        finally:
            del self._running[replica]
            _log.info("model %s: the replica ended", replica.model.alias)
            self._on_change()
            async with self._ended:
                self._ended.notify_all()

    async def _wait_for(self, leaving: Sequence[RunningReplica]) -> None:
        async with self._ended:
            await self._ended.wait_for(lambda: not any(replica in self._running for replica in leaving))

    def _leave(self, replica: RunningReplica) -> None:
        replica.drain()
        task = asyncio.create_task(self._stop_when_idle(replica))
        self._running[replica].add_done_callback(lambda _: task.cancel())

    async def _stop_when_idle(self, replica: RunningReplica) -> None:
        try:
            async with asyncio.timeout(self._settings.drain_s):
                await replica.idle()
        except TimeoutError:
            _log.warning(
                "model %s: %d requests have not ended within %g s, and are cut off",
                replica.model.alias,
                replica.requests,
                self._settings.drain_s,
            )
        replica.stop()


def is_installed(engine: EngineSettings) -> bool:
    """Whether the program of an engine can be found."""
    return shutil.which(words_of(engine.command)[0]) is not None


def _first_to_keep(replica: RunningReplica) -> tuple[bool, int]:
    """A sort key that decides which of several equal replicas stay: ready ones first, then those with more requests."""
    return replica.state is not WorkerModelState.READY, -replica.requests


def _same(model: AssignedModel, other: AssignedModel) -> bool:
    """Whether replicas of both models would run the same process. The expected memory is not compared."""
    return model.model_copy(update={"memory_bytes": None}) == other.model_copy(update={"memory_bytes": None})
