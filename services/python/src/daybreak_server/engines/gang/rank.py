"""One rank of a group: the thread that joins, loads, warms up and serves, and what others may ask of it."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState, WakePhase
from daybreak_server.domain.tasks import Failed
from daybreak_server.engines.gang.attempt import LeaderDeps
from daybreak_server.engines.gang.control_group import ControlGroup, Followers, Leader, RankInfo, SingleRank
from daybreak_server.engines.gang.follower import FollowerLoop
from daybreak_server.engines.gang.leader import LeaderLoop
from daybreak_server.engines.gang.rendezvous import Listener, RendezvousStore, join, this_rank
from daybreak_server.engines.rank.causes import cause_of, cause_of_failed, cause_of_fetch
from daybreak_server.engines.rank.config import GangConfig
from daybreak_server.engines.rank.errors import GroupBrokenError
from daybreak_server.engines.rank.heartbeat import Heartbeat
from daybreak_server.engines.rank.lease_renewer import LeaseRenewer
from daybreak_server.engines.rank.model_download import FETCH_AGAIN_S, Fetching
from daybreak_server.engines.rank.progress import PhaseEta
from daybreak_server.engines.rank.watchdog import Watchdog
from daybreak_server.ports.blobs import BlobError, Blobs
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.workloads.base import Group, Workload, WorkloadSpec

_log = logging.getLogger(__name__)
_STOP_MARGIN_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDeps:
    """What a rank is given by its process."""

    queue: Callable[[], WorkQueue]
    """Opens the queue; called on the leader only. Must not fail because the store is down."""
    blobs: Callable[[], Blobs]
    """Opens the blob store; called on the leader only."""
    workload: Callable[[], Workload[Any]]
    """Makes the workload's object; imports what it needs."""
    on_broken: Callable[[Cause], None]
    """Called once when this rank cannot go on; a process of its own ends itself here."""
    board: RendezvousStore | None = None
    """Where the ranks meet; not needed by a group of one."""
    host: str = "127.0.0.1"
    """An address of this node that other ranks can reach."""
    local_rank: int = 0
    """Which of the devices that this process sees is its own."""
    label: str = ""
    """How people call this node (a pod's name); absent: ``host``."""
    watchdog: Callable[[], Watchdog] | None = None
    """Makes the guard of the leader's lease; absent where the leader's process is not its own (it gets killed)."""
    fetch: Callable[[Callable[[int, int], None]], str] | None = None
    """Sees to it that the model is on this node, and returns its folder; told the bytes that are there and those
    that will be. Absent where it is here anyway."""
    tell: Callable[[Cause], None] = _log.warning
    """Called with why the model cannot be had for now; it is tried again."""
    wake: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the wake phases that lie before this rank's own."""


class Rank:
    """A rank at work. ``start`` returns at once; nothing here raises into the process that hosts it."""

    def __init__(
        self, spec: WorkloadSpec[Any], config: GangConfig, outside: RankDeps, *, rank: int = 0
    ) -> None:
        self._spec = spec
        self._config = config
        self._outside = outside
        self._rank = rank
        self._watchdog = outside.watchdog() if rank == 0 and outside.watchdog is not None else None
        self._heartbeat = Heartbeat(
            config.start_s, mirror=self._watchdog.page if self._watchdog is not None else None
        )
        self._going = threading.Event()
        self._why: Cause | None = None
        self._telling = threading.Lock()
        self._told = False
        self._ended = threading.Event()
        self._loop: LeaderLoop | None = None
        self._leader: Leader | None = None
        self._lease_renewer: LeaseRenewer | None = None
        self._wake: dict[str, float] = dict(outside.wake)
        self._at = ""
        """The phase of the wake that it is in, or failed in."""
        self._store: Any = None  # of the process group, which ends with it
        self._thread = threading.Thread(target=self._work, name=f"rank-{rank}-work", daemon=True)

    def start(self) -> None:
        """Begin to join, load and serve."""
        self._thread.start()

    @property
    def record(self) -> GroupRecord | None:
        """The group's record, on the leader once it has one."""
        return self._lease_renewer.record if self._lease_renewer is not None else None

    @property
    def loaded(self) -> bool:
        """Whether the model is resident and warm."""
        return WakePhase.WARM_UP in self._wake

    def health(self) -> str | None:
        """Why this rank is of no use any more, or ``None``."""
        if self._why is not None:
            return self._why.message
        if self._thread.ident is not None and not self._thread.is_alive() and not self._going.is_set():
            return "the work thread has ended"
        return self._heartbeat.stalled()

    def ask_to_leave(self) -> None:
        """Hand back what runs at its next step, and leave. Returns at once; idempotent."""
        if self._going.is_set():
            return
        self._going.set()
        if self._leader is not None:
            self._leader.ask_to_leave()

    def stop(self, *, timeout_s: float) -> bool:
        """Leave within ``timeout_s``; whether it did. What still runs then is given back."""
        self.ask_to_leave()
        ended = self._ended.wait(max(0.0, timeout_s - _STOP_MARGIN_S))
        if not ended and self._loop is not None:
            _log.warning("a step runs longer than the time to leave: its task is given back without it")
            self._loop.release_task()
        if not ended and self._lease_renewer is not None:
            self._lease_renewer.stop()
        return ended

    def wait_ended(self, timeout_s: float) -> bool:
        """Until the work has ended and its group has left; whether it has."""
        return self._ended.wait(timeout_s)

    # ── the work thread ──────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        why: Cause | None = None
        try:
            if self._rank == 0:
                why = self._lead()
            else:
                self._follow()
        except GroupBrokenError as exc:
            why = None if self._going.is_set() else Cause(reason=Reason.RANKS_FAIL, message=str(exc))
        except BaseException as exc:  # `load` and `warm_up` are the workload's, and may call sys.exit
            why = cause_of(exc, phase=self._at)
            _log.error("rank %d of %s failed: %s", self._rank, self._config.pool, why, exc_info=True)
        finally:
            self._ended.set()
        if why is not None:
            self._broken(why)

    def _broken(self, why: Cause) -> None:
        with self._telling:
            if self._told:
                return
            self._told = True
            self._why = why
        _log.error("rank %d of %s cannot go on: %s", self._rank, self._config.pool, why)
        self._outside.on_broken(why)

    def _lead(self) -> Cause | None:
        config, outside = self._config, self._outside
        queue = outside.queue()
        record = GroupRecord(
            id=new_group_id(),
            state=GroupState.STARTING,
            ranks=config.ranks,
            phase=WakePhase.PROCESS_GROUP,
            since_ms=time.time_ns() // 1_000_000,
            hosts=(outside.label or outside.host,),
            pids=(this_rank(0, outside.host).pid,),
            wake=dict(self._wake),
        )
        lease_renewer = LeaseRenewer(
            queue, config, self._heartbeat, record=record, on_break=self._on_break, watchdog=self._watchdog
        )
        self._lease_renewer = lease_renewer
        lease_renewer.refresh()
        lease_renewer.start()
        control_group: ControlGroup = SingleRank()
        # The store of files is opened while the group forms (S3's client takes 0.3 s); one that cannot be opened
        # is told before the model is read.
        opening = ThreadPoolExecutor(1, thread_name_prefix="files")
        try:
            opened = opening.submit(outside.blobs)
            control_group = self._gather(lease_renewer)
            lease_renewer.watch(control_group)
            blobs = opened.result()
            workload = self._load(lease_renewer)
            means = LeaderDeps(
                config=config,
                queue=queue,
                blobs=blobs,
                workload=workload,
                heartbeat=self._heartbeat,
                phases=PhaseEta(),
                must_leave=self._going.is_set,
            )
            if self._watchdog is not None:
                self._watchdog.wait_ready()
            self._loop = LeaderLoop(
                self._spec,
                means=means,
                control_group=control_group,
                lease_renewer=lease_renewer,
                going=self._going,
            )
            lease_renewer.update(state=GroupState.IDLE, phase=WakePhase.READY, wake=dict(self._wake), loads=1)
            self._loop.run()
            return cause_of_failed(self._loop.broken) if self._loop.broken is not None else None
        finally:
            opening.shutdown(wait=False)
            lease_renewer.stop()
            with contextlib.suppress(StoreError):
                queue.leave(lease_renewer.record)
            queue.close()
            control_group.close()

    def _on_break(self, why: Failed) -> None:
        """Called by the keeper's thread: the work thread may never come back."""
        if self._loop is not None:
            self._loop.break_group(why)
        if self._lease_renewer is not None:
            queue = self._outside.queue()
            with contextlib.suppress(StoreError):
                queue.leave(self._lease_renewer.record)
            queue.close()
        self._broken(cause_of_failed(why))

    def _gather(self, lease_renewer: LeaseRenewer) -> ControlGroup:
        if self._config.ranks == 1:
            return SingleRank()
        config, outside, board = self._config, self._outside, self._outside.board
        assert board is not None, "a group of several ranks needs a board to meet at"
        with self._phase(WakePhase.PROCESS_GROUP, None):
            from daybreak_server.engines.gang import process_group  # torch: seconds, which are of this phase

            until = time.monotonic() + config.start_s
            door = Listener(outside.host, size=config.ranks)
            store = process_group.open_store(outside.host, size=config.ranks, timeout_s=config.start_s)
            try:
                board.put(door.address)
                come = door.admit(
                    until=until, welcome={"host": outside.host, "port": store.port}, going=self._going.is_set
                )
            finally:
                door.close()
                board.clear()
            control_group = Followers({rank: one[0] for rank, one in come.items()}, grace_s=config.grace_s)
            infos = [this_rank(0, outside.label or outside.host), *(come[rank][1] for rank in sorted(come))]
            lease_renewer.update(now=False, hosts=_hosts(infos), pids=tuple(info.pid for info in infos))
            process_group.join(
                store, rank=0, size=config.ranks, device=config.device, timeout_s=config.stall_s
            )
            self._store = store
        return control_group

    def _follow(self) -> None:
        from daybreak_server.engines.gang import process_group

        config, outside = self._config, self._outside
        assert outside.board is not None
        channel, welcome = join(
            outside.board,
            me=this_rank(self._rank, outside.label or outside.host),
            until=time.monotonic() + config.start_s,
            going=self._going.is_set,
        )
        leader = Leader(channel, on_lost=self._on_lost)
        self._leader = leader
        if self._going.is_set():
            leader.ask_to_leave()
        try:
            store = process_group.join_store(
                welcome["host"], welcome["port"], size=config.ranks, timeout_s=config.start_s
            )
            process_group.join(
                store, rank=self._rank, size=config.ranks, device=config.device, timeout_s=config.stall_s
            )
            self._store = store
            FollowerLoop(
                self._spec, config=config, workload=self._load(None), leader=leader, heartbeat=self._heartbeat
            ).run()
        except BaseException as exc:
            leader.tell_broken(cause_of(exc, phase=self._at))
            raise
        finally:
            leader.close()

    def _on_lost(self, why: str) -> None:
        """Called by the reading thread: the work thread may be in a collective that never ends."""
        if self._ended.wait(self._config.grace_s):
            return
        self._broken(Cause(reason=Reason.RANKS_FAIL, message=f"the leader is gone: {why}"))

    def _load(self, lease_renewer: LeaseRenewer | None) -> Workload[Any]:
        config = self._config
        with self._phase(WakePhase.MODEL, lease_renewer):
            workload = self._outside.workload()
            if "torch" in sys.modules:
                from daybreak_server.engines.gang import process_group

                process_group.set_threads(config.threads)
            workload.load(
                Group(
                    rank=self._rank,
                    size=config.ranks,
                    local_rank=self._outside.local_rank,
                    device=config.device,
                    options={**config.options, **self._fetched(lease_renewer)},
                )
            )
        with self._phase(WakePhase.WARM_UP, lease_renewer):
            workload.warm_up()
        return workload

    def _fetched(self, lease_renewer: LeaseRenewer | None) -> dict[str, str]:
        """The option ``model``, where it is to be fetched. A model that cannot be had is waited for: a new process
        would do no better, and what is wrong is said all the while."""
        if self._outside.fetch is None:
            return {}
        progress = Fetching(
            self._heartbeat, lease_renewer, limit_s=self._config.load_stall_s, going=self._going.is_set
        )
        while True:
            try:
                folder = self._outside.fetch(progress.told)
                progress.said("")
                return {"model": folder}
            except BlobError as exc:
                self._outside.tell(cause_of_fetch(exc))
                progress.said(str(exc))
            for _ in range(FETCH_AGAIN_S):
                progress.beat()
                if self._going.wait(1):
                    raise GroupBrokenError("told to leave")

    @contextlib.contextmanager
    def _phase(self, phase: WakePhase, lease_renewer: LeaseRenewer | None) -> Iterator[None]:
        """A phase of the wake: shown while it runs, timed when it has ended."""
        limit_s = self._config.start_s if phase is WakePhase.PROCESS_GROUP else self._config.load_stall_s
        self._heartbeat.beat(phase, limit_s=limit_s)
        if lease_renewer is not None:
            lease_renewer.update(state=GroupState.LOADING, phase=phase, wake=dict(self._wake))
        self._at, started = phase, time.monotonic()
        yield
        self._at = ""
        self._wake[phase] = round(time.monotonic() - started, 3)


def _hosts(infos: list[RankInfo]) -> tuple[str, ...]:
    return tuple(info.host for info in infos)
