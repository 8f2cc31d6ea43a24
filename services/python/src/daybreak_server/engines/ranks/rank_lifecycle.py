"""One rank of a group: a thread that joins the group, loads the model, warms it up and serves.

``start`` returns at once, and its caller never sees an error of the work thread, because Ray Serve gives up on a
deployment after a few failed constructors. A rank that waits for Redis, its peers or its model is merely not ready yet.

The work thread goes through the wake phases of docs/04-group.md: rendezvous and process group (not in a group of one
rank), model, warm-up, ready. The leader (rank 0) starts the lease renewer before the first phase, so that the
group's record is in the store while the group forms. During that time, the leader also opens the blob store. The
group's record first shows the phase ``process_group``, and the heartbeat first has the limit of this phase, even in a
group of one rank. The phases ``model`` and ``warm_up`` then change the record and the limit.

A rank ends in one of three ways:

* :meth:`Rank.ask_to_leave` or :meth:`Rank.stop`: the group releases its task after the present step (or ends its
  requests, or releases its sessions), and deregisters. A follower asks the leader to do so.
* An error of the work thread, or of another rank: ``on_broken`` is called once with the cause. If the rank has a
  process of its own, ``on_broken`` ends the process.
* The work thread hangs in a collective or in a step, and may never return. So another thread calls ``on_broken``: on
  the leader, the thread of the lease renewer; on a follower, the thread that reads from the leader.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from daybreak_server.domain import log_context
from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState, WakePhase
from daybreak_server.domain.tasks import Failed
from daybreak_server.engines.common.batch_metrics import BatchMetrics
from daybreak_server.engines.common.config import GroupConfig
from daybreak_server.engines.common.error_causes import cause_of, cause_of_failed, cause_of_fetch
from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.lease_renewer import LeaseRenewer
from daybreak_server.engines.common.model_download import DOWNLOAD_RETRY_S, DownloadProgress
from daybreak_server.engines.common.progress import PhaseEta
from daybreak_server.engines.ranks.control_group import (
    ControlGroup,
    Followers,
    LeaderConnection,
    SingleRank,
)
from daybreak_server.engines.ranks.loops import GroupLoops, Leader
from daybreak_server.engines.ranks.rank_deps import LeaderDeps, RankDeps
from daybreak_server.engines.ranks.rendezvous import Listener, join, this_rank
from daybreak_server.ports.blobs import BlobError
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.workloads.base import Group, Workload, WorkloadSpec

_log = logging.getLogger(__name__)
_STOP_MARGIN_S = 2.0
_LAST_SPANS_S = 0.2
"""How long a broken rank waits for its last spans to be sent. Serve can restart the group only after this wait."""


class Rank:
    """One rank: its work thread, and the calls with which its process starts, checks and stops it."""

    def __init__(
        self,
        spec: WorkloadSpec[Any],
        config: GroupConfig,
        deps: RankDeps,
        *,
        rank: int = 0,
        loops: GroupLoops,
    ) -> None:
        self._spec = spec
        self._config = config
        self._deps = deps
        self._rank = rank
        self._loops = loops
        self._watchdog = deps.watchdog() if rank == 0 and deps.watchdog is not None else None
        self._heartbeat = Heartbeat(
            config.start_s, mirror=self._watchdog.shared if self._watchdog is not None else None
        )
        self._stopping = threading.Event()
        self._cause: Cause | None = None
        self._breaking = threading.Lock()
        self._ended = threading.Event()
        self._loop: Leader | None = None
        self._leader: LeaderConnection | None = None
        self._lease_renewer: LeaseRenewer | None = None
        self._wake: dict[str, float] = dict(deps.wake)
        self._current_phase = ""
        """The wake phase that runs, or that has failed."""
        self._store: Any = None  # kept, because the process group uses it until the end
        self._thread = threading.Thread(target=self._work, name=f"rank-{rank}-work", daemon=True)

    def start(self) -> None:
        """Start the work thread, which joins the group, loads the model and serves."""
        self._thread.start()

    @property
    def record(self) -> GroupRecord | None:
        """The group's record; ``None`` on a follower, and on a leader that has none yet."""
        return self._lease_renewer.record if self._lease_renewer is not None else None

    @property
    def loaded(self) -> bool:
        """Whether the model is resident and warm."""
        return WakePhase.WARM_UP in self._wake

    def unhealthy_reason(self) -> str | None:
        """Return why this rank can do no more work, or ``None`` while it is healthy."""
        self._deps.metrics.ages(self._heartbeat.age_s, lease_s=self._loop.lease_age_s if self._loop else None)
        if self._cause is not None:
            return self._cause.message
        if self._thread.ident is not None and not self._thread.is_alive() and not self._stopping.is_set():
            return "the work thread has ended"
        return self._heartbeat.stalled()

    def ask_to_leave(self) -> None:
        """Make the whole group leave, after the present step of a task. Returns at once; a second call does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._leader is not None:
            self._leader.ask_to_leave()

    def stop(self, *, timeout_s: float) -> bool:
        """Leave within ``timeout_s``, and return whether that worked. If a step runs longer, its task is released."""
        self.ask_to_leave()
        ended = self._ended.wait(max(0.0, timeout_s - _STOP_MARGIN_S))
        if not ended and self._loop is not None:
            _log.warning("a step runs longer than the time to leave: releasing its task")
            self._loop.release_task()
        if not ended and self._lease_renewer is not None:
            self._lease_renewer.stop()
            self._lease_renewer.stop_watchdog()
        return ended

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the work has ended and the group has deregistered, and return whether both happened in time."""
        return self._ended.wait(timeout_s)

    # ── the work thread ──────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        log_context.bind(pool=self._config.pool, rank=self._rank)
        cause: Cause | None = None
        try:
            if self._rank == 0:
                cause = self._lead()
            else:
                self._follow()
        except GroupBrokenError as exc:
            cause = None if self._stopping.is_set() else Cause(reason=Reason.RANKS_FAIL, message=str(exc))
        except BaseException as exc:  # `load` and `warm_up` are the workload's code, and may call sys.exit
            cause = cause_of(exc, phase=self._current_phase)
            # A missing model needs no traceback: `_break` logs the cause. The group restarts until the model is there.
            if cause.reason != Reason.MODEL_MISSING:
                _log.error("rank %d of %s failed: %s", self._rank, self._config.pool, cause, exc_info=True)
        finally:
            if cause is None:
                self._deps.tracing.close()
            self._ended.set()
        if cause is not None:
            self._break(cause)

    def _break(self, cause: Cause) -> None:
        with self._breaking:
            if self._cause is not None:
                return
            self._cause = cause
        self._deps.tracing.flush(_LAST_SPANS_S)
        _log.error("rank %d of %s cannot continue: %s", self._rank, self._config.pool, cause)
        self._deps.on_broken(cause)

    def _lead(self) -> Cause | None:
        config, deps = self._config, self._deps
        queue, record = deps.queue(), self._first_record()
        log_context.bind(group=record.id)
        lease_renewer = LeaseRenewer(
            queue,
            config,
            self._heartbeat,
            record=record,
            on_break=self._on_break,
            watchdog=self._watchdog,
        )
        self._lease_renewer = lease_renewer
        lease_renewer.refresh()
        lease_renewer.start()
        control_group: ControlGroup = SingleRank()
        left = False
        # The blob store is opened while the group forms (an S3 client takes 0.3 s). If it cannot be opened, the rank
        # ends before it reads the model.
        opener = ThreadPoolExecutor(1, thread_name_prefix="blobs")
        try:
            opening = opener.submit(deps.blobs)
            control_group = self._gather(lease_renewer)
            lease_renewer.watch(control_group)
            blobs = opening.result()
            workload = self._load(lease_renewer)
            leader_deps = LeaderDeps(
                config=config,
                queue=queue,
                blobs=blobs,
                workload=workload,
                heartbeat=self._heartbeat,
                phases=PhaseEta(),
                metrics=deps.metrics,
                must_leave=self._stopping.is_set,
                tracing=deps.tracing,
                places=deps.places,
            )
            if self._watchdog is not None:
                self._watchdog.wait_ready()
            self._loop = self._loops.leader(
                self._spec,
                deps=leader_deps,
                control_group=control_group,
                lease_renewer=lease_renewer,
                stopping=self._stopping,
            )
            lease_renewer.update(state=GroupState.IDLE, phase=WakePhase.READY, wake=dict(self._wake), loads=1)
            left = self._loop.run()
            return cause_of_failed(self._loop.broken) if self._loop.broken is not None else None
        finally:
            opener.shutdown(wait=False)
            self._deregister(lease_renewer, queue, left=left)
            queue.close()
            control_group.close()

    def _deregister(self, lease_renewer: LeaseRenewer, queue: WorkQueue, *, left: bool) -> None:
        """Remove the group's record. The watchdog ends last, because Serve may kill this process at any moment."""
        lease_renewer.stop()
        with contextlib.suppress(StoreError):
            if left or self._stopping.is_set():
                queue.deregister(lease_renewer.record)
            else:
                lease_renewer.deregister_dead(queue)
        lease_renewer.stop_watchdog()

    def _first_record(self) -> GroupRecord:
        return GroupRecord(
            id=new_group_id(),
            state=GroupState.STARTING,
            ranks=self._config.ranks,
            phase=WakePhase.PROCESS_GROUP,
            since_ms=time.time_ns() // 1_000_000,
            hosts=(self._deps.label or self._deps.host,),
            pids=(this_rank(0, self._deps.host).pid,),
            wake=dict(self._wake),
        )

    def _on_break(self, failed: Failed) -> None:
        """Settle and deregister on the lease renewer's thread: the work thread may never return."""
        if self._loop is not None:
            self._loop.break_group(failed)
        if self._lease_renewer is not None:
            queue = self._deps.queue()
            with contextlib.suppress(StoreError):
                self._lease_renewer.deregister_dead(queue)
            queue.close()
        self._break(cause_of_failed(failed))

    def _gather(self, lease_renewer: LeaseRenewer) -> ControlGroup:
        if self._config.ranks == 1:
            return SingleRank()
        config, deps, rendezvous = self._config, self._deps, self._deps.rendezvous
        assert rendezvous is not None, "a group of several ranks needs a rendezvous store"
        with self._phase(WakePhase.PROCESS_GROUP, None):
            # This imports torch, which takes seconds of this phase.
            from daybreak_server.engines.ranks import process_group

            until = time.monotonic() + config.start_s
            listener = Listener(deps.host, size=config.ranks)
            store = process_group.open_store(deps.host, size=config.ranks, timeout_s=config.start_s)
            try:
                rendezvous.put(listener.address)
                joined = listener.admit(
                    until=until,
                    welcome={"host": deps.host, "port": store.port},
                    stopping=self._stopping.is_set,
                )
            finally:
                listener.close()
                rendezvous.clear()
            channels = {rank: channel for rank, (channel, _) in joined.items()}
            control_group = Followers(channels, grace_s=config.grace_s)
            infos = [this_rank(0, deps.label or deps.host), *(joined[rank][1] for rank in sorted(joined))]
            lease_renewer.update(
                now=False, hosts=tuple(info.host for info in infos), pids=tuple(info.pid for info in infos)
            )
            process_group.join(
                store, rank=0, size=config.ranks, device=config.device, timeout_s=config.stall_s
            )
            self._store = store
        return control_group

    def _follow(self) -> None:
        from daybreak_server.engines.ranks import process_group

        config, deps = self._config, self._deps
        assert deps.rendezvous is not None
        channel, welcome = join(
            deps.rendezvous,
            me=this_rank(self._rank, deps.label or deps.host),
            until=time.monotonic() + config.start_s,
            stopping=self._stopping.is_set,
        )
        leader = LeaderConnection(channel, on_lost=self._on_lost)
        self._leader = leader
        if self._stopping.is_set():
            leader.ask_to_leave()
        try:
            store = process_group.join_store(
                welcome["host"], welcome["port"], size=config.ranks, timeout_s=config.start_s
            )
            process_group.join(
                store, rank=self._rank, size=config.ranks, device=config.device, timeout_s=config.stall_s
            )
            self._store = store
            self._loops.follower(
                self._spec, config=config, workload=self._load(None), leader=leader, heartbeat=self._heartbeat
            ).run()
        except BaseException as exc:
            leader.report_broken(cause_of(exc, phase=self._current_phase))
            raise
        finally:
            leader.close()

    def _on_lost(self, reason: str) -> None:
        """Call ``on_broken`` on the reading thread: the work thread may be in a collective that never ends."""
        if self._ended.wait(self._config.grace_s):
            return
        self._break(Cause(reason=Reason.RANKS_FAIL, message=f"the leader is gone: {reason}"))

    def _load(self, lease_renewer: LeaseRenewer | None) -> Workload[Any]:
        config = self._config
        with self._phase(WakePhase.MODEL, lease_renewer):
            workload = self._deps.workload()
            if "torch" in sys.modules:
                from daybreak_server.engines.ranks import process_group

                process_group.set_threads(config.threads)
            workload.load(
                Group(
                    rank=self._rank,
                    size=config.ranks,
                    local_rank=self._deps.local_rank,
                    device=config.device,
                    options={**config.options, **self._model_option(lease_renewer)},
                    batch_meter=BatchMetrics(self._deps.metrics.meter, pool=config.pool),
                )
            )
        with self._phase(WakePhase.WARM_UP, lease_renewer):
            workload.warm_up()
        return workload

    def _model_option(self, lease_renewer: LeaseRenewer | None) -> dict[str, str]:
        """Download the model and return the option ``model``, or nothing if no download is needed.

        A failed download is reported and retried here until it succeeds, because a new process would do no better.

        :raises GroupBrokenError: if the rank is asked to leave before the next try.
        """
        if self._deps.fetch_model is None:
            return {}
        progress = DownloadProgress(
            self._heartbeat, lease_renewer, limit_s=self._config.load_stall_s, stopping=self._stopping.is_set
        )
        while True:
            try:
                folder = self._deps.fetch_model(progress.on_bytes)
                progress.show("")
                return {"model": folder}
            except BlobError as exc:
                self._deps.on_model_unavailable(cause_of_fetch(exc))
                progress.show(str(exc))
            for _ in range(DOWNLOAD_RETRY_S):
                progress.beat()
                if self._stopping.wait(1):
                    raise GroupBrokenError("this rank was asked to leave before it had its model")

    @contextlib.contextmanager
    def _phase(self, phase: WakePhase, lease_renewer: LeaseRenewer | None) -> Iterator[None]:
        """Run a wake phase. The group's record shows the phase, and its duration once the phase has ended."""
        limit_s = self._config.start_s if phase is WakePhase.PROCESS_GROUP else self._config.load_stall_s
        self._heartbeat.beat(phase, limit_s=limit_s)
        if lease_renewer is not None:
            lease_renewer.update(state=GroupState.LOADING, phase=phase, wake=dict(self._wake))
        self._current_phase, started = phase, time.monotonic()
        yield
        self._current_phase = ""
        self._wake[phase] = round(time.monotonic() - started, 3)
        self._deps.metrics.loaded(phase, self._wake[phase])
