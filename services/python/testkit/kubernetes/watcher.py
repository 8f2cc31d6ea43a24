"""Tells live what changes in the namespace: pools, their RayClusters' pods, everything else's pods."""

from __future__ import annotations

import threading
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from testkit.kubernetes.kube import POOLS, Kube, condition, ready
from testkit.log import say

_PERIOD_S = 1.0


class Watcher:
    """A thread that looks once a second and says what is other than before."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._closed = threading.Event()
        self._known: dict[str, str] = {}
        self._thread = threading.Thread(target=self._keep, name="watcher", daemon=True)

    def start(self) -> Watcher:
        self._thread.start()
        return self

    def close(self) -> None:
        self._closed.set()
        self._thread.join(10)

    def _keep(self) -> None:
        while not self._closed.wait(_PERIOD_S):
            try:
                found = self._look()
            except (ApiException, HTTPError, OSError):
                continue  # the API server restarts, or the namespace goes
            for name in sorted({*found, *self._known}):
                if found.get(name) != self._known.get(name):
                    say(f"  {name}: {found.get(name, 'gone')}")
            self._known = found

    def _look(self) -> dict[str, str]:
        found = {f"pool {one['metadata']['name']}": _of_pool(one) for one in self._kube.every(POOLS)}
        return found | {f"pod {one.metadata.name}": _of_pod(one) for one in self._kube.pods()}


def _of_pool(pool: dict[str, Any]) -> str:
    spec, status = pool.get("spec", {}), pool.get("status") or {}
    wake = (status.get("wake") or {}).get("phase", "?")
    told = (
        f"{status.get('phase', '?')}, wanted {spec.get('replicas')}, complete {status.get('replicas', '?')}, "
        f"ready {status.get('ready', '?')}, wake {wake}"
    )
    healthy = condition(pool, "Healthy")
    return f"{told}; {healthy['reason']}: {healthy['message']}" if healthy.get("status") == "False" else told


def _of_pod(pod: Any) -> str:
    if pod.metadata.deletion_timestamp is not None:
        return "terminating"
    every = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    waits = [one.state.waiting.reason for one in every if one.state.waiting is not None]
    odd = [why for why in waits if why not in {"PodInitializing", "ContainerCreating"}]
    restarts = sum(one.restart_count for one in every)
    told = f"{pod.status.phase}{', ready' if ready(pod) else ''}{', ' + odd[0] if odd else ''}"
    return f"{told}, restarts {restarts}" if restarts else told
