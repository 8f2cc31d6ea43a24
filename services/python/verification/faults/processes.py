"""The client of the fork server: it starts components and knows for certain when one has ended."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from testkit.waiting import wait_until
from verification.faults.components import Component

_HOME = Path(__file__).resolve().parents[2]


class Processes:
    """Starts and kills components. ``ended`` receives the pid and the wait status of each process that has ended."""

    def __init__(self, *, logs: Path, preload: tuple[str, ...] = ()) -> None:
        self._logs = logs
        self.ended: queue.Queue[tuple[int, int]] = queue.Queue()
        self._refs = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._pids: dict[int, int] = {}
        self._alive: set[int] = set()
        self._sock, server_end = socket.socketpair()
        with (logs / "fork-server.log").open("ab") as log:
            self._fork_server = subprocess.Popen(
                [sys.executable, "-m", "verification.faults.fork_server", str(server_end.fileno()), *preload],
                cwd=_HOME,
                pass_fds=(server_end.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        server_end.close()
        self._ready = self._disconnected = False
        self._reader = threading.Thread(target=self._read, name="fork server", daemon=True)
        self._reader.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._disconnected, 120)
        if not self._ready or self._disconnected:
            self._fork_server.kill()
            self.close()
            raise RuntimeError(f"the fork server did not start; see {logs / 'fork-server.log'}")

    def start(self, component: Component) -> int:
        """Start a component. :returns: its pid. :raises RuntimeError: if the fork server does not start it."""
        request = {"component": component.as_json(), "log": str(self._logs / f"{component.name}.log")}
        with self._lock:
            self._refs += 1
            ref = self._refs
            with contextlib.suppress(OSError):  # `_read` notices when the fork server has ended
                self._sock.sendall(json.dumps({"ref": ref, **request}).encode() + b"\n")
        with self._changed:
            self._changed.wait_for(lambda: ref in self._pids or self._disconnected, 30)
            if ref not in self._pids:
                why = "has ended" if self._disconnected else f"did not start {component.name} within 30 s"
                raise RuntimeError(f"the fork server {why}; see {self._logs / 'fork-server.log'}")
            return self._pids.pop(ref)

    def alive(self, pid: int) -> bool:
        """Whether the process was started and its end has not been reported yet."""
        with self._changed:
            return pid in self._alive

    def signal(self, pid: int, number: int) -> bool:
        """Send a signal. :returns: whether the process existed."""
        if not self.alive(pid):
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self, pid: int, *, timeout_s: float = 20.0) -> bool:
        """Send SIGKILL and wait until the fork server has reaped the process. :returns: whether it existed."""
        if not self.signal(pid, signal.SIGKILL):
            return False
        wait_until(lambda: not self.alive(pid), timeout_s, f"the end of process {pid}")
        return True

    def close(self) -> None:
        """Stop the fork server, and with it every component."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        try:
            self._fork_server.wait(30)
        except subprocess.TimeoutExpired:
            self._fork_server.kill()
            self._fork_server.wait()
        self._reader.join(10)

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                # The fork server has ended, and the kernel kills its children (`die_with_parent`).
                with self._changed:
                    self._disconnected = True
                    self._alive.clear()
                    self._changed.notify_all()
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._on_message(json.loads(line))

    def _on_message(self, message: dict[str, Any]) -> None:
        with self._changed:
            if "ready" in message:
                self._ready = True
            elif "ref" in message:
                self._pids[message["ref"]] = message["pid"]
                self._alive.add(message["pid"])
            else:
                self._alive.discard(message["ended"])
            self._changed.notify_all()
        if "ended" in message:
            self.ended.put((message["ended"], message["status"]))


def is_watchdog(pid: int) -> bool:
    """Whether this process runs and is a leader's watchdog."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return stat[0] != "Z" and b"daybreak_server.entrypoints.watchdog" in command


def kill_watchdog(pid: int) -> bool:
    """Send SIGKILL to a watchdog, which is its leader's child, and wait until it is gone.

    :returns: whether it existed.
    """
    if not is_watchdog(pid):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_watchdog(pid), 20, f"the end of watchdog {pid}")
    return True
