"""A process that answers HTTP as a group does, and misbehaves as the query of each request asks.

The query may have these fields. ``latency=S``: wait S seconds before the answer · ``chunks=N``: answer in N parts of
``size`` bytes, ``pause`` seconds apart · ``status``: the status of the answer · ``early``: answer without reading the
body · ``refuse=busy|draining|broken``: refuse the request · ``crash=before|within``: crash before or within the
answer · ``refuse_first=N``: refuse the first N requests of the process as busy. Without ``chunks``, the answer
describes the request.

The log has a line when the server listens (``ready``), when a request begins (``begin``), when its answer is complete
(``end``), when its client has gone (``gone``), when the request is refused (``refused``), and for each part of two or
more bytes (``part``). In all lines except ``ready``, the id of the request follows the word.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.serving_load import Load
from daybreak_server.local.free_ports import free_port
from testkit.waiting import wait_until


class Backend:
    """The process, and the record of a group that answers at its address."""

    def __init__(self, folder: Path, *, capacity: int | None = None) -> None:
        self.port = free_port()
        self.id = new_group_id()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{self.id}.log"
        self.log.touch()
        self.capacity = capacity
        self.process = subprocess.Popen(
            [sys.executable, "-m", "testkit.http_backend", str(self.port), str(self.log)],
            cwd=Path(__file__).parents[1],
        )

    def wait_ready(self) -> Backend:
        wait_until(lambda: "ready\n" in self.log.read_text(), 60, f"the backend {self.id}")
        return self

    def record(self, *, drain: bool = False, load: Load | None = None, **changes: Any) -> GroupRecord:
        return GroupRecord(
            id=self.id,
            state=GroupState.IDLE,
            hosts=("here",),
            pids=(self.process.pid,),
            loads=1,
            endpoint=self.endpoint,
            capacity=self.capacity,
            load=load or Load(),
            drain=drain,
            **changes,
        )

    def lines(self, kind: str) -> list[str]:
        """The ids of the requests with a line of this kind in the log."""
        return [line.split()[1] for line in self.log.read_text().splitlines() if line.startswith(f"{kind} ")]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


async def _app(scope: Any, receive: Any, send: Any, *, log: Any) -> None:
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    query = dict(parse_qsl(scope["query_string"].decode()))
    request_id = headers.get("x-request-id", "-")

    def note(kind: str) -> None:
        log.write(f"{kind} {request_id}\n")

    refuse = query.get("refuse")
    if int(query.get("refuse_first", 0)) > _app.__dict__.setdefault("refused", 0):
        _app.__dict__["refused"] += 1
        refuse = "busy"
    if refuse:
        note("refused")
        await _send(send, 503, b"refused", [(b"daybreak-refused", refuse.encode())])
        return
    note("begin")
    digest, size = sha256(), 0
    while "early" not in query:
        message = await receive()
        digest.update(message.get("body", b""))
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    try:
        await _answer(scope, receive, send, query, headers, (digest.hexdigest(), size), note)
    except _GoneError:
        note("gone")
    else:
        note("end")


class _GoneError(Exception):
    pass


async def _answer(
    scope: Any,
    receive: Any,
    send: Any,
    query: dict[str, str],
    headers: dict[str, str],
    body: tuple[str, int],
    note: Any,
) -> None:
    status = int(query.get("status", 200))
    gone = asyncio.create_task(_leaves(receive))
    try:
        await _pause(float(query.get("latency", 0)), gone)
        if query.get("crash") == "before":
            os._exit(1)
        if "chunks" not in query:
            shown = {
                "pid": os.getpid(),
                "method": scope["method"],
                "path": scope["raw_path"].decode(),
                "query": scope["query_string"].decode(),
                "headers": headers,
                "sha256": body[0],
                "size": body[1],
            }
            await _send(send, status, json.dumps(shown).encode(), [(b"content-type", b"application/json")])
            return
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-made-by", b"backend")]})
        for _ in range(int(query["chunks"])):
            part = b"x" * int(query.get("size", 1))
            await send({"type": "http.response.body", "body": part, "more_body": True})
            if len(part) > 1:
                note("part")
            await _pause(float(query.get("pause", 0)), gone)
            if query.get("crash") == "within":
                os._exit(1)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        gone.cancel()


async def _leaves(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pause(seconds: float, gone: asyncio.Task[Any]) -> None:
    if seconds:
        await asyncio.wait({gone}, timeout=seconds)
    if gone.done():
        raise _GoneError


async def _send(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """Writes ``ready`` into the log when it listens."""

    log: Any = None

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.log.write("ready\n")


def main() -> None:
    """Serve until SIGTERM. The command line has the port and the path of the log."""
    port, path = int(sys.argv[1]), sys.argv[2]
    with Path(path).open("a", buffering=1) as log:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await _app(scope, receive, send, log=log)

        config = uvicorn.Config(
            app, port=port, log_level="warning", lifespan="off", timeout_keep_alive=120, access_log=False
        )
        server = _Server(config)
        server.log = log
        server.run()


if __name__ == "__main__":
    main()
