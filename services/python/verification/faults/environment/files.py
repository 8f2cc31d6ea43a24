"""Stores of files that fail: an S3 server that errs, a folder that is full or read-only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from daybreak import Client
from daybreak_server import wiring
from daybreak_server.api.background.orphan_files import Orphans
from testkit.waiting import wait_until
from verification.faults import mixed, schedule
from verification.faults.cluster import FaultCluster
from verification.faults.environment.s3 import BUCKET, FaultyS3, credentials, left_behind, s3_server
from verification.faults.environment.traffic import caller, look, settle
from verification.faults.load import Load
from verification.faults.registry import Lab, SkippedError, ViolatedError, scenario
from verification.results import Row

LARGE = 9 << 20
"""More than one part of a multipart upload."""
TROUBLE_S = 5.0
"""A folder stays in trouble for so long once a task has met it."""


def _forget_all(cluster: FaultCluster, tenants: Sequence[str]) -> None:
    """Delete every task through the API, as its retention would."""
    for tenant in tenants:
        with Client(cluster.urls[0], headers={"Daybreak-Tenant": tenant}) as client:
            for task in list(client.list(pool="solo")):
                client.delete(task)


async def _days_later(cluster: FaultCluster) -> None:
    """The gateways' daily search, as it is two days later: what probes have left whose answers were lost."""
    store = wiring.build_store(cluster.settings)
    try:
        late_ms = (time.time_ns() // 1_000_000) + 2 * 86_400_000
        blobs = wiring.build_blobs(cluster.settings)
        await Orphans(retention_s={}, store=store, blobs=blobs, now_ms=lambda: late_ms).sweep()
    finally:
        await store.close()


@scenario("s3", "S3 answers 500 and 503, is slow, is cut while it is sent to, and loses answers, under load")
def s3(lab: Lab) -> list[Row]:
    """A third of all requests meets trouble; then all must be right, and nothing may be left over."""
    seconds = lab.times(8, 300)
    with s3_server() as (url, name), FaultyS3(url, seed=lab.seed) as faulty, credentials():
        settings = {"artifacts": {"s3": {"endpoint_url": faulty.url, "path_style": True}}}
        with lab.cluster(blobs_url=f"s3://{BUCKET}/lab", settings=settings) as cluster:
            plan = schedule.submissions(seed=lab.seed, seconds=seconds, rate=4.0, pools=cluster.options.pools)
            plan = tuple(
                replace(one, input={**one.input, "artifact_bytes": LARGE}) if one.number % 12 == 0 else one
                for one in plan
            )
            with Load(cluster, seed=lab.seed) as load:
                faulty.chance = 0.3
                load.play(plan)
                time.sleep(seconds)
                faulty.chance = 0.0
                verdict = mixed.settle(cluster, load, bound_s=90)
                if not verdict.ok:
                    raise ViolatedError(f"{verdict.text()}\nhistory: {cluster.history.path}")
                tenants = load.tenants
            _forget_all(cluster, tenants)
            asyncio.run(_days_later(cluster))
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: not left_behind(url), 45, "an empty bucket")
            left = left_behind(url)
            counts = cluster.history.counts
    done = ", ".join(f"{count} × {what}" for what, count in sorted(faulty.done.items()))
    return [
        Row(
            "S3 errs: violations of any promise",
            len(verdict.violations),
            "violations",
            target="0",
            held=verdict.ok,
            note=f"{name}; {counts.get('submit.ok', 0)} submits, {counts.get('download.ok', 0)} downloads; {done}",
        ),
        Row(
            "S3 errs: objects and unfinished uploads left when all tasks are deleted",
            len(left),
            "files",
            target="0",
            held=not left,
            note=", ".join(left[:2]),
        ),
    ]


# ── a folder ─────────────────────────────────────────────────────────────────────────────────────────────────


class SmallFolder:
    """A file system of a few MiB that can be full and read-only: tmpfs, which only root may mount."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))

    def full(self, on: bool) -> None:
        """Fill it, or make room again."""
        filler = self.folder / "~filler"
        if not on:
            filler.unlink()
            return
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def read_only(self, on: bool) -> None:
        """Remount it."""
        self._run("mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.folder))

    def close(self) -> None:
        """Unmount it."""
        self._run("umount", "-l", str(self.folder))

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            raise SkippedError(f"{' '.join(command[:3])}: {done.stderr.strip()}")


@contextlib.contextmanager
def _small() -> Iterator[SmallFolder]:
    if os.geteuid() != 0:
        raise SkippedError("only root may mount a small file system")
    with tempfile.TemporaryDirectory(prefix="daybreak-files-") as folder:
        small = SmallFolder(Path(folder) / "files")
        try:
            yield small
        finally:
            small.close()


@scenario(
    "folder", "the folder of files is full, then read-only: tasks wait and say why, and end when it is mended"
)
def folder(lab: Lab) -> list[Row]:
    """Each for some seconds, with tasks that want to store."""
    rows = []
    with _small() as small, lab.cluster(blobs_url=(small.folder / "store").as_uri(), gateways=1) as cluster:
        for what, trouble in (("full", small.full), ("read-only", small.read_only)):
            rows += _folder_trouble(cluster, what, trouble)
        _forget_all(cluster, ["default"])
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not _files(small.folder), 45, "an empty folder")
        left = _files(small.folder)
    rows.append(
        Row("a folder that failed: files left when all tasks are deleted", len(left), "files", target="0",
            held=not left, note=", ".join(left[:2]))
    )  # fmt: skip
    return rows


def _files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def _folder_trouble(cluster: FaultCluster, what: str, trouble: Any) -> list[Row]:
    body = {"pool": "solo", "input": {"steps": 3, "artifact_bytes": 100_000}, "max_strikes": 12}
    with caller(cluster.urls[0]) as client:
        trouble(True)
        tasks = [client.submit({**body, "metadata": {"n": str(number)}}) for number in range(6)]
        failed = wait_until(
            lambda: [one for one in look(cluster.urls, tasks).values() if one and one["strikes"]],
            30,
            "a task to have failed",
        )
        said = {str(one["error"]["message"]) for one in failed}
        time.sleep(TROUBLE_S)
        trouble(False)
    mended = time.monotonic()
    found = settle(cluster.urls, tasks, timeout_s=90)
    back_s = time.monotonic() - mended
    bad = [task for task, one in found.items() if one is None or one["state"] != "succeeded"]
    strikes = max((one or {}).get("strikes", 0) for one in found.values())
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
        Row(f"folder {what}: tasks lost or not succeeded once it is mended", len(bad), "tasks", target="0",
            held=not bad, note=f"of {len(tasks)}; they said: {min(said)[-110:]}"),
        Row(f"folder {what}: most strikes of a task, while nothing could be stored for {TROUBLE_S:g} s", strikes,
            "strikes", target="≤ 1: a group that could not store takes no other task", held=strikes <= 1),
        Row(f"folder {what}: visible artifacts that cannot be read or do not match", len(unreadable), "files",
            target="0", held=not unreadable, note="; ".join(unreadable[:1])),
        Row(f"folder {what}: mended to all tasks ended", back_s, "s"),
    ]  # fmt: skip
