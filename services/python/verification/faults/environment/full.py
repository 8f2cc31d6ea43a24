"""Scenarios in which a resource is full: the server's memory, or the disk of its append-only file (AOF)."""

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
from verification.faults.environment.invariants import inconsistencies
from verification.faults.environment.traffic import (
    GatewayConnection,
    Response,
    Traffic,
    connection,
    get_tasks,
    settle,
    unsettled,
)
from verification.faults.scenario_catalogue import ScenarioContext, SkippedError, ViolatedError, scenario
from verification.results import Row

LEASE_S = 5.0
"""The lease clock advances by at most 2 s when an outage ends, so a lease of 5 s survives the outage."""

RUNNING = {"input": {"steps": 50, "step_s": 0.1, "message": "long"}}
"""Five seconds of work: longer than the faults last."""


class Watchers:
    """One SDK subscriber per task, and the events that it saw, in order."""

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
        """Wait until each subscriber has seen its task end, or until the timeout."""
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))


def _start_tasks(cluster: FaultCluster, count: int) -> list[str]:
    """Start ``count`` tasks and wait until they run."""
    pool = cluster.options.pools[0].name
    with connection(cluster.urls[0]) as client:
        tasks = [client.submit({"pool": pool, **RUNNING}) for _ in range(count)]
    wait_until(
        lambda: all(task and task["state"] == "running" for task in get_tasks(cluster.urls, tasks).values()),
        20,
        "the tasks to run",
    )
    return tasks


def _not_done_at_once(views: dict[str, dict[str, Any] | None]) -> list[str]:
    """The tasks that were lost, did not succeed, or needed a second attempt."""
    return [
        task
        for task, view in views.items()
        if view is None or view["state"] != "succeeded" or view["attempt"] != 1
    ]


def _until_refused(
    client: GatewayConnection, body: Callable[[int], dict[str, Any]], *, limit: int
) -> tuple[list[str], Response]:
    """Submit until a submit is refused. :returns: the accepted ids and the refusal."""
    accepted: list[str] = []
    for number in range(limit):
        response = client.call("POST", "/v1/tasks", body(number))
        if response.status >= 400:
            return accepted, response
        accepted.append(response.body["id"])
    raise ViolatedError(f"the server accepted {limit} submits and is still not full")


def _refusals(what: str, responses: list[Response], expected: str) -> Row:
    expected_refusals = [
        response
        for response in responses
        if response.status == 503 and response.code == expected and response.retry_after
    ]
    unexpected = sorted(
        {f"{other.status} {other.code}" for other in responses if other not in expected_refusals}
    )
    return Row(
        f"{what}: submits refused with 503 `{expected}` and `Retry-After`",
        len(expected_refusals),
        "submits",
        target="all refusals",
        held=bool(responses) and len(expected_refusals) == len(responses),
        note=", ".join([f"of {len(responses)} refusals", *unexpected]),
    )


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────


@scenario(
    "memory-full", "the server's memory is full: submits are refused, running tasks finish, memory frees up"
)
def memory_full(context: ScenarioContext) -> list[Row]:
    """Set `maxmemory` 2 MiB above the used memory, submit until a submit is refused, and let retention free memory."""
    with context.cluster(gateways=1, settings={"pools": {"solo": {"retention_s": 4.0}}}) as cluster:
        running = _start_tasks(cluster, 2)
        watchers = Watchers(cluster.urls[0], running)
        with cluster.client() as redis:
            room = int(redis.info("memory")["used_memory"]) + (2 << 20)
            redis.config_set("maxmemory", room)
        bulk = {"pool": "solo", "input": {"steps": 0, "message": "x" * 9000}, "start_within_s": 600}
        with connection(cluster.urls[0]) as client:
            filled, first_refusal = _until_refused(client, lambda number: bulk, limit=20_000)
            refused, full_at = [first_refusal], time.monotonic()
            while time.monotonic() - full_at < 2.0:  # the groups continue, but ended tasks free no memory yet
                response = client.call("POST", "/v1/tasks", bulk)
                refused += [response] if response.status >= 400 else []
                filled += [response.body["id"]] if response.status < 400 else []
                time.sleep(0.02)
            watchers.join(60)
            ended = get_tasks(cluster.urls, running)
            wait_until(
                lambda: client.call("POST", "/v1/tasks", bulk).status == 202, 60, "space for a new task"
            )
            recovery_s = time.monotonic() - full_at
        broken = _not_done_at_once(ended)
        quiet = [max(b - a for a, b in pairwise(at)) for at in watchers.at.values()]
        views = settle(cluster.urls, filled, timeout_s=90)
        bad = [task for task, view in views.items() if view is not None and view["state"] != "succeeded"]
        return [
            _refusals("memory full", refused, "queue_full"),
            Row("memory full: running tasks that did not finish in their first attempt", len(broken), "tasks",
                target="0", held=not broken, note=f"of {len(running)}"),
            Row("memory full: longest silence in a running task's stream", max(quiet), "s", target="≤ 1.5 s",
                held=max(quiet) <= 1.5, note=f"{sum(map(len, watchers.seen.values()))} events by SSE"),
            Row("memory full: earlier tasks, not yet deleted, that did not succeed", len(bad), "tasks",
                target="0", held=not bad, note=f"of {len(filled)}"),
            Row("memory full: time from the first refused submit until one is accepted, because ended tasks are "
                "deleted", recovery_s, "s", note="retention is 4 s in this test"),
        ]  # fmt: skip


# ── the disk of the append-only file ─────────────────────────────────────────────────────────────────────────


@contextmanager
def _on_disk(context: ScenarioContext, fsync: str) -> Iterator[tuple[FaultCluster, Disk]]:
    with tempfile.TemporaryDirectory(prefix="daybreak-disk-") as folder:
        try:
            disk = open_disk(Path(folder) / "data")
        except DiskAbsentError as exc:
            raise SkippedError(str(exc)) from exc
        try:
            with context.cluster(
                fsync=fsync,
                server_folder=disk.folder,
                environment={"server": disk.environment},
                lease_s=LEASE_S,
            ) as cluster:
                yield cluster, disk
        finally:
            disk.close()


@scenario(
    "disk-full-everysec",
    "the AOF's disk is full under `everysec`: 503, running tasks wait, the server recovers",
)
def disk_full_everysec(context: ScenarioContext) -> list[Row]:
    """The disk is full (ENOSPC) for some seconds while tasks run and clients submit."""
    return _disk_full(context, "everysec", for_s=2.5)


@scenario(
    "disk-full-always", "the AOF's disk is full under `always`: the server exits, restarts and recovers"
)
def disk_full_always(context: ScenarioContext) -> list[Row]:
    """The server exits rather than acknowledge a write that it cannot keep."""
    return _disk_full(context, "always", for_s=2.5)


def _disk_full(context: ScenarioContext, fsync: str, *, for_s: float) -> list[Row]:
    with _on_disk(context, fsync) as (cluster, disk):
        running = _start_tasks(cluster, 2)
        with Traffic(cluster.urls, "solo", threads=2, pause_s=0.02) as traffic:
            time.sleep(0.5)
            disk.full(True)
            began = time.monotonic()
            wait_until(lambda: traffic.refused, 20, "the first refusal")
            noticed_s = traffic.refused[0].at - began
            time.sleep(for_s)
            before = dict(traffic.accepted)
            disk.full(False)
            freed_at = time.monotonic()
            wait_until(lambda: len(traffic.accepted) > len(before) + 5, 60, "submits to be accepted again")
            recovery_s = min(at for task, at in traffic.accepted.items() if task not in before) - freed_at
        wait_until(lambda: server.answers(cluster.port), 60, "the server")
        views = settle(cluster.urls, [*running, *traffic.accepted], timeout_s=90)
        broken = _not_done_at_once({task: views[task] for task in running})
        lost = [task for task, view in views.items() if view is None]
        with cluster.client() as redis:
            problems = inconsistencies(redis, cluster.keys("solo"))
        name = f"disk full, `{fsync}`"
        restarts = cluster.history.counts.get("component.ended", 0)
        bad = [*lost, *unsettled(views), *problems]
        return [
            _refusals(name, list(traffic.refused), "store_unavailable"),
            Row(f"{name}: acknowledged tasks lost, not ended, or inconsistent", len(bad), "tasks", target="0",
                held=not bad, note="; ".join([f"of {len(views)}, disk by {disk.kind}", *bad[:2]])),
            Row(f"{name}: running tasks that did not finish in their first attempt", len(broken), "tasks",
                target="0", held=not broken, note=f"of {len(running)}; full for {for_s + noticed_s:.1f} s"),
            Row(f"{name}: time until the first submit is refused", noticed_s, "s",
                note=f"the server exited and restarted {restarts} times"
                if restarts else "the server refuses writes with MISCONF"),
            Row(f"{name}: time from free space until a submit is accepted again", recovery_s, "s",
                target="≤ 5 s", held=recovery_s <= 5),
        ]  # fmt: skip
