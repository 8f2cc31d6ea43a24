"""The leader of a group that answers requests. It opens the HTTP server, and supervises the requests until the group
leaves.

The requests run on threads of their own (:mod:`~daybreak_server.engines.serving.worker_threads`). A group of
one rank has at most as many threads as its capacity. A group of several ranks has one thread, because all of its ranks
must do the same thing at the same time.

The leader's own loop, on the work thread of the process, never runs a request. Four times a second it

* beats the heartbeat, which the lease renewer and the watchdog read;
* breaks the group if a request has shown no progress for ``stall_s``, because its thread may never return;
* refuses new requests while the store marks the group to drain, and stops requests that still run after ``drain_s``;
* tells the workload what an administrator has changed in the pool's setting ``batching``;
* breaks the group if its task has stalled, or if its HTTP server has ended;
* sends the followers an order that does nothing, if there has been no such order for ``ping_s`` and no request is in
  the group;
* measures the GPU's free memory, which the lease renewer reports with the load once a second.

If the workload takes tasks, another thread claims one at a time and runs it beside the requests
(:mod:`~daybreak_server.engines.serving.bulk.task_loop`).

A group at capacity refuses further requests, but is healthy. The error of a request ends only this request, unless the
error leaves the process unusable or is not the same on all ranks. Such an error breaks the group, and so do a
lost rank, a stall, and a fault of the engine itself.

To leave, the group first reports that it drains. It refuses new requests, waits for those in flight (at most
``drain_s``), stops the rest, closes the port and deregisters. It releases its task after the task's current step, or
when the time is over.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import Failed
from daybreak_server.domain.text import short_name
from daybreak_server.engines.common.error_causes import describe
from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.common.lease_renewer import LeaseRenewer
from daybreak_server.engines.ranks.consensus import RankReport, report_of
from daybreak_server.engines.ranks.control_group import ControlGroup
from daybreak_server.engines.ranks.rank_deps import LeaderDeps
from daybreak_server.engines.serving.admission import Admission
from daybreak_server.engines.serving.bulk.task_loop import TaskThread
from daybreak_server.engines.serving.exchange import Exchange, Stop
from daybreak_server.engines.serving.http_app import ServingApp
from daybreak_server.engines.serving.http_server import HttpServer
from daybreak_server.engines.serving.request_metrics import RequestMetrics
from daybreak_server.engines.serving.request_run import RequestRun
from daybreak_server.engines.serving.worker_threads import WorkerThreads
from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.serving import ServingWorkload

_log = logging.getLogger(__name__)
_POLL_S = 0.25
_DRAIN_POLL_S = 0.05
REPORT_S = 1.0
"""Seconds between two reports of the load."""
_IDLE_LIMIT_S = 60.0
_CLAIM_MARGIN_S = 1.0


class NotServingError(TypeError):
    """The workload's class cannot answer requests."""


class ServingLeader:
    """See the module. The group's record has the endpoint once the group is registered as idle."""

    def __init__(
        self,
        spec: WorkloadSpec[Any],
        /,
        *,
        deps: LeaderDeps,
        control_group: ControlGroup,
        lease_renewer: LeaseRenewer,
        stopping: threading.Event,
        host: str,
    ) -> None:
        if not callable(getattr(deps.workload, "serve", None)):
            raise NotServingError(
                f"the class of workload {spec.name!r} has no method `serve`, which the kind `online` needs"
            )
        config = deps.config
        self._deps = deps
        self._control_group = control_group
        self._lease_renewer = lease_renewer
        self._stopping = stopping
        self._breaking = threading.Lock()
        self._broken: Failed | None = None
        self._drain_since: float | None = None
        self._pinged_at = time.monotonic()
        self._free_memory_bytes: int | None = None
        self._batching: Mapping[str, Any] = {}
        self._set_device = _device_setter(config.device)
        self._on_device = threading.local()
        self._run = RequestRun(
            cast("ServingWorkload", deps.workload), control_group, lockstep=config.ranks > 1
        )
        self._threads: WorkerThreads[Exchange] = WorkerThreads(
            self._answer, threads_max=config.capacity if config.ranks == 1 else 1
        )
        self._admission = Admission(config.capacity)
        self._metrics = RequestMetrics(deps.metrics.meter, pool=config.pool)
        self._app = ServingApp(
            self._admission, self._threads.submit, group=lease_renewer.record.id, metrics=self._metrics
        )
        self._server = HttpServer(self._app, host=host, ports=config.ports)
        self._tasks = _task_thread(spec, deps, control_group, lease_renewer)
        self._server.start()
        lease_renewer.update(
            now=False,
            endpoint=self._server.endpoint,
            models=_models(deps.workload),
            capacity=config.capacity,
            load=self._admission.load(waiting=0),
        )

    @property
    def broken(self) -> Failed | None:
        """Why the group is broken, or ``None``."""
        return self._broken

    @property
    def lease_age_s(self) -> float | None:
        """Seconds since the lease of the group's task was renewed. ``None`` without a task; requests have no lease."""
        return None if self._tasks is None else self._tasks.lease_age_s

    def run(self) -> bool:
        """Serve. Returns ``True`` if the group was asked to leave, ``False`` if it is broken."""
        self._lease_renewer.report(self._record_changes, every_s=REPORT_S)
        if self._tasks is not None:
            self._tasks.start()
        try:
            while self._broken is None and not self._must_leave():
                self._apply_changes()
                self._stopping.wait(_POLL_S)
            if self._broken is None:
                self._leave()
        except GroupBrokenError as exc:
            self.break_group(Failed(code="rank_lost", message=str(exc)))
        except BaseException as exc:
            _log.exception("the group cannot continue")
            self.break_group(Failed(code="internal", message=describe(exc)))
        self._server.stop()
        self._threads.close()
        return self._broken is None

    def break_group(self, failed: Failed) -> None:
        """Mark the group broken, stop its requests, and release its task. Only the first call does so.

        The caller may end the process after this call. So every call, not only the first, waits until the answers to
        the requests have been sent, but at most a few seconds.
        """
        with self._breaking:
            if self._broken is None:
                self._broken = failed
                _log.error("the group is broken: %s: %s", failed.code, failed.message)
                self._admission.draining = True
                for exchange in self._app.exchanges:
                    if exchange.began:  # `release_task` stops those that have not begun
                        exchange.stop(Stop.BROKEN)
                self.release_task()
        self._server.stop()

    def release_task(self) -> None:
        """Stop all requests, close the port, and release the task."""
        self._admission.draining = True
        self._stop_requests(Stop.LEAVING)
        self._server.stop(wait=False)
        if self._tasks is not None and not self._tasks.left:
            self._tasks.release()

    # ── one request, on a thread for requests ────────────────────────────────────────────────────────────

    def _answer(self, exchange: Exchange) -> None:
        try:
            if not getattr(self._on_device, "set", False):
                self._set_device()
                self._on_device.set = True
            broken = self._run.answer(exchange)
        except GroupBrokenError as exc:
            failure = self._control_group.failure(now=True)
            self.break_group(_failed(failure) if failure else Failed(code="rank_lost", message=str(exc)))
        except BaseException as exc:
            _log.exception("a request could not be run")
            exchange.fail(report_of(exc, point=0))
            self.break_group(Failed(code="internal", message=describe(exc)))
        else:
            if broken is not None:
                self.break_group(_failed(broken))

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────

    def _must_leave(self) -> bool:
        return self._stopping.is_set() or self._control_group.wants_to_leave()

    def _apply_changes(self) -> None:
        """Check the group's health, apply the drain mark and changed settings, and measure the free memory."""
        config = self._deps.config
        self._check_progress()
        if not self._server.running:
            raise RuntimeError("the HTTP server of the group has ended")
        draining = self._lease_renewer.drain
        if self._broken is None:
            self._admission.draining = draining
        self._drain_since = (self._drain_since or time.monotonic()) if draining else None
        if self._drain_since is not None and time.monotonic() - self._drain_since >= config.drain_s:
            self._stop_requests(Stop.LEAVING)
        if time.monotonic() - self._pinged_at >= config.ping_s and not self._admission.held:
            self._control_group.order("ping")
            self._pinged_at = time.monotonic()
        self._free_memory_bytes = _free_memory_bytes(config.device)
        self._metrics.set_held(self._admission.held)
        self._pass_on_batching()

    def _pass_on_batching(self) -> None:
        """Tell the workload what an administrator has changed in the setting ``batching``."""
        changes = self._lease_renewer.batching
        if changes == self._batching:
            return
        self._batching = changes
        set_batching = getattr(self._deps.workload, "set_batching", None)
        if set_batching is None:
            return
        try:
            set_batching(changes)
        except Exception:
            _log.exception("the workload cannot take the change of `batching`")

    def _check_progress(self) -> None:
        """Beat the heartbeat; break the group if a request or the task has stalled."""
        stall_s, exchanges = self._deps.config.stall_s, self._app.exchanges
        limit_s = stall_s if exchanges else max(_IDLE_LIMIT_S, stall_s)
        self._deps.heartbeat.beat("requests" if exchanges else "idle", limit_s=limit_s)
        now = time.monotonic()
        for exchange in exchanges:
            silent_s = exchange.silent_s(now)
            if silent_s > stall_s:
                exchange.stop(Stop.STALLED)
                message = f"no progress in a request for {silent_s:.1f} s (the limit is {stall_s:g} s)"
                self.break_group(Failed(code="stalled", message=message, reason="stalled"))
        self._check_task()

    def _check_task(self) -> None:
        """Break the group if its task has stalled, or has left the process unusable."""
        if self._tasks is None or self._broken is not None:
            return
        stall = self._tasks.stalled()
        if stall is not None:
            self._tasks.strike(Failed(code="stalled", message=stall, reason="stalled"))
        if self._tasks.broken is not None:
            self.break_group(self._tasks.broken)

    def _leave(self) -> None:
        """Refuse new requests, and give those in flight time to finish. The task is released after its current step."""
        config = self._deps.config
        self._admission.draining = True
        if self._tasks is not None:
            self._tasks.leave()
        self._lease_renewer.update(**self._record_changes())
        until = time.monotonic() + config.drain_s
        self._wait_empty(until)
        if self._admission.held and self._broken is None:
            _log.warning(
                "%d requests have not ended in %g s and are stopped", self._admission.held, config.drain_s
            )
            self._stop_requests(Stop.LEAVING)
            self._wait_empty(time.monotonic() + config.grace_s)
        # A claim that waits for a task ends within `idle_s`. The task thread must not claim once the group has
        # deregistered.
        self._wait_released(max(until, time.monotonic() + config.idle_s + _CLAIM_MARGIN_S))
        if self._tasks is not None and not self._tasks.left and self._broken is None:
            _log.warning("the group must leave before the current step of its task ends; releasing the task")
            self._tasks.release()

    def _wait_empty(self, until: float) -> None:
        while self._admission.held and self._broken is None and time.monotonic() < until:
            self._check_progress()
            time.sleep(_DRAIN_POLL_S)

    def _wait_released(self, until: float) -> None:
        tasks = self._tasks
        while tasks and not tasks.left and self._broken is None and time.monotonic() < until:
            self._check_progress()
            time.sleep(_DRAIN_POLL_S)

    def _stop_requests(self, reason: Stop) -> None:
        for exchange in self._app.exchanges:
            exchange.stop(reason)

    def _record_changes(self) -> Mapping[str, Any]:
        waiting = sum(not exchange.began for exchange in self._app.exchanges)
        busy = self._admission.was_busy()
        state = GroupState.BUSY if busy else GroupState.IDLE
        return {
            "state": GroupState.DRAINING if self._admission.draining else state,
            "load": self._admission.load(waiting=waiting, free_memory_bytes=self._free_memory_bytes),
        }


def _task_thread(
    spec: WorkloadSpec[Any], deps: LeaderDeps, control_group: ControlGroup, lease_renewer: LeaseRenewer
) -> TaskThread | None:
    """The thread that claims tasks, or ``None`` if the workload takes none."""
    if not spec.takes_tasks:
        return None
    if deps.config.ranks > 1:
        raise NotServingError(
            f"a pool of workload {spec.name!r} takes tasks, so its groups must have one rank, not {deps.config.ranks}"
        )
    if not callable(getattr(deps.workload, "bulk", None)):
        raise NotServingError(
            f"the class of workload {spec.name!r} has no method `bulk`, which tasks of the kind `online` need"
        )
    return TaskThread(spec, deps, control_group, lease_renewer)


def _models(workload: Any) -> tuple[str, ...]:
    return tuple(short_name(name) for name in getattr(workload, "models", ()))


def _failed(report: RankReport) -> Failed:
    return Failed(code=report.code or "rank_lost", message=report.message, permanent=report.permanent)


def _device_setter(device: str) -> Callable[[], None]:
    """Return a function that makes the calling thread use this thread's CUDA device.

    CUDA selects the device for each thread separately.
    """
    if device != "cuda" or "torch" not in sys.modules:
        return lambda: None
    cuda = sys.modules["torch"].cuda
    index = cuda.current_device()
    return lambda: cuda.set_device(index)


def _free_memory_bytes(device: str) -> int | None:
    """The free memory of this rank's GPU, or ``None`` without one."""
    if device != "cuda" or "torch" not in sys.modules:
        return None
    return int(sys.modules["torch"].cuda.mem_get_info()[0])
