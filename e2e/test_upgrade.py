"""Another image, back again, and away: tasks are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from e2e.house import WAKE_S, House
from e2e.release import NAME
from e2e.story import Story
from e2e.values import values
from e2e.waiting import wait_until

pytestmark = pytest.mark.full


def test_upgrade_and_rollback_with_tasks(house: House, request: pytest.FixtureRequest) -> None:
    """`helm upgrade` to another image and `helm rollback`, each while a task runs: both end well, without a strike."""
    other = request.config.getoption("--next-image")
    if other is None:
        pytest.skip("no --next-image was given")
    for change, image in (("upgrade", other), ("rollback", house.images.daybreak)):
        runs = _running(house, change)
        _change(house, change, image)
        _end_well(house, change, image, (*runs, _short(house, f"after the {change}")))


def test_from_the_version_before_and_back(
    open_house: Callable[..., AbstractContextManager[House]], request: pytest.FixtureRequest
) -> None:
    """N−1 by its own chart, `helm upgrade` to N and `helm rollback`: what ran, waited and was delayed ends once."""
    option = request.config.getoption
    before, chart = option("--previous-image"), option("--previous-chart")
    if before is None or chart is None:
        pytest.skip("no --previous-image and --previous-chart were given")
    with open_house(daybreak=before, chart=chart) as house:
        for change, image in (("upgrade", option("--image")), ("rollback", before)):
            runs = _running(house, change, 2)
            waits = _short(house, "in the queue")
            delayed = _short(house, "delayed", start_at=datetime.now(UTC) + timedelta(seconds=45))
            _change(house, change, image)
            _end_well(house, change, image, (*runs, waits, delayed, _short(house, f"after the {change}")))
            house.settle()


def _running(house: House, change: str, count: int = 1) -> list[Story]:
    """Tasks of a minute, each a few steps on."""
    runs = [
        house.follow(house.submit("echo", {"message": f"{change} {number}", "steps": 120, "step_s": 0.5}))
        for number in range(count)
    ]
    for story in runs:
        story.at_step(5, timeout_s=WAKE_S)
    return runs


def _short(house: House, message: str, **options: Any) -> Story:
    return house.follow(house.submit("echo", {"message": message, "steps": 2}, **options))


def _change(house: House, change: str, image: str) -> None:
    if change == "upgrade":
        house.release.upgrade(values(replace(house.images, daybreak=image)))
    else:
        house.release.rollback()


def _end_well(house: House, change: str, image: str, stories: Sequence[Story]) -> None:
    """All succeed without a strike, and soon nothing but this image runs."""
    for story in stories:
        done = story.end(timeout_s=WAKE_S)
        assert (done.state.value, done.strikes) == ("succeeded", 0), f"{change}: {done}"
    wait_until(partial(_all_run, house, image), timeout_s=180, what=f"heads of {image} only")


def _all_run(house: House, image: str) -> bool:
    every = [container for pod in house.kube.heads("echo") for container in pod.spec.containers]
    return all(one.image.endswith(image) for one in every)


def test_uninstall_leaves_what_it_says(house: House) -> None:
    """`helm uninstall` leaves but the volume and Secrets that NOTES name; installed again, tasks are there."""
    task = house.submit("echo", {"message": "kept", "steps": 2})
    house.follow(task).end(timeout_s=WAKE_S)
    house.release.uninstall()
    wait_until(
        lambda: not [pod for pod in house.kube.pods() if pod.metadata.labels.get("app") != "s3"],
        timeout_s=180,
        what="the end of all pods of the release",
    )
    kept = house.kube.core.list_namespaced_persistent_volume_claim(house.kube.namespace).items
    assert [one.metadata.name for one in kept] == [f"data-{NAME}-redis-0"]
    house.release.install(house.values)
    assert house.client.get(task).state.value == "succeeded", "the tasks are still there"
