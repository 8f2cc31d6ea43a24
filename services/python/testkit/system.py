"""Runs whole systems as subprocesses, with the commands that users run. A system leaves no process behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import redis

from daybreak_server.local import reaper
from daybreak_server.local.embedded_valkey import url_in
from daybreak_server.local.instance import Instance, instance_tag
from testkit.valkey import wait_until_written
from testkit.waiting import wait_until

SHARED_MEMORY = Path("/dev/shm")


_TIMEOUT_S = 60.0
"""For how long :func:`read` sends a request again after a 503."""


def request(url: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
    """The JSON response to a GET, or to a POST if there is a body. The request is sent again after a 503."""
    sent = _json_request(url, body, {"idempotency-key": uuid.uuid4().hex, **headers})
    return json.loads(read(sent))


def read(sent: urllib.request.Request, *, timeout_s: float = 30.0) -> bytes:
    """The body of the response.

    A response 503 says that the store did not answer in time, which happens on a busy machine. The request is then sent
    again, as Daybreak's client does.
    """
    end = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return _read_once(sent, timeout_s)
        except urllib.error.HTTPError as exc:
            if exc.code != 503 or time.monotonic() > end:
                raise
            exc.close()
        time.sleep(0.2)


def _json_request(
    url: str, body: dict[str, Any] | None, headers: Mapping[str, str]
) -> urllib.request.Request:
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.Request(url, data=data, headers={"content-type": "application/json", **headers})


def _read_once(sent: urllib.request.Request, timeout_s: float) -> bytes:
    with urllib.request.urlopen(sent, timeout=timeout_s) as response:
        return bytes(response.read())


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to a process and its descendants. Ray's own shutdown would take half a minute longer."""
    try:
        parent = psutil.Process(process.pid)
        parent.suspend()  # otherwise it could start another process before it is killed
        descendants = parent.children(recursive=True)
    except psutil.NoSuchProcess:
        descendants = []
    for child in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.suspend()  # otherwise the raylet would restart workers
    process.kill()
    for child in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait(60)
    psutil.wait_procs(descendants, timeout=60)


def try_request(url: str) -> Any:
    """The JSON response to a GET, or ``None`` if the request fails. It is sent once."""
    try:
        return json.loads(_read_once(_json_request(url, None, {}), 30.0))
    except (OSError, ValueError, urllib.error.URLError):
        return None


class System:
    """A running `daybreakd up`, `daybreakd dev` or `daybreakd gateway --embedded`."""

    def __init__(self, command: str, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.output = folder.with_suffix(".out")
        self.home = variables.get("HOME", "")
        self.memory = self.shared_memory()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DAYBREAK_")}
        environment |= {"DAYBREAK_DATA_DIR": str(folder), "DAYBREAK_HTTP__PORT": "0", **variables}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("daybreakd")), *command.split()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder.parent,
            )

    def output_text(self) -> str:
        return self.output.read_text(errors="replace")

    def ready(self, timeout: float) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"daybreakd exited with code {self.process.returncode}:\n{self.output_text()}"
                )
            return self.state() if "ready in" in self.output_text() else None

        return wait_until(look, timeout, "the system to be ready")

    def state(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / "up.json").read_text())
        except FileNotFoundError:
            return {}

    @property
    def url(self) -> str:
        return self.state()["url"]

    @property
    def ray_folder(self) -> Path:
        """The folder of Ray's sessions, which is outside ``folder`` if that has a long path."""
        return Instance(self.folder).ray_folder()

    def submit(self, **options: Any) -> str:
        return request(f"{self.url}/v1/tasks", {"pool": "echo", "input": options})["id"]

    def wait(self, task: str, state: str = "succeeded", timeout: float = 180) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            task_json = try_request(f"{self.url}/v1/tasks/{task}")
            return task_json if task_json and task_json.get("finished_at") else None

        ended = wait_until(look, timeout, f"the end of {task}")
        assert ended["state"] == state, ended
        return ended

    def kill_valkey(self) -> int:
        """Send SIGKILL to the embedded Valkey once its append-only file has all writes that it has acknowledged.

        :returns: its pid.
        """
        url = url_in(self.folder)
        assert url is not None
        with redis.Redis.from_url(url, socket_timeout=5) as client:
            wait_until_written(client)
        pid = int(self.state()["pids"]["valkey"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def remaining_processes(self) -> list[int]:
        return reaper.tagged(instance_tag(self.folder))

    def shared_memory(self) -> set[str]:
        return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.exists() else set()

    def end(self) -> None:
        """Stop the system, and wait until all its processes have ended."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        wait_until(lambda: not self.remaining_processes(), 30, "the end of all its processes")
