"""Whole systems as subprocesses, by the command that users type; nothing of them is left afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from daybreak_server.local import reaper
from daybreak_server.local.instance import instance_tag
from testkit.waiting import wait_until

SHARED_MEMORY = Path("/dev/shm")


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON answer to a GET, or to a POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and all below it: half a minute sooner than Ray ends when it is told to."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    for one in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.suspend()  # or the raylet starts workers anew meanwhile
    process.kill()
    for one in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(60)
    psutil.wait_procs(below, timeout=60)


def try_call(url: str) -> Any:
    """The JSON answer, or ``None`` while there is none."""
    try:
        return call(url)
    except (OSError, ValueError, urllib.error.URLError):
        return None


class System:
    """A running `daybreakd up` or `daybreakd dev`."""

    def __init__(self, command: str, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.output = folder.with_suffix(".out")
        self.home = variables.get("HOME", "")
        self.memory = self.shared_memory()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DAYBREAK_")}
        environment |= {"DAYBREAK_DATA_DIR": str(folder), "DAYBREAK_HTTP__PORT": "0", **variables}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("daybreakd")), command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder.parent,
            )

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def ready(self, timeout: float) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended with {self.process.returncode}:\n{self.said()}")
            return self.state() if "ready in" in self.said() else None

        return wait_until(look, timeout, "the system to be ready")

    def state(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / "up.json").read_text())
        except FileNotFoundError:
            return {}

    @property
    def url(self) -> str:
        return self.state()["url"]

    def submit(self, **options: Any) -> str:
        return call(f"{self.url}/v1/tasks", {"pool": "echo", "input": options})["id"]

    def wait(self, task: str, state: str = "succeeded", timeout: float = 180) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = try_call(f"{self.url}/v1/tasks/{task}")
            return found if found and found.get("finished_at") else None

        found = wait_until(look, timeout, f"the end of {task}")
        assert found["state"] == state, found
        return found

    def left(self) -> list[int]:
        return reaper.marked(instance_tag(self.folder))

    def shared_memory(self) -> set[str]:
        return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.exists() else set()

    def end(self) -> None:
        """Whatever happened: nothing stays."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        wait_until(lambda: not self.left(), 30, "the end of all its processes")
