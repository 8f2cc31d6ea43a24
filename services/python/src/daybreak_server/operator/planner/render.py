"""Renders the RayCluster's manifest and the config of the Serve applications for a pool.

The operator adds what it needs to find, scale and drain the pods. If the template already sets a value that the
operator would add, the template's value stays. Some fields, labels and annotations are the
exception: only the operator may set them.
"""

from __future__ import annotations

import copy
import json
import math
from decimal import Decimal
from typing import Any

from daybreak_server.domain.names import API_APPLICATION
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.resource import KIND, GeneratorPool
from daybreak_server.ports.cluster import API_GROUP, API_VERSION, POOL_LABEL, RANKS_ANNOTATION, REVISION_LABEL

MAX_REPLICAS = 10_000
LEAVE_S = 25
"""Seconds that ``ray_serve`` gives a group to release its task when Serve stops the group's replicas."""
DRAIN_S = LEAVE_S + 2
"""Seconds that Ray drains a node after SIGTERM. The ranks begin to stop ``LEAVE_S`` seconds before the drain ends."""
GRACE_S = DRAIN_S + 18
"""Seconds after which Kubernetes kills the pod. Ray finishes before that."""
_PROBE = {
    "httpGet": {"path": "/api/healthz", "port": 52365},
    "initialDelaySeconds": 1,
    "periodSeconds": 1,
    "timeoutSeconds": 5,
    "failureThreshold": 120,
}


def cluster(pool: GeneratorPool, *, replicas: int, suspend: bool) -> dict[str, Any]:
    """The RayCluster to create from the pool's template."""
    revision = names.revision(pool)
    template = pool.spec.ray_cluster
    spec = copy.deepcopy(template.spec)
    spec.update(enableInTreeAutoscaling=False, suspend=suspend)
    labels = {POOL_LABEL: pool.name, REVISION_LABEL: revision}
    groups = spec.setdefault("workerGroupSpecs", [{}])
    environment = _environment(pool, _cpus_per_rank(groups[0], pool))
    _head(spec.setdefault("headGroupSpec", {}), environment, labels)
    _workers(groups[0], pool, environment, {**labels, names.ROLE_LABEL: names.RANK_ROLE}, replicas)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": names.cluster_name(pool.name, revision),
            "namespace": pool.namespace,
            "labels": {**template.labels, **labels},
            "annotations": {**template.annotations, RANKS_ANNOTATION: str(pool.spec.ranks)},
            "ownerReferences": [
                {
                    "apiVersion": f"{API_GROUP}/{API_VERSION}",
                    "kind": KIND,
                    "name": pool.name,
                    "uid": pool.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": spec,
    }


def applications(pool: GeneratorPool, attempt: int) -> dict[str, Any]:
    """Serve's config. It depends only on the pool and the deploy attempt, so deploying it twice changes nothing.

    Serve rejects a deployment with zero replicas. So a pool starts with one group, and the operator
    scales the pool at once.
    """
    app = "daybreak_server.entrypoints.ray_serve"
    args = {"pool": pool.name, "groups": 1, "attempt": attempt}
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": 8000},  # noqa: S104
        "applications": [
            {
                "name": API_APPLICATION,
                "route_prefix": "/",
                "import_path": f"{app}:build_api",
                "args": {},
            },
            {
                "name": pool.name,
                "route_prefix": None,
                "import_path": f"{app}:build_pool",
                "args": args,
                "external_scaler_enabled": True,
            },
        ],
    }


def _cpus_per_rank(workers: dict[str, Any], pool: GeneratorPool) -> float:
    """How many CPUs Ray reserves for a rank. Sets ``num-cpus``, the CPUs of a host, if the template does not set it.

    The ranks of one group reserve all CPUs of their hosts, so that no host takes ranks of a second group. Ray accepts
    only a whole number of CPUs for a host, so the sum is rounded up, and divided again among the ranks.
    """
    params = workers.setdefault("rayStartParams", {})
    cpus, ranks = pool.spec.resources.cpus, _ranks_per_host(pool)
    if "num-cpus" in params:
        return cpus
    host = max(1, math.ceil(cpus * ranks))
    params["num-cpus"] = str(host)
    # Ray rounds to four decimals. Were the share rounded up, the last rank would find too little.
    return cpus if cpus * ranks == host else math.floor(host / ranks * 10_000) / 10_000


def _ranks_per_host(pool: GeneratorPool) -> int:
    return pool.spec.ranks // pool.spec.hosts_per_group


def _head(group: dict[str, Any], environment: dict[str, str], labels: dict[str, str]) -> None:
    params = group.setdefault("rayStartParams", {})
    params.setdefault("num-cpus", "0")  # no rank on the head
    params.setdefault("dashboard-host", "0.0.0.0")  # noqa: S104
    container = _container(group, labels, "ray-head")
    _defaults(
        container,
        {
            **environment,
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1000000",
        },
    )


def _workers(
    group: dict[str, Any],
    pool: GeneratorPool,
    environment: dict[str, str],
    labels: dict[str, str],
    replicas: int,
) -> None:
    spec, needs, ranks_per_host = pool.spec, pool.spec.resources, _ranks_per_host(pool)
    group.update(
        groupName=names.WORKER_GROUP,
        replicas=replicas,
        minReplicas=0,
        maxReplicas=MAX_REPLICAS,
        numOfHosts=spec.hosts_per_group,
        scaleStrategy={"workersToDelete": []},
    )
    container = _container(group, labels, "ray-worker")
    group["template"]["spec"].setdefault("terminationGracePeriodSeconds", GRACE_S)
    _defaults(container, {**environment, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN_S)})
    resources = container.setdefault("resources", {})
    requests, limits = resources.setdefault("requests", {}), resources.setdefault("limits", {})
    requests.setdefault("cpu", f"{round(needs.cpus * ranks_per_host * 1000)}m")
    if needs.gpus:
        group["rayStartParams"].setdefault("num-gpus", str(math.ceil(needs.gpus * ranks_per_host)))
        limits.setdefault("nvidia.com/gpu", math.ceil(needs.gpus * ranks_per_host))
    if needs.memory is not None:
        limits.setdefault("memory", _times(needs.memory, ranks_per_host))


def _times(quantity: str, factor: int) -> str:
    """Multiply a quantity and keep its unit. The result has no exponent, because Kubernetes rejects
    an exponent before a unit."""
    number = quantity.rstrip("KMGTik")
    return f"{(Decimal(number) * factor).normalize():f}{quantity[len(number) :]}"


def _container(group: dict[str, Any], labels: dict[str, str], name: str) -> dict[str, Any]:
    """Set the pod template's labels and the defaults of its first container, which is Ray's. Returns the container."""
    template = group.setdefault("template", {})
    meta = template.setdefault("metadata", {})
    meta["labels"] = {**meta.get("labels", {}), **labels}
    containers = template.setdefault("spec", {}).setdefault("containers", [{}])
    container: dict[str, Any] = containers[0]
    container.setdefault("name", name)
    container.setdefault("readinessProbe", copy.deepcopy(_PROBE))
    return container


def _environment(pool: GeneratorPool, cpus_per_rank: float) -> dict[str, str]:
    """The pool's settings as environment variables, so that the template need not repeat them."""
    spec = pool.spec
    values: dict[str, Any] = {
        "WORKLOAD": pool.workload,
        "KIND": spec.kind and spec.kind.value,
        "MODEL": spec.model,
        "RANKS": spec.ranks,
        "GROUPS": 1,
        "DRAIN_S": spec.drain_seconds,
        "DEVICE": "cuda" if spec.resources.gpus else "cpu",
        "CPUS_PER_RANK": cpus_per_rank,
        "GPUS_PER_RANK": spec.resources.gpus or None,
    }
    return {
        names.setting(pool.name, name): value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }


def _defaults(container: dict[str, Any], environment: dict[str, str]) -> None:
    """Add environment variables that the template does not set."""
    entries = container.setdefault("env", [])
    present = {entry.get("name") for entry in entries}
    entries.extend(
        {"name": name, "value": value} for name, value in environment.items() if name not in present
    )
