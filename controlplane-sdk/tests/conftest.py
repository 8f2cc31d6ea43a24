"""Fixtures: the command ``daybreak``, and a scripted HTTP server that sends exactly the bytes that a test wants."""

from __future__ import annotations

import hashlib
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from daybreak.cli.main import app
from daybreak.testing import daybreak  # noqa: F401 - a fixture that all tests share

AT = "2026-11-21T12:00:00.000Z"


@dataclass(frozen=True)
class Seen:
    """A request that the scripted server has received."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """A response. If ``length`` (its Content-Length) exceeds the body, the client sees that the body is cut off."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    framed: bool = True
    hold: threading.Event | None = None
    """The connection stays open until this event is set, for at most 30 s."""

    def encode(self) -> bytes:
        head = {"Content-Type": "application/json", "Connection": "close"} | self.headers
        if self.framed:
            head["Content-Length"] = str(len(self.body) if self.length is None else self.length)
        lines = [f"HTTP/1.1 {self.status} Whatever", *(f"{k}: {v}" for k, v in head.items()), "", ""]
        return "\r\n".join(lines).encode() + self.body


DROP = object()
"""Close the connection without a response."""


class Scripted:
    """A server that sends its answers in order and repeats the last one.

    An answer may be a function, which gets the request and returns the response.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answers: list[Any] = []
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                seen = owner.read(self.rfile)
                if seen is not None:
                    found = owner.answer(seen)
                    if found is not DROP:
                        self.wfile.write(found.encode())
                        self.wfile.flush()
                        if found.hold is not None:
                            found.hold.wait(30)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def read(self, stream: Any) -> Seen | None:
        line = stream.readline().decode().split()
        if len(line) < 2:
            return None
        headers = {}
        while (row := stream.readline().decode().strip()) != "":
            name, _, value = row.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))
        parts = urlsplit(line[1])
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        seen = Seen(line[0], parts.path, query, headers, body)
        self.seen.append(seen)
        return seen

    def answer(self, seen: Seen) -> Any:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(found):
            found = found(seen)
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.close()


@dataclass(frozen=True)
class Make:
    """Builds the scripted server's answers."""

    drop: object = DROP

    def answer(self, body: Any = b"", status: int = 200, **kw: Any) -> Answer:
        return Answer(
            status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode(), **kw
        )

    def task(self, task_id: str = "video_01", **fields: Any) -> dict[str, Any]:
        links = dict.fromkeys(("self", "events", "ws", "cancel"), f"/v1/tasks/{task_id}")
        base = {"id": task_id, "pool": "video", "tenant": "default", "state": "queued", "created_at": AT}
        return base | {"links": links} | fields

    def problem(
        self, status: int, code: str, *, headers: dict[str, str] | None = None, **fields: Any
    ) -> Answer:
        body = {"type": f"https://daybreak.dev/errors/{code}", "title": "T", "status": status, "code": code}
        kind = {"Content-Type": "application/problem+json"} | (headers or {})
        return self.answer(
            body | {"detail": "the detail", "request_id": "r-1"} | fields, status, headers=kind
        )

    def event(self, kind: str, event_id: str | None = None, **data: Any) -> bytes:
        body = {"task": "video_01", "type": kind, "at": data.pop("at", AT), "data": data}
        if event_id is not None:
            body["id"] = event_id
        head = f"id: {event_id}\n" if event_id is not None else ""
        return f"{head}event: {kind}\ndata: {json.dumps(body)}\n\n".encode()

    def stream(self, *events: bytes, broken: bool = False) -> Answer:
        """An event stream that closes after these events. With ``broken``, its Content-Length exceeds its body."""
        body = b"".join(events)
        kind = {"Content-Type": "text/event-stream"}
        return Answer(body=body, headers=kind, framed=broken, length=len(body) + 99 if broken else None)


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAYBREAK_URL", "DAYBREAK_API_KEY"):
        monkeypatch.delenv(name, raising=False)


Handler = Callable[[Seen], Answer]


@pytest.fixture
def command(
    scripted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_environment: None
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process. Returns ``(exit code, stdout, stderr)``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*args: str, url: str = scripted.url) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["--url", url, *args], prog_name="daybreak")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return call


@dataclass(frozen=True)
class Ended:
    """The result of a run of the command."""

    code: int
    out: bytes
    err: bytes

    @property
    def error(self) -> str:
        """The text of stderr. Fails if it contains a traceback."""
        text = self.err.decode()
        assert "Traceback" not in text, text
        return text


@pytest.fixture
def process(scripted: Any, tmp_path: Path) -> Callable[..., Ended]:
    """Run the command in a process with the environment variables ``env``.

    If ``shell`` is set, bash runs the command line with ``shell`` (such as a pipe) at its end.
    """

    def call(*args: str | bytes, shell: str = "", cwd: Path = tmp_path, **env: str) -> Ended:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DAYBREAK", "PYTHONIO"))}
        program = [sys.executable, "-c", "from daybreak.cli.main import run; run()"]
        command: list[str | bytes] = [*program, *args]
        if shell:
            command = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "daybreak", *command]
        done = subprocess.run(
            command,
            env=kept | {"DAYBREAK_URL": scripted.url, "COLUMNS": "120", "TERM": "xterm-256color"} | env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return call


VIDEO = b"\0\0\0\x20ftypisom" + bytes(range(256)) * 8


@pytest.fixture
def served(scripted: Any, make: Make) -> bytes:
    """A server whose task `video_01` succeeds at once. Its artifacts are `video.mp4` and `notes.json`.

    Both files have the same bytes. The fixture returns these bytes.
    """

    def artifact(name: str, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(VIDEO).hexdigest()
        return {
            "name": name,
            "content_type": kind,
            "size_bytes": len(VIDEO),
            "sha256": digest,
            "url": f"/{name}",
        }

    whole = make.task(
        state="succeeded",
        artifacts=[artifact("video.mp4", "video/mp4"), artifact("notes.json", "application/json")],
    )

    def answer(seen: Seen) -> Answer:
        if seen.method == "POST":
            return make.answer(make.task(), 202)
        if seen.path.endswith("/events"):
            return make.stream(make.event("started", "1-0", group="g-1"), make.event("succeeded", "2-0"))
        return make.answer(VIDEO if "/artifacts/" in seen.path else whole)

    scripted.answers = [answer]
    return VIDEO
