"""Forward a Service or a pod of the cluster to a local port."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading

from testkit.kubernetes.waiting import wait_until

_PAUSE_S = 0.3


class PortForward:
    """``kubectl port-forward``, restarted whenever its pod goes away. The local port stays the same."""

    def __init__(self, namespace: str, service: str, port: int, *, kind: str = "svc") -> None:
        self._target = (namespace, f"{kind}/{service}", port)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._closed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"forward-{service}", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self, *, timeout_s: float = 60) -> PortForward:
        self._thread.start()
        wait_until(self._connects, timeout_s=timeout_s, what=f"a connection to {self._target[1]}")
        return self

    def close(self) -> None:
        self._closed.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(60)

    def _connects(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _run(self) -> None:
        namespace, service, port = self._target
        command = ["kubectl", "-n", namespace, "port-forward", service, f"{self.port}:{port}"]
        while not self._closed.is_set():
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                self._process = process
                if self._closed.is_set():
                    process.terminate()
                process.wait()
            self._closed.wait(_PAUSE_S)
