"""Every name, label and annotation that the operator makes or looks for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from daybreak_server.domain.names import environment_variable
from daybreak_server.operator.crd.resource import GROUP, GeneratorPool
from daybreak_server.ports.cluster import POOL_LABEL

ROLE_LABEL = f"{GROUP}/role"
RANK_ROLE = "rank"
WORKER_GROUP = "ranks"
SERVE_PORT = 8265


def selector(pool: str) -> str:
    """Of a pool's worker pods: the one that HPA asks for, also at zero."""
    return f"{POOL_LABEL}={pool},{ROLE_LABEL}={RANK_ROLE}"


def revision(pool: GeneratorPool) -> str:
    """Of all that a RayCluster is made from: other for any change that needs new pods, and only then."""
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


def cluster_name(pool: str, of_revision: str) -> str:
    """Of the RayCluster of a revision; at most 40 characters, so that KubeRay cuts none of its services' names."""
    return f"{pool}-{of_revision}"


def setting(pool: str, name: str) -> str:
    """The environment variable of a pool's setting."""
    return environment_variable("pools", pool, name)
