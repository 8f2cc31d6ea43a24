"""Collects logs, Events, objects and API responses in one folder after a failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from daybreak import Client, DaybreakError
from testkit.kubernetes.kube import POOLS, RAY, SCALED, Kube
from testkit.kubernetes.kube import selector as pod_selector

OPERATORS = ("keda-operator", "kuberay-operator")
"""Deployments that Daybreak depends on, in any namespace."""
_TAIL = 5000
_ERRORS = (ApiException, HTTPError, OSError, DaybreakError)


def collect(kube: Kube, client: Client | None, folder: Path) -> None:
    """Write everything to ``folder``. If a part is unavailable, its file contains the error instead."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in _parts(kube, client):
        try:
            text = make()
        except _ERRORS as exc:
            text = _unavailable(exc)
        (folder / name).write_text(text, encoding="utf-8")


def _parts(kube: Kube, client: Client | None) -> list[tuple[str, Callable[[], str]]]:
    namespace = kube.namespace
    parts: list[tuple[str, Callable[[], str]]] = [
        ("pools.yaml", lambda: _yaml(kube.custom_objects(POOLS))),
        ("rayclusters.yaml", lambda: _yaml(kube.custom_objects(RAY))),
        ("scaledobjects.yaml", lambda: _yaml(kube.custom_objects(SCALED))),
        ("events.txt", lambda: _events(kube)),
        ("pods.yaml", lambda: _objects(kube, kube.pods())),
        ("deployments.yaml", lambda: _objects(kube, kube.apps.list_namespaced_deployment(namespace).items)),
        (
            "autoscalers.yaml",
            lambda: _objects(
                kube, kube.autoscaling.list_namespaced_horizontal_pod_autoscaler(namespace).items
            ),
        ),
        ("nodes.yaml", lambda: _objects(kube, kube.core.list_node().items)),
        ("secrets.txt", lambda: _names(kube.core.list_namespaced_secret(namespace).items)),
    ]
    if client is not None:
        parts += [
            ("v1-pools.json", lambda: _json([pool.to_json() for pool in client.pools()])),
            ("v1-tasks.json", lambda: _json([task.to_json() for task in client.list(limit=200)])),
        ]
    return [*parts, *_logs(kube), *(part for name in OPERATORS for part in _operator(kube, name))]


def _operator(kube: Kube, name: str) -> list[tuple[str, Callable[[], str]]]:
    try:
        deployment = kube.deployment(name)
    except (*_ERRORS, ValueError) as exc:  # ValueError: no Deployment, or several
        error = _unavailable(exc)
        return [(f"log-{name}.txt", lambda: error)]
    return _logs(Kube(deployment.metadata.namespace), pod_selector(deployment))


def _logs(kube: Kube, selector: str = "") -> list[tuple[str, Callable[[], str]]]:
    try:
        pods = kube.pods(selector)
    except _ERRORS as exc:
        error = _unavailable(exc)
        return [(f"log-{kube.namespace}.txt", lambda: error)]
    logs: list[tuple[str, Callable[[], str]]] = []
    for pod in pods:
        containers = [*(pod.spec.init_containers or []), *pod.spec.containers]
        statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
        restarts = {status.name: status.restart_count for status in statuses}
        for container in containers:
            name = f"log-{pod.metadata.name}-{container.name}"
            logs.append((f"{name}.txt", _log(kube, pod.metadata.name, container.name, previous=False)))
            if restarts.get(container.name):
                logs.append(
                    (f"{name}-before.txt", _log(kube, pod.metadata.name, container.name, previous=True))
                )
    return logs


def _log(kube: Kube, pod: str, container: str, *, previous: bool) -> Callable[[], str]:
    def read() -> str:
        return str(
            kube.core.read_namespaced_pod_log(
                pod, kube.namespace, container=container, previous=previous, tail_lines=_TAIL
            )
        )

    return read


def _events(kube: Kube) -> str:
    events = sorted(kube.events(), key=lambda event: str(event.last_timestamp or event.event_time))
    return "".join(
        f"{event.last_timestamp or event.event_time} {event.type:8} {event.involved_object.kind}/"
        f"{event.involved_object.name} {event.reason} ×{event.count or 1}: {event.message}\n"
        for event in events
    )


def _objects(kube: Kube, objects: list[Any]) -> str:
    return _yaml(kube.api.sanitize_for_serialization(objects))


def _names(secrets: list[Any]) -> str:
    """Only the names and types, because the contents of Secrets must not end up in a bundle."""
    return "".join(f"{secret.metadata.name} {secret.type}\n" for secret in secrets)


def _unavailable(exc: Exception) -> str:
    return f"unavailable: {exc}\n"


def _yaml(value: Any) -> str:
    return yaml.safe_dump_all(value, sort_keys=False, allow_unicode=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1)
