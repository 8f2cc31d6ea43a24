"""What goes wrong is named in a sentence wherever a person looks; nothing is lost, and it recovers by itself."""

from __future__ import annotations

import re

import pytest

from e2e.house import WAKE_S, House
from e2e.kube import condition
from e2e.telling import say
from e2e.waiting import wait_until

pytestmark = pytest.mark.full

NAMED_S = 240
MODEL = "/nowhere/model"


def test_an_image_that_does_not_exist(house: House) -> None:
    """A wrong image is named; the groups of the earlier one go on serving meanwhile; the right one mends it."""
    good = house.images.daybreak
    house.kube.set_image("echo", f"{good}-that-does-not-exist")
    task = house.submit("echo", {"message": "on the earlier image", "steps": 2})
    _named(house, "echo", reason="ImagePullFailed", words="ImagePull|image")
    assert house.follow(task).end(timeout_s=WAKE_S).state.value == "succeeded"
    house.kube.set_image("echo", good)
    _recovered(house, "echo")


def test_a_model_that_is_not_there(house: House) -> None:
    """A model folder that is missing is named, the task waits, and runs once the folder's name is right."""
    house.kube.patch_pool("video", {"model": MODEL})
    task = house.submit("video", {"prompt": "a red circle moving left", "steps": 2, "seed": 1})
    _named(house, "video", reason="ModelMissing", words="model")
    assert house.client.get(task).state.value == "queued", "nothing was tried, so nothing was used up"
    house.kube.patch_pool("video", {"model": None})
    assert house.follow(task).end(timeout_s=WAKE_S).state.value == "succeeded"
    _recovered(house, "video")


def test_a_quota_that_is_used_up(house: House) -> None:
    """A ResourceQuota that allows no pod is named, the task waits, and runs once there is room."""
    house.at_zero("echo")
    house.kube.set_quota(pods=len(house.kube.pods()))
    try:
        task = house.submit("echo", {"message": "waits for room", "steps": 2})
        _named(house, "echo", reason="QuotaExceeded", words="quota")
        assert house.client.get(task).state.value == "queued"
    finally:
        house.kube.set_quota(pods=None)
    assert house.follow(task).end(timeout_s=WAKE_S).state.value == "succeeded"
    _recovered(house, "echo")


def _named(house: House, pool: str, *, reason: str, words: str) -> None:
    """By the pool's condition, an Event, `/v1/pools` and `daybreakd doctor`."""

    def told() -> str | None:
        healthy = condition(house.kube.pool(pool), "Healthy")
        return str(healthy["message"]) if healthy.get("reason") == reason else None

    message = wait_until(told, timeout_s=NAMED_S, what=f"{reason} in the condition of {pool}")
    say(f"  the condition says: {message}")
    assert message is not None
    assert re.search(words, message)

    def event() -> bool:
        mine = [one for one in house.kube.events() if one.involved_object.name == pool]
        return any(one.reason == reason and re.search(words, one.message) for one in mine)

    wait_until(event, timeout_s=30, what=f"an Event {reason}")

    def shown() -> bool:
        of = house.client.pool(pool).condition
        return of is not None and of.reason == reason

    wait_until(shown, timeout_s=30, what=f"{reason} in /v1/pools")
    report = house.doctor()
    assert re.search(words, report), report


def _recovered(house: House, pool: str) -> None:
    def well() -> bool:
        of = house.client.pool(pool).condition
        return condition(house.kube.pool(pool), "Healthy").get("status") == "True" and not (of and of.reason)

    wait_until(well, timeout_s=NAMED_S, what=f"the recovery of {pool}")
