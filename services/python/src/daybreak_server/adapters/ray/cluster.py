"""What a rank asks of the Ray cluster that it runs in: where it is, where to meet, whether it must go."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray

from daybreak_server.adapters.ray.kv import table
from daybreak_server.domain.causes import Cause

_log = logging.getLogger(__name__)
_DRAIN_LOOK_S = 0.5
IN_A_ROW_S = 300.0
"""Early ends further apart than this are not of one row."""


def node_ip() -> str:
    """An address of this node that the other nodes can reach."""
    return str(ray.util.get_node_ip_address())


def node_label() -> str:
    """How people call this node: its pod's name under KubeRay, else its address."""
    return os.environ.get("RAY_CLOUD_INSTANCE_ID") or node_ip()


def has_gpu() -> bool:
    """Whether this actor was given a GPU."""
    return bool(ray.get_gpu_ids())


def cluster_has_gpus() -> bool:
    """Whether any node of the cluster has one."""
    return float(ray.cluster_resources().get("GPU", 0)) > 0


class KvRendezvousStore:
    """A :class:`~daybreak_server.engines.gang.rendezvous.RendezvousStore` in the cluster's own table: there before Redis is.

    Its key is the gang's id, which Ray Serve makes anew for each gang, so no rank finds an earlier leader.
    """

    def __init__(self, gang_id: str) -> None:
        self._key = f"gang/{gang_id}"

    def put(self, address: str) -> None:
        """Publish the leader's address."""
        table().put(self._key, address)

    def get(self) -> str | None:
        """The address, or ``None`` while there is none."""
        return table().get(self._key)

    def clear(self) -> None:
        """Everybody has come."""
        table().delete(self._key)


def tell_failure(pool: str, *, rank: int, why: Cause) -> None:
    """Leave the reason of a rank's end where whoever watches the deployment can read it."""
    before = failures().get(pool, {})
    count = int(before.get("count", 0)) + 1
    said = {"rank": rank, "reason": why.reason, "why": why.message, "at": time.time(), "count": count}
    _put(f"failure/{pool}", said)


def record_start_failure(pool: str, *, rank: int) -> int:
    """How often in a row a rank of this number has ended before it had its model, this time included."""
    key = f"early/{pool}/{rank}"
    found = table().get(key)
    now = time.time()
    count = consecutive_start_failures(json.loads(found) if found else None, now=now)
    _put(key, {"count": count, "at": now})
    return count


def consecutive_start_failures(before: Mapping[str, Any] | None, *, now: float) -> int:
    """The number of an end, given the one ``before`` it (its ``count`` and ``at``), if there was one."""
    return int(before["count"]) + 1 if before is not None and now - before["at"] < IN_A_ROW_S else 1


def _put(key: str, value: dict[str, Any]) -> None:
    table().put(key, json.dumps(value))


def failures() -> dict[str, dict[str, Any]]:
    """The latest failure by pool, and how many there were."""
    found: dict[str, dict[str, Any]] = {}
    for key in table().keys("failure/"):
        value = table().get(key)
        if value:
            found[key.removeprefix("failure/")] = json.loads(value)
    return found


def watch_draining(on_drain: Callable[[], None]) -> threading.Thread:
    """Call ``on_drain`` once when this node is being drained (a spot notice, a scale-down, an upgrade).

    The cluster's own list is the earliest notice there is: Serve tells its replicas only at the end. Where Ray has no
    such list, that must do.
    """
    mine = ray.get_runtime_context().get_node_id()
    draining_nodes = _draining_nodes()

    def look() -> None:
        while draining_nodes is not None:
            time.sleep(_DRAIN_LOOK_S)
            try:
                draining = draining_nodes()
            except Exception as exc:  # the head restarts: ask again
                _log.debug("cannot ask which nodes drain: %s", exc)
                time.sleep(2.0)
                continue
            if mine in draining:
                _log.warning("this node drains: handing back")
                on_drain()
                return

    thread = threading.Thread(target=look, name="drain-watch", daemon=True)
    thread.start()
    return thread


def _draining_nodes() -> Callable[[], Mapping[str, int]] | None:
    """Ray's list of the nodes that drain, by a private name: there is no public one."""
    try:
        from ray._private.state import state

        found: Callable[[], Mapping[str, int]] = state.get_draining_nodes
    except (ImportError, AttributeError) as exc:
        _log.warning(
            "Ray %s does not say which nodes drain (%s): a group on one hands back when Serve stops it, not at once. "
            "Use a Ray that was tested (`pip install 'daybreak-server[ray]'`).",
            ray.__version__,
            exc,
        )
        return None
    return found
