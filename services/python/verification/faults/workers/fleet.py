"""The workers of a fault cluster: real ``daybreakd worker`` processes. After a fault has ended a worker, the fleet
starts it again, as systemd would do.

The registered model claims more than half of the machine's memory for each replica, although no replica really uses
that much. So each worker has exactly one replica: the death of a worker always ends a replica, and only the return of
the worker restores it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx2
import psutil

from testkit.waiting import wait_until
from testkit.workers import WorkerProcess
from verification.faults.cluster import FaultCluster
from verification.faults.replicas import Target
from verification.faults.serving.load import runs_folder

MODEL = "model"
READY_S = 180.0
"""How long a busy machine may take to restart killed processes. Requests have a separate deadline."""
_ENGINE_END_S = 15.0
"""How long the engines of a dead worker may take to end. A guardian gives its engine 3 s (``stop_s``), and then kills
it."""


class Fleet:
    """A context manager that starts the workers, registers their model, and stops the workers at the end."""

    def __init__(self, cluster: FaultCluster, *, workers: int) -> None:
        self._cluster = cluster
        self._names = tuple(f"worker-{number}" for number in range(1, workers + 1))
        self._processes: dict[str, WorkerProcess] = {}

    def __enter__(self) -> Self:
        try:
            for name in self._names:
                self._start(name)
            self._register()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all workers, and record and kill the engines that outlive them."""
        for worker in self._processes.values():
            worker.terminate()
        for worker in self._processes.values():
            worker.close()
        self._record_orphans(dict(self.engines()))

    def wait_ready(self) -> None:
        """Wait until every worker has a ready replica."""
        wait_until(self._is_ready, READY_S, f"{len(self._names)} replicas; see {self._cluster.folder}")

    def manager(self) -> str | None:
        """The id of the manager that makes plans, as a gateway reports it."""
        shown = self._get("/v1/workers")
        return None if shown is None else shown.get("manager")

    def manager_gateway(self) -> Target:
        """The gateway whose manager makes plans."""

        def holder() -> Target | None:
            numbers = re.findall(r"\d+", self.manager() or "")
            gateways = self._cluster.at_work("gateway")
            return next((gateway for gateway in gateways if str(gateway.pid) in numbers), None)

        return wait_until(holder, READY_S, "a gateway whose manager makes plans")

    def kill_worker(self, number: int) -> None:
        """Kill a worker with SIGKILL, wait until its engines are gone, and start it again."""
        name = self._names[number % len(self._names)]
        worker = self._processes[name]
        engines = {pid: at for pid, at in self.engines() if at == name}
        self._note_fault("kill-worker", name, worker.process.pid)
        worker.kill()
        self._record_orphans(engines)
        self._start(name)

    def kill_engine(self, number: int) -> None:
        """Kill the engine of a worker. The worker restarts it."""
        name = self._names[number % len(self._names)]
        pid = wait_until(
            lambda: next((pid for pid, worker in self.engines() if worker == name), 0),
            READY_S,
            f"an engine of {name}",
        )
        self._note_fault("kill-engine", name, pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _lives(pid), READY_S, f"the end of engine {pid}")

    def restart_worker(self, number: int) -> None:
        """Stop a worker by SIGTERM, which lets its requests end first, and start it again."""
        name = self._names[number % len(self._names)]
        worker = self._processes[name]
        engines = {pid: at for pid, at in self.engines() if at == name}
        self._note_fault("preempt-worker", name, worker.process.pid)
        worker.terminate()
        code = worker.process.wait(READY_S)
        if code:
            raise RuntimeError(f"{name} ended with code {code}; see {worker.log}")
        self._record_orphans(engines)
        self._start(name)

    def engines(self) -> Iterator[tuple[int, str]]:
        """The running engines, as pairs of process id and worker. The name of an engine's log file contains both."""
        for file in runs_folder(self._cluster.folder).glob("*.jsonl"):
            worker, _, pid = file.stem.rpartition(".")
            if _lives(int(pid)):
                yield int(pid), worker

    def record_engines(self) -> None:
        """Record in the history which engine belonged to which worker."""
        for file in runs_folder(self._cluster.folder).glob("*.jsonl"):
            worker, _, pid = file.stem.rpartition(".")
            self._cluster.history.note("component", kind="started", name=worker, pid=int(pid))

    def _start(self, name: str) -> None:
        index = self._names.index(name)
        command = (
            f"{sys.executable} -m verification.faults.workers_engine --host {{host}} --port {{port}} "
            f"--runs {runs_folder(self._cluster.folder)} --worker {name}"
        )
        previous = self._processes.get(name)
        worker = WorkerProcess(
            self._cluster.folder / "workers",
            self._cluster.urls[index % len(self._cluster.urls)],
            worker=name,
            port=previous.port if previous else None,
            engines={"wishes": {"command": command, "capacity": 16, "stop_s": 3}},
            drain_s=20,
        )
        self._processes[name] = worker
        self._cluster.history.note("component", kind="started", name=name, pid=worker.process.pid)

    def _register(self) -> None:
        model = {
            "alias": MODEL,
            "source": "none",
            "engine": "wishes",
            "memory_bytes": int(psutil.virtual_memory().total * 0.6),
            "replicas": len(self._names),
            "min_replicas": len(self._names),
        }
        response = httpx2.post(f"{self._cluster.urls[0]}/v1/models/register", json=model, timeout=30)
        response.raise_for_status()

    def _is_ready(self) -> bool:
        shown = self._get(f"/v1/models/{MODEL}")
        live = {worker for _, worker in self.engines()}  # the gateway may lag behind by one heartbeat
        return (
            shown is not None
            and sorted(shown.get("workers") or ()) == list(self._names)
            and live == set(self._names)
        )

    def _get(self, path: str) -> Any:
        """The answer of the first gateway that answers."""
        for url in self._cluster.urls:
            with contextlib.suppress(httpx2.HTTPError):
                response = httpx2.get(url + path, timeout=10)
                if response.status_code == 200:
                    return response.json()
        return None

    def _note_fault(self, kind: str, name: str, pid: int) -> None:
        self._cluster.history.note("fault", kind=kind, name=name, pid=pid)

    def _record_orphans(self, engines: dict[int, str]) -> None:
        """Wait until these engines have ended. Engines that do not end in time are orphans: record and kill them."""
        end = time.monotonic() + _ENGINE_END_S
        while any(map(_lives, engines)) and time.monotonic() < end:
            time.sleep(0.02)
        for pid, name in engines.items():
            if _lives(pid):
                self._cluster.history.note("orphan", kind="left", name=name, pid=pid)
                os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
