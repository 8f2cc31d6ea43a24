"""A program that runs the operator repeatedly. Each run kills itself with SIGKILL after a number of actions.

It uses the real operator, API server and Redis. Only the ports through which the operator acts are wrapped. Run it as
``python operator_lifecycle.py CONFIG.json``. CONFIG.json has these keys:

* ``namespace``: the namespace of the pools.
* ``redis``: the URL of Redis.
* ``serve``: the URL of the heads.
* ``actions``: a file to which the program appends a line for each action and each read of the pool from Redis.
* ``kill_after_actions``: a file with the number of actions after which a run is killed. If it is 0 when a run starts,
  that run is not killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daybreak_server import wiring
from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.adapters.kube.client import KubeCluster
from daybreak_server.adapters.kube.login import connect
from daybreak_server.adapters.ray.serve_rest import ServeRest
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.operator.controller import kopf_app
from daybreak_server.operator.controller.metrics import OperatorMetrics
from daybreak_server.operator.controller.reconciler import Reconciler
from daybreak_server.ports.cluster import RayCluster
from daybreak_server.ports.metrics import NoMeter
from daybreak_server.settings.tree import RedisSettings, Settings

ACTIONS = ("create", "patch", "delete", "write_status", "emit", "put", "scale", "drain", "cordon_hosts")
OBSERVATION = "pool"
"""``GroupStore.pool``: called in each observation, and before each action that has preconditions."""


@dataclass(slots=True)
class Failpoint:
    """Records each action, and kills the process after ``kill_after_actions`` actions (0: never)."""

    file: int
    kill_after_actions: int
    done: int = 0

    def record(self, name: str) -> None:
        """Record a finished action, or a finished read of the pool. Die after the last action of the run."""
        self.done += name in ACTIONS
        dies = name in ACTIONS and self.done == self.kill_after_actions
        os.write(self.file, f"{name}{' †' if dies else ''}\n".encode())
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)


class FailpointPort:
    """A port that tells the failpoint about each finished action, and each finished read of the pool."""

    def __init__(self, port: Any, failpoint: Failpoint) -> None:
        self._port, self._failpoint = port, failpoint

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._port, name)
        if name not in (*ACTIONS, OBSERVATION):
            return method

        async def passing(*args: Any, **options: Any) -> Any:
            answer = await method(*args, **options)
            self._failpoint.record(name)
            return answer

        return passing


def run_operator(config: dict[str, str]) -> None:
    """Run the operator once, until the failpoint or a signal ends it."""
    file = os.open(config["actions"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    failpoint = Failpoint(file, int(Path(config["kill_after_actions"]).read_text()))
    api, _ = connect()
    cache = Cache()

    async def no_token(cluster: RayCluster, *, refresh: bool = False) -> str | None:
        return None

    def start() -> kopf_app.Runtime:
        store = wiring.build_store(Settings(redis=RedisSettings(url=config["redis"])))
        kube = KubeCluster(api, namespace=config["namespace"], cache=cache)
        serve = ServeRest(address=lambda cluster: f"{config['serve']}/{cluster.name}", token=no_token)
        ports: list[Any] = [FailpointPort(port, failpoint) for port in (kube, serve, store)]
        return kopf_app.Runtime(
            reconciler=Reconciler(*ports, kube.pool, OperatorMetrics(NoMeter())), close=store.close
        )

    kopf_app.run(cache, start, namespace=config["namespace"], liveness=None, stop=asyncio.Event())


def main() -> int:
    """Run until SIGTERM, or until a run ends in another way than by its failpoint.

    Slow imports happen once, because each run is a fork of this process.
    """
    config = json.loads(Path(sys.argv[1]).read_text())
    log_to_stderr()
    logging.getLogger("kopf").setLevel(logging.WARNING)
    child = 0

    def exit_with_child(*_: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            if child:
                os.kill(child, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, exit_with_child)
    while True:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                run_operator(config)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            return 1  # only the failpoint may end a run


if __name__ == "__main__":
    sys.exit(main())
