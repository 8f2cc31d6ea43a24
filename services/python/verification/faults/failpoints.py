"""Failpoints: named places where a process kills itself with SIGKILL.

They are in wrappers around the ports, so production code does not contain them.

A file ``<failpoint>.<passes>`` in the cluster's folder ``armed`` arms a failpoint. ``passes`` is how often the
failpoint may still be reached without effect. A process that reaches the failpoint lowers this number by renaming the
file. At zero, it removes the file and dies. Only one process can rename or remove a file, so an armed failpoint fires
at most once. Before the process dies, it records its death in the file ``hits``. Failpoints can also fire at random,
with the probability ``chance``. The random numbers are drawn from a seed.

``FailingQueue``, ``FailingBlobs``, ``FailingStore``, ``FailingEvents`` and ``FailingWorkload`` wrap the real adapters
and call ``reach`` before or after the wrapped call. ``mid-upload`` and ``mid-checkpoint`` also split the upload: its
first read returns half of the file, so that the process dies with half of the bytes written.
"""

from __future__ import annotations

import io
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path, PosixPath
from typing import Any, BinaryIO

from daybreak_server.domain.tasks import Finished
from daybreak_server.ports.blobs import Blobs
from daybreak_server.ports.events import EventLog
from daybreak_server.ports.housekeeping import Housekeeper
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.tasks import TaskStore
from daybreak_server.workloads.base import Context, Group, Step, Task, Workload

LEADER = {
    "after-claim": "the store has the claim, but the leader has no reply yet",
    "between-steps": "the leader is between two steps",
    "after-report": "the store has a report, but the leader has no reply yet",
    "mid-checkpoint": "half of a checkpoint's bytes are written",
    "after-checkpoint": "a checkpoint is stored, but the record does not point to it yet",
    "after-checkpoint-report": "the record points to a checkpoint, but the leader has no reply yet",
    "mid-upload": "half of an artifact's bytes are written",
    "after-upload": "an artifact is stored, but the task is not settled yet",
    "before-settle": "all artifacts are stored, but the settle script has not run yet",
    "after-settle": "the settle script has run, but the leader has no reply yet",
}
FOLLOWER = {"follower-mid-step": "a follower is in a step, and the leader waits for it"}
GATEWAY = {
    "before-submit": "a request is read, but the submit script has not run yet",
    "after-submit": "a task is accepted, but the client has no response yet",
    "after-cancel": "a cancel is recorded, but the client has no response yet",
    "mid-stream": "events are read from the store, but not sent to subscribers yet",
    "after-tick": "a tick has returned files to delete",
    "after-reap": "a tick has reaped a lost lease",
    "after-delete": "files are deleted, but the store has no confirmation yet",
}
ALL: Mapping[str, str] = {**LEADER, **FOLLOWER, **GATEWAY}
"""Every failpoint: its name and where it is."""


class Failpoints:
    """The failpoints of one process."""

    def __init__(
        self, folder: Path, *, process: str, chance: Mapping[str, float] | None = None, seed: int = 0
    ) -> None:
        self._armed = folder / "armed"
        self._hits = folder / "hits"
        self._process = process
        self._chance = dict(chance or {})
        self._draw = random.Random(seed)

    def reach(self, failpoint: str) -> None:
        """Die here if the failpoint is armed and has no passes left, or by chance."""
        chance = self._chance.get(failpoint)
        if chance is not None and self._draw.random() < chance:
            self.die(failpoint)
        for name in os.listdir(self._armed):
            if name.startswith(f"{failpoint}."):
                passes_left = int(name.rpartition(".")[2])
                try:
                    if passes_left > 0:
                        os.rename(self._armed / name, self._armed / f"{failpoint}.{passes_left - 1}")
                        continue
                    os.unlink(self._armed / name)
                except FileNotFoundError:  # another process took it first
                    continue
                self.die(failpoint)

    def next_is(self, failpoint: str) -> bool:
        """Whether the next process that reaches this failpoint dies, or may die by chance."""
        return f"{failpoint}.0" in os.listdir(self._armed) or failpoint in self._chance

    def die(self, failpoint: str) -> None:
        """Record the hit and die."""
        line = f"{failpoint} {self._process} {os.getpid()} {time.monotonic():.6f}\n"
        descriptor = os.open(self._hits, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # the signal is on its way


class _HalfFirst(io.BytesIO):
    """Returns half of its bytes at the first read."""

    _started = False

    def read(self, size: int | None = -1) -> bytes:
        if self._started:
            return super().read(size)
        self._started = True
        return super().read(max(1, len(self.getbuffer()) // 2))


class _HalfFirstPath(PosixPath):
    """A path whose reader gets half of the file first."""

    def open(self, *_: Any, **__: Any) -> BinaryIO:  # type: ignore[override]
        return _HalfFirst(Path(self).read_bytes())


class FailingBlobs:
    """Blobs with failpoints in ``upload`` and ``delete``."""

    def __init__(self, inner: Blobs, failpoints: Failpoints) -> None:
        self._inner = inner
        self._failpoints = failpoints

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        checkpoint = "/checkpoints/" in key
        middle, end = ("mid-checkpoint", "after-checkpoint") if checkpoint else ("mid-upload", "after-upload")
        if self._failpoints.next_is(middle):
            for sent in self._inner.upload(key, _HalfFirstPath(source), content_type=content_type):
                self._failpoints.reach(middle)  # after the first half
                yield sent
        else:
            for sent in self._inner.upload(key, source, content_type=content_type):
                self._failpoints.reach(middle)
                yield sent
        self._failpoints.reach(end)

    def delete(self, prefix: str) -> int:
        count = self._inner.delete(prefix)
        self._failpoints.reach("after-delete")
        return count


class FailingQueue:
    """A queue with failpoints after claim and report, and before and after the settle of a finished task."""

    def __init__(self, inner: WorkQueue, failpoints: Failpoints) -> None:
        self._inner = inner
        self._failpoints = failpoints

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def claim(self, group: Any, *, wait_s: float) -> Any:
        claim = self._inner.claim(group, wait_s=wait_s)
        if claim is not None:
            self._failpoints.reach("after-claim")
        return claim

    def report(self, lease: Any, events: Sequence[Any], *, checkpoint: Any = None, fields: Any = None) -> Any:
        control = self._inner.report(lease, events, checkpoint=checkpoint, fields=fields)
        self._failpoints.reach("after-report" if checkpoint is None else "after-checkpoint-report")
        return control

    def settle(self, lease: Any, outcome: Any, *, claim_next: Any = None) -> Any:
        if isinstance(outcome, Finished):
            self._failpoints.reach("before-settle")
        settled = self._inner.settle(lease, outcome, claim_next=claim_next)
        if isinstance(outcome, Finished):
            self._failpoints.reach("after-settle")
        if settled.next is not None:
            self._failpoints.reach("after-claim")
        return settled


class FailingWorkload:
    """A workload with a failpoint at each step."""

    def __init__(self, inner: Workload[Any], failpoints: Failpoints) -> None:
        self._inner = inner
        self._failpoints = failpoints
        self._point = "between-steps"

    def load(self, group: Group) -> None:
        self._point = "between-steps" if group.leader else "follower-mid-step"
        self._inner.load(group)

    def warm_up(self) -> None:
        self._inner.warm_up()

    def run(self, task: Task[Any], ctx: Context) -> Iterator[Step]:
        for step in self._inner.run(task, ctx):
            self._failpoints.reach(self._point)
            yield step


class FailingStore:
    """A task store and housekeeper with failpoints before and after submit, after cancel and after tick."""

    def __init__(self, inner: TaskStore | Housekeeper, failpoints: Failpoints) -> None:
        self._inner: Any = inner
        self._failpoints = failpoints

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def submit(self, tasks: Sequence[Any]) -> Any:
        self._failpoints.reach("before-submit")
        results = await self._inner.submit(tasks)
        self._failpoints.reach("after-submit")
        return results

    async def cancel(self, task: Any, *, reason: str = "requested") -> Any:
        record = await self._inner.cancel(task, reason=reason)
        self._failpoints.reach("after-cancel")
        return record

    async def tick(self, pool: str) -> Any:
        report = await self._inner.tick(pool)
        if report.garbage or report.retention_due:
            self._failpoints.reach("after-tick")
        if report.reaped:
            self._failpoints.reach("after-reap")
        return report


class FailingEvents:
    """An event log with a failpoint after each batch of events that the gateway reads."""

    def __init__(self, inner: EventLog, failpoints: Failpoints) -> None:
        self._inner: Any = inner
        self._failpoints = failpoints

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def follow(self, pool: str, *, after: str) -> AsyncIterator[Sequence[Any]]:
        async for batch in self._inner.follow(pool, after=after):
            if batch:
                self._failpoints.reach("mid-stream")
            yield batch
