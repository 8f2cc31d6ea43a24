"""``daybreakd dev``: the gateway and light pools in one process, beside an embedded Valkey, without Ray.

It imports torch only for a pool whose workload needs it, such as ``embed``, ``rerank`` or ``speech``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter

from daybreak_server import wiring
from daybreak_server.domain.causes import Cause
from daybreak_server.engines.common.start_backoff import start_backoff_s
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.entrypoints.gateway import Gateway, serve
from daybreak_server.local.console import say
from daybreak_server.local.embedded_valkey import with_redis
from daybreak_server.local.foreground import run_in_foreground
from daybreak_server.local.instance import Instance
from daybreak_server.settings.address_format import reachable, url_of
from daybreak_server.settings.tree import PoolSettings, Settings

_log = logging.getLogger(__name__)
_HEAVY = frozenset({"video"})
"""Workloads that ``dev`` does not run."""
_RESTART_DELAY_S = 1.0


def light_pools(settings: Settings) -> dict[str, PoolSettings]:
    """The pools that ``dev`` serves: all but those of heavy workloads, and always a pool ``echo``.

    By default, the echo workload refuses the fault ``exit`` here, because ``exit`` would end the whole process.
    """
    pools = {name: pool for name, pool in settings.pools.items() if pool.workload not in _HEAVY}
    pools.setdefault("echo", PoolSettings(workload="echo", progress_s=0.05))
    faults = {"faults": ["error", "permanent", "hang"]}
    return {
        name: pool.model_copy(update={"ranks": 1, "options": faults | pool.options})
        if pool.workload == "echo"
        else pool.model_copy(update={"ranks": 1})
        for name, pool in pools.items()
    }


def _print_differences(settings: Settings) -> None:
    """Print how the pools that run differ from the pools in the settings."""
    for name, pool in settings.pools.items():
        if pool.workload in _HEAVY and "pools" in settings.model_fields_set:
            say(f"pool {name} is not started: {pool.workload} needs `daybreakd up`")
        elif pool.workload not in _HEAVY and pool.ranks > 1:
            say(f"pool {name} has 1 rank instead of {pool.ranks}: several ranks need `daybreakd up`")


class ThreadGroups:
    """The groups of all pools, as threads. A group that fails is replaced; its thread is abandoned.

    A group that could not load its model starts again after a growing delay.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ranks: dict[tuple[str, int], Rank] = {}
        self._queues = {name: wiring.shared_queue(settings, name) for name in settings.pools}
        self._start_failures: Counter[tuple[str, int]] = Counter()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start all groups."""
        for name, pool in self._settings.pools.items():
            for number in range(pool.groups):
                self._start(name, number)

    def stop(self) -> None:
        """Release running tasks, and stop all groups."""
        self._stopping.set()
        ranks = list(self._ranks.values())
        for rank in ranks:
            rank.ask_to_leave()
        for rank in ranks:
            rank.stop(timeout_s=5)

    def _start(self, pool: str, number: int) -> None:
        if self._stopping.is_set():
            return

        def broken(why: Cause) -> None:
            delay_s = self._restart_delay_s(pool, number, why)
            try:
                with contextlib.closing(self._queues[pool]()) as queue:
                    queue.report_failure(why)
            except Exception as exc:  # the pool needs a new group, whatever goes wrong here
                _log.warning("pool %s: cannot record why the group failed: %s", pool, exc)
            if not self._stopping.wait(delay_s):
                self._start(pool, number)

        rank = wiring.build_rank(self._settings, pool, on_broken=broken, queue=self._queues[pool])
        self._ranks[pool, number] = rank
        rank.start()

    def _restart_delay_s(self, pool: str, number: int, why: Cause) -> float:
        """Log that a group has failed. :returns: the pause before the next start. The rank has logged the cause."""
        if self._ranks[pool, number].loaded:
            self._start_failures.pop((pool, number), None)
            _log.error("pool %s: a group failed and is being replaced: %s", pool, why)
            return _RESTART_DELAY_S
        self._start_failures[pool, number] += 1
        delay_s = start_backoff_s(self._start_failures[pool, number])
        _log.warning("pool %s: its group could not start; the next attempt begins in %g s", pool, delay_s)
        return delay_s


def run_dev(settings: Settings) -> int:
    """Run until a signal arrives. :returns: the exit code."""
    return run_in_foreground(settings, _run)


def _run(settings: Settings, instance: Instance, started: float) -> int:
    _print_differences(settings)
    settings = settings.model_copy(update={"pools": light_pools(settings)})
    with contextlib.ExitStack() as stack:
        settings, valkey = stack.enter_context(with_redis(settings, instance))
        pids = {"dev": os.getpid(), **valkey}
        groups = ThreadGroups(settings)
        stack.callback(groups.stop)
        url = url_of(reachable(settings.http.host), settings.http.port)

        def ready() -> None:
            groups.start()
            instance.write_state(
                {"mode": "dev", "ready": True, "url": url, "pids": pids, "pools": list(settings.pools)}
            )
            say(f"ready in {time.monotonic() - started:.1f} s: {url} (pools: {', '.join(settings.pools)})")
            say(f"try: daybreak --url {url} submit echo message=hello   documentation: {url}/docs")

        return serve(Gateway(settings, on_started=ready))
