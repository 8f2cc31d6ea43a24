"""The names, labels and annotations that the operator sets or reads."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from daybreak_server.domain.names import environment_variable
from daybreak_server.operator.crd.resource import GeneratorPool
from daybreak_server.ports.cluster import API_GROUP, POOL_LABEL

ROLE_LABEL = f"{API_GROUP}/role"
RANK_ROLE = "rank"
WORKER_GROUP = "ranks"
SERVE_PORT = 8265


def selector(pool: str) -> str:
    """The label selector of the pods of a pool's groups. HPA requires it, even at zero."""
    return f"{POOL_LABEL}={pool},{ROLE_LABEL}={RANK_ROLE}"


def revision(pool: GeneratorPool) -> str:
    """A hash of what a RayCluster is made from: it changes if new pods are needed.

    The hash covers the workload, which sets the pool's kind. So it need not cover ``kind``.
    """
    spec = pool.spec
    made_from: dict[str, Any] = {
        "template": spec.ray_cluster.model_dump(mode="json"),
        "workload": pool.workload,
        "model": spec.model,
        "ranks": spec.ranks,
        "hosts": spec.hosts_per_group,
        "resources": spec.resources.model_dump(mode="json"),
        "drain": spec.drain_seconds,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:8]


def cluster_name(pool: str, template_hash: str) -> str:
    """The name of a revision's RayCluster; at most 40 characters, so that KubeRay does not truncate service names."""
    return f"{pool}-{template_hash}"


def setting(pool: str, name: str) -> str:
    """The environment variable for a pool's setting."""
    return environment_variable("pools", pool, name)
