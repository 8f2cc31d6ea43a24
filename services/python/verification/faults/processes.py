"""The cluster's side of the zygote: starts parts, and knows for certain when one is gone."""

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
from verification.faults.parts import Part

_HOME = Path(__file__).resolve().parents[2]


class Processes:
    """Starts and kills by pid. ``ended`` gets the pid and the wait status of each process that is gone."""

    def __init__(self, *, logs: Path, preload: tuple[str, ...] = ()) -> None:
        self._logs = logs
        self.ended: queue.Queue[tuple[int, int]] = queue.Queue()
        self._refs = 0
        self._lock = threading.Lock()
        self._said = threading.Condition()
        self._pids: dict[int, int] = {}
        self._alive: set[int] = set()
        mine, theirs = socket.socketpair()
        self._sock = mine
        with (logs / "zygote.log").open("ab") as log:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "verification.faults.zygote", str(theirs.fileno()), *preload],
                cwd=_HOME,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        theirs.close()
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, name="zygote", daemon=True)
        self._reader.start()
        if not self._ready.wait(120) or self._zygote.poll() is not None:
            raise RuntimeError(f"the zygote did not start; see {logs / 'zygote.log'}")

    def start(self, part: Part) -> int:
        """Start a part; its pid."""
        order = {"part": part.as_json(), "log": str(self._logs / f"{part.name}.log")}
        with self._lock:
            self._refs += 1
            ref = self._refs
            self._sock.sendall(json.dumps({"ref": ref, **order}).encode() + b"\n")
        with self._said:
            if not self._said.wait_for(lambda: ref in self._pids, 30):
                raise RuntimeError("the zygote does not answer")
            return self._pids.pop(ref)

    def alive(self, pid: int) -> bool:
        """Whether it has not been seen gone."""
        with self._said:
            return pid in self._alive

    def signal(self, pid: int, number: int) -> bool:
        """Send a signal; whether the process was there."""
        if not self.alive(pid):
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self, pid: int, *, timeout_s: float = 20.0) -> bool:
        """SIGKILL, and wait until it is gone (its parent has waited for it). Whether it was there."""
        if not self.signal(pid, signal.SIGKILL):
            return False
        wait_until(lambda: not self.alive(pid), timeout_s, f"the end of process {pid}")
        return True

    def close(self) -> None:
        """Kill all of them, and the zygote."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        try:
            self._zygote.wait(30)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()
        self._reader.join(10)

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._ready.set()
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))

    def _hear(self, what: dict[str, Any]) -> None:
        if "ready" in what:
            self._ready.set()
            return
        with self._said:
            if "ref" in what:
                self._pids[what["ref"]] = what["pid"]
                self._alive.add(what["pid"])
            else:
                self._alive.discard(what["ended"])
            self._said.notify_all()
        if "ended" in what:
            self.ended.put((what["ended"], what["status"]))


def is_guard(pid: int) -> bool:
    """Whether this process is there, and is a leader's guard."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return stat[0] != "Z" and b"daybreak_server.entrypoints.watchdog" in command


def end_other(pid: int) -> bool:
    """SIGKILL to a guard, which is its leader's child, and wait until it is gone. Whether it was there."""
    if not is_guard(pid):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_guard(pid), 20, f"the end of guard {pid}")
    return True
