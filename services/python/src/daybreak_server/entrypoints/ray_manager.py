"""The manager as a detached Ray actor.

To see its state, call ``ray.get_actor("manager", namespace="serve").health.remote()``.

The manager decides which workers run which models. Every gateway also runs a manager, but only the holder of the lease
``placement`` decides. The actor has a higher priority than gateways, so it takes the lease even from a gateway that
holds it. All state of the manager is in the registry. So Ray may restart the actor at any time. While the actor is
gone, a gateway decides.

The actor runs on the node of Ray's head. On any other node, it would keep that node from being removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from daybreak_server import wiring
from daybreak_server.adapters.ray.head_actor import head_actor
from daybreak_server.model_placement.manager import Manager
from daybreak_server.observability.logging import log_from_ray_worker
from daybreak_server.settings.tree import Settings

_log = logging.getLogger(__name__)

NAME = "manager"
NAMESPACE = "serve"
HOLDER = "ray/manager"
"""The actor's name as the holder of the lease. It never changes, so a restarted actor need not wait until the earlier
lease ends."""
PRIORITY = 1
_HEALTH_S = 10.0


class ManagerActor:
    """Runs a :class:`~daybreak_server.model_placement.manager.Manager` on a thread, so that ``health`` can answer."""

    def __init__(self, settings: str) -> None:
        parsed = Settings.model_validate_json(settings)
        log_from_ray_worker(parsed.log)
        self._settings = parsed
        self._settings_fingerprint = fingerprint(settings)
        self._manager: Manager | None = None
        threading.Thread(target=lambda: asyncio.run(self._run()), name="manager", daemon=True).start()

    async def _run(self) -> None:
        registry = wiring.build_registry(self._settings)
        self._manager = Manager(registry, holder=HOLDER, priority=PRIORITY)
        await self._manager.run()

    def health(self) -> dict[str, Any]:
        """Whether the manager holds the lease, what it last read from the registry, and where it runs."""
        state = self._manager.health() if self._manager is not None else {}
        node = ray.get_runtime_context().get_node_id()
        return {**state, "settings": self._settings_fingerprint, "pid": os.getpid(), "node": node}


def fingerprint(settings: str) -> str:
    """A short text that differs between different settings."""
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def ensure_manager(settings: Settings) -> None:
    """Start the actor unless it runs. If an actor answers and has other settings, it is replaced.

    Failures are only logged, not raised, because a gateway then does the same work.
    """
    text = settings.model_dump_json()
    try:
        _replace_outdated(fingerprint(text))
        head_actor(ManagerActor, text, name=NAME, namespace=NAMESPACE, max_concurrency=8)
    except (RayError, ValueError, TimeoutError) as exc:
        _log.warning("cannot start the manager on Ray: %s; a gateway does its work", exc)


def _replace_outdated(wanted: str) -> None:
    try:
        actor = ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return  # there is none
    try:
        if ray.get(actor.health.remote(), timeout=_HEALTH_S)["settings"] == wanted:
            return
    except (RayActorError, ray.exceptions.GetTimeoutError):
        return  # it does not answer, probably because Ray restarts it; a later call compares the settings
    _log.info("the manager on Ray has other settings, and is replaced")
    with suppress(RayError):
        ray.kill(actor)
