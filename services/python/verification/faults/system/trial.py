"""One fault in a whole system: start a task, inject the fault, and time the recovery."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from testkit.waiting import wait_until
from verification.faults.load import Load
from verification.faults.scenario_catalogue import ViolatedError
from verification.faults.system import processes
from verification.faults.system.up import Up
from verification.faults.system.watching import Watcher

Input = Mapping[str, Any]
SMALL: Input = {"message": "small", "steps": 10, "step_s": 0.05}
LATEST_S = 300.0
"""Whatever takes longer counts as stuck."""


def counted(count: int, what: str) -> str:
    """``1 strike``, ``2 strikes``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The recovery from a fault: how long it took, measured from the fault, and how the task ended."""

    detect_s: float
    """The time until the public API showed the end of the attempt in which the fault occurred."""
    ready_s: float
    """The time until the pool had all its groups again, with a new group in place of the lost one."""
    done_s: float
    """The time until the task had ended."""
    task: Mapping[str, Any]

    @property
    def how(self) -> str:
        """The numbers of attempts and strikes in words, for a note."""
        return counted(self.task["attempt"], "attempt") + ", " + counted(self.task["strikes"], "strike")


@dataclass(slots=True, kw_only=True)
class Bench:
    """A system, its clients, and the reference figures measured on it."""

    up: Up
    load: Load
    log: Callable[[str], None] = print
    cold_s: dict[str, float] = field(default_factory=dict)
    """The cold start of each pool: the seconds from when Ray is ready until all groups of the pool are ready."""
    videos: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of the first video that was made from each input."""

    def submit(self, pool: str, **fields: Any) -> str:
        """Submit a task that one reader follows."""
        return self.load.submit(pool, readers=1, **fields)

    def busy(self, pool: str, task: str, *, step: int) -> dict[str, Any]:
        """Wait until the task has reached a step. :returns: the group that runs it."""

        def look() -> dict[str, Any] | None:
            view = self.up.try_get(f"/v1/tasks/{task}") or {}
            if ((view.get("progress") or {}).get("step") or 0) < step:
                return None
            groups = [group for group in self.up.ready_groups(pool) if group["state"] == "busy"]
            return self.group_of(pool, task) if groups else None

        return wait_until(look, LATEST_S, f"step {step} of {task}")

    def group_of(self, pool: str, task: str) -> dict[str, Any] | None:
        """The group that holds a task. The store is read, because the API does not show which group holds a task."""
        with self.up.client() as client:
            holder = client.hget(self.up.keys(pool).of("task", task), "group")
        return next((group for group in self.up.ready_groups(pool) if group["id"] == holder), None)

    def ended(self, task: str, *, timeout_s: float = LATEST_S) -> dict[str, Any]:
        """Wait until the task has ended. :returns: the task."""

        def look() -> dict[str, Any] | None:
            view = self.up.try_get(f"/v1/tasks/{task}")
            return view if view and view.get("finished_at") else None

        return wait_until(look, timeout_s, f"the end of {task}; see {self.up.logs()}")

    def succeeded(self, task: str, *, timeout_s: float = LATEST_S) -> dict[str, Any]:
        """Wait until the task has succeeded. A video must have the same bytes as the first one from the same input."""
        view = self.ended(task, timeout_s=timeout_s)
        if view["state"] != "succeeded":
            raise ViolatedError(f"{task} ended as {view['state']}: {view.get('error')}")
        for file in view["artifacts"]:
            if file["name"] == "video.mp4":
                expected = self.videos.setdefault(str(sorted(view["input"].items())), file["sha256"])
                if expected != file["sha256"]:
                    raise ViolatedError(
                        f"{task}: the same seed gave another video: SHA-256 {file['sha256']}, expected {expected}"
                    )
        return view

    @contextmanager
    def with_other_tasks(self, pool: str | None = "echo", count: int = 4) -> Iterator[None]:
        """Submit small tasks before and after the body of the ``with`` statement; all of them must succeed."""
        pool = pool if pool in self.up.pools else None
        tasks = [self.submit(pool, **SMALL) for _ in range(count)] if pool else []
        yield
        tasks += [self.submit(pool, **SMALL) for _ in range(count)] if pool else []
        for task in tasks:
            self.succeeded(task)

    def wait_healthy(self) -> None:
        """Wait until every pool has all its groups."""
        for pool in self.up.pools:
            self.up.wait_groups(pool, timeout_s=LATEST_S)


def kill(bench: Bench, pids: Sequence[int], what: str) -> float:
    """Send SIGKILL to processes and wait until they are gone. :returns: the time of the first kill."""
    if not pids:
        raise ViolatedError(f"no process of {what} exists, so none can be killed")
    at = time.monotonic()
    for pid in pids:
        bench.up.history.note("fault", kind=f"kill-{what}", pid=pid)
        processes.kill(pid)
    return at


def hit_group(
    bench: Bench, pool: str, task: str, *, rank: int, step: int, what: str | None = None
) -> Recovery:
    """Kill a rank of the group that runs ``task`` (rank 0 leads), and time the recovery."""
    group = bench.busy(pool, task, step=step)
    with Watcher(bench.up, pool, task) as watcher:
        watcher.first(lambda _: True, since=0.0, timeout_s=30, what="a first snapshot")
        at = kill(bench, [group["pids"][rank]], what or f"rank-{rank}")
        return follow(bench, watcher, pool, task, at=at, lost_group=group["id"])


def follow(bench: Bench, watcher: Watcher, pool: str, task: str, *, at: float, lost_group: str) -> Recovery:
    """Time the recovery from a fault that ended the group ``lost_group``."""
    wanted = next(plan.groups for plan in bench.up.options.pools if plan.name == pool)
    detect_s = watcher.first(
        lambda snapshot: snapshot.strikes > 0 or snapshot.attempt > 1 or snapshot.state == "queued",
        since=at, timeout_s=LATEST_S, what="the end of the attempt",
    )  # fmt: skip
    ready_s = watcher.first(
        lambda snapshot: lost_group not in snapshot.ready and len(snapshot.ready) >= wanted,
        since=at, timeout_s=LATEST_S, what=f"another group of {pool}",
    )  # fmt: skip
    ended = bench.succeeded(task)
    return Recovery(detect_s=detect_s, ready_s=ready_s, done_s=time.monotonic() - at, task=ended)


def freeze(bench: Bench, pid: int, *, for_s: float) -> None:
    """Send SIGSTOP, wait, and send SIGCONT."""
    bench.up.history.note("fault", kind="stop-leader", pid=pid, for_s=for_s)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(for_s)
    finally:
        os.kill(pid, signal.SIGCONT)
