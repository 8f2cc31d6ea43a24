"""``daybreakd dev``: gateway, embedded Valkey and light pools in one process. No Ray, no torch."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

from daybreak_server import wiring
from daybreak_server.domain.causes import Cause
from daybreak_server.engines.gang.rank import Rank
from daybreak_server.entrypoints.gateway import Gateway, serve
from daybreak_server.local.console import say
from daybreak_server.local.embedded_valkey import EmbeddedValkey
from daybreak_server.local.instance import Instance, InstanceError, free_port, is_free
from daybreak_server.local.supervisor import ProcessFailedError, Supervisor
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.ports.blobs import BlobError
from daybreak_server.settings.addresses import reachable, url_of
from daybreak_server.settings.tree import PoolSettings, Settings

_HEAVY = frozenset({"video"})
_AGAIN_S = 1.0


def light_pools(settings: Settings) -> dict[str, PoolSettings]:
    """The pools that one light process can serve: all but those of torch, and always `echo`.

    A task that ends its process would end everything here, so the echo workload refuses that fault.
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


def _tell_changes(settings: Settings) -> None:
    """What was asked for and is not what runs."""
    for name, pool in settings.pools.items():
        if pool.workload in _HEAVY and "pools" in settings.model_fields_set:
            say(f"pool {name} is left out: {pool.workload} needs `daybreakd up`")
        elif pool.workload not in _HEAVY and pool.ranks > 1:
            say(f"pool {name}: 1 rank instead of {pool.ranks}; groups of several need `daybreakd up`")


class ThreadGroups:
    """The groups of all pools, as threads. One that breaks is replaced; its thread is left behind."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._members: dict[tuple[str, int], Rank] = {}
        self._queues = {name: wiring.sharing_queue(settings, name) for name in settings.pools}
        self._going = threading.Event()

    def start(self) -> None:
        """Start them all."""
        for name, pool in self._settings.pools.items():
            for number in range(pool.groups):
                self._start(name, number)

    def stop(self) -> None:
        """Hand back what runs, and leave."""
        self._going.set()
        members = list(self._members.values())
        for member in members:
            member.ask_to_leave()
        for member in members:
            member.stop(timeout_s=5)

    def _start(self, pool: str, number: int) -> None:
        if self._going.is_set():
            return

        def broken(why: Cause) -> None:
            sys.stderr.write(f"a group of {pool} is replaced: {why}\n")
            try:
                with contextlib.closing(self._queues[pool]()) as queue:
                    queue.failed(why)
            except Exception as exc:  # whatever it is, the pool needs a group
                sys.stderr.write(f"the pool cannot show why: {exc}\n")
            if not self._going.wait(_AGAIN_S):
                self._start(pool, number)

        member = wiring.build_rank(self._settings, pool, on_broken=broken, queue=self._queues[pool])
        self._members[pool, number] = member
        member.start()


def run_dev(settings: Settings) -> int:
    """Run until a signal; the exit code."""
    started = time.monotonic()
    log_to_stderr()
    try:
        instance = Instance(settings.data_dir)
        instance.open()
    except InstanceError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    try:
        return _run(settings, instance, started)
    except (InstanceError, ProcessFailedError, BlobError) as exc:
        sys.stderr.write(f"cannot start: {exc}\n")
        return 1
    finally:
        instance.close()


def _run(settings: Settings, instance: Instance, started: float) -> int:
    http = settings.http
    if http.port and not is_free(http.port, http.host):
        raise InstanceError(f"port {http.port} is taken: set DAYBREAK_HTTP__PORT")
    _tell_changes(settings)
    settings = settings.model_copy(
        update={
            "pools": light_pools(settings),
            "http": http.model_copy(update={"port": http.port or free_port(http.host)}),
        }
    )
    with contextlib.ExitStack() as stack:
        pids = {"dev": os.getpid()}
        if settings.redis.url is None:
            valkey = EmbeddedValkey(instance)
            supervisor = Supervisor([valkey.part()], say=say)
            supervisor.start()
            stack.callback(supervisor.stop)
            supervisor.wait_ready(going=lambda: False)
            supervisor.settled()
            pids |= supervisor.pids()
            redis = settings.redis.model_copy(update={"url": valkey.url})
            settings = settings.model_copy(update={"redis": redis})
        groups = ThreadGroups(settings)
        stack.callback(groups.stop)
        url = url_of(reachable(settings.http.host), settings.http.port)

        def ready() -> None:
            groups.start()
            instance.tell(
                {"mode": "dev", "ready": True, "url": url, "pids": pids, "pools": list(settings.pools)}
            )
            say(f"ready in {time.monotonic() - started:.1f} s: {url} (pools: {', '.join(settings.pools)})")
            say(f"try: daybreak --url {url} submit echo message=hello   documentation: {url}/docs")

        return serve(Gateway(settings, on_started=ready))
