"""The options of a cluster of the fault tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daybreak_server.settings.tree import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """A pool, and the groups that serve it."""

    name: str = "solo"
    workload: str = "echo"
    ranks: int = 1
    """More than one rank needs torch, because the ranks form a gloo group."""
    groups: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More settings of the pool. They override those that the cluster sets for each pool."""
    log_runs: bool = False
    """Whether the workload gets the option ``runs``, with the path of the folder ``runs`` in the cluster's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """A cluster. Durations are in seconds. Leases are short, so that runs are short."""

    folder: Path | None = None
    """The cluster's folder; ``None``: a new temporary folder, which is removed unless something fails."""
    pools: tuple[PoolOptions, ...] = (PoolOptions(),)
    gateways: int = 2
    flavour: str = "valkey"
    """``valkey`` (embedded) or ``redis`` (``redis-server`` on PATH)."""
    fsync: str = "everysec"
    """``everysec``, ``always`` or ``no``."""
    server: Mapping[str, str] = field(default_factory=dict)
    """More configuration of the server, such as ``{"maxmemory": "8mb"}``."""
    server_folder: Path | None = None
    """The folder of the server's data, for example on a faulty file system; ``None``: in the cluster's folder."""
    redis_via: Callable[[int], str] | None = None
    """Maps the server's port to the URL of a proxy for gateways and groups; ``None``: they connect directly."""
    groups_redis_via: Callable[[int], str] | None = None
    """Like ``redis_via``, but for groups only; ``None``: they connect as the gateways do."""
    gateways_via: Callable[[int], str] | None = None
    """Maps a gateway's port to the URL of a proxy for clients; ``None``: they connect directly."""
    blobs_url: str | None = None
    """``None``: a folder in the cluster's folder."""
    lease_s: float = 1.5
    stall_s: float = 20.0
    checkpoint_s: float = 0.1
    progress_s: float = 0.05
    drain_s: float = 0.0
    redis_timeout_s: float = 2.0
    watchdogs: bool = False
    """Whether leaders have watchdogs, as in production. A watchdog is a process that takes half a second to start and
    reports its leader's death at once. Without one, a leader's death is noticed only when its lease expires."""
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By key: environment variables for the components whose names start with the key (``gateway``, ``solo``,
    ``server``; ``""`` for all). Each of these components runs in its own interpreter, so it takes a second to start
    instead of milliseconds."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """By the name of a failpoint: the probability that it fires when a process passes it."""
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More Daybreak settings. They override those that the cluster sets."""

    def daybreak_settings(self, *, folder: Path, redis_url: str) -> Settings:
        """The Daybreak settings of every component."""
        tree: dict[str, Any] = {
            "data_dir": str(folder / "data"),
            "redis": {"url": redis_url, "timeout_s": self.redis_timeout_s},
            "artifacts": {"url": self.blobs_url or (folder / "blobs").as_uri()},
            "pools": {pool.name: self._pool(pool, folder) for pool in self.pools},
        }
        return Settings.model_validate(_merged(tree, self.settings))

    def _pool(self, pool: PoolOptions, folder: Path) -> dict[str, Any]:
        tree = {
            "workload": pool.workload,
            "ranks": pool.ranks,
            "groups": pool.groups,
            "device": "cpu",
            "checkpoint_s": self.checkpoint_s,
            "progress_s": self.progress_s,
            "drain_s": self.drain_s,
            "lease": {"lease_s": self.lease_s, "stall_s": self.stall_s},
            "options": {"runs": str(folder / "runs")} if pool.log_runs else {},
        }
        return _merged(tree, pool.settings)


def _merged(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, value in overrides.items():
        old = merged.get(name)
        are_sections = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[name] = _merged(old, value) if are_sections else value
    return merged
