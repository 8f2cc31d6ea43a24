"""Tasks survive an upgrade, a rollback, and an uninstall that is followed by a new install."""

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
from testkit.kubernetes.deployment import WAKE_S, Deployment
from testkit.kubernetes.previous_build import require_compatible_queues
from testkit.kubernetes.task_timeline import TaskTimeline
from testkit.kubernetes.values import values
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.full

DEFINITION = "customresourcedefinition.apiextensions.k8s.io/generatorpools.daybreak.dev"


def test_tasks_survive_an_upgrade_and_a_rollback(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    """`helm upgrade` to another image and `helm rollback`, each while a task runs: no task fails or gets a strike."""
    next_image = request.config.getoption("--next-image")
    if next_image is None:
        pytest.skip("no --next-image was given")
    for change, image in (("upgrade", next_image), ("rollback", deployment.images.daybreak)):
        runs = _start_tasks(deployment, change)
        _change(deployment, change, image)
        _assert_succeeded(deployment, change, image, (*runs, _short(deployment, f"after the {change}")))


def test_tasks_survive_an_upgrade_from_the_previous_version_and_back(
    install_daybreak: Callable[..., AbstractContextManager[Deployment]], request: pytest.FixtureRequest
) -> None:
    """Install the previous version with its own chart, upgrade, roll back: no running, queued or delayed task is lost.

    The test fails if this build cannot read the queues of the previous build.
    """
    option = request.config.getoption
    previous, chart = option("--previous-image"), option("--previous-chart")
    if previous is None or chart is None:
        pytest.skip("no --previous-image and --previous-chart were given")
    require_compatible_queues(chart)
    with install_daybreak(daybreak=previous, chart=chart) as deployment:
        for change, image in (("upgrade", option("--image")), ("rollback", previous)):
            runs = _start_tasks(deployment, change, 2)
            waits = _short(deployment, "in the queue")
            delayed = _short(deployment, "delayed", start_at=datetime.now(UTC) + timedelta(seconds=45))
            _change(deployment, change, image)
            _assert_succeeded(
                deployment, change, image, (*runs, waits, delayed, _short(deployment, f"after the {change}"))
            )
            deployment.assert_tasks_ended()


def _start_tasks(deployment: Deployment, change: str, count: int = 1) -> list[TaskTimeline]:
    """Start tasks that last a minute, and wait until each has completed five steps."""
    runs = [
        deployment.follow(
            deployment.submit("echo", {"message": f"{change} {number}", "steps": 120, "step_s": 0.5})
        )
        for number in range(count)
    ]
    for timeline in runs:
        timeline.wait_for_step(5, timeout_s=WAKE_S)
    return runs


def _short(deployment: Deployment, message: str, **options: Any) -> TaskTimeline:
    return deployment.follow(deployment.submit("echo", {"message": message, "steps": 2}, **options))


def _change(deployment: Deployment, change: str, image: str) -> None:
    if change == "upgrade":
        deployment.release.upgrade(values(replace(deployment.images, daybreak=image)))
    else:
        deployment.release.rollback()


def _assert_succeeded(
    deployment: Deployment, change: str, image: str, timelines: Sequence[TaskTimeline]
) -> None:
    """All tasks succeed without a strike, and soon all heads run this image."""
    for timeline in timelines:
        done = timeline.wait_for_end(timeout_s=WAKE_S)
        assert (done.state.value, done.strikes) == ("succeeded", 0), f"{change}: {done}"
    wait_until(partial(_all_heads_run, deployment, image), timeout_s=180, what=f"all heads to run {image}")


def _all_heads_run(deployment: Deployment, image: str) -> bool:
    containers = [container for pod in deployment.kube.heads("echo") for container in pod.spec.containers]
    return all(container.image.endswith(image) for container in containers)


def test_uninstall_leaves_only_what_the_page_lists(deployment: Deployment) -> None:
    """`helm uninstall` leaves only what docs/upgrading.md lists. After a new install, the tasks still exist."""
    task = deployment.submit("echo", {"message": "kept", "steps": 2})
    deployment.follow(task).wait_for_end(timeout_s=WAKE_S)
    deployment.release.uninstall()
    documented = _documented_leftovers()
    log(f"  these objects must stay, and no others: {', '.join(sorted(documented))}")
    with suppress(TimeoutError):  # the assertion below names the differences
        wait_until(
            lambda: _leftovers(deployment) == documented, timeout_s=180, what="the removal of everything else"
        )
    assert _leftovers(deployment) == documented
    deployment.release.install(deployment.values)
    assert deployment.client.get(task).state.value == "succeeded", "the task is lost"


def _documented_leftovers() -> set[str]:
    """The objects that remain after `helm uninstall`, as docs/upgrading.md lists them."""
    kinds = {"PVC": "persistentvolumeclaim", "Secret": "secret"}
    section = Page("upgrading.md").section("Uninstall")
    named = re.findall(r"^\| (PVC|Secret) `([^`]+)` \|", section, re.MULTILINE)
    assert "| the CRD of GeneratorPool |" in section
    return {DEFINITION, *(f"{kinds[kind]}/{name}" for kind, name in named)}


def _leftovers(deployment: Deployment) -> set[str]:
    """All objects, except those that Kubernetes creates in each namespace and those of the tests' S3 server."""
    created_by_kubernetes = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
    names = deployment.kube.resource_names() - created_by_kubernetes
    return {name for name in names if not re.match(rf"{s3.NAME}(-|$)", name.partition("/")[2])}
