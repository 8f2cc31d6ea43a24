"""A rank's view of the Ray cluster that it runs in: its node, the rendezvous, failures, and drain notices.

Ranks share small texts through the cluster's table (:mod:`~daybreak_server.adapters.ray.cluster_table`): the leader's
address, the latest failure of each pool, and how often in a row each rank has failed to start. The table works even
before Redis is reachable.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray

from daybreak_server.adapters.ray.cluster_table import table
from daybreak_server.domain.causes import Cause

_log = logging.getLogger(__name__)
_DRAIN_POLL_S = 0.5
START_FAILURE_WINDOW_S = 300.0
"""Two failed starts that are further apart than this do not count as failures in a row."""


def node_ip() -> str:
    """Return an address of this node that the other nodes can reach."""
    return str(ray.util.get_node_ip_address())


def node_label() -> str:
    """Return the name of this node for people: its pod's name under KubeRay, otherwise its address."""
    return os.environ.get("RAY_CLOUD_INSTANCE_ID") or node_ip()  # noqa: TID251


def has_gpu() -> bool:
    """Return whether this actor has a GPU."""
    return bool(ray.get_gpu_ids())


def cluster_has_gpus() -> bool:
    """Return whether any node of the cluster has a GPU."""
    return float(ray.cluster_resources().get("GPU", 0)) > 0


def metrics_addresses() -> list[str]:
    """Return where Ray exports metrics for Prometheus: ``host:port`` of each living node."""
    return [
        f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes() if node["Alive"]
    ]


class KvRendezvousStore:
    """A :class:`~daybreak_server.engines.ranks.rendezvous.RendezvousStore` in the cluster's table.

    Its key is the gang's id. Ray Serve makes a new id for each start of a gang, so no rank finds an old address.
    """

    def __init__(self, gang_id: str) -> None:
        self._key = f"gang/{gang_id}"

    def put(self, address: str) -> None:
        """Publish the leader's address."""
        table().put(self._key, address)

    def get(self) -> str | None:
        """Return the address, or ``None`` until it is published."""
        return table().get(self._key)

    def clear(self) -> None:
        """Remove the address."""
        table().delete(self._key)


def record_failure(pool: str, *, rank: int, cause: Cause) -> None:
    """Record why a rank ended, for :func:`failures`."""
    before = failures().get(pool, {})
    failure = {
        "rank": rank,
        "reason": cause.reason,
        "message": cause.message,
        "at": time.time(),
        "count": int(before.get("count", 0)) + 1,
    }
    _put(f"failure/{pool}", failure)


def record_start_failure(pool: str, *, rank: int) -> int:
    """Record that this rank ended before its model was loaded, and return how often in a row that has happened."""
    key = f"early/{pool}/{rank}"
    stored = table().get(key)
    now = time.time()
    count = consecutive_start_failures(json.loads(stored) if stored else None, now=now)
    _put(key, {"count": count, "at": now})
    return count


def consecutive_start_failures(before: Mapping[str, Any] | None, *, now: float) -> int:
    """Return how many starts have failed in a row. ``before``: ``count`` and ``at`` of the previous failure, if any."""
    if before is None or now - before["at"] >= START_FAILURE_WINDOW_S:
        return 1
    return int(before["count"]) + 1


def _put(key: str, value: dict[str, Any]) -> None:
    table().put(key, json.dumps(value))


def failures() -> dict[str, dict[str, Any]]:
    """Return the latest failure of each pool, with the number of failures in ``count``."""
    latest: dict[str, dict[str, Any]] = {}
    for key in table().keys("failure/"):
        value = table().get(key)
        if value:
            latest[key.removeprefix("failure/")] = json.loads(value)
    return latest


def watch_draining(on_drain: Callable[[], None]) -> threading.Thread:
    """Call ``on_drain`` once when this node begins to drain (a spot notice, a scale-down, an upgrade).

    Ray's list of draining nodes is the earliest notice, because Serve stops its replicas only at the end of the drain.
    If the installed Ray has no such list, the group drains when Serve stops it.
    """
    node_id = ray.get_runtime_context().get_node_id()
    draining_nodes = _draining_nodes()

    def poll() -> None:
        while draining_nodes is not None:
            time.sleep(_DRAIN_POLL_S)
            try:
                draining = draining_nodes()
            except Exception as exc:  # the head may be restarting
                _log.debug("cannot read the list of draining nodes from Ray; retrying: %s", exc)
                time.sleep(2.0)
                continue
            if node_id in draining:
                _log.warning("this node is draining, so its group drains too")
                on_drain()
                return

    thread = threading.Thread(target=poll, name="drain-watch", daemon=True)
    thread.start()
    return thread


def _draining_nodes() -> Callable[[], Mapping[str, int]] | None:
    """Return Ray's function for the list of draining nodes. The function is private: Ray has no public one."""
    try:
        from ray._private.state import state

        draining_nodes: Callable[[], Mapping[str, int]] = state.get_draining_nodes
    except (ImportError, AttributeError) as exc:
        _log.warning(
            "Ray %s does not list its draining nodes (%s): a group on such a node releases its task only when Serve "
            "stops it. Install a tested Ray (`pip install 'daybreak-server[ray]'`).",
            ray.__version__,
            exc,
        )
        return None
    return draining_nodes
