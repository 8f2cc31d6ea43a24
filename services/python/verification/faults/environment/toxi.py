"""Injects network faults with Toxiproxy, a widely used program, if its server is on this machine."""

from __future__ import annotations

import json
import lzma
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from daybreak_server.local.free_ports import free_port
from testkit.waiting import wait_until

_COMPRESSED = Path(__file__).resolve().parents[6] / "shared" / "cluster" / "bin" / "toxiproxy-server.xz"
"""The compressed program. The tools of the test cluster are in the folder ``shared`` next to a checkout."""


def find_program() -> Path | None:
    """``toxiproxy-server`` on PATH, else the compressed one next to the checkout."""
    on_path = shutil.which("toxiproxy-server")
    if on_path is not None:
        return Path(on_path)
    return _COMPRESSED if _COMPRESSED.exists() else None


class Toxiproxy:
    """A running toxiproxy server, as a context manager."""

    def __init__(self, program: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="daybreak-toxi-")
        if program.suffix == ".xz":
            unpacked = Path(self._folder.name) / "toxiproxy-server"
            unpacked.write_bytes(lzma.decompress(program.read_bytes()))
            unpacked.chmod(0o755)
            program = unpacked
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        with (Path(self._folder.name) / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(program), "-host", "127.0.0.1", "-port", str(port)], stdout=log, stderr=log
            )
        wait_until(self._responds, 20, "toxiproxy")

    def listen(self, name: str, port: int) -> int:
        """Add a proxy in front of ``port``. :returns: the port on which the proxy listens."""
        proxy = self._call(
            "POST", "/proxies", {"name": name, "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{port}"}
        )
        return int(proxy["listen"].rpartition(":")[2])

    def faults(self, name: str) -> dict[str, Callable[[float], None]]:
        """For each fault, its name and a function that injects it into the proxy ``name`` for a number of seconds."""

        def toxic(kind: str, stream: str = "downstream", **attributes: int) -> Callable[[float], None]:
            def inject(seconds: float) -> None:
                body = {"name": kind, "type": kind, "stream": stream, "attributes": attributes}
                self._call("POST", f"/proxies/{name}/toxics", body)
                time.sleep(seconds)
                self._call("DELETE", f"/proxies/{name}/toxics/{kind}")

            return inject

        def down(seconds: float) -> None:
            self._call("POST", f"/proxies/{name}", {"enabled": False})
            time.sleep(seconds)
            self._call("POST", f"/proxies/{name}", {"enabled": True})

        return {
            "down": down,
            "timeout": toxic("timeout", timeout=0),
            "timeout upstream": toxic("timeout", "upstream", timeout=0),
            "reset_peer": toxic("reset_peer", timeout=50),
            "latency": toxic("latency", latency=40, jitter=20),
            "bandwidth": toxic("bandwidth", rate=200),
            "limit_data": toxic("limit_data", bytes=20_000),
        }

    def close(self) -> None:
        """Stop the server."""
        self._process.kill()
        self._process.wait(20)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _responds(self) -> bool:
        try:
            self._call("GET", "/version")
        except (OSError, urllib.error.URLError):
            return False
        return True

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text
