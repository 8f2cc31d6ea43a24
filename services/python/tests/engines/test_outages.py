"""A task survives a slow or unreachable store at the end of an attempt, and a drain mark that is soon removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daybreak_server import wiring
from daybreak_server.domain.ids import AttemptToken, GroupId, TaskId
from daybreak_server.domain.tasks import CheckpointRef, Control, Lease, State
from daybreak_server.engines.common.lease_renewer import HeldLease
from daybreak_server.engines.ranks.rank_deps import RankDeps
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.engines.tasks.loops import JOBS
from daybreak_server.ports.store_errors import StoreUnavailableError
from daybreak_server.workloads import discovery
from testkit.echo import echo_text
from testkit.pools import Pool

LEASE = Lease(task=TaskId("echo_1"), token=AttemptToken("1.a"), group=GroupId("g"), lease_s=10.0)


class Wrapper:
    """A real store. A subclass changes some of its methods."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class SlowBlobs(Wrapper):
    """Uploads whose key contains ``part`` pause for ``pause_s`` before they start."""

    def __init__(self, inner: Any, part: str, pause_s: float) -> None:
        super().__init__(inner)
        self._part = part
        self._pause_s = pause_s

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        if self._part in key:
            time.sleep(self._pause_s)
        yield from self._inner.upload(key, source, content_type=content_type)


class FlakyQueue(Wrapper):
    """A queue that fails for the first few reports of a checkpoint, as if Redis could not be reached."""

    def __init__(self, inner: Any, times: int) -> None:
        super().__init__(inner)
        self.failures_left = times

    def report(self, lease: Lease, events: Any, *, checkpoint: CheckpointRef | None, **more: Any) -> Control:
        if checkpoint is not None and self.failures_left:
            self.failures_left -= 1
            raise StoreUnavailableError("down for a moment")
        control: Control = self._inner.report(lease, events, checkpoint=checkpoint, **more)
        return control


@pytest.fixture
def serve() -> Iterator[Callable[..., Rank]]:
    """A function that starts a group of one rank. It can wrap the group's stores. After the test, the groups stop."""
    started: list[Rank] = []

    def start(
        pool: Pool,
        *,
        blobs: Callable[[Any], Any] = lambda blobs: blobs,
        queue: Callable[[Any], Any] = lambda queue: queue,
    ) -> Rank:
        spec = discovery.spec("echo")
        deps = RankDeps(
            queue=lambda: queue(wiring.build_queue(pool.settings, "echo")),
            blobs=lambda: blobs(pool.blobs),
            workload=lambda: discovery.implementation(spec),
            on_broken=print,
        )
        started.append(Rank(spec, wiring.group_config(pool.settings, "echo"), deps, loops=JOBS))
        started[-1].start()
        return started[-1]

    yield start
    for rank in started:
        rank.stop(timeout_s=5)


def test_an_upload_longer_than_stall_s_is_not_a_stall(
    pools: Callable[..., Pool], serve: Callable[..., Rank]
) -> None:
    """The steps are done and only the upload is slow, so the task succeeds without a strike."""
    pool = pools(lease={"lease_s": 10.0, "stall_s": 1.0})
    serve(pool, blobs=lambda blobs: SlowBlobs(blobs, "echo.txt", 3.0))
    record = pool.wait(pool.submit(message="u", steps=2))
    assert (record.state, record.attempt, record.strikes) == (State.SUCCEEDED, 1, 0)


def test_a_slow_last_checkpoint_does_not_delay_the_release(
    pools: Callable[..., Pool], serve: Callable[..., Rank]
) -> None:
    """The group waits at most half of ``stall_s`` for the last checkpoint.

    Then it releases the task, without this checkpoint and without a strike.
    """
    pool = pools(lease={"lease_s": 10.0, "stall_s": 2.0}, drain_s=0.0, checkpoint_s=600.0)
    serve(pool, blobs=lambda blobs: SlowBlobs(blobs, "checkpoints", 3.0))
    task = pool.submit(message="c", steps=200, step_s=0.02)
    pool.wait_step(task, 3)
    _drain(pool)
    record = pool.wait_for(task, lambda record: record.releases == 1, "the release")
    assert record.strikes == 0


def test_the_last_checkpoint_is_reported_after_a_short_outage_of_redis(
    pools: Callable[..., Pool], serve: Callable[..., Rank]
) -> None:
    """The next attempt resumes from the last checkpoint, and not from the first step."""
    pool, queues = pools(drain_s=0.0, checkpoint_s=600.0), []

    def wrap(real_queue: Any) -> Any:
        queues.append(FlakyQueue(real_queue, times=2))
        return queues[-1]

    serve(pool, queue=wrap)
    task = pool.submit(message="r", steps=100, step_s=0.02)
    pool.wait_step(task, 5)
    _drain(pool)
    pool.wait_for(task, lambda record: record.releases == 1, "the release")
    _drain(pool, on=False)
    record = pool.wait(task)
    assert sum(queue.failures_left for queue in queues) <= 2 * (len(queues) - 1), (
        "the queue refused no report"
    )
    assert (record.resumed_from_step or 0) >= 5
    assert pool.output(task) == echo_text("r", 100)


def test_a_drain_mark_that_is_removed_in_time_releases_nothing(
    pools: Callable[..., Pool], serve: Callable[..., Rank]
) -> None:
    """Attempt 1 takes longer than `drain_s` and succeeds, because the mark is removed before `drain_s` is over."""
    pool = pools(drain_s=2.0, progress_s=0.1)
    serve(pool)
    task = pool.submit(message="m", steps=200, step_s=0.02)
    pool.wait_step(task, 3)
    _drain(pool)
    pool.wait_step(task, 40)  # by then, a reply has carried the mark to the group
    _drain(pool, on=False)
    record = pool.wait(task)
    assert (record.attempt, record.releases) == (1, 0)


def test_the_reply_to_the_newest_request_decides_about_the_drain_mark() -> None:
    """Two threads may read replies out of order. A cancel stays, whatever a later reply says."""
    held = HeldLease(LEASE, Control(0))
    sent_at = time.monotonic()
    held.on_reply(Control.DRAIN | Control.CANCEL, sent_at=sent_at + 1)
    held.on_reply(Control(0), sent_at=sent_at)
    assert held.control == Control.DRAIN | Control.CANCEL
    assert held.drained_s() is not None
    held.on_reply(Control(0), sent_at=sent_at + 2)
    assert (held.control, held.drained_s()) == (Control.CANCEL, None)
    held.on_reply(Control.DRAIN, sent_at=sent_at + 1.5)
    assert held.drained_s() is None


def _drain(pool: Pool, *, on: bool = True) -> None:
    (group,) = pool.view().groups
    pool.call(pool.store.drain(pool.name, group.id, on=on))
