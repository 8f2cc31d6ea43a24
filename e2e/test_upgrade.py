"""Another image, back again, and away: tasks are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from e2e.doc_commands import Page
from testkit.kubernetes import s3
from testkit.kubernetes.deployment import WAKE_S, House
from testkit.kubernetes.task_timeline import Story
from testkit.kubernetes.values import values
from testkit.kubernetes.waiting import wait_until
from testkit.log import say

pytestmark = pytest.mark.full

DEFINITION = "customresourcedefinition.apiextensions.k8s.io/generatorpools.daybreak.dev"


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
    """`helm uninstall` leaves nothing of any kind but what docs/upgrading.md says; installed again, tasks are there."""
    task = house.submit("echo", {"message": "kept", "steps": 2})
    house.follow(task).end(timeout_s=WAKE_S)
    house.release.uninstall()
    kept = _said_to_stay()
    say(f"  what must stay, and nothing else: {', '.join(sorted(kept))}")
    with suppress(TimeoutError):  # the comparison below names what is left
        wait_until(lambda: _left(house) == kept, timeout_s=180, what="the end of all else")
    assert _left(house) == kept
    house.release.install(house.values)
    assert house.client.get(task).state.value == "succeeded", "the tasks are still there"


def _said_to_stay() -> set[str]:
    """What the page's table names of the chart's own."""
    kinds = {"claim": "persistentvolumeclaim", "Secret": "secret"}
    section = Page("upgrading.md").section("Uninstall")
    named = re.findall(r"^\| (claim|Secret) `([^`]+)` \|", section, re.MULTILINE)
    assert "| the definition of GeneratorPool |" in section
    return {DEFINITION, *(f"{kinds[kind]}/{name}" for kind, name in named)}


def _left(house: House) -> set[str]:
    """All but what Kubernetes puts into every namespace, and the tests' S3 server."""
    others = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
    every = house.kube.names() - others
    return {one for one in every if not re.match(rf"{s3.NAME}(-|$)", one.partition("/")[2])}
