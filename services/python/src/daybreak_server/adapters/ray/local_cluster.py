"""A Ray of one machine: its head, and this process as its driver.

The head is started fast (:mod:`~daybreak_server.adapters.ray.lean_node`) where
:mod:`~daybreak_server.adapters.ray.fast_start` allows it, else by ``ray.init``, with one warning.
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
"""Little more than Ray's least: no tensor travels through it."""


class LocalRay:
    """A head node, and this process as its driver. All of it listens on 127.0.0.1 only (see ``up``)."""

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
        # `local`: RAY_ADDRESS, or a cluster that runs on this machine, must not be joined instead.
        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            **options,
        )
        self._node = _driver_node()

    def dead(self) -> list[str]:
        """Which of its processes have died."""
        if self._node is None:
            return []
        return [name for name, _process in self._node.dead_processes()]

    def stop(self) -> None:
        """End it all."""
        ray.shutdown()  # after the stock start this ends the node too
        if self._started_fast:
            self._node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)


def _reason_for_stock_start(*, allowed: bool) -> str | None:
    version = fast_start.installed_version()
    reason = fast_start.reason_for_stock_start(allowed=allowed, version=version)
    if reason is not None:
        return reason
    found = fast_start.problems(fast_start.OF_LEAN_NODE)
    return fast_start.reason_for_stock_start(allowed=allowed, version=version, problems=found)


def _driver_node() -> Any:
    """The node that ``ray.init`` started, which knows at once when one of its processes dies.

    Ray has no public name for it. Without it, a dead Ray is noticed only when Serve stops answering.
    """
    node = getattr(getattr(getattr(ray, "_private", None), "worker", None), "_global_node", None)
    return node if hasattr(node, "dead_processes") else None
