"""Ray on one machine: a head node, with this process as the driver.

The head gets the fast start (:mod:`~daybreak_server.adapters.ray.lean_node`) if
:mod:`~daybreak_server.adapters.ray.fast_start` allows it. Otherwise ``ray.init`` starts the head, and one warning says
why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from daybreak_server.adapters.ray import fast_start

_log = logging.getLogger(__name__)
_OBJECT_STORE_BYTES = 80_000_000
"""Slightly more than Ray's minimum. This is enough, because no tensor goes through the object store."""


class LocalRay:
    """A head node, with this process as its driver. Everything listens on 127.0.0.1 only (see ``local/up.py``)."""

    def __init__(
        self, folder: Path, *, cpus: int, free_port: Callable[[], int], allow_fast_start: bool = True
    ) -> None:
        reason = _reason_for_stock_start(allowed=allow_fast_start)
        self._started_fast = reason is None
        self._node: Any
        options = {
            "namespace": "serve",
            "_temp_dir": str(folder),
            "log_to_driver": False,
            "configure_logging": False,
        }
        if reason is None:
            from daybreak_server.adapters.ray import lean_node

            self._node = lean_node.start(
                folder, cpus=cpus, object_store_bytes=_OBJECT_STORE_BYTES, free_port=free_port
            )
            ray.init(address=self._node.gcs_address, **options)
            return
        _log.warning("%s", fast_start.warning(reason))
        # Without `local`, Ray would join the cluster of RAY_ADDRESS, or one that runs on this machine already.
        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            **options,
        )
        self._node = _driver_node()

    def dead(self) -> list[str]:
        """Return the names of Ray's processes that have died."""
        if self._node is None:
            return []
        return [name for name, _process in self._node.dead_processes()]

    def stop(self) -> None:
        """Stop Ray."""
        ray.shutdown()  # if `ray.init` started the node, this also stops the node
        if self._started_fast:
            self._node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)


def _reason_for_stock_start(*, allowed: bool) -> str | None:
    version = fast_start.installed_version()
    reason = fast_start.reason_for_stock_start(allowed=allowed, version=version)
    if reason is not None:
        return reason
    problems = fast_start.problems(fast_start.LEAN_NODE_PARTS)
    return fast_start.reason_for_stock_start(allowed=allowed, version=version, problems=problems)


def _driver_node() -> Any:
    """Return the node that ``ray.init`` started, or ``None`` if this version of Ray lacks the private attribute.

    The node knows at once when one of its processes dies. Without the node, a dead Ray is noticed only when Serve stops
    answering.
    """
    node = getattr(getattr(getattr(ray, "_private", None), "worker", None), "_global_node", None)
    return node if hasattr(node, "dead_processes") else None
