"""The faulty S3 proxy, the stepped clock and toxiproxy inject the faults that they promise."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from verification.faults import scenario_catalogue
from verification.faults.environment.preload import PreloadAbsentError
from verification.faults.environment.s3 import FaultyS3
from verification.faults.environment.skew import Skew
from verification.faults.environment.toxi import Toxiproxy, find_program


class Store(BaseHTTPRequestHandler):
    """Stores what a PUT sends, and returns the Host header of the request."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, bytes]

    def do_PUT(self) -> None:
        self.kept[self.path] = self.rfile.read(int(self.headers["content-length"]))
        self._respond(b"kept for " + self.headers["host"].encode())

    def do_GET(self) -> None:
        self._respond(self.kept[self.path])

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.kept[self.path])))
        self.end_headers()

    def _respond(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def kept() -> dict[str, bytes]:
    return {}


@pytest.fixture
def faulty(kept: dict[str, bytes]) -> Iterator[FaultyS3]:
    class ThisStore(Store):
        pass

    ThisStore.kept = kept
    server = ThreadingHTTPServer(("127.0.0.1", 0), ThisStore)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with FaultyS3(f"http://127.0.0.1:{server.server_address[1]}") as faulty:
        yield faulty
    server.shutdown()
    server.server_close()
    thread.join(60)


def _request(
    faulty: FaultyS3, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection(faulty.url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read(), response.getheader("content-length")
    finally:
        connection.close()


def test_without_faults_requests_pass_unchanged(faulty: FaultyS3, kept: dict[str, bytes]) -> None:
    """Body, Host header and response stay the same. The signature of an S3 request covers the body and the Host."""
    host = faulty.url.removeprefix("http://").encode()
    assert _request(faulty, "PUT", "/a", b"data")[:2] == (200, b"kept for " + host)
    assert _request(faulty, "GET", "/a")[:2] == (200, b"data")
    assert _request(faulty, "HEAD", "/a") == (200, b"", "4")
    assert kept == {"/a": b"data"}


@pytest.mark.parametrize(("fault", "status"), [("500", 500), ("503 SlowDown", 503)])
def test_refused_requests_do_not_reach_the_server(
    faulty: FaultyS3, kept: dict[str, bytes], fault: str, status: int
) -> None:
    """The error has S3's format, and the server does not receive the request."""
    faulty.chance, faulty.only = 1.0, (fault,)
    response = _request(faulty, "PUT", "/a", b"data")
    assert response[0] == status
    assert b"<Error><Code>" in response[1]
    assert kept == {}


@pytest.mark.parametrize(("fault", "stored"), [("upload cut", False), ("response lost", True)])
def test_a_cut_upload_stores_nothing_and_a_lost_response_everything(
    faulty: FaultyS3, kept: dict[str, bytes], fault: str, stored: bool
) -> None:
    """The client sees a broken connection in both cases."""
    faulty.chance, faulty.only = 1.0, (fault,)
    with pytest.raises((OSError, http.client.HTTPException)):
        _request(faulty, "PUT", "/a", b"data" * 100_000)
    assert bool(kept) == stored


def test_a_clock_steps_while_a_process_runs(tmp_path: Path) -> None:
    """The wall clock steps; the monotonic clock does not."""
    try:
        clock = Skew(tmp_path, "clock")
    except PreloadAbsentError as exc:
        pytest.skip(str(exc))
    code = "import time\nwhile input(): time.sleep(0.01); print(time.time(), time.monotonic(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, **clock.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def look() -> tuple[float, float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("x\n")
            process.stdin.flush()
            wall, monotonic = process.stdout.readline().split()
            return float(wall), float(monotonic)

        began = look()
        clock.step_to(3600)
        ahead = look()
        clock.step_to(-3600)
        behind = look()
        process.kill()
    assert ahead[0] - began[0] >= 3600
    assert behind[0] - ahead[0] < -7000
    assert 0 < behind[1] - began[1] < 600


def test_toxiproxy_forwards_connections() -> None:
    """Bytes pass through toxiproxy, and it offers the faults that the scenarios use."""
    program = find_program()
    if program is None:
        pytest.skip("toxiproxy-server is not on PATH")
    with socket.create_server(("127.0.0.1", 0)) as listener, Toxiproxy(program) as toxi:
        port = toxi.listen("link", listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            inner, _ = listener.accept()
            with inner:
                client.sendall(b"x")
                assert inner.recv(1) == b"x"
        assert set(toxi.faults("link")) >= {"down", "timeout", "reset_peer", "latency", "bandwidth"}


def test_every_scenario_has_its_package() -> None:
    """`python -m verification.faults.environment` offers only the scenarios of its own package.

    `python -m verification.faults` offers the scenarios of all packages.
    """
    known = scenario_catalogue.scenarios()
    of_environment = {
        name for name, entry in known.items() if entry.package == "verification.faults.environment"
    }
    assert {
        "power-always",
        "power-everysec",
        "kill-slow-disk",
        "memory-full",
        "network-store",
        "s3",
    } <= of_environment
    assert of_environment < set(known)
