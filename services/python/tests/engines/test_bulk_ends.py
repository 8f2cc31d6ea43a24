"""How tasks with files end early or continue in another group: no line is lost, and none appears twice."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx2 as httpx
import pytest

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import State, TaskRecord
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.settings.tree import Settings
from testkit.pools import Pool, make_settings
from testkit.ranks import Ranks
from testkit.squares import Squares, output, squares, write
from testkit.valkey import Server
from testkit.waiting import wait_until
from verification.faults.environment import s3

Start = Callable[..., tuple[Pool, Rank, str]]
LINES = 4000


@pytest.fixture
def paced() -> Iterator[threading.Semaphore]:
    """A semaphore that each batch takes once, so that a test decides how far a task gets."""
    gate = threading.Semaphore(0)

    def compute(self: Squares, numbers: Sequence[int]) -> Sequence[int]:
        assert gate.acquire(timeout=60)
        return [number**2 for number in numbers]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Squares, "_model", compute)
        yield gate


def begun(pool: Pool, file: dict[str, str], gate: threading.Semaphore) -> TaskId:
    """Submit a task, and return it when it has a checkpoint. Each further batch of the task waits for ``gate``."""
    task = pool.submit(file=file)
    gate.release(40)
    pool.wait_step(task, 512)

    def stored(_: TaskRecord) -> bool:
        gate.release()  # a checkpoint is reported with a later step
        return "checkpoint" in pool.types(task)

    pool.wait_for(task, stored, "a checkpoint")
    return task


def test_a_cancelled_task_leaves_its_group_to_the_requests(
    bulk_serving: Start, tmp_path: Path, client: httpx.Client
) -> None:
    """The group is not broken, and answers requests."""
    pool, rank, url = bulk_serving()
    Squares.go.clear()
    task = pool.submit(file=write(tmp_path, range(5000)))
    wait_until(lambda: Squares.batches, 30, "the first batch")
    pool.cancel(task)
    Squares.go.set()
    record = pool.wait(task, State.CANCELLED)
    assert not record.artifacts
    assert client.post(f"{url}/", content=b"3").json() == 9
    assert rank.unhealthy_reason() is None


def test_a_task_that_passes_its_deadline_leaves_its_group_to_the_requests(
    bulk_serving: Start, tmp_path: Path, client: httpx.Client
) -> None:
    """The task ends as expired, without an artifact of the lines that were computed."""
    pool, rank, url = bulk_serving()
    Squares.go.clear()
    task = pool.submit(file=write(tmp_path, range(5000)), run_within_ms=500)
    wait_until(lambda: Squares.batches, 30, "the first batch")
    began_ms = pool.wait_for(task, lambda record: record.started_ms is not None, "the start").started_ms
    assert began_ms is not None
    wait_until(lambda: time.time() * 1000 > began_ms + 600, 30, "the deadline")
    Squares.go.set()
    assert not pool.wait(task, State.EXPIRED).artifacts
    assert client.post(f"{url}/", content=b"3").json() == 9
    assert rank.unhealthy_reason() is None


def test_a_model_that_hangs_breaks_the_group_of_its_task(bulk_serving: Start, tmp_path: Path) -> None:
    """The task gets a strike. The group breaks, because the thread that runs the model may never return."""
    broken: list[Cause] = []
    pool, _, _ = bulk_serving(lease={"stall_s": 1.0}, on_broken=broken.append)
    Squares.go.clear()
    task = pool.submit(file=write(tmp_path, range(LINES)), max_strikes=1)
    record = pool.wait(task, State.FAILED)
    Squares.go.set()
    assert record.error_code == "stalled"
    wait_until(lambda: broken, 30, "the group is broken")
    assert "no progress in task" in broken[0].message


@pytest.mark.parametrize("other_model", [False, True])
def test_a_group_that_leaves_hands_its_task_to_the_next_one(
    bulk_serving: Start,
    leader: Callable[..., Rank],
    paced: threading.Semaphore,
    tmp_path: Path,
    other_model: bool,
) -> None:
    """The task gets no strike. The next group continues after the checkpoint, unless it has another model."""
    pool, rank, _ = bulk_serving(checkpoint_s=0.01, drain_s=30.0)
    task = begun(pool, write(tmp_path, range(LINES)), paced)
    rank.ask_to_leave()
    wait_until(
        lambda: all(group.state is GroupState.DRAINING for group in pool.view().groups),
        30,
        "the group leaves",
    )
    paced.release(LINES)
    assert rank.wait_ended(30)
    released = pool.get(task)
    assert (released.strikes, released.releases) == (0, 1)
    if other_model:
        Squares.bulk_version = "2"
    leader(pool)
    record = pool.wait(task)
    if other_model:
        assert record.resumed_from_step is None
    else:
        assert record.resumed_from_step is not None
        assert record.resumed_from_step >= 128
    assert output(pool, task) == squares(range(LINES))


def test_a_group_that_is_marked_to_drain_releases_its_task(
    bulk_serving: Start, paced: threading.Semaphore, tmp_path: Path
) -> None:
    """The group releases the task after `drain_s`, and claims no task until the mark is removed.

    Once the mark is removed, the task continues after its checkpoint.
    """
    pool, rank, _ = bulk_serving(checkpoint_s=0.01, drain_s=0.2)
    task = begun(pool, write(tmp_path, range(LINES)), paced)
    (group,) = pool.view().groups
    pool.call(pool.store.drain(pool.name, group.id))
    wait_until(lambda: pool.view().groups[0].state is GroupState.DRAINING, 30, "the drain")

    def let_go(record: TaskRecord) -> bool:
        paced.release()  # the group releases its task after a step
        return record.releases > 0

    released = pool.wait_for(task, let_go, "the release")
    assert (released.state, released.strikes, released.attempt) == (State.QUEUED, 0, 1)
    paced.release(LINES)
    pool.call(pool.store.drain(pool.name, group.id, on=False))
    record = pool.wait(task)
    assert (record.attempt, record.strikes) == (2, 0)
    assert record.resumed_from_step is not None
    assert output(pool, task) == squares(range(LINES))
    assert rank.unhealthy_reason() is None


class Killed:
    """A pool whose groups are processes that a test kills, one after the other."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.pool = Pool(settings)
        self._folder = folder
        self._started: list[Ranks] = []

    def start(self) -> Ranks:
        folder = self._folder / f"group-{len(self._started)}"
        self._started.append(Ranks(self.pool.settings, self.pool.name, folder, size=1))
        return self._started[-1]

    def close(self) -> None:
        for ranks in self._started:
            ranks.stop()
        self.pool.close()


@pytest.fixture
def killed(valkey: Server, tmp_path: Path) -> Iterator[Callable[[], Killed]]:
    """Starts a pool whose groups a test can kill. While the file `hold` exists, the groups are slow from line 1501 on.
    While the file `hold.resume` exists, a group that resumes a task waits before it fetches the earlier attempts'
    parts."""
    made: list[Killed] = []
    (tmp_path / "files").mkdir()

    def make() -> Killed:
        settings = make_settings(
            valkey,
            tmp_path,
            workload="testkit.squares:SPEC",
            bulk={"places": {"files": (tmp_path / "files").as_uri()}},
            options={"hold": str(tmp_path / "hold")},
            checkpoint_s=0.01,
            lease={"lease_s": 3.0},
        )
        made.append(Killed(settings, tmp_path))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_killed_processes_cost_no_line_and_double_none(killed: Callable[[], Killed], tmp_path: Path) -> None:
    """The second kill hits a group that is about to fetch the parts of the first attempt. The output equals that of
    a run without kills."""
    hold, resume = tmp_path / "hold", tmp_path / "hold.resume"
    hold.touch()
    resume.touch()
    run = killed()
    pool, first = run.pool, run.start()
    task = pool.submit(file=write(tmp_path, range(LINES)))
    pool.wait_for(task, lambda _: "checkpoint" in pool.types(task), "a checkpoint")
    pool.wait_step(task, 1024)
    first.kill(0)
    second = run.start()
    pool.wait_for(task, lambda r: (r.attempt, r.phase) == (2, "resume"), "the second group to resume")
    second.kill(0)
    hold.unlink()
    resume.unlink()
    run.start()
    record = pool.wait(task)
    assert (record.attempt, record.strikes) == (3, 2)
    assert record.resumed_from_step is not None
    assert record.resumed_from_step >= 128
    assert output(pool, task) == squares(range(LINES))
    undisturbed = pool.wait(pool.submit(file={"place": "files", "path": "numbers.jsonl"}))
    assert digest(record) == digest(undisturbed)


def test_files_and_results_may_lie_on_s3(
    valkey: Server, leader: Callable[..., Rank], paced: threading.Semaphore, tmp_path: Path
) -> None:
    """A second group can continue, because the parts of the output are on S3 too."""
    (tmp_path / "files").mkdir()
    write(tmp_path, range(LINES))
    with s3.s3_server() as (url, _), contextlib.closing(on_s3(valkey, tmp_path, url)) as pool:
        client = s3.client(url)
        client.upload_file(str(tmp_path / "files" / "numbers.jsonl"), s3.BUCKET, "corpora/2026/numbers.jsonl")
        client.put_object(Bucket=s3.BUCKET, Key="secret.jsonl", Body=b"1\n")
        client.close()
        rank = leader(pool)
        task = begun(pool, {"place": "corpora", "path": "2026/numbers.jsonl"}, paced)
        rank.ask_to_leave()
        paced.release(LINES)
        assert rank.wait_ended(30)
        rank = leader(pool)
        assert pool.wait(task).resumed_from_step is not None
        assert output(pool, task) == squares(range(LINES))
        for path in ("none.jsonl", "../secret.jsonl"):
            refused = pool.submit(file={"place": "corpora", "path": path})
            assert pool.wait(refused, State.FAILED).error_code == "input_not_found"
        rank.ask_to_leave()
        assert rank.wait_ended(30)


def on_s3(valkey: Server, folder: Path, url: str) -> Pool:
    """A pool whose files, parts and artifacts are in one bucket."""
    bucket = f"s3://{s3.BUCKET}"
    settings = make_settings(
        valkey,
        folder,
        workload="testkit.squares:SPEC",
        bulk={"places": {"corpora": f"{bucket}/corpora"}},
        checkpoint_s=0.01,
        drain_s=30.0,
    )
    artifacts = {"url": f"{bucket}/artifacts", "s3": {"endpoint_url": url, "path_style": True}}
    return Pool(Settings.model_validate({**settings.model_dump(), "artifacts": artifacts}))


def digest(record: TaskRecord) -> str:
    (artifact,) = record.artifacts
    return artifact.sha256
