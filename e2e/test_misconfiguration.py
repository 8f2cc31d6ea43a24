"""What goes wrong is named in a sentence wherever a person looks; nothing is lost, and it recovers by itself."""

from __future__ import annotations

import pytest

from e2e.diagnosis_asserts import named, recovered
from testkit.kubernetes.deployment import WAKE_S, House

pytestmark = pytest.mark.full

MODEL = "/nowhere/model"


def test_an_image_that_does_not_exist(house: House) -> None:
    """A wrong image is named; the groups of the earlier one go on serving meanwhile; the right one mends it."""
    good = house.images.daybreak
    # A group must be there: a pool at zero has none to go on with, and moves to the new image at once.
    story = house.follow(house.submit("echo", {"message": "at work meanwhile", "steps": 120, "step_s": 0.25}))
    story.at_step(1, timeout_s=WAKE_S)
    house.kube.set_image("echo", f"{good}-that-does-not-exist")
    task = house.submit("echo", {"message": "on the earlier image", "steps": 2})
    named(house, "echo", reason="ImagePullFailed", words="ImagePull|image")
    assert house.follow(task).end(timeout_s=WAKE_S).state.value == "succeeded"
    done = story.end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt) == ("succeeded", 1)
    house.kube.set_image("echo", good)
    recovered(house, "echo")


def test_a_model_that_is_not_there(house: House) -> None:
    """A model folder that is missing is named, the task waits, and runs once the folder's name is right."""
    house.kube.patch_pool("video", {"model": MODEL})
    task = house.submit("video", {"prompt": "a red circle moving left", "steps": 2, "seed": 1})
    named(house, "video", reason="ModelMissing", words="model")
    assert house.client.get(task).state.value == "queued", "nothing was tried, so nothing was used up"
    house.kube.patch_pool("video", {"model": None})
    assert house.follow(task).end(timeout_s=WAKE_S).state.value == "succeeded"
    recovered(house, "video")


def test_a_quota_that_is_used_up(house: House) -> None:
    """A ResourceQuota that allows no pod is named, the task waits, and runs once there is room."""
    house.at_zero("echo")
    house.kube.set_quota(pods=len(house.kube.pods()))
    try:
        task = house.submit("echo", {"message": "waits for room", "steps": 2})
        named(house, "echo", reason="QuotaExceeded", words="quota")
        assert house.client.get(task).state.value == "queued"
    finally:
        house.kube.set_quota(pods=None)
    assert house.follow(task).end(timeout_s=WAKE_S).state.value == "succeeded"
    recovered(house, "echo")
