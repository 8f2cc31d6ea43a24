"""A fork server: it has imported everything, has no threads and no connections, and is the parent of every part.

It reads requests ``{"ref", "part", "log"}`` from its socket, one per line, forks, and writes ``{"ref", "pid"}``. For
each child that ends it writes ``{"ended": pid, "status"}`` after it has reaped the child, so that the process is
certainly gone. When the socket closes, it kills all children. They also die when the zygote itself is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

from verification.faults import parts
from verification.faults.parts import Part

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends (on Linux; elsewhere only the closed socket ends it)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Zygote:
    """The loop of the fork server."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._children: set[int] = set()
        self._buffer = b""
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)

    def run(self) -> None:
        """Serve requests until the other side closes the socket."""
        self._send({"ready": os.getpid()})
        while True:
            ready, _, _ = select.select([self._sock, self._wake], [], [], 1.0)
            if self._wake in ready:
                os.read(self._wake, 4096)
            self._reap()
            if self._sock in ready and not self._read_requests():
                break
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _read_requests(self) -> bool:
        """Fork what the socket asks for. :returns: ``False`` when the socket is closed."""
        data = self._sock.recv(65536)
        if not data:
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            self._send({"ref": request["ref"], "pid": self._fork(request)})
        return True

    def _fork(self, request: dict[str, Any]) -> int:
        pid = os.fork()
        if pid:
            self._children.add(pid)
            return pid
        try:
            self._run_part(request)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)

    def _run_part(self, request: dict[str, Any]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the cluster handles Ctrl-C
        os.close(self._wake)
        self._sock.close()
        die_with_parent()
        log = os.open(request["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        part = Part.from_json(request["part"])
        environment = {**os.environ, **part.environment}
        if part.kind == "program":
            os.execvpe(part.command[0], part.command, environment)
        if part.environment:
            command = [sys.executable, "-m", "verification.faults.parts", request["part"], request["log"]]
            os.execvpe(command[0], command, environment)
        parts.run(part)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._children.discard(pid)
            self._send({"ended": pid, "status": status})

    def _send(self, message: dict[str, Any]) -> None:
        self._sock.sendall(json.dumps(message).encode() + b"\n")


def main() -> None:
    """``python -m verification.faults.zygote FD [MODULE …]``: import the modules, then serve."""
    die_with_parent()
    sock = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        __import__(module)
    parts.preload()
    gc.collect()
    gc.freeze()  # so that the children share the pages
    with contextlib.suppress(OSError):
        Zygote(sock).run()


if __name__ == "__main__":
    main()
