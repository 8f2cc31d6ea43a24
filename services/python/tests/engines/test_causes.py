"""The cause of a broken rank comes from the type of the error and the phase, never from the error's message."""

from __future__ import annotations

import socket

import pytest

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.tasks import Failed
from daybreak_server.engines.common.error_causes import cause_of, cause_of_failed, cause_of_fetch
from daybreak_server.engines.ranks.channel import Channel
from daybreak_server.engines.ranks.consensus import report_of
from daybreak_server.engines.ranks.control_group import Followers, LeaderConnection
from daybreak_server.ports.blobs import BlobError, BlobNotFoundError, BlobRefusedError, BlobUnavailableError
from daybreak_server.workloads.base import ModelMissingError
from daybreak_server.workloads.video.spec.model_folder import FolderError
from testkit.waiting import wait_until


class OutOfMemoryError(RuntimeError):
    """An error with the name of torch's out-of-memory error."""


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
def test_the_type_and_phase_of_an_error_give_its_reason(error: Exception, phase: str, reason: str) -> None:
    """The cause's message, which people read, contains the message of the error."""
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
def test_a_failed_download_gives_its_reason(error: BlobError, reason: str) -> None:
    """A model that does not exist is missing. If the store is down or refuses the call, the model is unavailable."""
    assert cause_of_fetch(error).reason == reason


def test_a_task_that_runs_out_of_memory_is_the_cause_of_its_broken_group() -> None:
    """The code of the task's error decides, not its message."""
    report = report_of(OutOfMemoryError("CUDA"), point=1)
    assert cause_of_failed(Failed(code=report.code, message=report.message)).reason == Reason.OUT_OF_MEMORY
    assert cause_of_failed(Failed(code="stalled", message="out of memory?")).reason == Reason.RANKS_FAIL


@pytest.mark.parametrize("reason", [Reason.MODEL_MISSING, Reason.OUT_OF_MEMORY, Reason.RANKS_FAIL])
def test_a_followers_cause_becomes_its_groups_cause(reason: str) -> None:
    """Before a follower ends, it reports the cause to its leader."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        follower_socket = socket.create_connection(server.getsockname())
        leader_socket, _ = server.accept()
    followers = Followers({1: Channel(leader_socket)}, grace_s=1.0)
    leader = LeaderConnection(Channel(follower_socket), on_lost=print)
    leader.report_broken(Cause(reason=reason, message="/m is not a folder"))
    lost = wait_until(followers.failure, 60, "the leader to receive the cause")
    cause = cause_of_failed(Failed(code=lost.code, message=lost.message))
    assert cause == Cause(reason=reason, message="rank 1 cannot continue: /m is not a folder")
    followers.close()
    leader.close()
    leader_socket.close()
    follower_socket.close()
