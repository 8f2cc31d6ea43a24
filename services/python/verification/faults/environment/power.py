"""Power cuts: what a disk that forgets what was not fsynced leaves of acknowledged submits.

And the one loss that a mere kill can cause: under ``everysec``, while an fsync runs that takes long, the server keeps
what it would write in its own memory, for up to two seconds (``flushAppendOnlyFile`` in Redis's ``aof.c``).
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
from verification.faults.environment.invariants import half_done
from verification.faults.environment.traffic import Traffic, settle, unsettled
from verification.faults.registry import Lab, SkippedError, ViolatedError, scenario
from verification.results import Row

WINDOW_S = 2.0
"""Redis's own word for what `everysec` may lose: "one second", two when an fsync takes long."""


@dataclass(slots=True, kw_only=True)
class Toll:
    """What the crashes have cost."""

    crashes: int = 0
    accepted: int = 0
    lost: int = 0
    forgotten_bytes: int = 0
    oldest_s: float = 0.0
    """The oldest acknowledged submit that was lost: so long before its crash it had been acknowledged."""
    stuck: list[str] = field(default_factory=list)
    half: list[str] = field(default_factory=list)
    orphans: set[str] = field(default_factory=set)
    """Forgotten tasks whose files are there."""
    back_s: list[float] = field(default_factory=list)


def _round(cluster: FaultCluster, disk: Disk, toll: Toll, *, busy_s: float) -> None:
    """Submit under load, cut the power, come back, and see what is left."""
    pool = cluster.options.pools[0].name
    with Traffic(cluster.urls, pool, threads=3, pause_s=0.004, body=_body) as traffic:
        time.sleep(busy_s)
        cluster.hold("server")
        (target,) = cluster.targets("server")
        cut = time.monotonic()
        cluster.kill(target)
        toll.forgotten_bytes += disk.crash()
    cluster.release("server")
    wait_until(lambda: server.answers(cluster.port), 60, "the server after the crash")
    toll.back_s.append(time.monotonic() - cut)
    found = settle(cluster.urls, list(traffic.accepted), timeout_s=60)
    lost = [task for task, one in found.items() if one is None]
    toll.crashes += 1
    toll.accepted += len(found)
    toll.lost += len(lost)
    toll.oldest_s = max([toll.oldest_s, *(cut - traffic.accepted[task] for task in lost)])
    toll.stuck += unsettled(found)
    with cluster.client() as client:
        keys = cluster.keys(pool)
        toll.half += half_done(client, keys)
        held = {path.name for path in (cluster.folder / "blobs").iterdir()}
        toll.orphans = {task for task in held if not client.exists(keys.of("task", task))}


def _body(number: int) -> dict[str, object]:
    return {"input": {"steps": number % 3, "message": f"task {number}"}}


def _crashes(
    lab: Lab, *, fsync: str, count: int, make: Callable[[Path], Disk] = open_disk
) -> tuple[Toll, str]:
    chance = random.Random(f"{lab.seed}/{fsync}")
    toll = Toll()
    with tempfile.TemporaryDirectory(prefix="daybreak-disk-") as folder:
        try:
            disk = make(Path(folder) / "data")
        except DiskAbsentError as exc:
            raise SkippedError(str(exc)) from exc
        try:
            with lab.cluster(
                gateways=2, fsync=fsync, server_folder=disk.folder, environment={"server": disk.environment}
            ) as cluster:
                for _ in range(count):
                    _round(cluster, disk, toll, busy_s=chance.uniform(0.6, 1.8))
        finally:
            disk.close()
        return toll, disk.kind


def _whole(what: str, toll: Toll) -> Row:
    """What is there of a task must be all of it, and must end."""
    bad = toll.stuck + toll.half
    return Row(what, len(bad), "tasks", target="0", held=not bad, note="; ".join(bad[:3]))


def _rows(toll: Toll, *, fsync: str, disk: str) -> list[Row]:
    rows = [
        _whole(f"`{fsync}`: accepted tasks half there or not ended after the crashes", toll),
        Row(
            f"`{fsync}`: power cut to answering again",
            max(toll.back_s),
            "s",
            spread=(min(toll.back_s), max(toll.back_s)),
        ),
    ]
    cost = f"{toll.crashes} power cuts under load, disk by {disk}; {toll.forgotten_bytes:,} bytes forgotten"
    if fsync == "always":
        note = f"of {toll.accepted:,} in {cost}"
        rows.insert(
            0,
            Row(
                "`always`: acknowledged tasks lost",
                toll.lost,
                "tasks",
                target="0",
                held=toll.lost == 0,
                note=note,
            ),
        )
        return rows
    rows.append(
        Row(
            "`everysec`: lost tasks whose files stay behind",
            len(toll.orphans),
            "tasks",
            note="they had been stored before the power cut; gateways sweep them when their retention is over",
        )
    )
    share = 100 * toll.lost / max(1, toll.accepted)
    note = f"of {toll.accepted:,} ({share:.1f} %) in {cost}: this policy does lose them"
    rows.insert(0, Row("`everysec`: acknowledged tasks lost", toll.lost, "tasks", note=note))
    rows.insert(
        1,
        Row(
            "`everysec`: oldest acknowledged task that was lost, before the power cut",
            toll.oldest_s * 1000,
            "ms",
            target=f"≤ {WINDOW_S * 1000:,.0f} ms",
            held=toll.oldest_s <= WINDOW_S,
        ),
    )
    return rows


@scenario("power-always", "a power cut under `always` loses no acknowledged task")
def power_always(lab: Lab) -> list[Row]:
    """Crash after crash on a disk that forgets."""
    toll, disk = _crashes(lab, fsync="always", count=lab.times(3, 100))
    if toll.lost:
        raise ViolatedError(f"{toll.lost} acknowledged tasks were lost under `always`")
    return _rows(toll, fsync="always", disk=disk)


@scenario("power-everysec", "what a power cut under `everysec` loses, and that the rest fits together")
def power_everysec(lab: Lab) -> list[Row]:
    """The same; here losses are expected, and counted."""
    toll, disk = _crashes(lab, fsync="everysec", count=lab.times(3, 100))
    return _rows(toll, fsync="everysec", disk=disk)


@scenario("kill-slow-disk", "what the kill of a server loses under `everysec` while its disk is slow")
def kill_slow_disk(lab: Lab) -> list[Row]:
    """No power cut: the server alone dies, in the middle of fsyncs that take longer than a second."""
    toll, disk = _crashes(
        lab, fsync="everysec", count=lab.times(3, 50), make=lambda folder: SlowDisk(folder, fsync_s=1.5)
    )
    share = 100 * toll.lost / max(1, toll.accepted)
    return [
        Row(
            "`everysec`, slow disk, the server killed: acknowledged tasks lost",
            toll.lost,
            "tasks",
            note=f"of {toll.accepted:,} ({share:.1f} %) in {toll.crashes} kills under load, {disk}: while one runs, "
            f"the server keeps what it would write in its own memory. `always` does not: it answers after it",
        ),
        Row(
            "`everysec`, slow disk, the server killed: oldest acknowledged task that was lost, before the kill",
            toll.oldest_s * 1000,
            "ms",
            target=f"≤ {WINDOW_S * 1000:,.0f} ms",
            held=toll.oldest_s <= WINDOW_S,
        ),
        _whole("`everysec`, slow disk, the server killed: accepted tasks half there or not ended", toll),
    ]
