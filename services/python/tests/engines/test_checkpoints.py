"""Checkpoints of an attempt: one is kept at a time."""

from __future__ import annotations

from pathlib import Path

from daybreak_server.adapters.blobs.local import LocalBlobs
from daybreak_server.domain.ids import AttemptToken, GroupId, TaskId
from daybreak_server.domain.tasks import CheckpointRef, Lease
from daybreak_server.engines.common.artifacts import Checkpoints, fetch
from testkit.waiting import wait_until

LEASE = Lease(task=TaskId("echo_01"), token=AttemptToken("1.abc"), group=GroupId("g1"), lease_s=15)


def stored(checkpoints: Checkpoints, data: bytes, step: int) -> CheckpointRef:
    checkpoints.begin(lambda: data, step)
    found = wait_until(checkpoints.stored, 30, "the checkpoint")
    assert found is not None
    return found


def test_a_new_checkpoint_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    checkpoints = Checkpoints(blobs, LEASE, every_s=0.0, scratch=tmp_path)
    first = stored(checkpoints, b"one", 1)
    checkpoints.reported(first)
    second = stored(checkpoints, b"two", 2)
    checkpoints.reported(second)
    checkpoints.close()
    assert (fetch(blobs, first), fetch(blobs, second)) == (None, b"two")


def test_the_checkpoint_of_the_same_step_is_not_deleted(tmp_path: Path) -> None:
    """A group that is asked to leave stores a last checkpoint, even if it has just stored one of the same step."""
    blobs = LocalBlobs(tmp_path)
    checkpoints = Checkpoints(blobs, LEASE, every_s=0.0, scratch=tmp_path)
    for _ in range(2):
        checkpoint = stored(checkpoints, b"one", 1)
        checkpoints.reported(checkpoint)
    checkpoints.close()
    assert fetch(blobs, checkpoint) == b"one"
