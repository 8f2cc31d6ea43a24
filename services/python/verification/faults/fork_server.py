"""The fork server: the parent process of every component. It starts a component by forking, which takes milliseconds.
If the component has environment variables of its own, the child then replaces itself with a new Python interpreter. If
the component is a program such as Redis, the child replaces itself with this program.

The fork server has imported everything that a component needs. It has no threads, and no connection except its socket,
so it can fork safely. Each line on this socket is one JSON message:

* When the fork server is ready, it writes ``{"ready": pid}``.
* For each request ``{"ref", "component", "log"}``, it forks, and responds with ``{"ref", "pid"}``.
* When a child has ended, the fork server reaps it and then writes ``{"ended": pid, "status"}``. So after this message,
  the child's process is gone.

When the socket closes, the fork server kills all its children. On Linux, they also die when the fork server itself is
killed.
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

from verification.faults import components
from verification.faults.components import Component

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends. Only Linux can do this. Elsewhere, a fork server still
    notices the end of its parent, because the socket closes. It then kills its children and ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ForkServer:
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
        """Read requests from the socket and fork once for each. :returns: ``False`` when the socket is closed."""
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
            self._run_component(request)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)

    def _run_component(self, request: dict[str, Any]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the cluster handles Ctrl-C
        os.close(self._wake)
        self._sock.close()
        die_with_parent()
        log = os.open(request["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        component = Component.from_json(request["component"])
        environment = {**os.environ, **component.environment}
        if component.kind == "program":
            os.execvpe(component.command[0], component.command, environment)
        if component.environment:
            command = [
                sys.executable,
                "-m",
                "verification.faults.components",
                request["component"],
                request["log"],
            ]
            os.execvpe(command[0], command, environment)
        components.run(component)

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
    """``python -m verification.faults.fork_server FD [MODULE …]``: import the modules, then serve."""
    die_with_parent()
    sock = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        __import__(module)
    components.preload()
    gc.collect()
    gc.freeze()  # so that garbage collection in the children does not copy the shared pages of memory
    with contextlib.suppress(OSError):
        ForkServer(sock).run()


if __name__ == "__main__":
    main()
