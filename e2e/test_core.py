"""Tasks on a real cluster: pools wake from zero and scale down, and the group of a deleted pod releases its task."""

from __future__ import annotations

import json
import time

import pytest

from daybreak import Event, Task
from daybreak.wire.pools import WAKE_PHASES
from testkit.kubernetes import s3
from testkit.kubernetes.deployment import WAKE_S, Deployment
from testkit.kubernetes.task_timeline import TaskTimeline
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.core

ACCEPTED_S = 1.0
"""A POST takes milliseconds. If it takes longer than ``ACCEPTED_S``, it has waited for something."""
PHASES = WAKE_PHASES[:-1]
"""The phases of a wake in progress."""
STEPS = 40
VIDEO = {"prompt": "a red circle moving left", "size": "128x128", "frames": 33, "steps": STEPS, "seed": 7}


def test_a_pool_goes_from_no_pods_to_a_video_and_back(deployment: Deployment) -> None:
    """A pool without pods accepts a task at once, wakes, makes the video on 2 hosts, and returns to no pods."""
    deployment.wait_for_zero("video", head=False)
    started = time.monotonic()
    task = deployment.submit("video", VIDEO)
    took_s = time.monotonic() - started
    log(f"  accepted after {1000 * took_s:.0f} ms")
    assert task.state.value == "queued"
    assert not deployment.kube.group_pods("video"), "the task must be accepted while no group has a pod"
    assert took_s < ACCEPTED_S, "the task must be accepted at once"
    timeline = deployment.follow(task)
    _runs_on_two_hosts(
        deployment,
        timeline.wait_for(lambda event: event.type == "started", timeout_s=WAKE_S, what="the start"),
    )
    done = timeline.wait_for_end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 1, 0)
    _saw_the_wake(deployment, timeline)
    assert sorted(set(timeline.steps)) == list(range(1, STEPS + 1)), "every step is streamed"
    assert any(key.endswith("/video.mp4") for key in s3.keys(deployment.store, "e2e/")), "the video is in S3"
    _the_pods_logs_have_the_task(deployment, done)
    deployment.wait_for_zero("video", head=False)


def _runs_on_two_hosts(deployment: Deployment, started: Event) -> None:
    """The group has 2 ranks and 2 pods, one pod for each rank. The event `started` also says that there are 2 ranks."""
    pods = {pod.metadata.name for pod in deployment.kube.group_pods("video")}
    (group,) = [
        group for group in deployment.client.pool("video").groups if group.id == started.data["group"]
    ]
    log(f"  the group's hosts: {group.hosts}")
    assert (started.data["ranks"], group.ranks, len(pods)) == (2, 2, 2)
    assert set(group.hosts or ()) == pods


def _the_pods_logs_have_the_task(deployment: Deployment, done: Task) -> None:
    """The log of the leader's pod has a line for each change of the task. No pod's log has the task's prompt."""
    pods = [pod.metadata.name for pod in deployment.kube.group_pods("video")]
    logs: list[str] = []
    changes: list[tuple[str, int, int]] = []

    def both() -> bool:
        logs[:] = [deployment.kube.log(pod, "ray-worker") for pod in pods]
        lines = [json.loads(line) for text in logs for line in text.splitlines() if line.startswith("{")]
        of_task = [line for line in lines if line.get("task") == done.id and "change" in line]
        changes[:] = [(line["change"], line["rank"], line["attempt"]) for line in of_task]
        return len(changes) >= 2

    wait_until(both, timeout_s=5, what="two lines about the task in the logs of the pods")
    assert changes == [("started", 0, 1), ("succeeded", 0, 1)]
    assert not any(str(VIDEO["prompt"]) in text for text in logs)


def _saw_the_wake(deployment: Deployment, timeline: TaskTimeline) -> None:
    streamed = [phase for phase in timeline.wakes if phase in PHASES]
    # The operator writes the record in its next step after the group is ready. A short task may end before.
    durations = wait_until(
        lambda: deployment.client.pool("video").wake.last, timeout_s=60, what="the wake in the pool's record"
    )
    log(f"  the wake in the pool's record: {durations}")
    log(f"  the wake in the stream: {streamed}")
    assert streamed == sorted(streamed, key=PHASES.index), "phases are in order"
    assert {f"{phase}_s" for phase in PHASES} <= set(durations), "the pool's record has every phase"
    # The gateway polls the phase, so the stream lacks a phase that begins and ends between two polls. While a client
    # waits, the gateway polls every 0.2 s. But the first poll may be 1.1 s late, and busy cores delay polls further. So
    # this test requires only the phases that are longer than 2 s.
    long = {phase for phase in PHASES if durations[f"{phase}_s"] > 2}
    assert long <= set(streamed), "a waiting client sees every long phase"


def test_a_third_task_waits_for_one_of_two_groups(deployment: Deployment) -> None:
    """Two groups run two short tasks while a long task waits. Then one of the groups runs the long task.

    Only the idle group is removed, and the long task succeeds in its first attempt. `helm test` then runs a task.
    """
    deployment.wait_for_zero("echo", head=True)
    short = [
        deployment.submit("echo", {"message": f"short {n}", "steps": 40, "step_s": 0.25}) for n in range(2)
    ]
    long = deployment.submit("echo", {"message": "long", "steps": 120, "step_s": 0.25})
    timelines = [deployment.follow(task) for task in (*short, long)]
    deployment.wait_for_groups("echo", 2, "busy", timeout_s=WAKE_S)
    deployment.wait_for_pool("echo", lambda pool: pool.queued == 1, "the third task to wait")
    ended = [timeline.wait_for_end(timeout_s=WAKE_S) for timeline in timelines[:2]]
    assert {task.state.value for task in ended} == {"succeeded"}
    wait_until(
        lambda: deployment.client.get(long).state.value == "running",
        timeout_s=30,
        what="the third task to run",
    )
    wait_until(
        lambda: len(deployment.kube.group_pods("echo")) == 1,
        timeout_s=90,
        what="the removal of the idle group",
    )
    assert deployment.client.get(long).state.value == "running", "scale-down removes the idle group"
    done = timelines[2].wait_for_end(timeout_s=180)
    assert (done.state.value, done.attempt) == ("succeeded", 1)
    assert "ended: succeeded" in deployment.release.test()
    deployment.wait_for_zero("echo", head=True)


def test_a_deleted_pod_releases_its_task_with_a_checkpoint(deployment: Deployment) -> None:
    """When a pod is deleted during denoising, its group releases the task with a checkpoint and without a strike.

    The video has the same bytes as a video from a run without a deletion. The pool has no head at first, so the
    POST also starts the head.
    """
    deployment.wait_for_zero("video", head=False)
    task = deployment.submit("video", VIDEO)
    timeline = deployment.follow(task)
    timeline.wait_for_step(8, timeout_s=WAKE_S)
    victim = deployment.kube.group_pods("video")[0].metadata.name
    log(f"  deleting {victim}")
    deployment.kube.delete_pod(victim)
    again = timeline.wait_for(lambda event: event.type == "retrying", timeout_s=60, what="the release")
    assert (again.data["reason"], again.data["strikes"]) == ("released", 0)
    done = timeline.wait_for_end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes, done.releases) == ("succeeded", 2, 0, 1)
    assert (done.resumed_from_step or 0) >= 8
    assert deployment.sha256(done, "video.mp4") == deployment.reference_sha256("video", VIDEO, "video.mp4")
