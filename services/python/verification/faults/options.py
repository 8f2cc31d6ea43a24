"""What a cluster is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daybreak_server.settings.tree import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """A pool that runs the echo workload, and the groups that serve it."""

    name: str = "solo"
    ranks: int = 1
    """More than one needs torch: the ranks are a gloo group."""
    groups: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """A cluster. Durations in seconds; short leases make short runs."""

    folder: Path | None = None
    """Where everything lies; absent: a new temporary folder, removed when all went well."""
    pools: tuple[PoolPlan, ...] = (PoolPlan(),)
    gateways: int = 2
    flavour: str = "valkey"
    """``valkey`` (embedded) or ``redis`` (``redis-server`` on PATH)."""
    fsync: str = "everysec"
    """``everysec``, ``always`` or ``no``."""
    server: Mapping[str, str] = field(default_factory=dict)
    """More of the server's configuration: ``{"maxmemory": "8mb"}``."""
    server_folder: Path | None = None
    """Where the server's data lies, when not in the cluster's folder (a file system with faults)."""
    through: Callable[[int], str] | None = None
    """Given the server's port, the URL by which gateways and groups reach it (a proxy); absent: directly."""
    groups_through: Callable[[int], str] | None = None
    """The same for groups only, where their way to the server is not the gateways'."""
    clients_through: Callable[[int], str] | None = None
    """Given a gateway's port, the URL by which clients reach it; absent: directly."""
    blobs_url: str | None = None
    """Absent: a folder of the cluster's."""
    lease_s: float = 1.5
    stall_s: float = 20.0
    checkpoint_s: float = 0.1
    progress_s: float = 0.05
    drain_s: float = 0.0
    redis_timeout_s: float = 2.0
    guards: bool = False
    """Whether leaders have guards, as in production: a process each, which takes half a second to start, and by
    which a leader's death is told at once. Without them it is the lease that ends."""
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Variables of the parts whose name begins with the key (``gateway``, ``solo``, ``server``, ``""``: all).
    Such a part runs in an interpreter of its own, which starts in a second instead of milliseconds."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """Failpoints that fire by chance, at each pass."""
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More settings of the product, merged over what the cluster says."""

    def product(self, *, folder: Path, redis_url: str) -> Settings:
        """The settings that every part gets."""
        tree: dict[str, Any] = {
            "data_dir": str(folder / "data"),
            "redis": {"url": redis_url, "timeout_s": self.redis_timeout_s},
            "artifacts": {"url": self.blobs_url or (folder / "blobs").as_uri()},
            "pools": {plan.name: self._pool(plan) for plan in self.pools},
        }
        return Settings.model_validate(_merged(tree, self.settings))

    def _pool(self, plan: PoolPlan) -> dict[str, Any]:
        return {
            "workload": "echo",
            "ranks": plan.ranks,
            "groups": plan.groups,
            "device": "cpu",
            "checkpoint_s": self.checkpoint_s,
            "progress_s": self.progress_s,
            "drain_s": self.drain_s,
            "lease": {"lease_s": self.lease_s, "stall_s": self.stall_s},
        }


def _merged(tree: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, value in more.items():
        old = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[name] = _merged(old, value) if both else value
    return merged
