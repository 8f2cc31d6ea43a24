"""Why a rank cannot go on, as a cause: by the type of the error and where it was raised, never by its words."""

from __future__ import annotations

import socket

import pytest

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.tasks import Failed
from daybreak_server.engines.gang.channel import Channel
from daybreak_server.engines.gang.consensus import report_of
from daybreak_server.engines.gang.control_group import Followers, Leader
from daybreak_server.engines.rank.causes import cause_of, cause_of_failed, cause_of_fetch
from daybreak_server.ports.blobs import BlobError, BlobNotFoundError, BlobRefusedError, BlobUnavailableError
from daybreak_server.workloads.base import ModelMissingError
from daybreak_server.workloads.video.spec.model_folder import FolderError
from testkit.waiting import wait_until


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


@pytest.mark.parametrize(
    ("error", "phase", "reason"),
    [
        (ModelMissingError("no such model"), "model", Reason.MODEL_MISSING),
        (FolderError("/m is not a folder"), "model", Reason.MODEL_MISSING),
        (FileNotFoundError("/m/config.json"), "model", Reason.MODEL_MISSING),
        (FileNotFoundError("/tmp/x"), "warm_up", Reason.RANKS_FAIL),
        (RuntimeError("the model is not found, out of memory"), "model", Reason.RANKS_FAIL),
        (MemoryError(), "model", Reason.OUT_OF_MEMORY),
        (OutOfMemoryError("CUDA"), "", Reason.OUT_OF_MEMORY),
    ],
)
def test_an_error_of_a_rank_is_a_cause(error: Exception, phase: str, reason: str) -> None:
    """With its type and its words for people."""
    cause = cause_of(error, phase=phase)
    assert cause.reason == reason
    assert str(error) in cause.message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BlobNotFoundError("no such prefix"), Reason.MODEL_MISSING),
        (BlobRefusedError("the key is wrong"), Reason.MODEL_UNAVAILABLE),
        (BlobUnavailableError("timed out"), Reason.MODEL_UNAVAILABLE),
    ],
)
def test_a_model_that_cannot_be_fetched_is_a_cause(error: BlobError, reason: str) -> None:
    """A model that is not there is missing; one whose store is away or refuses is unavailable."""
    assert cause_of_fetch(error).reason == reason


def test_a_group_that_a_task_broke_for_want_of_memory_says_so() -> None:
    """By the code of the task's error, which the rank gave it."""
    report = report_of(OutOfMemoryError("CUDA"), point=1)
    assert cause_of_failed(Failed(code=report.code, message=report.message)).reason == Reason.OUT_OF_MEMORY
    assert cause_of_failed(Failed(code="stalled", message="out of memory?")).reason == Reason.RANKS_FAIL


@pytest.mark.parametrize("reason", [Reason.MODEL_MISSING, Reason.OUT_OF_MEMORY, Reason.RANKS_FAIL])
def test_the_cause_of_a_follower_is_the_cause_of_its_group(reason: str) -> None:
    """It tells its leader before it goes: the reason is not lost between them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    followers = Followers({1: Channel(here)}, grace_s=1.0)
    leader = Leader(Channel(there), on_lost=print)
    leader.tell_broken(Cause(reason=reason, message="/m is not a folder"))
    lost = wait_until(followers.trouble, 10, "the leader to hear of it")
    cause = cause_of_failed(Failed(code=lost.code, message=lost.message))
    assert cause == Cause(reason=reason, message="rank 1 cannot go on: /m is not a folder")
    followers.close()
    leader.close()
    here.close()
    there.close()
