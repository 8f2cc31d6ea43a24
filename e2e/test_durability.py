"""What happens to tasks around the moments at which groups come and go."""

from __future__ import annotations

import pytest

from e2e.test_core import VIDEO
from testkit.kubernetes.deployment import WAKE_S, House
from testkit.kubernetes.values import COOLDOWN_S, LEASE_S
from testkit.kubernetes.waiting import wait_until
from testkit.log import say

pytestmark = pytest.mark.full


def test_a_long_task_is_never_restarted(house: House) -> None:
    """A task of ten leases, longer than the cooldown, that holds Python's lock at each step, runs once."""
    steps = 25
    step_s = 10 * LEASE_S / steps
    assert steps * step_s > COOLDOWN_S
    task = house.submit("echo", {"steps": steps, "step_s": step_s, "step_kind": "hold_gil"})
    done = house.follow(task).end(timeout_s=WAKE_S + 10 * LEASE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 1, 0)


def test_a_task_that_comes_as_the_pool_goes_to_zero(house: House) -> None:
    """A task queued in the second in which KEDA takes the pool to zero is served."""
    first = house.submit("echo", {"message": "before", "steps": 1})
    house.follow(first).end(timeout_s=WAKE_S)
    wait_until(lambda: house.wanted("echo") == 0, timeout_s=120, what="zero", pause_s=0.05)
    second = house.submit("echo", {"message": "in that second", "steps": 1})
    done = house.follow(second).end(timeout_s=WAKE_S)
    assert done.state.value == "succeeded"


def test_a_pod_that_is_gone_without_a_word(house: House) -> None:
    """A force-deleted pod's task is run again from its checkpoint: one strike, the same bytes."""
    task = house.submit("video", VIDEO)
    story = house.follow(task)
    story.until(lambda one: one.type == "checkpoint", timeout_s=WAKE_S, what="a checkpoint")
    victim = house.kube.workers("video")[0].metadata.name
    say(f"  killing all in {victim}, and force-deleting it")
    house.kube.kill_processes(victim)
    house.kube.delete_pod(victim, force=True)
    done = story.end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 2, 1)
    assert done.resumed_from_step, "it went on from the checkpoint"
    assert house.sha256(done, "video.mp4") == house.undisturbed("video", VIDEO, "video.mp4")
