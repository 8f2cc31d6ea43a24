"""Turns on the metrics of KubeRay's operator, for clusters in which it runs without ``--enable-metrics``.

KubeRay's Helm chart sets this flag by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testkit.kubernetes.kube import JSON_PATCH, Kube
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

NAME = "kuberay-operator"
_FLAG = "--enable-metrics"
_ARGUMENTS = "/spec/template/spec/containers/0/args"


@contextmanager
def kuberay_metrics(kube: Kube) -> Iterator[None]:
    """Make KubeRay export metrics until the context ends. If KubeRay did not export them before, its operator restarts
    at the beginning and at the end of the context."""
    operator = kube.deployment(NAME)
    before = list(operator.spec.template.spec.containers[0].args or ())
    if any(argument.lstrip("-").startswith("enable-metrics") for argument in before):
        yield
        return
    log(f"  {NAME} restarts with {_FLAG}")
    _set_arguments(kube, operator, [*before, _FLAG])
    try:
        yield
    finally:
        log(f"  {NAME} restarts without {_FLAG}")
        _set_arguments(kube, operator, before)


def _set_arguments(kube: Kube, operator: Any, arguments: list[str]) -> None:
    meta = operator.metadata
    patch = [{"op": "add", "path": _ARGUMENTS, "value": arguments}]
    kube.apps.patch_namespaced_deployment(meta.name, meta.namespace, patch, _content_type=JSON_PATCH)

    def rolled_out() -> bool:
        found = kube.apps.read_namespaced_deployment(meta.name, meta.namespace)
        status, replicas = found.status, found.spec.replicas
        return status.observed_generation >= found.metadata.generation and (
            status.updated_replicas == status.available_replicas == status.replicas == replicas
        )

    wait_until(rolled_out, timeout_s=90, what=f"the restart of {NAME}")
