"""A misconfiguration is reported wherever a person looks, no task is lost, and the pool recovers by itself."""

from __future__ import annotations

import pytest

from e2e.diagnosis_asserts import assert_diagnosed, assert_recovered
from testkit.kubernetes.deployment import WAKE_S, Deployment

pytestmark = pytest.mark.full

MODEL = "/nowhere/model"


def test_a_missing_image_is_diagnosed(deployment: Deployment) -> None:
    """A wrong image is reported while the groups of the old image keep serving. A right image lets the pool recover."""
    good = deployment.images.daybreak
    # The pool needs a running group first. A pool at zero has no group to keep, so it takes the new image at once.
    timeline = deployment.follow(
        deployment.submit("echo", {"message": "on the old image before", "steps": 120, "step_s": 0.25})
    )
    timeline.wait_for_step(1, timeout_s=WAKE_S)
    deployment.kube.set_image("echo", f"{good}-that-does-not-exist")
    task = deployment.submit("echo", {"message": "on the old image", "steps": 2})
    assert_diagnosed(deployment, "echo", reason="ImagePullFailed", pattern="ImagePull|image")
    assert deployment.follow(task).wait_for_end(timeout_s=WAKE_S).state.value == "succeeded"
    done = timeline.wait_for_end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt) == ("succeeded", 1)
    deployment.kube.set_image("echo", good)
    assert_recovered(deployment, "echo")


def test_a_missing_model_is_diagnosed(deployment: Deployment) -> None:
    """A missing model folder is reported. The task waits, and runs when the path has been corrected."""
    deployment.kube.patch_pool("video", {"model": MODEL})
    task = deployment.submit("video", {"prompt": "a red circle moving left", "steps": 2, "seed": 1})
    assert_diagnosed(deployment, "video", reason="ModelMissing", pattern="model")
    assert deployment.client.get(task).state.value == "queued", "no attempt was made, so none was used up"
    deployment.kube.patch_pool("video", {"model": None})
    assert deployment.follow(task).wait_for_end(timeout_s=WAKE_S).state.value == "succeeded"
    assert_recovered(deployment, "video")


def test_an_exhausted_quota_is_diagnosed(deployment: Deployment) -> None:
    """A ResourceQuota that allows no further pod is reported. The task waits, and runs when the quota is gone."""
    deployment.wait_for_zero("echo")
    with deployment.kube.no_room():
        task = deployment.submit("echo", {"message": "waits for room", "steps": 2})
        assert_diagnosed(deployment, "echo", reason="QuotaExceeded", pattern="quota")
        assert deployment.client.get(task).state.value == "queued"
    assert deployment.follow(task).wait_for_end(timeout_s=WAKE_S).state.value == "succeeded"
    assert_recovered(deployment, "echo")
