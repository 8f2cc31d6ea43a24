"""Detect early that a node lacks an image and cannot pull it, and say how to load it.

Helm would wait minutes for a pod whose image is missing. A node's list of images (``status.images``) holds at most 50
by default, so this list cannot prove that an image is missing. The status of a pod's containers, which the kubelet
reports, can prove it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

PULL_TIMEOUT_S = 30.0
"""A registry may fail for a moment. If a pull has failed for this long, the image counts as missing."""
_PULL_FAILED = frozenset({"ErrImagePull", "ImagePullBackOff"})
_FINAL = frozenset({"ErrImageNeverPull", "InvalidImageName"})
_MISSING = re.compile(r"not found|does not exist|manifest unknown|access denied|not authorized|unauthorized")


class MissingImageError(AssertionError):
    """A node neither has an image nor can pull it. The message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullFailure:
    """What the kubelet reports about a container's image."""

    image: str
    pod: str
    reason: str
    message: str

    @property
    def final(self) -> bool:
        """Whether waiting is pointless.

        Waiting is pointless if the pod forbids a pull, if the image's name is invalid or contains no registry, or if
        the registry lacks the image or denies access to it.
        """
        return self.reason in _FINAL or _is_local(self.image) or _MISSING.search(self.message) is not None

    def advice(self, option: str | None) -> str:
        """Which image is missing, and how to load it.

        :param option: The option of pytest that selects a different image instead; ``None`` for Daybreak's image.
        """
        message = f": {' '.join(self.message.split())}" if self.message else ""
        load = f"Build it with `make image IMAGE={self.image}`, then load it" if option is None else "Load it"
        other = "make e2e IMAGE=…" if option is None else f'make e2e PYTEST="{option} …"'
        return (
            f"a node has no image {self.image} and cannot pull it (pod {self.pod}: {self.reason}{message}).\n"
            f"{load} on every node: `kind load docker-image {self.image}`, `k3d image import {self.image}` or "
            f"`minikube image load {self.image}`. Or name an image that the nodes can pull: `{other}`."
        )


def pull_failures(pods: Iterable[Any], images: frozenset[str]) -> list[PullFailure]:
    """The failed pulls of these images. Other images do not count, because some tests make a pull fail on purpose."""
    failures = []
    for pod in pods:
        containers = [*(pod.spec.init_containers or []), *pod.spec.containers]
        image_of = {container.name: container.image for container in containers}
        statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
        for status in statuses:
            waiting = status.state.waiting if status.state is not None else None
            image = image_of.get(status.name, status.image)
            if waiting is not None and waiting.reason in _PULL_FAILED | _FINAL and image in images:
                failures.append(
                    PullFailure(
                        image=image,
                        pod=pod.metadata.name,
                        reason=waiting.reason,
                        message=waiting.message or "",
                    )
                )
    return failures


def images_of(values: Mapping[str, Any]) -> frozenset[str]:
    """The images of Daybreak and Redis that these values of the chart set."""
    images = (values.get("image"), values.get("redis", {}).get("image"))
    return frozenset(f"{image['repository']}:{image['tag']}" for image in images if image)


class ImageWatch:
    """Checks pods, and remembers since when the pull of each image has failed."""

    def __init__(
        self,
        pods: Callable[[], Iterable[Any]],
        images: Iterable[str],
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """``options`` maps an image that is not Daybreak's to the option of pytest that selects another image."""
        self._pods = pods
        self._options = options or {}
        self._images = frozenset(images)
        self._since: dict[str, float] = {}

    def check(self, more: frozenset[str] = frozenset(), *, now: float | None = None) -> None:
        """Check the pods once, for the images given to the constructor and those in ``more``.

        :raises MissingImageError: if the pull of one of these images can never succeed, or has failed for
            ``PULL_TIMEOUT_S`` seconds.
        """
        now = time.monotonic() if now is None else now
        try:
            failures = pull_failures(self._pods(), self._images | more)
        except (ApiException, HTTPError, OSError):
            return  # the API server is busy: the next check retries
        self._since = {failure.image: self._since.get(failure.image, now) for failure in failures}
        for failure in failures:
            if failure.final or now - self._since[failure.image] >= PULL_TIMEOUT_S:
                raise MissingImageError(failure.advice(self._options.get(failure.image)))


def _is_local(image: str) -> bool:
    """Whether the name has no registry. Such an image counts as built locally, so it must be loaded."""
    first, slash, _ = image.partition("/")
    return not slash or not ("." in first or ":" in first or first == "localhost")
