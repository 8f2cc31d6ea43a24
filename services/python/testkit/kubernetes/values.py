"""The chart's values for tests: little memory, short cooldowns, and tiny CPU requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from testkit.kubernetes import s3

LEASE_S = 6.0
"""Short, so that a test does not wait long for a lease to end."""

COOLDOWN_S = 8
"""A pool without work scales to zero after this time."""

REDIS = "docker.io/library/redis:7.0-bookworm"
"""The chart's default image of Redis, which docs/upgrading.md uses too."""


ENGINE = "daybreak-llama:dev"
"""The image that `make engine-image` builds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The images of Daybreak, the S3 server, Redis and the engine of workers, as the nodes know them."""

    daybreak: str
    s3: str
    redis: str = REDIS
    engine: str = ENGINE


def values(images: Images) -> dict[str, Any]:
    """The values, with two pools. Without work, `echo` keeps the pod of its Ray head, and `video` has no pods."""
    return {
        "image": _parts(images.daybreak),
        # On a single node, a stopping pod leaves its Services within a second.
        "gateway": {"replicas": 2, "preStopSeconds": 2, "resources": small("256Mi", limit="512Mi")},
        "operator": {"resources": small("128Mi", limit="512Mi")},
        "redis": {"image": _parts(images.redis), "resources": small("32Mi", limit="512Mi")},
        "artifacts": {
            "url": f"s3://{s3.BUCKET}/e2e",
            "s3": {
                "endpointUrl": f"http://{s3.NAME}:{s3.PORT}",
                "region": s3.REGION,
                "pathStyle": True,
                "presign": False,
                "existingSecret": s3.SECRET,
            },
        },
        "pools": {
            "echo": pool("echo", ranks=1, hosts=1, idle={"mode": "workers"}),
            "video": pool("video", ranks=2, hosts=2, idle={"mode": "cluster", "afterSeconds": 5}),
        },
        "monitoring": {"enabled": True},
        # If no peer may scrape, the chart leaves out the alerts.
        "networkPolicy": {"monitoring": {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}},
    }


def pool(workload: str, *, ranks: int, hosts: int, idle: dict[str, Any]) -> dict[str, Any]:
    """A CPU pool whose pods request little."""
    return {
        "workload": workload,
        "ranks": ranks,
        "hostsPerGroup": hosts,
        # What Ray reserves for a rank. The pod's requests to Kubernetes are below.
        "resources": {"cpus": 1},
        "maxGroups": 2,
        "idle": idle,
        "drainSeconds": 20,
        "settings": {"lease": {"lease_s": LEASE_S}, "checkpoint_s": 5},
        "head": {"resources": small("1Gi", limit="3Gi")},
        "worker": {"resources": small("1Gi", limit="3Gi")},
        "scaling": {
            "pollingInterval": 2,
            "cooldownPeriod": COOLDOWN_S,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
        },
    }


def _parts(image: str) -> dict[str, str]:
    repository, _, tag = image.rpartition(":")
    return {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}


def small(memory: str, *, limit: str) -> dict[str, Any]:
    """Requests and limits of a container. There is no CPU limit, because it would throttle the start."""
    return {"requests": {"cpu": "10m", "memory": memory}, "limits": {"memory": limit}}
