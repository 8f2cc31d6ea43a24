"""The processes of the demo: a gateway with an embedded Valkey, and workers, one of which the demo kills."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

from daybreak_server.local.child_up import DemoError
from daybreak_server.local.console import say
from daybreak_server.local.embedded_valkey import with_redis
from daybreak_server.local.free_ports import free_port
from daybreak_server.local.instance import Instance, InstanceError, settings_file
from daybreak_server.local.supervisor import ProcessFailedError, ProcessSpec, ProcessSupervisor
from daybreak_server.settings.tree import Settings

_DAYBREAKD = "from daybreak_server.cli.main import run; run()"
_STOP_S = 10.0
_APART_S = 0.2
"""The time between two signals to the same process. Signals that arrive together count as one."""
_LAST_LINES = 5


class Workers:
    """The workers, by id. Each is a process ``daybreakd worker`` in its own process group."""

    def __init__(self, instance: Instance, settings: Settings, *, gateway_url: str) -> None:
        self._instance = instance
        self._gateway_url = gateway_url
        self._settings = json.dumps(settings.workers.model_dump(mode="json"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, worker: str) -> None:
        """Start a worker, and return at once."""
        environment = self._instance.environment(
            worker,
            {
                "DAYBREAK_WORKERS": self._settings,
                "MANAGER_URL": self._gateway_url,
                "WORKER_ID": worker,
                "WORKER_HOST": "127.0.0.1",
                "WORKER_PORT": str(free_port()),
                "PUBLIC_URL": None,
            },
        )
        with self._log(worker).open("ab") as log:
            self._processes[worker] = subprocess.Popen(
                [sys.executable, "-c", _DAYBREAKD, "worker"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def check(self) -> None:
        """Check that no worker has ended, except those that :meth:`kill` killed. :raises DemoError: if one has."""
        for worker, process in self._processes.items():
            if process.poll() is not None:
                lines = self._log(worker).read_text(errors="replace").splitlines()[-_LAST_LINES:]
                raise DemoError(
                    "\n  ".join(
                        (f"{worker} has ended with code {process.returncode}; its last lines:", *lines)
                    )
                )

    def kill(self, worker: str) -> None:
        """Kill a worker with SIGKILL."""
        process = self._processes.pop(worker)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Stop all workers. A second SIGTERM tells them not to wait for requests."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        time.sleep(_APART_S)
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        end = time.monotonic() + _STOP_S
        for process in self._processes.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, worker: str) -> Path:
        return self._instance.logs / f"{worker}.log"


@contextmanager
def fleet(settings: Settings) -> Iterator[tuple[str, Workers]]:
    """Start a gateway, and yield its URL and a :class:`Workers` that has no worker yet. Stop everything at the end.

    :raises DemoError: if something does not start.
    """
    try:
        instance = Instance(settings.data_dir)
        instance.open()
    except InstanceError as exc:
        raise DemoError(str(exc)) from exc
    try:
        with ExitStack() as stack:
            complete, _ = stack.enter_context(with_redis(settings, instance))
            url = f"http://{complete.http.host}:{complete.http.port}"
            supervisor = ProcessSupervisor([_gateway(complete, instance, url)], say=say)
            stack.callback(supervisor.stop)
            supervisor.start()
            supervisor.wait_ready(stopping=lambda: False)
            supervisor.mark_started()
            workers = Workers(instance, complete, gateway_url=url)
            stack.callback(workers.stop)
            yield url, workers
    except (InstanceError, ProcessFailedError) as exc:
        raise DemoError(str(exc)) from exc
    finally:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt `close`
        instance.close()
        signal.signal(signal.SIGINT, previous)


def _gateway(settings: Settings, instance: Instance, url: str) -> ProcessSpec:
    def answers() -> bool:
        try:
            return httpx2.get(f"{url}/healthz", timeout=2).status_code == 200
        except httpx2.HTTPError:
            return False

    file = settings_file(instance, settings)
    return ProcessSpec(
        name="gateway",
        command=(sys.executable, "-m", "daybreak_server.entrypoints.gateway", str(file)),
        env=instance.environment("gateway"),
        log=instance.logs / "gateway.log",
        ready=answers,
        stop_s=_STOP_S,
    )
