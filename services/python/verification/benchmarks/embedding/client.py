"""The client, which is the same for all servers. Each of its callers sends one text at a time, over one connection.

The client counts the answers that arrive within a window. The window opens after a warm-up and closes while all
callers still send. So the smaller batches at the beginning and at the end do not distort the rate.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
import numpy as np
import uvloop

PATH = "/v1/embeddings"
LEAST = 3
"""A window stays open until the callers have received, on average, at least this many answers each."""
LONGEST = 4.0
"""A window closes after this many times its planned length, even if fewer than :data:`LEAST` answers have arrived for
each caller."""
LIMIT_S = 120.0
"""If a window has fewer answers than there are callers when it is due to close, it stays open for up to this many
seconds more. If it still has too few answers after that, the run fails."""


@dataclass(slots=True)
class Samples:
    """The answers of one run within its window."""

    latencies_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    busy: float = 0.0
    """The CPU use of this process, as a share of one core."""

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies_ms) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """The latency that ``share`` of the answers do not exceed."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def samples_of(
    answers: Sequence[tuple[float, float]], began: float, ended: float, *, busy: float = 0.0
) -> Samples:
    """The answers within a window. ``answers``: when each answer came and how long it took, in seconds.

    Answers arrive in clumps, one for each batch. So the time is measured from the last answer before the window to the
    last answer within it. If the time were the length of the window, the rate would depend on where the clumps lie.
    """
    inside = [(at, latency) for at, latency in answers if began < at <= ended]
    first = max((at for at, _ in answers if at <= began), default=began)
    last = max((at for at, _ in inside), default=ended)
    return Samples(latencies_ms=[1000 * latency for _, latency in inside], seconds=last - first, busy=busy)


class AnswerError(RuntimeError):
    """The server sent an answer without a vector, or too few answers."""


def render(text: str, *, encoding: str = "base64", model: str = "", path: str = PATH) -> bytes:
    """The bytes of a request."""
    body = {"input": text, "encoding_format": encoding, **({"model": model} if model else {})}
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


def vector_of(body: bytes) -> np.ndarray[Any, Any]:
    """The vector of an answer. :raises AnswerError: if it has none."""
    try:
        shown = json.loads(body)["data"][0]["embedding"]
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        raise AnswerError(f"unexpected answer: {body[:400]!r}") from exc
    if isinstance(shown, str):
        return np.frombuffer(base64.b64decode(shown), dtype="<f4")
    return np.array(shown, dtype=np.float32)


class _Caller(asyncio.Protocol):
    """One connection. It sends its next request when the answer to its last request is complete."""

    def __init__(self, load: _Load, requests: Iterator[bytes], *, pause_s: float, kept: array[float]) -> None:
        self._load, self._requests, self._pause_s, self._kept = load, requests, pause_s, kept
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.closed(exc)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        status, body, self._body = self._parser.get_status_code(), self._body, b""
        if status != 200 or b'"embedding"' not in body:
            self._load.fail(AnswerError(f"status {status}: {body[:400]!r}"))
        else:
            self._kept.extend((now, now - self._began))
            if not self._pause_s:  # the answers of the caller with rare requests do not count
                self._load.answered()
        if self._load.over:
            self._transport.close()
        elif self._pause_s:
            asyncio.get_running_loop().call_later(self._pause_s, self._send)
        else:
            self._send()

    def _send(self) -> None:
        if self._load.over or self._transport.is_closing():
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(next(self._requests))


class _Load:
    """What the callers of one run share."""

    def __init__(self) -> None:
        self.over = False
        self.count = 0
        self.error: BaseException | None = None
        self._open = 0
        self._ended = asyncio.Event()

    def answered(self) -> None:
        """Count an answer."""
        self.count += 1

    def fail(self, error: BaseException) -> None:
        """End the run."""
        self.error, self.over = self.error or error, True

    def closed(self, exc: Exception | None) -> None:
        """Handle the end of a connection."""
        if not self.over:
            self.fail(exc or ConnectionError("the server closed a connection"))
        self._open -= 1
        if not self._open:
            self._ended.set()

    async def run(
        self, port: int, requests: Sequence[bytes], rare: Sequence[bytes], *, clients: int, plan: Window
    ) -> Samples:
        """The answers to ``clients`` callers. One more caller sends ``rare`` requests, whose answers do not count."""
        loop = asyncio.get_running_loop()
        kept, ignored = array("d"), array("d")
        shared = itertools.cycle(requests)
        self._open = clients + bool(rare)
        callers = [lambda: _Caller(self, shared, pause_s=0.0, kept=kept)] * clients
        if rare:
            callers.append(lambda: _Caller(self, itertools.cycle(rare), pause_s=plan.rare_s, kept=ignored))
        for make in callers:
            await loop.create_connection(make, "127.0.0.1", port)
        await self._passed(plan.warm_s, plan.warm_s)
        began, before, cpu = time.perf_counter(), self.count, time.process_time()
        await self._passed(plan.seconds, LONGEST * plan.seconds, least=before + LEAST * clients)
        await self._passed(0.0, LIMIT_S, least=before + clients)
        if self.count < before + clients:
            self.fail(AnswerError(f"{clients} callers have received only {self.count - before} answers"))
        ended, cpu = time.perf_counter(), time.process_time() - cpu
        self.over = True
        await self._ended.wait()
        if self.error is not None:
            raise self.error
        pairs = list(zip(kept[::2], kept[1::2], strict=True))
        return samples_of(pairs, began, ended, busy=cpu / (ended - began))

    async def _passed(self, seconds: float, longest: float, *, least: int = 0) -> None:
        """Wait for ``seconds``, then until there are ``least`` answers, but for at most ``longest`` seconds in all."""
        began = time.perf_counter()
        while not self.over and (passed := time.perf_counter() - began) < longest:
            if passed >= seconds and self.count >= least:
                return
            await asyncio.sleep(min(0.05, max(0.001, seconds - passed)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How long one run takes."""

    seconds: float
    warm_s: float = 0.5
    rare_s: float = 0.3
    """The pause between two rare requests."""


def load(
    port: int, requests: Sequence[bytes], *, clients: int, window: Window, rare: Sequence[bytes] = ()
) -> Samples:
    """Send the requests again and again. :raises AnswerError: if an answer has no vector, or too few answers arrive."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Load().run(port, requests, rare, clients=clients, plan=window))


def vectors(port: int, requests: Sequence[bytes]) -> np.ndarray[Any, Any]:
    """The vectors of the answers: a row for each request. All requests are sent at once, so that they share batches.

    :raises AnswerError: if an answer has no vector.
    """

    async def vector(request: bytes) -> np.ndarray[Any, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = _Answer()
        writer.write(request)
        while not answer.complete:
            data = await reader.read(1 << 16)
            if not data:
                raise AnswerError("the server closed a connection")
            answer.parser.feed_data(data)
        writer.close()
        return vector_of(answer.body)

    async def every() -> list[np.ndarray[Any, Any]]:
        return await asyncio.gather(*(vector(request) for request in requests))

    return np.stack(asyncio.run(every()))


class _Answer:
    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body, self.complete = b"", False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True
