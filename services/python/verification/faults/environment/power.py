"""Power cuts: which acknowledged submits survive on a disk that loses what was not fsynced.

``kill-slow-disk`` shows the one loss that a kill alone can cause: under ``everysec``, while a slow fsync runs, the
server keeps its writes in its own memory for up to two seconds (``flushAppendOnlyFile`` in Redis's ``aof.c``).
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from testkit.waiting import wait_until
from verification.faults import server
from verification.faults.cluster import FaultCluster
from verification.faults.environment.disk import Disk, DiskAbsentError, SlowDisk, open_disk
from verification.faults.environment.invariants import inconsistencies
from verification.faults.environment.traffic import Traffic, settle, unsettled
from verification.faults.scenario_catalogue import ScenarioContext, SkippedError, ViolatedError, scenario
from verification.results import Row

WINDOW_S = 2.0
"""What `everysec` may lose according to Redis: one second of writes, or two seconds when an fsync takes long."""


@dataclass(slots=True, kw_only=True)
class CrashStats:
    """The losses in all crashes so far."""

    crashes: int = 0
    accepted: int = 0
    lost: int = 0
    forgotten_bytes: int = 0
    oldest_s: float = 0.0
    """For the oldest lost submit: the time between its acknowledgement and the crash."""
    stuck: list[str] = field(default_factory=list)
    inconsistent: list[str] = field(default_factory=list)
    orphans: set[str] = field(default_factory=set)
    """Lost tasks whose files still exist after the newest crash."""
    recovery_s: list[float] = field(default_factory=list)


def _round(cluster: FaultCluster, disk: Disk, stats: CrashStats, *, busy_s: float) -> None:
    """Submit tasks, kill the server, crash the disk, restart the server, and count the lost tasks."""
    pool = cluster.options.pools[0].name
    with Traffic(cluster.urls, pool, threads=3, pause_s=0.004, body=_body) as traffic:
        time.sleep(busy_s)
        cluster.hold("server")
        (target,) = cluster.targets("server")
        cut = time.monotonic()
        cluster.kill(target, written=False)
        stats.forgotten_bytes += disk.crash()
    cluster.release("server")
    wait_until(lambda: server.answers(cluster.port), 60, "the server after the crash")
    stats.recovery_s.append(time.monotonic() - cut)
    views = settle(cluster.urls, list(traffic.accepted), timeout_s=60)
    lost = [task for task, view in views.items() if view is None]
    stats.crashes += 1
    stats.accepted += len(views)
    stats.lost += len(lost)
    stats.oldest_s = max([stats.oldest_s, *(cut - traffic.accepted[task] for task in lost)])
    stats.stuck += unsettled(views)
    with cluster.client() as client:
        keys = cluster.keys(pool)
        stats.inconsistent += inconsistencies(client, keys)
        held = {path.name for path in (cluster.folder / "blobs").iterdir()}
        stats.orphans = {task for task in held if not client.exists(keys.of("task", task))}


def _body(number: int) -> dict[str, object]:
    return {"input": {"steps": number % 3, "message": f"task {number}"}}


def _crashes(
    context: ScenarioContext, *, fsync: str, count: int, make: Callable[[Path], Disk] = open_disk
) -> tuple[CrashStats, str]:
    chance = random.Random(f"{context.seed}/{fsync}")
    stats = CrashStats()
    with tempfile.TemporaryDirectory(prefix="daybreak-disk-") as folder:
        try:
            disk = make(Path(folder) / "data")
        except DiskAbsentError as exc:
            raise SkippedError(str(exc)) from exc
        try:
            with context.cluster(
                gateways=2, fsync=fsync, server_folder=disk.folder, environment={"server": disk.environment}
            ) as cluster:
                for _ in range(count):
                    _round(cluster, disk, stats, busy_s=chance.uniform(0.6, 1.8))
        finally:
            disk.close()
        return stats, disk.kind


def _intact_row(what: str, stats: CrashStats) -> Row:
    """Every surviving task must be consistent and must end."""
    bad = stats.stuck + stats.inconsistent
    return Row(what, len(bad), "tasks", target="0", held=not bad, note="; ".join(bad[:3]))


def _rows(stats: CrashStats, *, fsync: str, disk: str) -> list[Row]:
    rows = [
        _intact_row(f"`{fsync}`: surviving tasks that are inconsistent or never ended", stats),
        Row(
            f"`{fsync}`: longest time from a power cut until the server responds again",
            max(stats.recovery_s),
            "s",
            spread=(min(stats.recovery_s), max(stats.recovery_s)),
        ),
    ]
    cost = f"{stats.crashes} power cuts under load, disk by {disk}; {stats.forgotten_bytes:,} bytes lost"
    if fsync == "always":
        note = f"of {stats.accepted:,} in {cost}"
        rows.insert(
            0,
            Row(
                "`always`: acknowledged tasks lost",
                stats.lost,
                "tasks",
                target="0",
                held=stats.lost == 0,
                note=note,
            ),
        )
        return rows
    rows.append(
        Row(
            "`everysec`: lost tasks whose files remain",
            len(stats.orphans),
            "tasks",
            note="files stored before the power cut; gateways delete them when their retention ends",
        )
    )
    share = 100 * stats.lost / max(1, stats.accepted)
    note = f"of {stats.accepted:,} ({share:.1f} %) in {cost}: this policy is expected to lose some"
    rows.insert(0, Row("`everysec`: acknowledged tasks lost", stats.lost, "tasks", note=note))
    rows.insert(
        1,
        Row(
            "`everysec`: longest time from the response to a lost submit until the power cut",
            stats.oldest_s * 1000,
            "ms",
            target=f"≤ {WINDOW_S * 1000:,.0f} ms",
            held=stats.oldest_s <= WINDOW_S,
        ),
    )
    return rows


@scenario("power-always", "a power cut under `always` loses no acknowledged task")
def power_always(context: ScenarioContext) -> list[Row]:
    """Crash repeatedly on a disk that loses what was not fsynced."""
    stats, disk = _crashes(context, fsync="always", count=context.repeats(3, 100))
    if stats.lost:
        raise ViolatedError(f"{stats.lost} acknowledged tasks were lost under `always`")
    return _rows(stats, fsync="always", disk=disk)


@scenario("power-everysec", "counts what a power cut under `everysec` loses; the rest is consistent")
def power_everysec(context: ScenarioContext) -> list[Row]:
    """Crash repeatedly under ``everysec``, which is expected to lose tasks."""
    stats, disk = _crashes(context, fsync="everysec", count=context.repeats(3, 100))
    return _rows(stats, fsync="everysec", disk=disk)


@scenario("kill-slow-disk", "counts what a killed server loses under `everysec` while its disk is slow")
def kill_slow_disk(context: ScenarioContext) -> list[Row]:
    """No power cut: only the server dies, during fsyncs that take longer than a second."""
    stats, disk = _crashes(
        context,
        fsync="everysec",
        count=context.repeats(3, 50),
        make=lambda folder: SlowDisk(folder, fsync_s=1.5),
    )
    share = 100 * stats.lost / max(1, stats.accepted)
    return [
        Row(
            "`everysec`, slow disk, kill of the server: acknowledged tasks lost",
            stats.lost,
            "tasks",
            note=f"of {stats.accepted:,} ({share:.1f} %) in {stats.crashes} kills under load, {disk}: while an fsync "
            f"runs, the server keeps its writes in memory. Under `always` it acknowledges after the fsync",
        ),
        Row(
            "`everysec`, slow disk, kill of the server: longest time from the response to a lost submit until the kill",
            stats.oldest_s * 1000,
            "ms",
            target=f"≤ {WINDOW_S * 1000:,.0f} ms",
            held=stats.oldest_s <= WINDOW_S,
        ),
        _intact_row(
            "`everysec`, slow disk, kill of the server: surviving tasks that are inconsistent or never ended",
            stats,
        ),
    ]
