"""The wake of a group, until its first claim: the phases, and the reason that the group reports if its wake fails."""

from __future__ import annotations

import queue as queues
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daybreak_server import wiring
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import State
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.lease_renewer import LeaseRenewer
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.ports.blobs import BlobRefusedError
from testkit.pools import Pool
from testkit.waiting import wait_until

Broken = queues.SimpleQueue[Cause]


def test_a_group_warms_up_before_its_first_claim(
    pools: Callable[..., Pool], leader: Callable[..., Rank], tmp_path: Path
) -> None:
    """The group's record has the duration of each phase."""
    calls_file = tmp_path / "calls"
    pool = pools(workload="testkit.recording:SPEC", options={"calls_file": str(calls_file)})
    tasks = [pool.submit(), pool.submit()]
    leader(pool)
    for task in tasks:
        pool.wait(task, State.SUCCEEDED)
    assert calls_file.read_text().split() == ["load", "warm_up", "run", "run"]
    (group,) = pool.view().groups
    assert {"model", "warm_up"} <= set(group.wake)


def test_a_group_that_cannot_warm_up_claims_nothing(
    pools: Callable[..., Pool], leader: Callable[..., Rank], tmp_path: Path
) -> None:
    """The task stays queued without a strike, and the group reports the reason."""
    broken: Broken = queues.SimpleQueue()
    pool = pools(
        workload="testkit.recording:SPEC", options={"calls_file": str(tmp_path / "calls"), "fail": "warm_up"}
    )
    task = pool.submit()
    leader(pool, on_broken=broken.put)
    cause = broken.get(timeout=60)
    assert cause == Cause(reason="RanksFail", message="RuntimeError: the kernels do not compile")
    assert (pool.get(task).state, pool.get(task).strikes) == (State.QUEUED, 0)


def test_a_workload_that_cannot_be_imported_is_named_in_the_reason(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """The reason names the class and its module. The group removes its record, and its process survives."""
    broken: Broken = queues.SimpleQueue()
    pool = pools(workload="testkit.recording:ABSENT")
    leader(pool, on_broken=broken.put)
    cause = broken.get(timeout=60)
    assert cause.message.startswith("UnknownWorkloadError: cannot import 'testkit.recording:NoSuchClass'")
    wait_until(lambda: not pool.view().groups, 30, "the group's record to be removed")


def test_a_missing_model_is_the_cause(
    pools: Callable[..., Pool], leader: Callable[..., Rank], tmp_path: Path
) -> None:
    """The cause has a reason for programs, and the workload's message for people."""
    broken: Broken = queues.SimpleQueue()
    pool = pools(workload="video", model=str(tmp_path / "nowhere"))
    leader(pool, on_broken=broken.put)
    cause = broken.get(timeout=120)
    assert cause.reason == "ModelMissing"
    assert "nowhere" in cause.message


def test_a_record_has_the_start_of_its_current_phase(pools: Callable[..., Pool]) -> None:
    """A new phase sets `since_ms`, which the ETA needs; an update within a phase keeps `since_ms`."""
    pool = pools()
    queue = wiring.build_queue(pool.settings, "echo")
    record = GroupRecord(id=new_group_id(), state=GroupState.LOADING, phase="model", since_ms=1)
    config = wiring.group_config(pool.settings, "echo")
    lease_renewer = LeaseRenewer(queue, config, Heartbeat(10), record=record, on_break=print)
    assert lease_renewer.update(phase="model", wake={"ray": 1.0}).since_ms == 1
    warm_up_since_ms = lease_renewer.update(phase="warm_up").since_ms
    assert warm_up_since_ms > 1
    (shown,) = pool.view().groups
    assert (shown.phase, shown.since_ms) == ("warm_up", warm_up_since_ms)
    queue.close()


def test_a_failed_model_download_is_reported_and_retried(
    pools: Callable[..., Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same process retries until the download works. Until then, the pool shows why the download fails."""
    monkeypatch.setattr("daybreak_server.engines.ranks.rank_lifecycle.DOWNLOAD_RETRY_S", 1)
    calls_file = tmp_path / "calls"
    pool = pools(workload="testkit.recording:SPEC", options={"calls_file": str(calls_file)})
    model_exists = threading.Event()

    def fetch(on_bytes: Callable[[int, int], None]) -> str:
        on_bytes(1_000_000_000, 4_000_000_000)
        if not model_exists.is_set():
            raise BlobRefusedError("model s3://b/m: the secret key is wrong")
        return "/the/model"

    rank = _with_model(pool, fetch)
    rank.start()
    try:
        cause = Cause(reason="ModelUnavailable", message="model s3://b/m: the secret key is wrong")
        wait_until(lambda: pool.view().failure == cause, 60, "the reason")
        wait_until(lambda: [g.phase for g in pool.view().groups] == ["model"], 60, "the phase `model`")
        model_exists.set()
        pool.wait(pool.submit(), State.SUCCEEDED)
        (group,) = pool.view().groups
        assert (group.detail, pool.view().failure) == ("", None)
        assert calls_file.read_text().splitlines() == ["load /the/model", "warm_up", "run"]
    finally:
        rank.stop(timeout_s=10)


def test_a_record_shows_the_progress_of_a_download(pools: Callable[..., Pool]) -> None:
    """The group's record has the downloaded and the total size."""
    pool = pools(workload="testkit.recording:SPEC")
    finish = threading.Event()

    def fetch(on_bytes: Callable[[int, int], None]) -> str:
        on_bytes(1_500_000_000, 4_000_000_000)
        assert finish.wait(60)
        return "/the/model"

    rank = _with_model(pool, fetch)
    rank.start()
    try:
        shown = "fetched 1.50 of 4.00 GB"
        wait_until(lambda: [g.detail for g in pool.view().groups] == [shown], 60, "the downloaded bytes")
    finally:
        finish.set()
        rank.stop(timeout_s=10)


REFUSED = "s3://b at AWS: PutObject was answered SignatureDoesNotMatch; the secret key is wrong"


class RefusingBlobs:
    """Passes all calls to a real blob store, but refuses writes while ``refusing`` is set."""

    def __init__(self, inner: Any, refusing: threading.Event) -> None:
        self._inner = inner
        self._refusing = refusing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def probe(self) -> None:
        if self._refusing.is_set():
            raise BlobRefusedError(REFUSED)
        self._inner.probe()

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        if self._refusing.is_set():
            raise BlobRefusedError(REFUSED)
        yield from self._inner.upload(key, source, content_type=content_type)


@pytest.mark.parametrize("refused_from", ["the start", "the second task"])
def test_a_group_takes_no_task_while_its_files_are_refused(
    pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, refused_from: str
) -> None:
    """The pool shows the reason, tasks wait, and the group continues by itself once the blob store accepts files.

    Only a task that the group had already claimed gets a strike.
    """
    monkeypatch.setattr("daybreak_server.engines.tasks.leader.PROBE_RETRY_S", 0.5)
    pool, refusing = pools(), threading.Event()
    rank = wiring.build_rank(pool.settings, pool.name, on_broken=print)
    rank._deps = replace(rank._deps, blobs=lambda: RefusingBlobs(pool.blobs, refusing))
    after_a_task = refused_from != "the start"
    if not after_a_task:
        refusing.set()
    rank.start()
    try:
        if after_a_task:
            pool.wait(pool.submit(), State.SUCCEEDED)
            refusing.set()
        task = pool.submit()
        failure = wait_until(lambda: pool.view().failure, 60, "the reason")
        assert failure.reason == "ArtifactsRefused"
        assert REFUSED in failure.message
        wait_until(
            lambda: [g.detail for g in pool.view().groups] == [REFUSED], 60, "the detail in the record"
        )
        assert pool.get(task).strikes == int(after_a_task)
        refusing.clear()
        assert pool.wait(task, State.SUCCEEDED).strikes == int(after_a_task)
        (group,) = pool.view().groups
        assert (group.phase, group.detail, pool.view().failure) == ("ready", "", None)
    finally:
        rank.stop(timeout_s=10)


def _with_model(pool: Pool, fetch: Callable[[Callable[[int, int], None]], str]) -> Rank:
    """A group of one rank, which downloads its model with ``fetch``."""
    rank = wiring.build_rank(pool.settings, pool.name, on_broken=print)
    rank._deps = replace(rank._deps, fetch_model=fetch)
    return rank
