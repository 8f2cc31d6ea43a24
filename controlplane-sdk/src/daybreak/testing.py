"""A whole Daybreak for the tests of those who use it: ``daybreakd dev``, with data that nobody keeps.

In ``conftest.py``: ``from daybreak.testing import daybreak  # noqa: F401`` (a fixture of the session).
"""

from __future__ import annotations

import json
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

_END_S = 60.0
_AT_WORK = frozenset({"idle", "busy"})
_GUARD = """
import os, shutil, subprocess, sys, threading
folder, *command = sys.argv[1:]
server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
told = b"-"
def listen():
    global told
    told = os.read(0, 16)
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
threading.Thread(target=listen, daemon=True).start()
code = server.wait()
if not told:
    shutil.rmtree(folder, ignore_errors=True)
os._exit(code if code >= 0 else 1)
"""
"""Between us and the server: when we end, however that is, our end of its pipe closes and it cleans up."""


class LocalDaybreak:
    """``daybreakd dev`` as a process of its own, on a free port of 127.0.0.1, with data in a temporary folder.

    It has the light pools (``echo``, and workloads of yours that need no torch) and a Valkey of its own. Nothing is
    left of it afterwards: no process, no folder, not even when this process is killed. ``settings`` are variables
    of ``docs/settings.md`` (``{"DAYBREAK_POOLS__ECHO__GROUPS": "2"}``); other variables are inherited, but none
    that begins with ``DAYBREAK``.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, *, start_s: float = 120.0) -> None:
        self._settings = dict(settings or {})
        self._start_s = start_s
        self._folder: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
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
        """Where its API is; the same after a restart."""
        if not self._port:
            raise DaybreakError("LocalDaybreak has not been started")
        return f"http://127.0.0.1:{self._port}"

    @property
    def redis_url(self) -> str:
        """Its Valkey, with the password: for :class:`daybreak.relay.Relay`."""
        folder = self._there() / "data" / "valkey"
        port, password = (folder / "port").read_text().strip(), (folder / "password").read_text().strip()
        return f"redis://:{quote(password, safe='')}@127.0.0.1:{port}/0"

    @property
    def pids(self) -> dict[str, int]:
        """Its processes by name: ``dev`` and ``valkey``. Kill one to see what yours does then."""
        return dict(self._state().get("pids", {}))

    def client(self, **options: Any) -> Client:
        """A client of it; the caller closes it."""
        return Client(self.url, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        """A client for asyncio; the caller closes it."""
        return AsyncClient(self.url, **options)

    def log(self) -> str:
        """What it has said so far."""
        file = self._there() / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Start it, again after ``stop`` with the same port and data; returns when each pool has a group.

        :raises DaybreakError: when it does not come up in ``start_s`` seconds, with what it said.
        """
        program = _program()
        folder = self._folder = self._folder or Path(tempfile.mkdtemp(prefix="daybreak-"))
        self._port = self._port or _free_port()
        own = {"DAYBREAK_HTTP__PORT": str(self._port), "DAYBREAK_DATA_DIR": str(folder / "data")}
        try:
            with (folder / "log").open("ab") as said:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _GUARD, str(folder), program, "dev"],
                    env=environment_with(self._settings | own),
                    cwd=folder,
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            self._wait_ready(self._guard)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """End it in order; ``start`` brings it back with its data."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        try:
            guard.communicate(b"stop", timeout=_END_S)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()
            raise DaybreakError(f"daybreakd dev did not end in {_END_S:g} s:\n{self.log()}") from None

    def close(self) -> None:
        """End it and remove its data."""
        try:
            self.stop()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder, self._port = None, 0

    def _there(self) -> Path:
        if self._folder is None:
            raise DaybreakError("LocalDaybreak has not been started")
        return self._folder

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self._there() / "data" / "up.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def _wait_ready(self, guard: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + self._start_s
        while not (self._state().get("ready") and self._has_groups()):
            if guard.poll() is not None:
                raise DaybreakError(f"daybreakd dev ended with {guard.returncode}:\n{self.log()[-4000:]}")
            if time.monotonic() > end:
                raise DaybreakError(
                    f"daybreakd dev was not ready in {self._start_s:g} s:\n{self.log()[-4000:]}"
                )
            time.sleep(0.05)

    def _has_groups(self) -> bool:
        with self.client() as client:
            pools = client.pools()
        return all(any(group.state in _AT_WORK for group in pool.groups) for pool in pools)


def _program() -> str:
    beside = Path(sys.executable).with_name("daybreakd")
    found = str(beside) if beside.exists() else shutil.which("daybreakd")
    if found is None:
        raise DaybreakError("there is no daybreakd: pip install 'daybreak-sdk[testing]'")
    return found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def daybreak() -> Iterator[LocalDaybreak]:
    """A Daybreak for all tests of the session; import it in ``conftest.py``."""
    with LocalDaybreak() as running:
        yield running
