"""A program: the operator again and again, each life ended by SIGKILL right after so many of its actions.

It is made of the product's own parts, on a real API server and a real Redis; only the faces through which it acts
are wrapped. ``python operator_lives.py TOLD.json``: namespace, redis, serve (URL of the heads), actions (file that
gets a line for each action and each look), after (file with the number of actions of a life; 0: it lives on).
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

from prometheus_client import CollectorRegistry

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
from daybreak_server.settings.tree import RedisSettings, Settings

ACTS = ("create", "patch", "delete", "write_status", "emit", "put", "scale", "drain", "cordon_hosts")
LOOK = "pool"
"""``GroupStore.pool``: asked at each look."""


@dataclass(slots=True)
class Failpoint:
    """Writes down what was done, and ends the process after ``after`` actions (0: never)."""

    file: int
    after: int
    done: int = 0

    def passed(self, name: str) -> None:
        """An action has been done, or a look begins."""
        self.done += name in ACTS
        dies = name in ACTS and self.done == self.after
        os.write(self.file, f"{name}{' †' if dies else ''}\n".encode())
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)


class Around:
    """A face whose actions pass the failpoint once they are done."""

    def __init__(self, face: Any, failpoint: Failpoint) -> None:
        self._face, self._failpoint = face, failpoint

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._face, name)
        if name not in (*ACTS, LOOK):
            return method

        async def passing(*args: Any, **options: Any) -> Any:
            answer = await method(*args, **options)
            self._failpoint.passed(name)
            return answer

        return passing


def live(told: dict[str, str]) -> None:
    """One life, to its end by the failpoint or by a signal."""
    file = os.open(told["actions"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    failpoint = Failpoint(file, int(Path(told["after"]).read_text()))
    api, _ = connect()
    cache = Cache()

    async def no_token(cluster: RayCluster, *, again: bool = False) -> str | None:
        return None

    def start() -> kopf_app.Runtime:
        store = wiring.build_store(Settings(redis=RedisSettings(url=told["redis"])))
        kube = KubeCluster(api, namespace=told["namespace"], cache=cache)
        serve = ServeRest(address=lambda cluster: f"{told['serve']}/{cluster.name}", token=no_token)
        faces: list[Any] = [Around(face, failpoint) for face in (kube, serve, store)]
        return kopf_app.Runtime(
            reconciler=Reconciler(*faces, kube.pool, OperatorMetrics(CollectorRegistry())), close=store.close
        )

    kopf_app.run(cache, start, namespace=told["namespace"], liveness=None, stop=asyncio.Event())


def main() -> int:
    """Lives until SIGTERM. What takes long to import is imported once; each life is a fork of this process."""
    told = json.loads(Path(sys.argv[1]).read_text())
    log_to_stderr()
    logging.getLogger("kopf").setLevel(logging.WARNING)
    child = 0

    def end(*_: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            if child:
                os.kill(child, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                live(told)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            return 1  # it was to die by the failpoint only


if __name__ == "__main__":
    sys.exit(main())
