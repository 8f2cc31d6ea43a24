"""Named places where a part kills itself with SIGKILL, put around its ports; production code knows none of them.

A failpoint is armed by a file in the cluster's folder ``armed``, ``<point>.<passes left>``: whichever process comes
to the point first takes the file away, and dies there. So a point can be armed at any time, fires exactly once,
and says so in ``hits``. Points may also fire by chance (``chance``), drawn from a seed.
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
    "after-claim": "the claim is in the store, the leader does not know of it",
    "between-steps": "the leader between two steps",
    "after-report": "a report is in the store, its answer is not read",
    "mid-checkpoint": "half of a checkpoint's bytes are written",
    "after-checkpoint": "a checkpoint is stored, the record does not point at it yet",
    "after-checkpoint-report": "the record points at a checkpoint, the leader does not know of it",
    "mid-upload": "half of an artifact's bytes are written",
    "after-upload": "an artifact is stored whole, and nothing else of the end is done",
    "before-settle": "all artifacts are stored, the terminal script is not called",
    "after-settle": "the terminal script is done, its answer is not read",
}
FOLLOWER = {"follower-mid-step": "a follower in a step, while the leader waits for it"}
GATEWAY = {
    "before-submit": "a request is read, the script not called",
    "after-submit": "a task is accepted, the client has no answer",
    "after-cancel": "a cancel is done, the client has no answer",
    "mid-stream": "events are read from the store and not yet sent to their followers",
    "after-tick": "a tick has handed out files to delete",
    "after-reap": "a tick has reaped a lost lease",
    "after-delete": "files are deleted, and the store is not told",
}
ALL: Mapping[str, str] = {**LEADER, **FOLLOWER, **GATEWAY}
"""Every failpoint: name → where that is."""


class Failpoints:
    """The failpoints of one process."""

    def __init__(
        self, folder: Path, *, who: str, chance: Mapping[str, float] | None = None, seed: int = 0
    ) -> None:
        self._armed = folder / "armed"
        self._hits = folder / "hits"
        self._who = who
        self._chance = dict(chance or {})
        self._draw = random.Random(seed)

    def reach(self, point: str) -> None:
        """Die here, if it is so armed."""
        chance = self._chance.get(point)
        if chance is not None and self._draw.random() < chance:
            self.die(point)
        for name in os.listdir(self._armed):
            if name.startswith(f"{point}."):
                left = int(name.rpartition(".")[2])
                try:
                    if left > 0:
                        os.rename(self._armed / name, self._armed / f"{point}.{left - 1}")
                        continue
                    os.unlink(self._armed / name)
                except FileNotFoundError:  # another process was faster
                    continue
                self.die(point)

    def next_is(self, point: str) -> bool:
        """Whether the next process at this point dies there."""
        return f"{point}.0" in os.listdir(self._armed) or point in self._chance

    def die(self, point: str) -> None:
        """Say so, and die."""
        line = f"{point} {self._who} {os.getpid()} {time.monotonic():.6f}\n"
        descriptor = os.open(self._hits, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # the signal is on its way


class _HalfFirst(io.BytesIO):
    """Gives half of what it holds at its first read."""

    _begun = False

    def read(self, size: int | None = -1) -> bytes:
        if self._begun:
            return super().read(size)
        self._begun = True
        return super().read(max(1, len(self.getbuffer()) // 2))


class _HalfFirstPath(PosixPath):
    """A file whose reader gets half of it first."""

    def open(self, *_: Any, **__: Any) -> BinaryIO:  # type: ignore[override]
        return _HalfFirst(Path(self).read_bytes())


class FailingBlobs:
    """Blobs with failpoints in ``upload``."""

    def __init__(self, inner: Blobs, points: Failpoints) -> None:
        self._inner = inner
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        checkpoint = "/checkpoints/" in key
        middle, end = ("mid-checkpoint", "after-checkpoint") if checkpoint else ("mid-upload", "after-upload")
        if self._points.next_is(middle):
            for sent in self._inner.upload(key, _HalfFirstPath(source), content_type=content_type):
                self._points.reach(middle)  # after the first half
                yield sent
        else:
            for sent in self._inner.upload(key, source, content_type=content_type):
                self._points.reach(middle)
                yield sent
        self._points.reach(end)

    def delete(self, prefix: str) -> int:
        count = self._inner.delete(prefix)
        self._points.reach("after-delete")
        return count


class FailingQueue:
    """A queue with failpoints around claim, report and settle."""

    def __init__(self, inner: WorkQueue, points: Failpoints) -> None:
        self._inner = inner
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def claim(self, group: Any, *, wait_s: float) -> Any:
        found = self._inner.claim(group, wait_s=wait_s)
        if found is not None:
            self._points.reach("after-claim")
        return found

    def report(self, lease: Any, events: Sequence[Any], *, checkpoint: Any = None, fields: Any = None) -> Any:
        control = self._inner.report(lease, events, checkpoint=checkpoint, fields=fields)
        self._points.reach("after-report" if checkpoint is None else "after-checkpoint-report")
        return control

    def settle(self, lease: Any, outcome: Any, *, claim_next: Any = None) -> Any:
        if isinstance(outcome, Finished):
            self._points.reach("before-settle")
        settled = self._inner.settle(lease, outcome, claim_next=claim_next)
        if isinstance(outcome, Finished):
            self._points.reach("after-settle")
        if settled.next is not None:
            self._points.reach("after-claim")
        return settled


class FailingWorkload:
    """A workload with failpoints between its steps."""

    def __init__(self, inner: Workload[Any], points: Failpoints) -> None:
        self._inner = inner
        self._points = points
        self._point = "between-steps"

    def load(self, group: Group) -> None:
        self._point = "between-steps" if group.leader else "follower-mid-step"
        self._inner.load(group)

    def warm_up(self) -> None:
        self._inner.warm_up()

    def run(self, task: Task[Any], ctx: Context) -> Iterator[Step]:
        for step in self._inner.run(task, ctx):
            self._points.reach(self._point)
            yield step


class FailingStore:
    """A task store and housekeeper with failpoints behind submit, cancel and tick."""

    def __init__(self, inner: TaskStore | Housekeeper, points: Failpoints) -> None:
        self._inner: Any = inner
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def submit(self, tasks: Sequence[Any]) -> Any:
        self._points.reach("before-submit")
        answers = await self._inner.submit(tasks)
        self._points.reach("after-submit")
        return answers

    async def cancel(self, task: Any, *, reason: str = "requested") -> Any:
        record = await self._inner.cancel(task, reason=reason)
        self._points.reach("after-cancel")
        return record

    async def tick(self, pool: str) -> Any:
        report = await self._inner.tick(pool)
        if report.garbage or report.retention_due:
            self._points.reach("after-tick")
        if report.reaped:
            self._points.reach("after-reap")
        return report


class FailingEvents:
    """An event log with a failpoint in the hands of the gateway's one reader."""

    def __init__(self, inner: EventLog, points: Failpoints) -> None:
        self._inner: Any = inner
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def follow(self, pool: str, *, after: str) -> AsyncIterator[Sequence[Any]]:
        async for batch in self._inner.follow(pool, after=after):
            if batch:
                self._points.reach("mid-stream")
            yield batch
