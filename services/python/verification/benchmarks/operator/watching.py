"""Watches pools and pods on the API server. They stay parsed JSON, because there are too many to convert to classes."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from daybreak_server.adapters.kube.client import POOLS
from daybreak_server.operator.crd.resource import PLURAL
from daybreak_server.ports.cluster import POOL_LABEL

Handler = Callable[[str, Mapping[str, Any]], None]
"""Takes ADDED, MODIFIED or DELETED, and the object."""


@dataclass(slots=True)
class Observed:
    """The last status of each pool, when that status last changed, and the pods. Times are monotonic seconds."""

    pools: dict[str, tuple[Mapping[str, Any], float]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    pods: set[str] = field(default_factory=set)
    pods_changed_at: float = 0.0
    """When a pod was last created, began to run or was deleted."""

    def pool(self, kind: str, body: Mapping[str, Any]) -> None:
        """Handle an event of a pool. Ignores deletions, and events that change no relevant field of the status."""
        status = body.get("status") or {}
        name = body["metadata"]["name"]
        relevant = {
            key: status.get(key) for key in ("phase", "ready", "replicas", "wanted", "observedGeneration")
        }
        if kind != "DELETED" and self.pools.get(name, ({}, 0.0))[0] != relevant:
            self.pools[name] = (relevant, time.monotonic())

    def pod(self, kind: str, body: Mapping[str, Any]) -> None:
        """Handle an event of a pod."""
        name, before = body["metadata"]["name"], (len(self.pods), len(self.running))
        if kind == "DELETED":
            self.pods.discard(name)
            self.running.discard(name)
        else:
            self.pods.add(name)
            if (body.get("status") or {}).get("phase") == "Running":
                self.running.add(name)
        if before != (len(self.pods), len(self.running)):
            self.pods_changed_at = time.monotonic()

    def pools_are(self, number: int, **wanted: Any) -> float | None:
        """When the last of ``number`` pools reached the wanted status; ``None`` until then."""
        times = [at for status, at in list(self.pools.values()) if wanted.items() <= status.items()]
        return max(times) if len(times) == number else None


class Watching:
    """Runs one thread per kind of object, until ``close``."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._stopping = threading.Event()

    def pools(self, handle: Handler) -> None:
        """Watch all GeneratorPools of the namespace."""
        custom = client.CustomObjectsApi(self._api)
        self._begin(
            handle, lambda **how: custom.list_namespaced_custom_object(*POOLS, self._namespace, PLURAL, **how)
        )

    def pods(self, handle: Handler) -> None:
        """Watch all pods that belong to a pool."""
        core = client.CoreV1Api(self._api)
        self._begin(
            handle, lambda **how: core.list_namespaced_pod(self._namespace, label_selector=POOL_LABEL, **how)
        )

    def close(self) -> None:
        """Stop watching. Each thread ends at its next event."""
        self._stopping.set()

    def _begin(self, handle: Handler, follow: Callable[..., Any]) -> None:
        threading.Thread(target=self._follow, args=(handle, follow), daemon=True).start()

    def _follow(self, handle: Handler, follow: Callable[..., Any]) -> None:
        """Watch again from the beginning whenever a watch ends; repeated events change nothing."""
        while not self._stopping.is_set():
            with contextlib.suppress(HTTPError, ApiException, OSError):
                answer = follow(watch=True, _preload_content=False)
                for line in _lines(answer):
                    event = json.loads(line)
                    if event["type"] == "ERROR" or self._stopping.is_set():
                        break
                    handle(event["type"], event["object"])


def _lines(answer: Any) -> Any:
    partial = b""
    for chunk in answer.stream(amt=None, decode_content=False):
        *whole, partial = (partial + chunk).split(b"\n")
        yield from whole
