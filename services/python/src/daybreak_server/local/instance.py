"""One running instance on this machine: its folder, lock and mark, and what it tells others (``up.json``)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from daybreak_server.local import reaper
from daybreak_server.settings.tree import Settings, child_environment

STATE_FILE = "up.json"
FORBIDDEN_PORT = 6379
"""Another Redis may be at home there, or come to be."""
_SOCKET_ROOM = 40
"""Longest folder below which Ray's socket paths stay under the system's 107 characters."""


class InstanceError(Exception):
    """It cannot start; the message says why and what to do."""


class Instance:
    """Holds the lock of a data folder as long as it is open."""

    def __init__(self, folder: Path) -> None:
        """:raises InstanceError: when the folder cannot be made."""
        self.folder = folder
        self.logs = folder / "logs"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as exc:
            raise InstanceError(
                f"the data folder {folder} cannot be made: {exc.strerror}; set DAYBREAK_DATA_DIR to one that can"
            ) from exc
        self.mark = instance_tag(folder)
        self._lock: IO[str] | None = None
        self._reaper: subprocess.Popen[bytes] | None = None

    def open(self) -> list[int]:
        """Take the lock, end what an earlier instance has left (returned), and watch over our own end.

        :raises InstanceError: when another process holds the lock.
        """
        lock = (self.folder / "up.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            lock.close()
            raise InstanceError(
                f"{self.folder} is in use by process {pid}: stop it, or set DAYBREAK_DATA_DIR"
            ) from exc
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        left = reaper.marked(self.mark)
        if left:
            reaper.end_all(self.mark)
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, self.mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return left

    def close(self) -> list[int]:
        """End everything that is left, and let the lock go. Returns the processes that would not end."""
        left = reaper.end_all(self.mark)
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.write(b"done")
            self._reaper.stdin.close()
            self._reaper.wait(30)
        self.state_file.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
        return left

    @property
    def state_file(self) -> Path:
        """Where others read how to reach this instance."""
        return self.folder / STATE_FILE

    def tell(self, state: Mapping[str, Any]) -> None:
        """Write ``up.json``: whole or not at all."""
        write_atomically(self.state_file, json.dumps(dict(state), indent=1))

    def environment(self, part: str, extra: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The environment of one part's process."""
        return child_environment({reaper.MARK: f"{self.mark}/{part}", **(extra or {})})

    def ray_folder(self) -> Path:
        """Where Ray keeps its sessions: below the data folder, unless sockets there had too long a name."""
        below = self.folder.resolve() / "ray"
        if len(str(below)) <= _SOCKET_ROOM:
            return below
        return Path(tempfile.gettempdir()) / f"daybreak-{os.getuid()}-{self.mark[:8]}"


def instance_tag(folder: Path) -> str:
    """What marks the processes of the instance whose data are in ``folder``."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def write_atomically(path: Path, text: str) -> None:
    """Replace a file: whoever reads it sees the old text or the new one. Only its owner may read it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def settings_file(instance: Instance, settings: Settings) -> Path:
    """The settings, for the processes of this instance; may hold credentials."""
    path = instance.folder / "settings.json"
    write_atomically(path, settings.model_dump_json())
    return path


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether one could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(1)
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now, and never Redis's own."""
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.bind((host, 0))
            port = int(sock.getsockname()[1])
        if port != FORBIDDEN_PORT:
            return port


def sticky_port(file: Path, *, host: str = "127.0.0.1") -> int:
    """The same port as last time if it is still free, else another one, which is remembered from now on."""
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        port = 0
    if not 1024 <= port <= 65535 or port == FORBIDDEN_PORT or not is_free(port, host):
        port = free_port(host)
        write_atomically(file, str(port))
    return port
