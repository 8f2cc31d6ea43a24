"""Discovers pods and Services for Prometheus, and writes them to files, which Prometheus watches.

Debian builds Prometheus without support for discovery in Kubernetes. A target has the labels that
``kubernetes_sd_configs`` with the roles ``pod`` and ``endpointslice`` would give it, but only those that monitors use.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from testkit.kubernetes.kube import Kube

_PERIOD_S = 0.5
_META = "__meta_kubernetes"
Target = dict[str, Any]


class Discovery:
    """A thread that writes the targets of some namespaces, until ``close``."""

    def __init__(self, folder: Path, *, namespaces: frozenset[str]) -> None:
        self.pods = folder / "pods.json"
        self.services = folder / "services.json"
        self._kubes = [Kube(namespace) for namespace in sorted(namespaces)]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)

    def start(self) -> None:
        self._write()
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(60)

    def _run(self) -> None:
        while not self._closed.wait(_PERIOD_S):
            try:
                self._write()
            except (ApiException, HTTPError, OSError):
                continue  # the API server is busy

    def _write(self) -> None:
        pods: list[Target] = []
        services: list[Target] = []
        for kube in self._kubes:
            found = kube.pods()
            pods += [target for pod in found for target in pod_targets(pod)]
            by_name = {pod.metadata.name: pod for pod in found}
            services += _service_targets(kube, by_name)
        for path, targets in ((self.pods, pods), (self.services, services)):
            _replace(path, json.dumps(targets))


def pod_targets(pod: Any) -> Iterator[Target]:
    """A target for each port that a container of the pod declares."""
    if not pod.status.pod_ip:
        return
    for container in [*(pod.spec.init_containers or ()), *pod.spec.containers]:
        for port in container.ports or ():
            labels = _of_pod(pod) | _of_port(container.name, port)
            yield {"targets": [f"{pod.status.pod_ip}:{port.container_port}"], "labels": labels}


def _service_targets(kube: Kube, pods: Mapping[str, Any]) -> Iterator[Target]:
    """A target for each port of each pod behind a Service."""
    services = {item.metadata.name: item for item in kube.core.list_namespaced_service(kube.namespace).items}
    slices = client.DiscoveryV1Api(kube.api).list_namespaced_endpoint_slice(kube.namespace).items
    for item in slices:
        service = services.get((item.metadata.labels or {}).get("kubernetes.io/service-name"))
        if service is None:
            continue
        for endpoint in item.endpoints or ():
            pod = pods.get(endpoint.target_ref.name if endpoint.target_ref else "")
            for port in item.ports or ():
                labels = {
                    f"{_META}_namespace": kube.namespace,
                    f"{_META}_service_name": service.metadata.name,
                    f"{_META}_endpointslice_port_name": port.name or "",
                    **_labels("service", service.metadata.labels),
                    **(_behind(pod, port.port) if pod is not None else {}),
                }
                yield {"targets": [f"{endpoint.addresses[0]}:{port.port}"], "labels": labels}


def _behind(pod: Any, number: int) -> dict[str, str]:
    """The labels of a pod behind a Service, and of the container that declares the port."""
    ports = [(container, port) for container in pod.spec.containers for port in container.ports or ()]
    declared = [_of_port(container.name, port) for container, port in ports if port.container_port == number]
    return _of_pod(pod) | (declared[0] if declared else {})


def _of_pod(pod: Any) -> dict[str, str]:
    return {
        f"{_META}_namespace": pod.metadata.namespace,
        f"{_META}_pod_name": pod.metadata.name,
        f"{_META}_pod_phase": pod.status.phase,
        **_labels("pod", pod.metadata.labels),
    }


def _of_port(container: str, port: Any) -> dict[str, str]:
    return {
        f"{_META}_pod_container_name": container,
        f"{_META}_pod_container_port_name": port.name or "",
        f"{_META}_pod_container_port_number": str(port.container_port),
    }


def _labels(kind: str, labels: Mapping[str, str] | None) -> dict[str, str]:
    found = {}
    for key, value in (labels or {}).items():
        found[f"{_META}_{kind}_label_{sanitized(key)}"] = value
        found[f"{_META}_{kind}_labelpresent_{sanitized(key)}"] = "true"
    return found


def sanitized(label: str) -> str:
    """The name of a Kubernetes label as Prometheus spells it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def _replace(path: Path, text: str) -> None:
    """Replace a file atomically, unless it has this text already."""
    if path.exists() and path.read_text() == text:
        return
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
