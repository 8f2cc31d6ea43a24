"""Guarantees of a group: all ranks get the same decision, hashes match stored bytes, and other attempts' files stay."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daybreak_server import wiring
from daybreak_server.adapters.blobs.local import LocalBlobs
from daybreak_server.domain.ids import AttemptToken, GroupId, TaskId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import ArtifactRef, Control, Lease
from daybreak_server.engines.common.artifacts import ArtifactDraft, attempt_prefix, discard, upload_artifact
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.lease_renewer import HeldLease
from daybreak_server.engines.common.progress import PhaseEta
from daybreak_server.engines.ranks.channel import Channel
from daybreak_server.engines.ranks.consensus import GroupDecision
from daybreak_server.engines.ranks.control_group import Followers, LeaderConnection
from daybreak_server.engines.ranks.rank_deps import LeaderDeps
from daybreak_server.engines.tasks.attempt import Attempt
from daybreak_server.engines.tasks.follower import FollowerLoop
from daybreak_server.workloads import discovery
from daybreak_server.workloads.base import RetryableError
from testkit.pools import Pool
from testkit.waiting import wait_until


def lease(token: str = "1.a") -> Lease:
    return Lease(task=TaskId("echo_1"), token=AttemptToken(token), group=GroupId("g"), lease_s=15)


@pytest.fixture
def channels() -> Iterator[tuple[Channel, Channel]]:
    """The two ends of one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        leader_socket = socket.create_connection(server.getsockname())
        follower_socket, _ = server.accept()
    both = Channel(leader_socket), Channel(follower_socket)
    yield both
    for channel in both:
        channel.close()


def test_all_ranks_get_the_same_decision(
    pools: Callable[..., Pool], channels: tuple[Channel, Channel], tmp_path: Path
) -> None:
    """A cancel stops the follower at the same step as the leader, and the follower then waits for its next order."""
    pool = pools()
    spec, config = discovery.spec("echo"), wiring.group_config(pool.settings, "echo")
    queue = wiring.build_queue(pool.settings, "echo")
    task = pool.submit(message="c", steps=5000, step_s=0.01)
    claim = queue.claim(GroupRecord(id=GroupId("g"), state=GroupState.IDLE), wait_s=30)
    assert claim is not None
    lost: list[str] = []
    connection = RecordingConnection(channels[1], on_lost=lost.append)
    follower = FollowerLoop(
        spec,
        config=config,
        workload=discovery.implementation(spec),
        leader=connection,
        heartbeat=Heartbeat(60),
    )
    following = threading.Thread(target=follower.run, daemon=True)
    following.start()
    control_group = Followers({1: channels[0]}, grace_s=5)
    deps = LeaderDeps(
        config=config,
        queue=queue,
        blobs=pool.blobs,
        workload=discovery.implementation(spec),
        heartbeat=Heartbeat(60),
        phases=PhaseEta(),
        must_leave=lambda: False,
    )
    held = HeldLease(claim.lease, claim.control)

    def cancel() -> None:
        pool.wait_step(task)
        held.on_reply(Control.CANCEL, sent_at=time.monotonic())

    canceller = threading.Thread(target=cancel)
    canceller.start()
    decision, _ = Attempt(claim, held, deps=deps, control_group=control_group).run(
        spec.validate({"message": "c", "steps": 5000, "step_s": 0.01}, {}), tmp_path
    )
    canceller.join(30)
    assert decision is GroupDecision.STOP
    control_group.order("leave")
    following.join(60)
    queue.close()
    assert not following.is_alive()
    assert connection.decisions[-1] is GroupDecision.STOP
    assert set(connection.decisions[:-1]) == {GroupDecision.CONTINUE}


class RecordingConnection(LeaderConnection):
    """Records the decisions that the follower gets."""

    decisions: list[GroupDecision]

    def agree(self, own_report: Any) -> GroupDecision:
        decision = super().agree(own_report)
        self.decisions = [*getattr(self, "decisions", []), decision]
        return decision


def test_the_hash_of_an_artifact_covers_all_its_parts(tmp_path: Path) -> None:
    """An artifact's SHA-256 is that of its bytes, however many parts the upload had."""
    path = tmp_path / "big"
    path.write_bytes(bytes(range(256)) * 40_000)  # three parts for the local store
    blobs = LocalBlobs(tmp_path / "store")
    progress = list(
        upload_artifact(blobs, lease(), ArtifactDraft(path=path, name="big", content_type="video/mp4"))
    )
    ref = progress[-1]
    assert isinstance(ref, ArtifactRef)
    assert len(progress) > 3
    with blobs.open(ref.key) as file:
        stored = file.read()
    assert (ref.sha256, ref.size_bytes) == (hashlib.sha256(stored).hexdigest(), len(stored))
    assert stored == path.read_bytes()


@pytest.mark.parametrize("new_content", [b"more than before", b"less", b"as it is!"])
def test_a_file_that_is_still_being_written_is_not_an_artifact(tmp_path: Path, new_content: bytes) -> None:
    """The hash and the stored bytes could differ, so the attempt fails with a message for the workload's author."""
    path = tmp_path / "out.txt"
    path.write_bytes(b"as it was")
    os.utime(path, ns=(0, 0))  # so that the modification times differ even with a coarse clock
    blobs = LocalBlobs(tmp_path / "store")
    writing_blobs = _WritingBlobs(blobs, lambda: path.write_bytes(new_content))
    parts = upload_artifact(
        writing_blobs, lease(), ArtifactDraft(path=path, name="out.txt", content_type="text/plain")
    )
    with pytest.raises(RetryableError, match=r"out\.txt was written to during its upload"):
        list(parts)


class _WritingBlobs:
    """A real store that calls ``on_part`` after each part of an upload."""

    def __init__(self, blobs: LocalBlobs, on_part: Callable[[], object]) -> None:
        self._blobs = blobs
        self._on_part = on_part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        for sent in self._blobs.upload(key, source, content_type=content_type):
            self._on_part()
            yield sent


def test_a_leader_that_lost_its_task_removes_only_its_own_files(tmp_path: Path) -> None:
    """The artifacts of the next attempt and all checkpoints stay."""
    source = tmp_path / "source"
    source.write_bytes(b"x")
    blobs = LocalBlobs(tmp_path / "store")
    other_keys = ["echo_1/2.b/out.txt", "echo_1/checkpoints/2.b-4.safetensors"]
    for key in (f"{attempt_prefix(lease())}out.txt", *other_keys):
        list(blobs.upload(key, source, content_type="text/plain"))
    discard(blobs, lease())
    wait_until(
        lambda: [stat.key for stat in blobs.list("echo_1/")] == other_keys,
        5,
        "only other files to remain",
    )


def test_a_heartbeat_reports_a_stall_after_its_limit() -> None:
    """An activity may have a longer limit. When the activity ends, the earlier limit applies again."""
    now = [100.0]
    heartbeat = Heartbeat(10, clock=lambda: now[0])
    now[0] += 10
    assert heartbeat.stalled() is None
    now[0] += 0.1
    assert "10.1 s" in (heartbeat.stalled() or "")
    with heartbeat.during("checkpoint", 60):
        now[0] += 59
        assert heartbeat.stalled() is None
        now[0] += 2
        assert "checkpoint" in (heartbeat.stalled() or "")
    now[0] += 11
    assert heartbeat.stalled() is not None
