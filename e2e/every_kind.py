"""Values of the chart with a pool of each kind, a worker and a model, for the tests of serving, sessions and workers.

One upgrade of the shared installation adds these pools, the worker and the model for all these tests. They are not in
the values of a new installation, because the test of upgrades uses those values with an earlier chart too, and an
earlier chart would refuse these parts.
"""

from __future__ import annotations

from typing import Any

from testkit.kubernetes.deployment import Deployment
from testkit.kubernetes.values import pool, small

CHAT, TALKS, SPEECH = "chat", "talks", "speech"
"""The names of the pools. `chat` has at most two groups. Each of them answers up to two requests at once, and may take
long to drain."""
TALKS_TARGET_LOAD = 3
TALKS_MAX_SESSIONS = 4
"""How many sessions a group of `talks` accepts: one more than its target load."""
MODEL = {
    "alias": "smollm",
    "source": "/opt/models/smollm2.gguf",
    "engine": "llama.cpp",
    "memory_bytes": 400 << 20,
    "min_replicas": 0,
    "idle_s": 10,
}


def add_every_kind(deployment: Deployment) -> None:
    """Upgrade the shared installation to these values, unless it already has them."""
    deployment.release.ensure(
        {
            **deployment.values,
            "pools": {**deployment.values["pools"], **_pools()},
            "workers": {"llama": _worker(deployment.images.engine)},
            "models": [MODEL],
        }
    )


def _pools() -> dict[str, Any]:
    chat = _pool("online", "echo-serve", targetLoad=2, drainSeconds=120, settings={"capacity": 2})
    talks = _pool("sessions", "simulated-speech", targetLoad=TALKS_TARGET_LOAD, drainSeconds=60)
    talks["settings"] |= {
        "options": {"max_sessions": TALKS_MAX_SESSIONS},
        # A longer turn would change the text.
        "sessions": {"max_latency_multiplier": 1, "lag_limit_ms": 600_000},
    }
    return {CHAT: chat, TALKS: talks, SPEECH: _pool("sessions", "speech", maxGroups=1)}


def _pool(kind: str, workload: str, **values: Any) -> dict[str, Any]:
    idle = {"mode": "cluster", "afterSeconds": 5}
    return {**pool(workload, ranks=1, hosts=1, idle=idle), "kind": kind, **values}


def _worker(image: str) -> dict[str, Any]:
    return {
        "image": image,
        "maxReplicas": 1,
        "resources": small("256Mi", limit="1Gi"),
        "settings": {"engines": {"llama.cpp": {"stop_s": 2}}},
        "scaling": {"cooldownPeriod": 5},
    }
