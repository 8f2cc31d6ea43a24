"""Logs each change of a pool or pod in the namespace while a test runs."""

from __future__ import annotations

import threading
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from testkit.kubernetes.kube import POOLS, Kube, condition, ready
from testkit.log import log

_PERIOD_S = 1.0


class Watcher:
    """A thread that polls once a second and logs the differences."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._closed = threading.Event()
        self._known: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> Watcher:
        self._thread.start()
        return self

    def close(self) -> None:
        self._closed.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._closed.wait(_PERIOD_S):
            try:
                current = self._snapshot()
            except (ApiException, HTTPError, OSError):
                continue  # the API server restarts, or the namespace is being deleted
            for name in sorted({*current, *self._known}):
                if current.get(name) != self._known.get(name):
                    log(f"  {name}: {current.get(name, 'gone')}")
            self._known = current

    def _snapshot(self) -> dict[str, str]:
        pools = self._kube.custom_objects(POOLS)
        states = {f"pool {pool['metadata']['name']}": _describe_pool(pool) for pool in pools}
        return states | {f"pod {pod.metadata.name}": _describe_pod(pod) for pod in self._kube.pods()}


def _describe_pool(pool: dict[str, Any]) -> str:
    spec, status = pool.get("spec", {}), pool.get("status") or {}
    wake = (status.get("wake") or {}).get("phase", "?")
    state = (
        f"{status.get('phase', '?')}, wanted {spec.get('replicas')}, complete {status.get('replicas', '?')}, "
        f"ready {status.get('ready', '?')}, wake {wake}"
    )
    healthy = condition(pool, "Healthy")
    return (
        f"{state}; {healthy['reason']}: {healthy['message']}" if healthy.get("status") == "False" else state
    )


def _describe_pod(pod: Any) -> str:
    if pod.metadata.deletion_timestamp is not None:
        return "terminating"
    statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    reasons = [status.state.waiting.reason for status in statuses if status.state.waiting is not None]
    unusual = [reason for reason in reasons if reason not in {"PodInitializing", "ContainerCreating"}]
    restarts = sum(status.restart_count for status in statuses)
    state = f"{pod.status.phase}{', ready' if ready(pod) else ''}{', ' + unusual[0] if unusual else ''}"
    return f"{state}, restarts {restarts}" if restarts else state
