"""A real Daybreak for your tests: ``daybreakd dev`` with temporary data.

To use it, import the fixture in ``conftest.py``: ``from daybreak.testing import daybreak  # noqa: F401``. All tests of
a run share one server.

``LocalDaybreak`` does not start the server itself. It starts a small watchdog process, which starts the server and
reads a pipe from this process. ``stop()`` writes to the pipe, and the watchdog stops the server. If this process ends
without ``stop()``, even by ``kill -9``, the pipe closes. The watchdog then stops the server and removes the server's
folder.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

try:
    import pytest
except ImportError as exc:
    raise ImportError(
        "daybreak.testing needs pytest: pip install 'daybreak-sdk[testing]'", name="pytest"
    ) from exc

from daybreak.aio import AsyncClient
from daybreak.config import environment_with
from daybreak.errors import DaybreakError
from daybreak.sync import Client

_STOP_TIMEOUT_S = 60.0
_PORTS = (20_000, 32_000)
_PORT_DRAWS = 100
_READY_STATES = frozenset({"idle", "busy"})
_WATCHDOG = """
import os, shutil, subprocess, sys, threading
folder, *command = sys.argv[1:]
server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
message = b"-"
def listen():
    global message
    message = os.read(0, 16)
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
threading.Thread(target=listen, daemon=True).start()
code = server.wait()
if not message:
    shutil.rmtree(folder, ignore_errors=True)
os._exit(code if code >= 0 else 1)
"""
"""An empty ``message`` means that the pipe was closed, because the process that uses the server has ended."""


class LocalDaybreak:
    """``daybreakd dev`` in its own process, on a free port of 127.0.0.1, with its data in a temporary folder.

    It serves all pools except those of the workload ``video``, always has a pool ``echo``, and runs its own Valkey. It
    leaves no process and no folder behind, even if this process is killed. ``settings`` are environment variables that
    ``docs/settings.md`` lists (``{"DAYBREAK_POOLS__ECHO__GROUPS": "2"}``). The server also inherits the variables of
    this process, except those that begin with ``DAYBREAK``.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, *, start_s: float = 120.0) -> None:
        self._settings = dict(settings or {})
        self._start_s = start_s
        self._folder: Path | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL of the server's API. It stays the same when the server restarts.

        :raises DaybreakError: if the server has never been started.
        """
        if not self._port:
            raise DaybreakError("LocalDaybreak has not been started")
        return f"http://127.0.0.1:{self._port}"

    @property
    def redis_url(self) -> str:
        """The URL of the server's Valkey with its password, as :class:`daybreak.event_relay.Relay` needs it.

        :raises DaybreakError: before ``start``, and after ``close``.
        """
        folder = self._require_folder() / "data" / "valkey"
        port, password = (folder / "port").read_text().strip(), (folder / "password").read_text().strip()
        return f"redis://:{quote(password, safe='')}@127.0.0.1:{port}/0"

    @property
    def pids(self) -> dict[str, int]:
        """The ids of the server's processes by name (``dev``, ``valkey``). Kill one to see how your program reacts.

        :raises DaybreakError: before ``start``, and after ``close``.
        """
        return dict(self._state().get("pids", {}))

    def client(self, **options: Any) -> Client:
        """A new client of the server. The caller closes it."""
        return Client(self.url, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        """A new asyncio client of the server. The caller closes it."""
        return AsyncClient(self.url, **options)

    def log(self) -> str:
        """The server's log so far. :raises DaybreakError: before ``start``, and after ``close``."""
        file = self._require_folder() / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Start the server and wait until each pool has a ready group. A restart keeps the port and the data.

        :raises DaybreakError: if ``daybreakd`` is not installed, or no port is free. With the server's log, if the
            server exits, or is not ready within ``start_s`` seconds.
        """
        program = _program()
        folder = self._folder = self._folder or Path(tempfile.mkdtemp(prefix="daybreak-"))
        self._port = self._port or _free_port()
        fixed = {"DAYBREAK_HTTP__PORT": str(self._port), "DAYBREAK_DATA_DIR": str(folder / "data")}
        try:
            with (folder / "log").open("ab") as log:
                self._watchdog = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(folder), program, "dev"],
                    env=environment_with(self._settings | fixed),
                    cwd=folder,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._wait_ready(self._watchdog)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Stop the server. ``start`` starts it again with the same data.

        :raises DaybreakError: if it did not stop in time. It is then killed, and the message has its log.
        """
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is None:
            return
        try:
            watchdog.communicate(b"stop", timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            watchdog.kill()
            watchdog.wait()
            raise DaybreakError(
                f"daybreakd dev did not stop within {_STOP_TIMEOUT_S:g} s:\n{self.log()}"
            ) from None

    def close(self) -> None:
        """Stop the server and remove its data.

        :raises DaybreakError: if the server does not stop within 60 seconds. The data is removed all the same.
        """
        try:
            self.stop()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder, self._port = None, 0

    def _require_folder(self) -> Path:
        if self._folder is None:
            raise DaybreakError("LocalDaybreak has not been started")
        return self._folder

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self._require_folder() / "data" / "up.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def _wait_ready(self, watchdog: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_s
        while not (self._state().get("ready") and self._has_groups()):
            if watchdog.poll() is not None:
                raise DaybreakError(
                    f"daybreakd dev exited with code {watchdog.returncode}:\n{self.log()[-4000:]}"
                )
            if time.monotonic() > deadline:
                raise DaybreakError(
                    f"daybreakd dev was not ready within {self._start_s:g} s:\n{self.log()[-4000:]}"
                )
            time.sleep(0.05)

    def _has_groups(self) -> bool:
        with self.client() as client:
            pools = client.pools()
        return all(any(group.state in _READY_STATES for group in pool.groups) for pool in pools)


def _program() -> str:
    sibling = Path(sys.executable).with_name("daybreakd")
    program = str(sibling) if sibling.exists() else shutil.which("daybreakd")
    if program is None:
        raise DaybreakError("daybreakd is not installed: pip install 'daybreak-sdk[testing]'")
    return program


def _free_port() -> int:
    """A free port below the range from which the kernel chooses the ports of clients.

    Otherwise a client's connection could take the port before the server listens on it.
    """
    for _ in range(_PORT_DRAWS):
        port = random.SystemRandom().randrange(*_PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise DaybreakError(f"none of {_PORT_DRAWS} random ports from {_PORTS[0]} to {_PORTS[1] - 1} is free")


@pytest.fixture(scope="session")
def daybreak() -> Iterator[LocalDaybreak]:
    """A Daybreak for all tests of the run. Import it in ``conftest.py``."""
    with LocalDaybreak() as running:
        yield running
