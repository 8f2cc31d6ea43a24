"""Tasks survive when groups start, stop and die."""

from __future__ import annotations

import pytest

from e2e.test_core import VIDEO
from testkit.kubernetes.deployment import WAKE_S, Deployment
from testkit.kubernetes.values import COOLDOWN_S, LEASE_S
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.full


def test_a_long_task_is_never_restarted(deployment: Deployment) -> None:
    """A task as long as ten leases runs once, although each step holds the GIL. The task also outlasts the cooldown."""
    steps = 25
    step_s = 10 * LEASE_S / steps
    assert steps * step_s > COOLDOWN_S
    task = deployment.submit("echo", {"steps": steps, "step_s": step_s, "step_kind": "hold_gil"})
    done = deployment.follow(task).wait_for_end(timeout_s=WAKE_S + 10 * LEASE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 1, 0)


def test_a_task_submitted_while_the_pool_goes_to_zero_runs(deployment: Deployment) -> None:
    """A task that is queued while KEDA scales the pool to zero still runs."""
    first = deployment.submit("echo", {"message": "before", "steps": 1})
    deployment.follow(first).wait_for_end(timeout_s=WAKE_S)
    wait_until(lambda: deployment.replicas_wanted("echo") == 0, timeout_s=120, what="zero", pause_s=0.05)
    second = deployment.submit("echo", {"message": "during the scale-down", "steps": 1})
    done = deployment.follow(second).wait_for_end(timeout_s=WAKE_S)
    assert done.state.value == "succeeded"


def test_a_task_resumes_after_its_pod_was_killed(deployment: Deployment) -> None:
    """The task of a force-deleted pod gets one strike and resumes from its checkpoint. Its video has the
    same bytes as the video of an undisturbed task."""
    task = deployment.submit("video", VIDEO)
    timeline = deployment.follow(task)
    timeline.wait_for(lambda event: event.type == "checkpoint", timeout_s=WAKE_S, what="a checkpoint")
    victim = deployment.kube.group_pods("video")[0].metadata.name
    log(f"  killing all processes in {victim} and force-deleting it")
    deployment.kube.kill_processes(victim)
    deployment.kube.delete_pod(victim, force=True)
    done = timeline.wait_for_end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 2, 1)
    assert done.resumed_from_step, "it resumed from the checkpoint"
    assert deployment.sha256(done, "video.mp4") == deployment.reference_sha256("video", VIDEO, "video.mp4")
