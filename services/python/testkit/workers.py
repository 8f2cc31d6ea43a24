"""For tests: workers as separate processes, the command of their engine, and a gateway that they can register with."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from daybreak.wire import (
    AssignedModel,
    WorkerAssignments,
    WorkerHeartbeat,
    WorkerRegistered,
    WorkerRegistration,
)
from daybreak_server.engines.serving.http_server import HttpServer
from daybreak_server.local.free_ports import free_port
from daybreak_server.settings.tree import child_environment
from testkit.waiting import wait_until

HEARTBEAT_S = 0.2
LEASE_S = 1.5
ROOT = Path(__file__).parents[1]


def engine_command(log: Path) -> str:
    """The command template of :mod:`testkit.openai_engine`."""
    return (
        f"{sys.executable} -m testkit.openai_engine --log {log} --host {{host}} --port {{port}} --alias {{alias}} "
        "--source {source} {args}"
    )


class WorkerGateway:
    """A gateway with only the routes that workers call. It stores nothing on disk."""

    def __init__(self, *, port: int | None = None, token: str | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = token
        self.wanted: dict[str, list[AssignedModel]] = {}
        self.workers: dict[str, WorkerRegistration] = {}
        self.heartbeats: dict[str, list[WorkerHeartbeat]] = {}
        self.registrations: list[WorkerRegistration] = []
        self._expires: dict[str, float] = {}
        self._server = HttpServer(self, host="127.0.0.1", ports=(self.port,))
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def want(self, worker: str, *models: Mapping[str, Any]) -> None:
        self.wanted[worker] = [AssignedModel.model_validate(model) for model in models]

    def state(self, worker: str, alias: str) -> str | None:
        """The state of a model in the last heartbeat."""
        return next((model.state for model in self.last(worker).models if model.alias == alias), None)

    def last(self, worker: str) -> WorkerHeartbeat:
        return wait_until(lambda: self.heartbeats.get(worker), 60, f"a heartbeat of {worker}")[-1]

    def wait_for(self, worker: str, alias: str, state: str | None) -> WorkerHeartbeat:
        wait_until(lambda: self.state(worker, alias) == state, 60, f"{alias} on {worker} is {state}")
        return self.last(worker)

    def forget(self, worker: str) -> None:
        self.workers.pop(worker, None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        response = self._answer(request, await request.body())
        await response(scope, receive, send)

    def _answer(self, request: Request, body: bytes) -> Response:
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"detail": "The token is wrong."}, 401)
        worker = request.url.path.removeprefix("/v1/workers").strip("/")
        if request.method == "POST":
            return self._register(WorkerRegistration.model_validate_json(body))
        known = self.workers.get(worker)
        if known is None:
            return JSONResponse({"detail": "There is no such worker."}, 404)
        if request.method == "DELETE":
            if known.incarnation == request.query_params["incarnation"]:
                del self.workers[worker]
            return Response(status_code=204)
        heartbeat = WorkerHeartbeat.model_validate_json(body)
        if known.incarnation != heartbeat.incarnation:
            return JSONResponse({"detail": f"Another worker {worker} has taken over."}, 409)
        self._expires[worker] = time.monotonic() + LEASE_S
        self.heartbeats.setdefault(worker, []).append(heartbeat)
        answer = WorkerAssignments(heartbeat_s=HEARTBEAT_S, models=self.wanted.get(worker, []))
        return JSONResponse(answer.to_json())

    def _register(self, worker: WorkerRegistration) -> Response:
        known = self.workers.get(worker.id)
        alive = known is not None and self._expires[worker.id] > time.monotonic()
        if (
            known is not None
            and alive
            and known.incarnation != worker.incarnation
            and known.url != worker.url
        ):
            return JSONResponse({"detail": f"A worker {worker.id} is alive at {known.url}."}, 409)
        self.workers[worker.id] = worker
        self.registrations.append(worker)
        self._expires[worker.id] = time.monotonic() + LEASE_S
        return JSONResponse(WorkerRegistered(heartbeat_s=HEARTBEAT_S, lease_s=LEASE_S).to_json(), 201)


class WorkerProcess:
    """``daybreakd worker``, with the engine ``test``."""

    def __init__(self, folder: Path, gateway_url: str, *, worker: str = "w1", **settings: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.id = worker
        self.port = settings.pop("port", None) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.engine_log = folder / "engine.log"
        self.engine_log.touch()
        self.log = folder / f"{worker}.log"
        variables = settings.pop("variables", {})
        program = settings.pop("program", None) or Path(sys.executable).with_name("daybreakd")
        engines = {
            "test": {"command": engine_command(self.engine_log), "stop_s": 3, **settings.pop("engine", {})}
        }
        workers = {"engines": engines | settings.pop("engines", {}), **settings}
        environ = {
            "DAYBREAK_WORKERS": json.dumps(workers),
            "WORKER_ID": worker,
            "MANAGER_URL": gateway_url,
            "WORKER_PORT": str(self.port),
            **variables,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(program), "worker"],
                cwd=ROOT,
                env=child_environment(environ),
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def client(self, **options: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=30, **options)

    def ask(self, alias: str, **body: Any) -> httpx2.Response:
        with self.client() as client:
            return client.post("/v1/chat/completions", json={"model": alias, **body})

    def ready_status(self) -> int:
        """The status of ``/ready``."""
        with self.client() as client:
            return client.get("/ready").status_code

    def events(self, kind: str) -> list[str]:
        """The second word of each line of this kind in the log of the engines."""
        lines = self.engine_log.read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith(f"{kind} ")]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End the worker with SIGTERMs. If it has not ended after 60 s, kill it and fail.

        The second signal tells the worker not to wait for requests. Signals that arrive together count as one, so the
        second is repeated once.
        """
        if self.process.poll() is not None:
            return
        for wait_s in (0.05, 5.0, 55.0):
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)
                return
        self.kill()
        raise AssertionError(f"the worker did not end; its log is {self.log}")


def model(alias: str, **changes: Any) -> dict[str, Any]:
    """A model for the engine ``test``."""
    return {"alias": alias, "source": f"org/{alias}", "engine": "test", **changes}
