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
from testkit.kubernetes.kube import POOLS, RAY, SCALED, Kube, selector

OPERATORS = ("keda-operator", "kuberay-operator")
"""Deployments that Daybreak leans on, in whatever namespaces they are."""
_TAIL = 5000
_LOST = (ApiException, HTTPError, OSError, DaybreakError)


def collect(kube: Kube, client: Client | None, folder: Path) -> None:
    """Into ``folder``. What cannot be had is noted there instead: this never fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in _parts(kube, client):
        try:
            text = make()
        except _LOST as exc:
            text = _lost(exc)
        (folder / name).write_text(text, encoding="utf-8")


def _parts(kube: Kube, client: Client | None) -> list[tuple[str, Callable[[], str]]]:
    here = kube.namespace
    parts: list[tuple[str, Callable[[], str]]] = [
        ("pools.yaml", lambda: _yaml(kube.every(POOLS))),
        ("rayclusters.yaml", lambda: _yaml(kube.every(RAY))),
        ("scaledobjects.yaml", lambda: _yaml(kube.every(SCALED))),
        ("events.txt", lambda: _events(kube)),
        ("pods.yaml", lambda: _objects(kube, kube.pods())),
        ("deployments.yaml", lambda: _objects(kube, kube.apps.list_namespaced_deployment(here).items)),
        (
            "autoscalers.yaml",
            lambda: _objects(kube, kube.autoscaling.list_namespaced_horizontal_pod_autoscaler(here).items),
        ),
        ("nodes.yaml", lambda: _objects(kube, kube.core.list_node().items)),
        ("secrets.txt", lambda: _names(kube.core.list_namespaced_secret(here).items)),
    ]
    if client is not None:
        parts += [
            ("v1-pools.json", lambda: _json([one.to_json() for one in client.pools()])),
            ("v1-tasks.json", lambda: _json([one.to_json() for one in client.list(limit=200)])),
        ]
    return [*parts, *_logs(kube), *(part for name in OPERATORS for part in _operator(kube, name))]


def _operator(kube: Kube, name: str) -> list[tuple[str, Callable[[], str]]]:
    try:
        found = kube.deployment(name)
    except (*_LOST, ValueError) as exc:  # there is none of that name, or more than one
        told = _lost(exc)
        return [(f"log-{name}.txt", lambda: told)]
    return _logs(Kube(found.metadata.namespace), selector(found))


def _logs(kube: Kube, of: str = "") -> list[tuple[str, Callable[[], str]]]:
    try:
        pods = kube.pods(of)
    except _LOST as exc:
        told = _lost(exc)
        return [(f"log-{kube.namespace}.txt", lambda: told)]
    found: list[tuple[str, Callable[[], str]]] = []
    for pod in pods:
        every = [*(pod.spec.init_containers or []), *pod.spec.containers]
        statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
        restarts = {one.name: one.restart_count for one in statuses}
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


def _objects(kube: Kube, every: list[Any]) -> str:
    return _yaml(kube.api.sanitize_for_serialization(every))


def _names(secrets: list[Any]) -> str:
    """What is in them is nobody's business."""
    return "".join(f"{one.metadata.name} {one.type}\n" for one in secrets)


def _lost(exc: Exception) -> str:
    return f"cannot be had: {exc}\n"


def _yaml(value: Any) -> str:
    return yaml.safe_dump_all(value, sort_keys=False, allow_unicode=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1)
