"""A group of one rank on a real Valkey: from the claim to the terminal event."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from support.echo import echo_text

from daybreak_server.domain.tasks import State
from daybreak_server.gang.member import Member


def test_an_echo_task_runs_to_its_artifact(pools: Callable, leader: Callable[..., Member]) -> None:
    """Claim, steps, upload, settle: the file is there, with its hash, and the events tell of each step."""
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
    steps = [event.data["step"] for event in pool.events(task) if "step" in event.data]
    assert steps == [1, 2, 3, 4, 5]
    assert record.state is State.SUCCEEDED
