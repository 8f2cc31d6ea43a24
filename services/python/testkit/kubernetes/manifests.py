"""The parts that the manifests of the tests' own servers (S3, Redis) share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def secret(name: str, data: Mapping[str, str]) -> dict[str, Any]:
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(data)}


def service(name: str, port: int) -> dict[str, Any]:
    """A Service for the pods with the label ``app: <name>``."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": port}]},
    }


def pod_spec(container: Mapping[str, Any], *, user: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a pod with one small container. The Pod Security Standard *restricted* admits this pod.

    The container runs as ``user``, and the volume ``data`` is mounted at ``/data``.
    """
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                **container,
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", **data}],
    }
