"""`make e2e` on nodes that lack the image: it says within seconds what to build, and does not wait for Helm."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testkit.kubernetes.image_watch import (
    PULL_TIMEOUT_S,
    ImageWatch,
    MissingImageError,
    images_of,
    pull_failures,
)
from testkit.kubernetes.release import Release
from testkit.kubernetes.values import Images, values

OURS = "daybreak:dev"
FAR = "ghcr.io/versity/versitygw:v1"


def pod(image: str, reason: str | None, message: str = "", *, init: bool = False) -> Any:
    """A pod as the API gives it."""
    waiting = SimpleNamespace(reason=reason, message=message) if reason else None
    status = SimpleNamespace(name="main", image=f"docker.io/{image}", state=SimpleNamespace(waiting=waiting))
    fine = SimpleNamespace(name="fine", image="x", state=SimpleNamespace(waiting=None))
    main, other = SimpleNamespace(name="main", image=image), SimpleNamespace(name="fine", image="x:1")
    return SimpleNamespace(
        metadata=SimpleNamespace(name="gateway-1"),
        spec=SimpleNamespace(init_containers=[main] if init else None, containers=[other if init else main]),
        status=SimpleNamespace(
            init_container_statuses=[status] if init else None,
            container_statuses=[fine] if init else [status],
        ),
    )


def fresh() -> Any:
    """A pod that no node has taken yet."""
    found = pod(OURS, None)
    found.status = SimpleNamespace(init_container_statuses=None, container_statuses=None)
    return found


def look(*pods: Any, at_s: float = 0.0, watch: ImageWatch | None = None) -> None:
    (watch or ImageWatch(lambda: pods, [OURS, FAR], options={FAR: "--s3-image"})).check(now=at_s)


@pytest.mark.parametrize(
    "broken",
    [
        pod(OURS, "ErrImagePull", "dial tcp: lookup registry-1.docker.io: no such host"),
        pod(OURS, "ImagePullBackOff", "Back-off pulling image"),
        pod(OURS, "ErrImageNeverPull", "Container image is not present with pull policy of Never"),
        pod(OURS, "ErrImagePull", init=True),
        pod(FAR, "ErrImagePull", "failed to resolve reference: ghcr.io/versity/versitygw:v1: not found"),
        pod(FAR, "InvalidImageName"),
    ],
)
def test_an_image_that_is_nowhere_is_said_at_the_first_look(broken: Any) -> None:
    with pytest.raises(MissingImageError, match="gateway-1") as caught:
        look(fresh(), broken)
    image = broken.spec.containers[0].image if not broken.spec.init_containers else OURS
    assert (f"make image IMAGE={image}" in str(caught.value)) == (image == OURS)
    assert ("--s3-image" in str(caught.value)) == (image == FAR)
    assert f"kind load docker-image {image}" in str(caught.value)


def test_a_registry_may_fail_once_but_not_for_ever() -> None:
    seen = [pod(FAR, "ErrImagePull", "429 Too Many Requests")]
    watch = ImageWatch(lambda: seen, [FAR])
    look(watch=watch, at_s=0)
    look(watch=watch, at_s=PULL_TIMEOUT_S - 1)
    seen[0] = pod(FAR, None)
    look(watch=watch, at_s=PULL_TIMEOUT_S)
    seen[0] = pod(FAR, "ImagePullBackOff")
    look(watch=watch, at_s=PULL_TIMEOUT_S + 1)
    with pytest.raises(MissingImageError, match="versitygw"):
        look(watch=watch, at_s=2 * PULL_TIMEOUT_S + 1)


def test_what_waits_for_something_else_or_was_broken_on_purpose_is_left_alone() -> None:
    look(
        fresh(),
        pod(OURS, None),
        pod(OURS, "ContainerCreating"),
        pod(OURS, "CrashLoopBackOff"),
        pod(f"{OURS}-that-does-not-exist", "ErrImagePull"),
    )
    assert pull_failures([pod(OURS, "ErrImagePull")], frozenset()) == []


def test_an_api_server_that_is_busy_is_asked_again() -> None:
    def pods() -> Any:
        raise ConnectionResetError

    ImageWatch(pods, [OURS]).check()


def test_the_images_are_those_of_the_values() -> None:
    """So that an upgrade to an image that is missing is said as well."""
    assert images_of(values(Images(daybreak="here:5000/day:1", s3="x:1", redis="r:2"))) == {
        "here:5000/day:1",
        "r:2",
    }


def test_helm_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Helm that would wait for ten minutes is ended; the timeout of the test is the proof."""
    helm = tmp_path / "helm"
    helm.write_text('#!/bin/sh\n[ "$1" = version ] && echo v3.1 && exit\ncat > values\nexec sleep 600\n')
    helm.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    watch = ImageWatch(lambda: [pod("next:1", "ErrImagePull")], [])
    release = Release("n", watch=watch)
    with pytest.raises(MissingImageError, match="next:1"):
        release.upgrade(values(Images(daybreak="next:1", s3="x:1")))
    assert '"repository": "next"' in (tmp_path / "values").read_text()
