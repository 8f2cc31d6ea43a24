"""After a failure: logs, events, objects and records of everything, in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from daybreak import Client, DaybreakError
from e2e.kube import POOLS, RAY, SCALED, Kube

_TAIL = 5000


def collect(kube: Kube, client: Client | None, folder: Path) -> None:
    """Into ``folder``. What cannot be had is noted there instead: this never fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in _parts(kube, client):
        try:
            text = make()
        except (ApiException, HTTPError, OSError, DaybreakError) as exc:
            text = f"cannot be had: {exc}\n"
        (folder / name).write_text(text, encoding="utf-8")


def _parts(kube: Kube, client: Client | None) -> list[tuple[str, Callable[[], str]]]:
    parts: list[tuple[str, Callable[[], str]]] = [
        ("pools.yaml", lambda: _yaml(kube.every(POOLS))),
        ("rayclusters.yaml", lambda: _yaml(kube.every(RAY))),
        ("scaledobjects.yaml", lambda: _yaml(kube.every(SCALED))),
        ("events.txt", lambda: _events(kube)),
        ("pods.yaml", lambda: _yaml(kube.api.sanitize_for_serialization(kube.pods()))),
    ]
    if client is not None:
        parts += [
            ("v1-pools.json", lambda: _json([one.to_json() for one in client.pools()])),
            ("v1-tasks.json", lambda: _json([one.to_json() for one in client.list(limit=200)])),
        ]
    return parts + _logs(kube)


def _logs(kube: Kube) -> list[tuple[str, Callable[[], str]]]:
    try:
        pods = kube.pods()
    except (ApiException, HTTPError, OSError):
        return []
    found: list[tuple[str, Callable[[], str]]] = []
    for pod in pods:
        every = [*(pod.spec.init_containers or []), *pod.spec.containers]
        restarts = {one.name: one.restart_count for one in pod.status.container_statuses or []}
        for container in every:
            name = f"log-{pod.metadata.name}-{container.name}"
            found.append((f"{name}.txt", _log(kube, pod.metadata.name, container.name, previous=False)))
            if restarts.get(container.name):
                found.append(
                    (f"{name}-before.txt", _log(kube, pod.metadata.name, container.name, previous=True))
                )
    return found


def _log(kube: Kube, pod: str, container: str, *, previous: bool) -> Callable[[], str]:
    def read() -> str:
        return str(
            kube.core.read_namespaced_pod_log(
                pod, kube.namespace, container=container, previous=previous, tail_lines=_TAIL
            )
        )

    return read


def _events(kube: Kube) -> str:
    rows = sorted(kube.events(), key=lambda one: str(one.last_timestamp or one.event_time))
    return "".join(
        f"{one.last_timestamp or one.event_time} {one.type:8} {one.involved_object.kind}/"
        f"{one.involved_object.name} {one.reason} ×{one.count or 1}: {one.message}\n"
        for one in rows
    )


def _yaml(value: Any) -> str:
    return yaml.safe_dump_all(value, sort_keys=False, allow_unicode=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1)
