"""The engine of the fault tests of workers. It answers each request as the request's :class:`Wish` says.

A *run* is the work on one request. The engine appends a JSON line to its file when a run begins, and another one when
the run ends. A line is one ``write`` to the operating system, so it survives the death of the process. Times are
``time.monotonic()``, which all processes of a machine share.

This module is outside the package ``workers``, because importing that package would take longer than
the whole start of this engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import uvicorn

from verification.faults.wish import Wish, parse

PID_HEADER = b"answered-by"
"""The same header as in :mod:`verification.faults.serving.workload`."""


class Engine:
    """The ASGI app."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/health":
            await _start(send, 200, 0)
            await send({"type": "http.response.body", "body": b""})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        number, attempt, wish = parse(body)
        self._write("begin", number, attempt)
        gone = asyncio.create_task(receive())
        how = "stop"
        try:
            if await _pause(wish.latency_s, gone):
                how = await self._answer(number, attempt, wish, gone, send)
        finally:
            gone.cancel()
            if how == "stop":
                self._write("stop", number, attempt)

    async def _answer(self, number: int, attempt: int, wish: Wish, gone: asyncio.Task[Any], send: Any) -> str:
        """Send the answer. The log records the end of the run before the client gets the end of the answer.

        :returns: how the answer ended.
        """
        if not wish.parts:
            self._write("end", number, attempt)
            answer = wish.part(number, 0)
            await _start(send, 200, len(answer))
            await send({"type": "http.response.body", "body": answer})
            return "end"
        await _start(send, 200, None)
        for index in range(wish.parts):
            if index and not await _pause(wish.part_s, gone):
                return "stop"
            await send({"type": "http.response.body", "body": wish.part(number, index), "more_body": True})
        self._write("end", number, attempt)
        await send({"type": "http.response.body", "body": b""})
        return "end"

    def _write(self, kind: str, number: int, attempt: int) -> None:
        line = {"kind": kind, "request": number, "send": attempt, "at": time.monotonic(), "pid": os.getpid()}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


async def _start(send: Any, status: int, length: int | None) -> None:
    headers = [(PID_HEADER, str(os.getpid()).encode()), (b"content-type", b"text/plain")]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _pause(seconds: float, gone: asyncio.Task[Any]) -> bool:
    """Wait for ``seconds``, or until the client leaves. :returns: whether the client still waits."""
    await asyncio.wait({gone}, timeout=seconds)
    return not gone.done()


def main() -> None:
    """Serve until a signal arrives. The log is the file ``<worker>.<pid>.jsonl`` in the folder of ``--runs``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the logs")
    parser.add_argument("--worker", required=True)
    options = parser.parse_args()
    engine = Engine(options.runs / f"{options.worker}.{os.getpid()}.jsonl")
    uvicorn.run(
        engine,
        host=options.host,
        port=options.port,
        log_level="warning",
        lifespan="off",
        access_log=False,
        timeout_keep_alive=30,
    )


if __name__ == "__main__":
    main()
