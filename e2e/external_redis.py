"""A Redis outside the chart: a server with its own volume and password, in the tests' namespace."""

from __future__ import annotations

import secrets
from typing import Any

from testkit.kubernetes import manifests

NAME = "external-redis"
POD = f"{NAME}-0"
PORT = 6379


def volume() -> dict[str, Any]:
    """The server's PersistentVolumeClaim. A test creates the claim, copies the initial data to the volume, and
    then creates the server."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": NAME},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def server(image: str) -> list[dict[str, Any]]:
    """The server's Secret, StatefulSet and Service."""
    labels = {"app": NAME}
    password = {"secretKeyRef": {"name": NAME, "key": "password"}}
    persistence = ["--dir", "/data", "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
    container = {
        "name": "redis",
        "image": image,
        "command": [
            "redis-server",
            *persistence,
            "--maxmemory",
            "256mb",
            "--requirepass",
            "$(REDISCLI_AUTH)",
        ],
        "env": [{"name": "REDISCLI_AUTH", "valueFrom": password}],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"exec": {"command": ["redis-cli", "-e", "ping"]}, "periodSeconds": 1},
    }
    claim = {"persistentVolumeClaim": {"claimName": NAME}}
    pod = manifests.pod_spec(container, user=999, data=claim)
    pod["securityContext"]["runAsGroup"] = 999  # the group of `redis` in the image
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "serviceName": NAME,
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    credentials = manifests.secret(NAME, {"password": secrets.token_hex(16)})
    return [credentials, stateful, manifests.service(NAME, PORT)]


def values(namespace: str) -> dict[str, Any]:
    """The chart's `redis` values that select this server."""
    external = {"host": f"{NAME}.{namespace}.svc", "port": PORT, "existingSecret": NAME}
    return {"enabled": False, "external": external}
