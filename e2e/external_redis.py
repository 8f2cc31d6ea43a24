"""A Redis outside the chart: a server with its own volume and password, in the tests' namespace."""

from __future__ import annotations

import secrets
from typing import Any

NAME = "elsewhere"
POD = f"{NAME}-0"
PORT = 6379


def volume() -> dict[str, Any]:
    """The server's claim, which is created first: the initial data is copied there."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": NAME},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def server(image: str) -> list[dict[str, Any]]:
    """Secret, StatefulSet and Service."""
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
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 999,
            "runAsGroup": 999,
            "fsGroup": 999,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": NAME}}],
    }
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
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME},
        "spec": {"selector": labels, "ports": [{"port": PORT, "targetPort": PORT}]},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME},
        "stringData": {"password": secrets.token_hex(16)},
    }
    return [secret, stateful, service]


def values(namespace: str) -> dict[str, Any]:
    """The chart's `redis` values that select this server."""
    external = {"host": f"{NAME}.{namespace}.svc", "port": PORT, "existingSecret": NAME}
    return {"enabled": False, "external": external}
