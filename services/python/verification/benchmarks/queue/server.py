"""A Valkey for one benchmark, configured as in production and bound to given cores."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import redis

from daybreak_server.local.embedded_valkey import server_program


def spare_cores() -> tuple[set[int], set[int]]:
    """Cores for the server and for its clients: one for the server, all others for the clients.

    If there is only one core, the server and its clients share it.
    """
    cores = sorted(os.sched_getaffinity(0))
    return ({cores[0]}, set(cores[1:])) if len(cores) > 1 else (set(cores), set(cores))


class BenchServer:
    """A context manager that runs a server in ``folder``. At the end it stops the server by its pid."""

    def __init__(
        self, folder: Path, *, fsync: str = "everysec", cores: Collection[int] | None = None
    ) -> None:
        self.folder = folder
        self.fsync = fsync
        self._cores = set(cores) if cores else None
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL on which the server listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> BenchServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "port": self.port, "bind": "127.0.0.1", "dir": self.folder.resolve(), "databases": 1, "save": "",
            "appendonly": "yes", "appendfsync": self.fsync, "maxmemory-policy": "noeviction",
        }  # fmt: skip
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([str(server_program()), *flags], stdout=log, stderr=log)
        if self._cores:
            os.sched_setaffinity(self._process.pid, self._cores)
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(60)

    def client(self) -> redis.Redis:
        """A plain client; the caller closes it."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=30)

    def info(self) -> dict[str, Any]:
        """The reply to INFO."""
        with self.client() as client:
            info: dict[str, Any] = client.info()
            return info

    def cpu_s(self) -> float:
        """The CPU seconds of the main thread, which reads commands, runs them, writes them to the append-only file, and
        sends the replies."""
        info = self.info()
        return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])

    def calm(self, timeout_s: float = 120.0) -> None:
        """Wait until no rewrite of the append-only file runs or is due, but at most ``timeout_s``."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            info = self.info()
            if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
                return
            time.sleep(0.05)

    def version(self) -> str:
        """The name and version of the server."""
        info = self.info()
        return (
            f"valkey {info['valkey_version']}"
            if "valkey_version" in info
            else f"redis {info['redis_version']}"
        )

    def _wait(self) -> None:
        assert self._process is not None
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError((self.folder / "server.log").read_text()[-2000:])
            try:
                with self.client() as client:
                    if client.ping():
                        return
            except redis.RedisError:
                time.sleep(0.02)
        raise TimeoutError(
            f"the server on port {self.port} did not answer within 120 s; see {self.folder}/server.log"
        )
