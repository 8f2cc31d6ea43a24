"""A group of one rank on a real Valkey runs tasks from claim to terminal event, through every kind of failure."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from daybreak_server import wiring
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import TaskId, new_task_id
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import NewTask, State
from daybreak_server.engines.ranks.rank_deps import RankDeps
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.engines.tasks.loops import JOBS
from daybreak_server.workloads import discovery
from testkit.echo import echo_text
from testkit.pools import Pool, make_settings
from testkit.valkey import Server, start_valkey
from testkit.waiting import wait_until


def test_an_echo_task_runs_to_its_artifact(pools: Callable[..., Pool], leader: Callable[..., Rank]) -> None:
    """The stored file matches its hash, and each step has an event."""
    pool = pools()
    leader(pool)
    task = pool.submit(message="hello", steps=5)
    record = pool.wait(task)
    (artifact,) = record.artifacts
    data = pool.output(task)
    assert data == echo_text("hello", 5)
    assert artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert artifact.size_bytes == len(data)
    assert artifact.key.startswith(f"{task}/1.")
    assert pool.types(task)[0:2] == ["queued", "started"]
    assert pool.types(task)[-2:] == ["artifact", "succeeded"]
    steps = [event.data["step"] for event in pool.events(task) if "steps" in event.data]
    assert steps == [1, 2, 3, 4, 5]
    assert record.state is State.SUCCEEDED


def test_a_task_without_steps_succeeds(pools: Callable[..., Pool], leader: Callable[..., Rank]) -> None:
    """A workload without steps yields nothing, so the ranks agree only once, at its end."""
    pool = pools()
    leader(pool)
    task = pool.submit(message="none", steps=0)
    pool.wait(task)
    assert pool.output(task) == echo_text("none", 0)


def test_a_cancel_stops_a_task_within_a_step_and_keeps_its_group_warm(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """The same group runs the next task without another load, and no file of the cancelled task is left."""
    pool = pools()
    leader(pool)
    task = pool.submit(message="c", steps=5000, step_s=0.02, artifact_bytes=100)
    pool.wait_step(task)
    pool.cancel(task)
    record = pool.wait(task, State.CANCELLED)
    assert (record.step or 0) < 2000
    assert not list(pool.blobs.list(f"{task}/"))
    pool.wait(pool.submit(message="next"))
    (group,) = pool.view().groups
    assert group.loads == 1


def test_a_deadline_stops_a_running_task(pools: Callable[..., Pool], leader: Callable[..., Rank]) -> None:
    """When `run_within_s` is over, the reply to the group's next report says so, and the task expires."""
    pool = pools()
    leader(pool)
    task = pool.submit(message="d", steps=5000, step_s=0.02, run_within_ms=700)
    pool.wait(task, State.EXPIRED)


def test_an_error_is_retried_and_a_permanent_error_is_not(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """A retryable error is a strike. A permanent error ends the task with the workload's code."""
    pool = pools()
    leader(pool)
    retried = pool.submit(message="e", steps=3, fail_at=2, fail_attempts=1)
    refused = pool.submit(message="p", steps=3, fail_at=2, fail_kind="permanent")
    assert (pool.wait(retried).attempt, pool.get(retried).strikes) == (2, 1)
    record = pool.wait(refused, State.FAILED)
    assert (record.error_code, record.attempt) == ("echo_refused", 1)


def test_a_stored_input_that_the_group_refuses_fails_permanently(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """The group that runs a task validates the task's input again."""
    pool = pools()
    leader(pool)
    task = TaskId(new_task_id("echo"))
    pool.call(
        pool.store.submit(
            [NewTask(id=task, pool="echo", tenant="t", input_json='{"message": 3, "other": 1}')]
        )
    )
    assert pool.wait(task, State.FAILED).error_code == "invalid_input"


def test_previews_and_log_lines_reach_the_stream(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """The event names the preview, and the store holds an image that can be opened."""
    pool = pools()
    leader(pool)
    task = pool.submit(message="look", steps=3, preview=True)
    pool.wait(task)
    (shown, *_) = [event.data for event in pool.events(task) if event.type == "preview"]
    assert (shown["name"], shown["content_type"]) == ("preview", "image/webp")
    image, kind = pool.call(pool.store.preview(task))
    assert kind == "image/webp"
    assert Image.open(io.BytesIO(image)).size == (1, 1)
    assert "log" in pool.types(task)


def test_a_group_writes_names_and_no_urls_into_redis(
    pools: Callable[..., Pool], leader: Callable[..., Rank], valkey: Server
) -> None:
    """Only the API makes URLs: a route may change, and another API may serve the same task."""
    pool = pools()
    leader(pool)
    task = pool.submit(message="look", steps=3, preview=True, artifact_bytes=9)
    pool.wait(task)
    assert {"preview", "artifact", "succeeded"} <= set(pool.types(task))
    with valkey.client() as client:
        stored = {key: _value(client, key) for key in client.scan_iter(count=1000)}
    assert any(b"echo.txt" in value for value in stored.values())
    assert not [key for key, value in stored.items() if b"/v1/" in value]


def _value(client: Any, key: bytes) -> bytes:
    """Return the content of a key as text."""
    read = {
        b"string": lambda: client.get(key),
        b"hash": lambda: client.hgetall(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"stream": lambda: client.xrange(key),
    }
    return repr(read[client.type(key)]()).encode()


def test_a_drain_mark_releases_the_task_with_a_checkpoint_until_it_is_removed(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """A marked group releases its task without a strike and claims nothing. Once unmarked, it resumes the task."""
    pool = pools(lease={"lease_s": 3.0})  # a group sees a mark when it renews its record
    leader(pool)
    task = pool.submit(message="dr", steps=120, step_s=0.02)
    pool.wait_step(task, 3)
    (group,) = pool.view().groups
    pool.call(pool.store.drain(pool.name, group.id))
    pool.wait_for(task, lambda record: record.releases == 1, "the release")

    def draining() -> bool:
        return any(group.state is GroupState.DRAINING for group in pool.view().groups)

    wait_until(draining, 30, "the group to show that it drains")
    assert pool.get(task).state is State.QUEUED
    pool.call(pool.store.drain(pool.name, group.id, on=False))
    record = pool.wait(task)
    assert (record.strikes, record.releases) == (0, 1)
    assert (record.resumed_from_step or 0) >= 3
    assert pool.output(task) == echo_text("dr", 120)


def test_a_draining_group_may_finish_its_task_in_time(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """The task ends within `drain_s`, so it is not released."""
    pool = pools(drain_s=60.0)
    leader(pool)
    task = pool.submit(message="f", steps=60, step_s=0.02)
    pool.wait_step(task)
    (group,) = pool.view().groups
    pool.call(pool.store.drain(pool.name, group.id))
    record = pool.wait(task)
    assert (record.attempt, record.releases) == (1, 0)


def test_checkpoints_are_stored_at_their_interval_and_only_the_latest_is_kept(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """A checkpoint is deleted once the record points at the next one."""
    pool = pools(checkpoint_s=0.2)
    leader(pool)
    task = pool.submit(message="cp", steps=150, step_s=0.02)
    wait_until(lambda: pool.types(task).count("checkpoint") >= 3, 60, "three checkpoints")
    stored = [stat.key for stat in pool.blobs.list(f"{task}/checkpoints/")]
    assert len(stored) <= 2
    pool.wait(task)


def test_a_file_that_cannot_be_stored_is_a_strike(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """The blob store refuses the file, and the task's error names the blob store."""
    pool = pools()
    task = pool.submit(message="b", steps=2, max_strikes=1)
    blocking_file = Path(pool.settings.data_dir) / "artifacts" / task
    blocking_file.parent.mkdir(parents=True, exist_ok=True)
    blocking_file.write_text("a file where a folder should be")
    leader(pool)
    record = pool.wait(task, State.FAILED)
    assert record.error_code == "artifact_store"


class SlowBlobs:
    """A real blob store whose uploads pause after each part."""

    def __init__(self, inner: Any, began: threading.Event) -> None:
        self._inner = inner
        self._began = began

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        for sent in self._inner.upload(key, source, content_type=content_type):
            self._began.set()
            time.sleep(0.2)
            yield sent


def test_a_cancel_stops_an_upload(pools: Callable[..., Pool]) -> None:
    """The upload stops between two parts, and the uploaded parts are removed."""
    pool, began = pools(), threading.Event()
    spec = discovery.spec("echo")
    deps = RankDeps(
        queue=lambda: wiring.build_queue(pool.settings, "echo"),
        blobs=lambda: SlowBlobs(pool.blobs, began),
        workload=lambda: discovery.implementation(spec),
        on_broken=print,
    )
    rank = Rank(spec, wiring.group_config(pool.settings, "echo"), deps, loops=JOBS)
    rank.start()
    try:
        task = pool.submit(message="u", steps=1, artifact_bytes=200 << 20)
        assert began.wait(60)
        pool.cancel(task)
        pool.wait(task, State.CANCELLED)
        assert not list(pool.blobs.list(f"{task}/"))
    finally:
        rank.stop(timeout_s=10)


def test_a_blob_store_that_cannot_be_opened_is_reported_before_the_model_is_read(
    pools: Callable[..., Pool],
) -> None:
    """A wrong address of the bucket is reported at once, not after minutes of loading a model."""
    pool, spec = pools(), discovery.spec("echo")
    broken: list[Cause] = []
    loaded = threading.Event()

    def refuse() -> Any:
        raise ValueError("no such scheme: s4://")

    deps = RankDeps(
        queue=lambda: wiring.build_queue(pool.settings, "echo"),
        blobs=refuse,
        workload=lambda: loaded.set() or discovery.implementation(spec),
        on_broken=broken.append,
    )
    rank = Rank(spec, wiring.group_config(pool.settings, "echo"), deps, loops=JOBS)
    rank.start()
    assert rank.wait_ended(30)
    wait_until(lambda: broken, 60, "the group to report that it is broken")
    assert list(map(str, broken)) == ["ValueError: no such scheme: s4://"]
    assert not loaded.is_set()
    assert not pool.view().groups


def test_a_stalled_step_breaks_the_group_and_makes_it_unhealthy(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """No progress within `stall_s` is a strike with the reason `stalled`, long before the lease ends."""
    pool = pools(lease={"lease_s": 60.0, "stall_s": 1.0})
    broken: list[Cause] = []
    rank = leader(pool, on_broken=broken.append)
    task = pool.submit(message="s", steps=3, fail_at=2, fail_kind="hang", max_strikes=1)
    assert pool.wait(task, State.FAILED).error_code == "stalled"
    wait_until(lambda: broken, 30, "the group to report that it is broken")
    assert "no progress" in (rank.unhealthy_reason() or "")
    wait_until(lambda: not pool.view().groups, 30, "the group to be gone")


def test_a_step_longer_than_the_time_to_leave_does_not_keep_the_task(
    pools: Callable[..., Pool], leader: Callable[..., Rank], tmp_path: Path
) -> None:
    """`stop` does not wait for the step: the task is released without the step's result, and without a strike."""
    calls_file = tmp_path / "calls"
    pool = pools(workload="testkit.recording:SPEC", options={"calls_file": str(calls_file), "step_s": 8})
    rank = leader(pool)
    task = pool.submit()
    wait_until(lambda: calls_file.exists() and "run" in calls_file.read_text().split(), 60, "the step")
    assert rank.stop(timeout_s=2.5) is False
    record = pool.get(task)
    assert (record.state, record.releases, record.strikes) == (State.QUEUED, 1, 0)


@pytest.fixture
def stoppable_valkey(tmp_path: Path) -> Iterator[Server]:
    """A Valkey that the test may kill."""
    server = start_valkey(tmp_path / "valkey")
    yield server
    server.stop()


def test_an_outage_of_the_store_costs_no_attempt(
    stoppable_valkey: Server, tmp_path: Path, leader: Callable[..., Rank]
) -> None:
    """The store dies while a task runs and again while the group is idle, and nothing is lost."""
    pool = Pool(make_settings(stoppable_valkey, tmp_path / "data"))
    try:
        leader(pool)
        task = pool.submit(message="o", steps=60, step_s=0.05)
        pool.wait_step(task, 3)
        stoppable_valkey.kill()
        time.sleep(1.0)  # an outage, not a wait
        stoppable_valkey.start()
        record = pool.wait(task)
        assert (record.attempt, record.strikes) == (1, 0)
        assert pool.output(task) == echo_text("o", 60)
        stoppable_valkey.restart(hard=True)
        pool.wait(pool.submit(message="after"))
    finally:
        pool.close()


def test_a_group_waits_for_a_store_that_starts_later(
    stoppable_valkey: Server, tmp_path: Path, leader: Callable[..., Rank]
) -> None:
    """Without Redis the group is healthy, and it runs tasks as soon as Redis is up."""
    stoppable_valkey.stop()
    pool = Pool(make_settings(stoppable_valkey, tmp_path / "data"))
    try:
        broken: list[Cause] = []
        rank = leader(pool, on_broken=broken.append)
        time.sleep(1.0)  # an outage, not a wait
        assert rank.unhealthy_reason() is None
        stoppable_valkey.start()
        pool.wait(pool.submit(message="late"))
        assert not broken
    finally:
        pool.close()


def test_the_lines_before_an_error_are_stored(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """Lines that are logged right before the error are written, although no step follows."""
    pool = pools(workload="testkit.indiscreet:SPEC", progress_s=30.0)
    leader(pool)
    task = pool.submit(prompt="a cat", lines=2, fails=1, max_strikes=1)
    pool.wait(task, State.FAILED)
    assert pool.types(task)[-3:] == ["log", "log", "failed"]


def test_lines_are_numbered_so_that_dropped_ones_can_be_counted(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """If there are more lines than one write may carry, the oldest are dropped."""
    pool = pools(workload="testkit.indiscreet:SPEC")
    leader(pool)
    task = pool.submit(prompt="a cat", lines=1000)
    pool.wait(task)
    numbers = [event.data["line"] for event in pool.events(task) if event.type == "log"]
    assert numbers == list(range(numbers[0], 1001))
    assert 1 < numbers[0] < 1000
