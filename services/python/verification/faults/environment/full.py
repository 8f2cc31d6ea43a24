"""What is full: the server's memory, the disk of its append-only file."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from daybreak import Client
from testkit.waiting import wait_until
from verification.faults import server
from verification.faults.cluster import FaultCluster
from verification.faults.environment.disk import Disk, DiskAbsentError, open_disk
from verification.faults.environment.invariants import half_done
from verification.faults.environment.traffic import Answer, Caller, Traffic, caller, look, settle, unsettled
from verification.faults.registry import Lab, SkippedError, ViolatedError, scenario
from verification.results import Row

LEASE_S = 5.0
"""The lease clock moves by 2 s at most when an outage ends, so a lease that outlives outages must be longer."""

RUNNING = {"input": {"steps": 50, "step_s": 0.1, "message": "long"}}
"""Five seconds of work: longer than what is done to the system meanwhile."""


class Watchers:
    """A subscriber for each task, through the SDK: what each saw, in order."""

    def __init__(self, url: str, tasks: list[str]) -> None:
        self._url = url
        self.seen: dict[str, list[tuple[str, str]]] = {task: [] for task in tasks}
        self.at: dict[str, list[float]] = {task: [] for task in tasks}
        self._threads = [threading.Thread(target=self._watch, args=(task,), daemon=True) for task in tasks]
        for thread in self._threads:
            thread.start()

    def _watch(self, task: str) -> None:
        with Client(self._url) as client:
            for event in client.events(task):
                if event.id is not None:
                    self.seen[task].append((event.id, str(event.type)))
                    self.at[task].append(time.monotonic())

    def join(self, timeout_s: float) -> None:
        """Until each has seen its task's end."""
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def gaps(self, client: Caller) -> list[str]:
        """Subscribers that saw anything else than what the stream holds now."""
        wrong = []
        for task, seen in self.seen.items():
            held = [(one.id, str(one.type)) for one in _stored(self._url, task)]
            if held != seen:
                wrong.append(task)
        return wrong


def _stored(url: str, task: str) -> list[Any]:
    with Client(url) as client:
        return [event for event in client.events(task) if event.id is not None]


def _start_running(cluster: FaultCluster, count: int) -> list[str]:
    """So many tasks that run now."""
    pool = cluster.options.pools[0].name
    with caller(cluster.urls[0]) as client:
        tasks = [client.submit({"pool": pool, **RUNNING}) for _ in range(count)]
    wait_until(
        lambda: all(one and one["state"] == "running" for one in look(cluster.urls, tasks).values()),
        20,
        "the tasks to run",
    )
    return tasks


def _once(found: dict[str, dict[str, Any] | None]) -> list[str]:
    """Of the tasks that ran, those that were lost, failed, or begun again."""
    return [
        task
        for task, one in found.items()
        if one is None or one["state"] != "succeeded" or one["attempt"] != 1
    ]


def _until_refused(
    client: Caller, body: Callable[[int], dict[str, Any]], *, limit: int
) -> tuple[list[str], Answer]:
    """Submit until one is refused; what was accepted, and the refusal."""
    accepted: list[str] = []
    for number in range(limit):
        answer = client.call("POST", "/v1/tasks", body(number))
        if answer.status >= 400:
            return accepted, answer
        accepted.append(answer.body["id"])
    raise ViolatedError(f"{limit} submits were accepted: nothing is full")


def _refusals(what: str, answers: list[Answer], expected: str) -> Row:
    good = [one for one in answers if one.status == 503 and one.code == expected and one.retry_after]
    others = sorted({f"{one.status} {one.code}" for one in answers if one not in good})
    return Row(
        f"{what}: submits refused with 503 `{expected}` and `Retry-After`",
        len(good),
        "submits",
        target="all refusals",
        held=bool(answers) and len(good) == len(answers),
        note=", ".join(others),
    )


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────


@scenario("memory-full", "with no memory left submits are refused, running tasks finish, and room comes back")
def memory_full(lab: Lab) -> list[Row]:
    """`maxmemory` a little above what is used; big submits until they are refused; retention makes room."""
    with lab.cluster(gateways=1, settings={"pools": {"solo": {"retention_s": 4.0}}}) as cluster:
        running = _start_running(cluster, 2)
        watchers = Watchers(cluster.urls[0], running)
        with cluster.client() as redis:
            room = int(redis.info("memory")["used_memory"]) + (2 << 20)
            redis.config_set("maxmemory", room)
        bulk = {"pool": "solo", "input": {"steps": 0, "message": "x" * 9000}, "start_within_s": 600}
        with caller(cluster.urls[0]) as client:
            filled, first = _until_refused(client, lambda number: bulk, limit=20_000)
            refused, full_at = [first], time.monotonic()
            while time.monotonic() - full_at < 2.0:  # the groups go on: what they end frees nothing yet
                answer = client.call("POST", "/v1/tasks", bulk)
                refused += [answer] if answer.status >= 400 else []
                filled += [answer.body["id"]] if answer.status < 400 else []
                time.sleep(0.02)
            watchers.join(60)
            ended = look(cluster.urls, running)
            wait_until(
                lambda: client.call("POST", "/v1/tasks", bulk).status == 202, 60, "room for a new task"
            )
            back_s = time.monotonic() - full_at
        broken = _once(ended)
        quiet = [max(b - a for a, b in pairwise(at)) for at in watchers.at.values()]
        left = settle(cluster.urls, filled, timeout_s=90)
        bad = [task for task, one in left.items() if one is not None and one["state"] != "succeeded"]
        return [
            _refusals("memory full", refused, "queue_full"),
            Row("memory full: running tasks that did not finish in their first attempt", len(broken), "tasks",
                target="0", held=not broken, note=f"of {len(running)}"),
            Row("memory full: longest silence in a running task's stream", max(quiet), "s", target="≤ 1.5 s",
                held=max(quiet) <= 1.5, note=f"{sum(map(len, watchers.seen.values()))} events by SSE"),
            Row("memory full: accepted before it was full, and neither ended nor swept", len(bad), "tasks",
                target="0", held=not bad, note=f"of {len(filled)}"),
            Row("memory full: first refusal to a new task accepted, by retention alone", back_s, "s",
                note="tasks are kept 4 s here"),
        ]  # fmt: skip


# ── the disk of the append-only file ─────────────────────────────────────────────────────────────────────────


@contextmanager
def _on_disk(lab: Lab, fsync: str) -> Iterator[tuple[FaultCluster, Disk]]:
    with tempfile.TemporaryDirectory(prefix="daybreak-disk-") as folder:
        try:
            disk = open_disk(Path(folder) / "data")
        except DiskAbsentError as exc:
            raise SkippedError(str(exc)) from exc
        try:
            with lab.cluster(
                fsync=fsync,
                server_folder=disk.folder,
                environment={"server": disk.environment},
                lease_s=LEASE_S,
            ) as cluster:
                yield cluster, disk
        finally:
            disk.close()


@scenario(
    "disk-full-everysec", "the AOF's disk is full under `everysec`: 503, running tasks wait, and it recovers"
)
def disk_full_everysec(lab: Lab) -> list[Row]:
    """ENOSPC for some seconds while tasks run and clients submit."""
    return _disk_full(lab, "everysec", for_s=2.5)


@scenario("disk-full-always", "the same under `always`, where the server ends itself and is started again")
def disk_full_always(lab: Lab) -> list[Row]:
    """The server exits rather than answer what it cannot keep."""
    return _disk_full(lab, "always", for_s=2.5)


def _disk_full(lab: Lab, fsync: str, *, for_s: float) -> list[Row]:
    with _on_disk(lab, fsync) as (cluster, disk):
        running = _start_running(cluster, 2)
        with Traffic(cluster.urls, "solo", threads=2, pause_s=0.02) as traffic:
            time.sleep(0.5)
            disk.full(True)
            began = time.monotonic()
            wait_until(lambda: traffic.refused, 20, "the first refusal")
            noticed_s = traffic.refused[0].at - began
            time.sleep(for_s)
            before = dict(traffic.accepted)
            disk.full(False)
            space = time.monotonic()
            wait_until(lambda: len(traffic.accepted) > len(before) + 5, 60, "submits to be accepted again")
            back_s = min(at for task, at in traffic.accepted.items() if task not in before) - space
        wait_until(lambda: server.answers(cluster.port), 60, "the server")
        found = settle(cluster.urls, [*running, *traffic.accepted], timeout_s=90)
        broken = _once({task: found[task] for task in running})
        lost = [task for task, one in found.items() if one is None]
        with cluster.client() as redis:
            half = half_done(redis, cluster.keys("solo"))
        name = f"disk full, `{fsync}`"
        restarts = cluster.history.counts.get("part.ended", 0)
        bad = [*lost, *unsettled(found), *half]
        return [
            _refusals(name, list(traffic.refused), "store_unavailable"),
            Row(f"{name}: acknowledged tasks lost, not ended, or half there", len(bad), "tasks", target="0",
                held=not bad, note="; ".join([f"of {len(found)}, disk by {disk.kind}", *bad[:2]])),
            Row(f"{name}: running tasks that did not finish in their first attempt", len(broken), "tasks",
                target="0", held=not broken, note=f"of {len(running)}; full for {for_s + noticed_s:.1f} s"),
            Row(f"{name}: full to the first refusal", noticed_s, "s",
                note=f"the server ended itself and was started {restarts} times" if restarts else "MISCONF"),
            Row(f"{name}: space again to the first acceptance, without a hand", back_s, "s", target="≤ 5 s",
                held=back_s <= 5),
        ]  # fmt: skip
