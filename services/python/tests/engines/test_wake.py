"""The way of a group to its first claim: its phases, and what is said when it does not get there."""

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
from daybreak_server.engines.gang.rank import Rank
from daybreak_server.engines.rank.heartbeat import Heartbeat
from daybreak_server.engines.rank.lease_renewer import LeaseRenewer
from daybreak_server.ports.blobs import BlobRefusedError
from testkit.pools import Pool
from testkit.waiting import wait_until

Broken = queues.SimpleQueue[Cause]


def test_a_model_is_warm_before_the_first_claim(
    pools: Callable[..., Pool], leader: Callable[..., Rank], tmp_path: Path
) -> None:
    """The first task finds a group that has run once; each phase is on the group's record with its seconds."""
    notes = tmp_path / "notes"
    pool = pools(workload="testkit.noting:SPEC", options={"notes": str(notes)})
    tasks = [pool.submit(), pool.submit()]
    leader(pool)
    for task in tasks:
        pool.wait(task, State.SUCCEEDED)
    assert notes.read_text().split() == ["load", "warm_up", "run", "run"]
    (group,) = pool.view().groups
    assert {"model", "warm_up"} <= set(group.wake)


def test_a_group_that_cannot_warm_up_claims_nothing(
    pools: Callable[..., Pool], leader: Callable[..., Rank], tmp_path: Path
) -> None:
    """Its task still waits, without a strike, and the reason is told."""
    broken: Broken = queues.SimpleQueue()
    pool = pools(
        workload="testkit.noting:SPEC", options={"notes": str(tmp_path / "notes"), "fail": "warm_up"}
    )
    task = pool.submit()
    leader(pool, on_broken=broken.put)
    cause = broken.get(timeout=60)
    assert cause == Cause(reason="RanksFail", message="RuntimeError: the kernels do not compile")
    assert (pool.get(task).state, pool.get(task).strikes) == (State.QUEUED, 0)


def test_a_class_that_cannot_be_imported_is_named(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    """The reason names what was looked for and where; the group's record is gone, and the process lives."""
    broken: Broken = queues.SimpleQueue()
    pool = pools(workload="testkit.noting:ABSENT")
    leader(pool, on_broken=broken.put)
    why = broken.get(timeout=60)
    assert why.message.startswith("UnknownWorkloadError: cannot import 'testkit.noting:NoSuchClass'")
    wait_until(lambda: not pool.view().groups, 30, "the group's record to go")


def test_a_model_that_is_not_there_is_the_cause(
    pools: Callable[..., Pool], leader: Callable[..., Rank], tmp_path: Path
) -> None:
    """As data: the reason for programs, and the workload's own words for people."""
    broken: Broken = queues.SimpleQueue()
    pool = pools(workload="video", model=str(tmp_path / "nowhere"))
    leader(pool, on_broken=broken.put)
    cause = broken.get(timeout=120)
    assert cause.reason == "ModelMissing"
    assert "nowhere" in cause.message


def test_a_record_says_since_when_it_is_in_its_phase(pools: Callable[..., Pool]) -> None:
    """Each new phase begins anew, so that what is left of it can be told; the same one again does not."""
    pool = pools()
    queue = wiring.build_queue(pool.settings, "echo")
    record = GroupRecord(id=new_group_id(), state=GroupState.LOADING, phase="model", since_ms=1)
    config = wiring.gang_config(pool.settings, "echo")
    lease_renewer = LeaseRenewer(queue, config, Heartbeat(10), record=record, on_break=print)
    assert lease_renewer.update(phase="model", wake={"ray": 1.0}).since_ms == 1
    warm = lease_renewer.update(phase="warm_up").since_ms
    assert warm > 1
    (shown,) = pool.view().groups
    assert (shown.phase, shown.since_ms) == ("warm_up", warm)
    queue.close()


def test_a_model_that_cannot_be_had_is_said_and_waited_for(
    pools: Callable[..., Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group stays and says why; when the model can be had it comes up, without a new process."""
    monkeypatch.setattr("daybreak_server.engines.gang.rank.FETCH_AGAIN_S", 1)
    notes = tmp_path / "notes"
    pool = pools(workload="testkit.noting:SPEC", options={"notes": str(notes)})
    there = threading.Event()

    def fetch(told: Callable[[int, int], None]) -> str:
        told(1_000_000_000, 4_000_000_000)
        if not there.is_set():
            raise BlobRefusedError("model s3://b/m: the secret key is wrong")
        return "/the/model"

    member = _with_model(pool, fetch)
    member.start()
    try:
        said = Cause(reason="ModelUnavailable", message="model s3://b/m: the secret key is wrong")
        wait_until(lambda: pool.view().failure == said, 60, "the reason")
        wait_until(lambda: [g.phase for g in pool.view().groups] == ["model"], 60, "the group at its model")
        there.set()
        pool.wait(pool.submit(), State.SUCCEEDED)
        (group,) = pool.view().groups
        assert (group.detail, pool.view().failure) == ("", None)
        assert notes.read_text().splitlines() == ["load /the/model", "warm_up", "run"]
    finally:
        member.stop(timeout_s=10)


def test_how_much_of_a_model_has_come_is_shown(pools: Callable[..., Pool]) -> None:
    """The group's record has the bytes while they come."""
    pool = pools(workload="testkit.noting:SPEC")
    go_on = threading.Event()

    def fetch(told: Callable[[int, int], None]) -> str:
        told(1_500_000_000, 4_000_000_000)
        assert go_on.wait(60)
        return "/the/model"

    member = _with_model(pool, fetch)
    member.start()
    try:
        shown = "fetched 1.50 of 4.00 GB"
        wait_until(lambda: [g.detail for g in pool.view().groups] == [shown], 60, "the bytes")
    finally:
        go_on.set()
        member.stop(timeout_s=10)


REFUSED = "s3://b at AWS: PutObject was answered SignatureDoesNotMatch; the secret key is wrong"


class RefusingBlobs:
    """A real store that refuses while ``refuses`` is set."""

    def __init__(self, inner: Any, refuses: threading.Event) -> None:
        self._inner = inner
        self._refuses = refuses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def probe(self) -> None:
        if self._refuses.is_set():
            raise BlobRefusedError(REFUSED)
        self._inner.probe()

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        if self._refuses.is_set():
            raise BlobRefusedError(REFUSED)
        yield from self._inner.upload(key, source, content_type=content_type)


@pytest.mark.parametrize("since", ["the start", "a task before"])
def test_while_files_are_refused_no_task_is_taken(
    pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    """It is said, and tasks wait: only one that was at work takes a strike; taken again, all goes on by itself."""
    monkeypatch.setattr("daybreak_server.engines.gang.leader.FILES_AGAIN_S", 0.5)
    pool, refuses = pools(), threading.Event()
    member = wiring.build_rank(pool.settings, pool.name, on_broken=print)
    member._outside = replace(member._outside, blobs=lambda: RefusingBlobs(pool.blobs, refuses))
    working = since != "the start"
    if not working:
        refuses.set()
    member.start()
    try:
        if working:
            pool.wait(pool.submit(), State.SUCCEEDED)
            refuses.set()
        task = pool.submit()
        failure = wait_until(lambda: pool.view().failure, 60, "the reason")
        assert failure.reason == "ArtifactsRefused"
        assert REFUSED in failure.message
        wait_until(lambda: [g.detail for g in pool.view().groups] == [REFUSED], 60, "the group's own words")
        assert pool.get(task).strikes == int(working)
        refuses.clear()
        assert pool.wait(task, State.SUCCEEDED).strikes == int(working)
        (group,) = pool.view().groups
        assert (group.phase, group.detail, pool.view().failure) == ("ready", "", None)
    finally:
        member.stop(timeout_s=10)


def _with_model(pool: Pool, fetch: Callable[[Callable[[int, int], None]], str]) -> Rank:
    """A group of one whose model is brought by ``fetch``."""
    member = wiring.build_rank(pool.settings, pool.name, on_broken=print)
    member._outside = replace(member._outside, fetch=fetch)
    return member
