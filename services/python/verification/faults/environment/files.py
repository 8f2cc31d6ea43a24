"""Blob stores that fail: S3 that returns errors, is slow or cuts connections; a folder that is full or read-only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from daybreak import Client
from daybreak_server import wiring
from daybreak_server.api.background.orphan_files import OrphanFileSweeper
from testkit.waiting import wait_until
from verification.faults import mixed, schedule
from verification.faults.cluster import FaultCluster
from verification.faults.environment.s3 import BUCKET, FaultyS3, credentials, left_behind, s3_server
from verification.faults.environment.traffic import connection, get_tasks, settle
from verification.faults.load import Load
from verification.faults.scenario_catalogue import ScenarioContext, SkippedError, ViolatedError, scenario
from verification.results import Row

LARGE = 9 << 20
"""A file of this many bytes is uploaded in more than one part."""
FAULT_S = 5.0
"""How long the folder's fault lasts after the first task has got a strike because of it."""


def _delete_all(cluster: FaultCluster, tenants: Sequence[str]) -> None:
    """Delete every task of the pool ``solo`` through the API. The end of a task's retention has the same effect."""
    for tenant in tenants:
        with Client(cluster.urls[0], headers={"Daybreak-Tenant": tenant}) as client:
            for task in list(client.list(pool="solo")):
                client.delete(task)


async def _sweep_two_days_later(cluster: FaultCluster) -> None:
    """Run the gateways' daily sweep with a clock that is two days ahead.

    The sweep deletes files that belong to no task. In this scenario, those are probe files: a rank wrote them to test
    the store, and got no response to the write or to the delete.
    """
    store = wiring.build_store(cluster.settings)
    try:
        late_ms = (time.time_ns() // 1_000_000) + 2 * 86_400_000
        blobs = wiring.build_blobs(cluster.settings)
        await OrphanFileSweeper(retention_s={}, store=store, blobs=blobs, now_ms=lambda: late_ms).sweep()
    finally:
        await store.close()


@scenario("s3", "S3 returns 500 and 503, is slow, cuts uploads and loses responses, under load")
def s3(context: ScenarioContext) -> list[Row]:
    """Three in ten requests get a fault. Afterwards every promise must hold and no object may be left over."""
    seconds = context.repeats(8, 300)
    with s3_server() as (url, name), FaultyS3(url, seed=context.seed) as faulty, credentials():
        settings = {"artifacts": {"s3": {"endpoint_url": faulty.url, "path_style": True}}}
        with context.cluster(blobs_url=f"s3://{BUCKET}/faults", settings=settings) as cluster:
            plan = schedule.submissions(
                seed=context.seed, seconds=seconds, rate=4.0, pools=cluster.options.pools
            )
            plan = tuple(
                replace(task, input={**task.input, "artifact_bytes": LARGE})
                if task.number % 12 == 0
                else task
                for task in plan
            )
            with Load(cluster, seed=context.seed) as load:
                faulty.chance = 0.3
                load.play(plan)
                time.sleep(seconds)
                faulty.chance = 0.0
                verdict = mixed.settle(cluster, load, bound_s=90)
                if not verdict.ok:
                    raise ViolatedError(f"{verdict.text()}\nhistory: {cluster.history.path}")
                tenants = load.tenants
            _delete_all(cluster, tenants)
            asyncio.run(_sweep_two_days_later(cluster))
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: not left_behind(url), 45, "an empty bucket")
            remaining = left_behind(url)
            counts = cluster.history.counts
    injected = ", ".join(f"{count} × {what}" for what, count in sorted(faulty.injected.items()))
    return [
        Row(
            "S3 fails: violations of any promise",
            len(verdict.violations),
            "violations",
            target="0",
            held=verdict.ok,
            note=f"{name}; {counts.get('submit.ok', 0)} submits, {counts.get('download.ok', 0)} downloads; {injected}",
        ),
        Row(
            "S3 fails: objects and unfinished uploads left after all tasks are deleted",
            len(remaining),
            "files",
            target="0",
            held=not remaining,
            note=", ".join(remaining[:2]),
        ),
    ]


# ── a folder ─────────────────────────────────────────────────────────────────────────────────────────────────


class SmallFolder:
    """A file system of 8 MiB that can be filled or made read-only. It is a tmpfs, which only root may mount."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))

    def full(self, on: bool) -> None:
        """Fill the file system, or free its space."""
        filler = self.folder / "~filler"
        if not on:
            filler.unlink()
            return
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def read_only(self, on: bool) -> None:
        """Remount the file system, read-only or writable."""
        self._run("mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.folder))

    def close(self) -> None:
        """Unmount the file system."""
        self._run("umount", "-l", str(self.folder))

    def _run(self, *command: str) -> None:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if result.returncode:
            raise SkippedError(f"{' '.join(command[:3])}: {result.stderr.strip()}")


@contextlib.contextmanager
def _small_folder() -> Iterator[SmallFolder]:
    if os.geteuid() != 0:
        raise SkippedError("only root may mount a small file system")
    with tempfile.TemporaryDirectory(prefix="daybreak-files-") as folder:
        small = SmallFolder(Path(folder) / "files")
        try:
            yield small
        finally:
            small.close()


@scenario(
    "folder", "the blob folder is full, then read-only: tasks report why, retry, and succeed once it is fixed"
)
def folder(context: ScenarioContext) -> list[Row]:
    """Each fault lasts some seconds while tasks try to store artifacts."""
    rows = []
    with (
        _small_folder() as small,
        context.cluster(blobs_url=(small.folder / "store").as_uri(), gateways=1) as cluster,
    ):
        for what, fault in (("full", small.full), ("read-only", small.read_only)):
            rows += _folder_fault(cluster, what, fault)
        _delete_all(cluster, ["default"])
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not _files(small.folder), 45, "an empty folder")
        remaining = _files(small.folder)
    rows.append(
        Row("blob folder, after both faults: files left after all tasks are deleted", len(remaining), "files",
            target="0", held=not remaining, note=", ".join(remaining[:2]))
    )  # fmt: skip
    return rows


def _files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def _folder_fault(cluster: FaultCluster, what: str, fault: Callable[[bool], object]) -> list[Row]:
    body = {"pool": "solo", "input": {"steps": 3, "artifact_bytes": 100_000}, "max_strikes": 12}
    with connection(cluster.urls[0]) as client:
        fault(True)
        tasks = [client.submit({**body, "metadata": {"n": str(number)}}) for number in range(6)]
        struck = wait_until(
            lambda: [task for task in get_tasks(cluster.urls, tasks).values() if task and task["strikes"]],
            30,
            "a task to have a strike",
        )
        messages = {str(task["error"]["message"]) for task in struck}
        time.sleep(FAULT_S)
        fault(False)
    fixed_at = time.monotonic()
    views = settle(cluster.urls, tasks, timeout_s=90)
    recovery_s = time.monotonic() - fixed_at
    bad = [task for task, view in views.items() if view is None or view["state"] != "succeeded"]
    strikes = max((view or {}).get("strikes", 0) for view in views.values())
    unreadable = []
    with Client(cluster.urls[0]) as sdk, tempfile.TemporaryDirectory() as out:
        for task in tasks:
            for artifact in sdk.get(task).artifacts:
                try:
                    sdk.download(
                        task, artifact.name, Path(out) / f"{task}-{artifact.name}"
                    )  # checks its SHA-256
                except Exception as exc:
                    unreadable.append(f"{task}/{artifact.name}: {exc}")
    return [
        Row(f"blob folder {what}: tasks that did not succeed once it was writable again", len(bad), "tasks", target="0",
            held=not bad,
            note=f"of {len(tasks)}. While it was {what}, a task's error ended with: "
            f"{min(messages).rpartition('/')[2]}"),
        Row(f"blob folder {what} for {FAULT_S:g} s: most strikes of a task", strikes,
            "strikes", target="≤ 1: after one failure, a group takes no task until it can store files",
            held=strikes <= 1),
        Row(f"blob folder {what}: artifacts that cannot be read or differ from their SHA-256", len(unreadable), "files",
            target="0", held=not unreadable, note="; ".join(unreadable[:1])),
        Row(f"blob folder {what}: time from when it is writable again until all tasks have ended", recovery_s, "s"),
    ]  # fmt: skip
