"""``python -m verification.benchmarks.routing.backend PORT …``: an OpenAI-compatible back end with a fixed latency.

One process listens on all ports, so that it stands for several servers. It parses with ``httptools`` on
``uvloop`` and does as much work as possible before the requests arrive, so that it does not limit a router.

``POST /v1/chat/completions`` is answered after the latency. The answer says how long the back end had the
request (``took NANOSECONDS``), so that the client can compute the time that the request spent elsewhere. The
latency is exact to a few microseconds (:class:`Alarm`). With ``"stream": true`` the answer is a stream of
``max_tokens`` tokens with a fixed pause between them, exact to a millisecond. Each token has the time at
which it was sent (``sent NANOSECONDS``, on ``CLOCK_MONOTONIC``, which all processes share). The first one is
sent at once, and the latency delays the second one.
``PUT /pace?latency_ms=L&pause_ms=P`` sets the latency and the pause.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httptools
import uvloop

MODEL = "bench"
CHAT = b"/v1/chat/completions"
_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TEXT = "a red circle moves left " * 12


def _object(kind: str, **choice: Any) -> str:
    return json.dumps(
        {
            "id": "chatcmpl-bench",
            "object": kind,
            "created": 1_700_000_000,
            "model": MODEL,
            "choices": [{"index": 0, "finish_reason": None, **choice}],
            "usage": {"prompt_tokens": 200, "completion_tokens": 60, "total_tokens": 260},
        },
        separators=(",", ":"),
    )


_MARK = "%MARK%"
_ANSWER = (
    _object(
        "chat.completion",
        message={"role": "assistant", "content": f"{_TEXT} took {_MARK} ns"},
        finish_reason="stop",
    )
    .encode()
    .split(_MARK.encode())
)
_TOKEN = _object("chat.completion.chunk", delta={"role": "assistant", "content": f"sent {_MARK} ns"})
_TOKEN_PARTS = f"data: {_TOKEN}\n\n".encode().split(_MARK.encode())
_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_MODELS = json.dumps(
    {
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "owned_by": "bench", "max_model_len": 8192}],
        "model_path": MODEL,
        "served_model_name": MODEL,
        "status": "ok",
    }
).encode()


@dataclass(slots=True)
class Pace:
    """The pace of the back end, which is the same for all of its connections."""

    latency_s: float = 0.0
    pause_s: float = 0.0


class Alarm:
    """Calls functions at given times, exact to a few microseconds.

    The timers of event loops end on whole milliseconds. With them, all answers that are due within a
    millisecond would be sent together, and their clients would then send the next requests together. These
    bursts would grow from round to round, whatever the router does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._due: list[tuple[int, int, Callable[[int], None], int]] = []
        self._numbers = itertools.count()
        loop.add_reader(self._fd, self._ring)

    def at(self, due_ns: int, call: Callable[[int], None], argument: int) -> None:
        """Call ``call(argument)`` at ``due_ns`` of the monotonic clock."""
        heapq.heappush(self._due, (due_ns, next(self._numbers), call, argument))
        if self._due[0][0] == due_ns:
            self._set()

    def _set(self) -> None:
        seconds, ns = divmod(self._due[0][0], 10**9)
        value = (ctypes.c_long * 4)(0, 0, seconds, ns)
        if self._libc.timerfd_settime(self._fd, 1, ctypes.byref(value), None):  # 1: the time is absolute
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # the alarm has been set again
            os.read(self._fd, 8)
        while self._due and self._due[0][0] <= time.monotonic_ns():
            _, _, call, argument = heapq.heappop(self._due)
            call(argument)
        if self._due:
            self._set()


class _Connection(asyncio.Protocol):
    def __init__(self, pace: Pace, alarm: Alarm) -> None:
        self._pace = pace
        self._alarm = alarm
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._body = b""
        self._came_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._came_ns = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.close()  # a router may try HTTP/2 first

    def on_message_begin(self) -> None:
        self._target, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._target.startswith(CHAT):
            self._other()
        elif b'"stream":true' in self._body or b'"stream": true' in self._body:
            request = json.loads(self._body)
            self._transport.write(_STREAM_HEAD)
            tokens = request.get("max_completion_tokens") or request["max_tokens"]  # one router renames it
            self._token(int(tokens), self._loop.time() + self._pace.latency_s)
        elif self._pace.latency_s:
            self._alarm.at(self._came_ns + int(self._pace.latency_s * 1e9), self._answer, self._came_ns)
        else:
            self._answer(self._came_ns)

    def _answer(self, came_ns: int) -> None:
        if self._transport.is_closing():
            return
        body = b"%b%d%b" % (_ANSWER[0], time.monotonic_ns() - came_ns, _ANSWER[1])
        self._transport.write(_JSON_HEAD % (len(body), body))

    def _token(self, left: int, due: float) -> None:
        if self._transport.is_closing():
            return
        if not left:
            self._transport.write(_END)
            return
        token = b"%b%d%b" % (_TOKEN_PARTS[0], time.monotonic_ns(), _TOKEN_PARTS[1])
        self._transport.write(b"%x\r\n%b\r\n" % (len(token), token))
        self._loop.call_at(due + self._pace.pause_s, self._token, left - 1, due + self._pace.pause_s)

    def _other(self) -> None:
        if self._target.startswith(b"/pace"):
            query = parse_qs(urlsplit(self._target.decode()).query)
            self._pace.latency_s = float(query["latency_ms"][0]) / 1000
            self._pace.pause_s = float(query["pause_ms"][0]) / 1000
        self._transport.write(_JSON_HEAD % (len(_MODELS), _MODELS))


async def _serve(ports: list[int]) -> None:
    pace, loop = Pace(), asyncio.get_running_loop()
    alarm = Alarm(loop)
    for port in ports:
        await loop.create_server(lambda: _Connection(pace, alarm), "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    """Serve until a signal ends the process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve([int(port) for port in arguments]))


if __name__ == "__main__":
    main(sys.argv[1:])
