"""An image that the nodes do not have: said within seconds, with the command that brings it.

Helm would wait minutes for such a pod. A node's list of images (``status.images``) holds 50 of them at most, so it
cannot prove that one is missing; what the kubelet says of the pod can.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

PATIENCE_S = 30.0
"""A registry may fail once; what is refused for so long stays refused."""
_REFUSED = frozenset({"ErrImagePull", "ImagePullBackOff"})
_FINAL = frozenset({"ErrImageNeverPull", "InvalidImageName"})
_NOT_THERE = re.compile(
    r"not found|does not exist|manifest unknown|access denied|not authorized|unauthorized"
)


class MissingImageError(AssertionError):
    """A node can neither find an image nor pull it; with what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a kubelet says of a container's image."""

    image: str
    pod: str
    reason: str
    message: str

    @property
    def final(self) -> bool:
        """Whether waiting is in vain: the image was never to be pulled, or it is nowhere to be pulled from."""
        return self.reason in _FINAL or _is_local(self.image) or _NOT_THERE.search(self.message) is not None

    def advice(self, option: str | None) -> str:
        """What is missing, and how it is brought. ``option``: what names another image; ``None`` for Daybreak's own."""
        said = f": {' '.join(self.message.split())}" if self.message else ""
        made = (
            f"Build it with `make image IMAGE={self.image}`, then bring it" if option is None else "Bring it"
        )
        other = "make e2e IMAGE=…" if option is None else f'make e2e PYTEST="{option} …"'
        return (
            f"a node has no image {self.image} and cannot pull it (pod {self.pod}: {self.reason}{said}).\n"
            f"{made} to every node: `kind load docker-image {self.image}`, `k3d image import {self.image}` or "
            f"`minikube image load {self.image}`. Or name one that the nodes can pull: `{other}`."
        )


def refusals(pods: Iterable[Any], images: frozenset[str]) -> list[Refusal]:
    """Of these images, what the pods' containers wait for in vain. Tests break others on purpose."""
    found = []
    for pod in pods:
        named = {each.name: each.image for each in [*(pod.spec.init_containers or []), *pod.spec.containers]}
        status = pod.status
        for one in [*(status.init_container_statuses or []), *(status.container_statuses or [])]:
            waiting = one.state.waiting if one.state is not None else None
            image = named.get(one.name, one.image)
            if waiting is not None and waiting.reason in _REFUSED | _FINAL and image in images:
                found.append(
                    Refusal(
                        image=image,
                        pod=pod.metadata.name,
                        reason=waiting.reason,
                        message=waiting.message or "",
                    )
                )
    return found


def images_of(values: Mapping[str, Any]) -> frozenset[str]:
    """The images that values of the chart name."""
    every = (values.get("image"), values.get("redis", {}).get("image"))
    return frozenset(f"{one['repository']}:{one['tag']}" for one in every if one)


class ImageWatch:
    """Looks at pods again and again, and remembers since when an image is refused."""

    def __init__(
        self,
        pods: Callable[[], Iterable[Any]],
        images: Iterable[str],
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """``options``: for an image that is not Daybreak's, the option that names another."""
        self._pods = pods
        self._options = options or {}
        self._images = frozenset(images)
        self._since: dict[str, float] = {}

    def look(self, more: frozenset[str] = frozenset(), *, now: float | None = None) -> None:
        """Look once. ``more``: images beside those of the beginning.

        :raises MissingImageError: when waiting for one of them is in vain.
        """
        now = time.monotonic() if now is None else now
        try:
            found = refusals(self._pods(), self._images | more)
        except (ApiException, HTTPError, OSError):
            return  # the API server is busy: the next look tells
        self._since = {one.image: self._since.get(one.image, now) for one in found}
        for one in found:
            if one.final or now - self._since[one.image] >= PATIENCE_S:
                raise MissingImageError(one.advice(self._options.get(one.image)))


def _is_local(image: str) -> bool:
    """Whether the name has no registry: such an image was built here and is to be loaded."""
    first, slash, _ = image.partition("/")
    return not slash or not ("." in first or ":" in first or first == "localhost")
