"""A real S3 server, behind an HTTP proxy that injects faults: 500, 503, delays, cut uploads and lost responses."""

from __future__ import annotations

import contextlib
import http.client
import lzma
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from daybreak_server.local.free_ports import free_port
from testkit.waiting import wait_until

BUCKET = "daybreak-faults"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "daybreak",
    "AWS_SECRET_ACCESS_KEY": "daybreak-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
FAULTS = ("500", "503 SlowDown", "slow", "upload cut", "response lost")
_PACKED = Path(__file__).resolve().parents[6] / "shared" / "cluster" / "bin" / "versitygw.xz"
_RESET = struct.pack("ii", 1, 0)
_ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>injected fault</Message></Error>'
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "expect"}


@contextlib.contextmanager
def credentials() -> Iterator[None]:
    """The AWS variables of the fault tests, for this process and its children."""
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[str, str]]:
    """Run an S3 server with one bucket: versitygw if available, else moto. Yields the URL and the program's name."""
    with tempfile.TemporaryDirectory(prefix="daybreak-s3-") as folder, credentials():
        port, home = free_port(), Path(folder)
        name, command = _command(home, port)
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: _is_listening(port), 60, f"{name}; see {home / 'log'}")
            client(url).create_bucket(Bucket=BUCKET)
            yield url, name
        finally:
            process.terminate()
            process.wait(30)


def client(url: str) -> Any:
    """A plain boto3 client."""
    import boto3

    return boto3.session.Session().client("s3", endpoint_url=url, region_name="us-east-1")


def left_behind(url: str) -> list[str]:
    """Every object and every unfinished upload in the bucket."""
    s3 = client(url)
    keys = [
        item["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        for item in page.get("Contents", ())
    ]
    unfinished = s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads") or ()
    return keys + [f"{item['Key']} (unfinished)" for item in unfinished]


def _command(home: Path, port: int) -> tuple[str, list[str]]:
    program = shutil.which("versitygw")
    if program is None and _PACKED.exists():
        unpacked = home / "versitygw"
        unpacked.write_bytes(lzma.decompress(_PACKED.read_bytes()))
        unpacked.chmod(0o755)
        program = str(unpacked)
    if program is None:
        return "moto", [sys.executable, "-m", "moto.server", "-p", str(port)]
    (home / "data").mkdir()
    access, secret = CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
    flags = [
        "--access",
        access,
        "--secret",
        secret,
        "--port",
        f"127.0.0.1:{port}",
        "posix",
        str(home / "data"),
    ]
    return "versitygw", [program, *flags]


def _is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


class FaultyS3:
    """Forwards requests. With probability ``chance``, a request gets a fault from ``only``.

    The seed decides which requests get a fault, and which fault each of them gets.
    """

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        parts = urlsplit(upstream)
        self.upstream = (str(parts.hostname), int(parts.port or 80))
        self.chance = 0.0
        self.only: tuple[str, ...] = FAULTS
        self.injected: Counter[str] = Counter()
        self._draw = random.Random(f"{seed}/s3")
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            faulty = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="s3-proxy", daemon=True)
        self._thread.start()

    def draw(self) -> str | None:
        """The fault of the next request, if any."""
        with self._lock:
            if self._draw.random() >= self.chance:
                return None
            fault = self._draw.choice(self.only)
            self.injected[fault] += 1
            return fault

    def close(self) -> None:
        """Stop the proxy."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of an S3 client."""

    faulty: FaultyS3
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def _handle(self) -> None:
        fault = self.faulty.draw()
        length = int(self.headers.get("content-length") or 0)
        if fault == "upload cut":
            self.rfile.read(length // 2)
            self._reset()
            return
        body = self.rfile.read(length)
        if fault == "500":
            self._respond(500, [], _ERROR.format("InternalError").encode())
        elif fault == "503 SlowDown":
            self._respond(503, [], _ERROR.format("SlowDown").encode())
        else:
            if fault == "slow":
                time.sleep(0.7)
            status, headers, data = self._forward(body)
            if fault == "response lost":
                self._reset()
            else:
                self._respond(status, headers, data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.faulty.upstream, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            headers = [pair for pair in response.getheaders() if pair[0].lower() not in _HOP]
            if self.command == "HEAD" and (length := response.getheader("content-length")) is not None:
                headers.append(("Content-Length", length))
            return response.status, headers, response.read()

    def _respond(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
