"""Tests that ``make e2e`` reports a missing image within seconds and does not wait for Helm."""

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
    """Make a pod as the API returns it."""
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
    """Make a pod that has no node yet."""
    new_pod = pod(OURS, None)
    new_pod.status = SimpleNamespace(init_container_statuses=None, container_statuses=None)
    return new_pod


def check(*pods: Any, at_s: float = 0.0, watch: ImageWatch | None = None) -> None:
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
def test_a_missing_image_is_reported_at_the_first_check(broken: Any) -> None:
    with pytest.raises(MissingImageError, match="gateway-1") as caught:
        check(fresh(), broken)
    image = broken.spec.containers[0].image if not broken.spec.init_containers else OURS
    assert (f"make image IMAGE={image}" in str(caught.value)) == (image == OURS)
    assert ("--s3-image" in str(caught.value)) == (image == FAR)
    assert f"kind load docker-image {image}" in str(caught.value)


def test_a_pull_that_fails_for_too_long_is_reported() -> None:
    pods = [pod(FAR, "ErrImagePull", "429 Too Many Requests")]
    watch = ImageWatch(lambda: pods, [FAR])
    check(watch=watch, at_s=0)
    check(watch=watch, at_s=PULL_TIMEOUT_S - 1)
    pods[0] = pod(FAR, None)
    check(watch=watch, at_s=PULL_TIMEOUT_S)
    pods[0] = pod(FAR, "ImagePullBackOff")
    check(watch=watch, at_s=PULL_TIMEOUT_S + 1)
    with pytest.raises(MissingImageError, match="versitygw"):
        check(watch=watch, at_s=2 * PULL_TIMEOUT_S + 1)


def test_other_waiting_pods_and_deliberately_broken_images_are_ignored() -> None:
    check(
        fresh(),
        pod(OURS, None),
        pod(OURS, "ContainerCreating"),
        pod(OURS, "CrashLoopBackOff"),
        pod(f"{OURS}-that-does-not-exist", "ErrImagePull"),
    )
    assert pull_failures([pod(OURS, "ErrImagePull")], frozenset()) == []


def test_a_request_to_a_busy_api_server_is_retried() -> None:
    def pods() -> Any:
        raise ConnectionResetError

    ImageWatch(pods, [OURS]).check()


def test_the_watched_images_are_those_of_the_values() -> None:
    """The images come from the values of the install or upgrade, so a missing image of an upgrade is reported too."""
    assert images_of(values(Images(daybreak="here:5000/day:1", s3="x:1", redis="r:2"))) == {
        "here:5000/day:1",
        "r:2",
    }


def test_a_missing_image_ends_the_wait_for_helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake Helm would wait for ten minutes, which is longer than the timeout of this test."""
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
