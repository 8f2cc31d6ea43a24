"""``python -m verification.benchmarks.streams.client PORT FIRST``: many SSE clients in one process.

The process has one thread, one epoll and no HTTP library. So it needs little CPU: if an event arrives late, the
gateway has sent it late. Streams are numbered from FIRST, and the number of a stream decides its source address. The
first line of the standard input is a JSON list with the task of each stream. The process prints ``open`` when every
stream is open. The second line of the input arrives after the last write in Redis, and is the number of the last step.
When every stream has received that step, or after a minute, the process prints its figures as JSON.
"""

from __future__ import annotations

import json
import re
import resource
import select
import socket
import sys
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

OPENING = 128
"""How many streams to open at once."""
DRAIN_S = 60.0
"""The longest time for which the process still reads after it knows the last step. Later events do not count."""
SOURCES = 16
"""How many source addresses to connect from. Each address has about 28,000 ports."""
_EVENT = re.compile(rb'id: (\d+)-\d+\n[^\n]*\n[^\n]*"step":(\d+)')
_ENDED = b"0\r\n\r\n"


@dataclass(slots=True)
class Stream:
    """One connection."""

    sock: socket.socket
    task: str
    answered: bool = False
    step: int = -1
    partial: bytes = b""


@dataclass(slots=True)
class StreamStats:
    """What all streams of this process received. ``lags_ms``: for each event after all streams were open, the time from
    the write in Redis to the arrival here. ``closed``: streams that ended before this process closed them."""

    lags_ms: array[float] = field(default_factory=lambda: array("d"))
    events: int = 0
    gaps: int = 0
    repeats: int = 0
    closed: int = 0
    lowest_step: int = 0
    highest_step: int = 0


class Clients:
    """All streams of one process."""

    def __init__(self, port: int, tasks: list[str], *, first: int) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._unopened = list(reversed(list(enumerate(tasks, first))))
        self._opening = 0
        self.stats = StreamStats()

    def open_all(self) -> None:
        """Open every stream, a limited number at a time."""
        while self._unopened or self._opening:
            while self._unopened and self._opening < OPENING:
                self._open(*self._unopened.pop())
            self.poll(1.0)

    def _open(self, number: int, task: str) -> None:
        sock = socket.socket()
        sock.bind((f"127.0.0.{2 + number % SOURCES}", 0))
        sock.connect(("127.0.0.1", self._port))
        sock.send(
            f"GET /v1/tasks/{task}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        sock.setblocking(False)
        self._streams[sock.fileno()] = Stream(sock, task)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._opening += 1

    def poll(self, timeout_s: float) -> None:
        """Wait for data on any stream, and read it."""
        for fd, _ in self._epoll.poll(timeout_s):
            stream = self._streams.get(fd)
            if stream is not None:
                self._read(fd, stream)

    def _read(self, fd: int, stream: Stream) -> None:
        try:
            data = stream.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or data.endswith(_ENDED):
            self._close(fd, stream)
            return
        now_ms = time.time() * 1000
        if not stream.answered:
            if not data.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{stream.task}: {data[:300]!r}")
            stream.answered = True
            self._opening -= 1
        data = stream.partial + data
        end = data.rfind(b"\n\n") + 1
        stream.partial = data[end:]
        self._record(stream, _EVENT.findall(data, 0, end), now_ms)

    def _record(self, stream: Stream, events: Iterable[tuple[bytes, bytes]], now_ms: float) -> None:
        stats = self.stats
        for written_ms, number in events:
            step = int(number)
            if stream.step >= 0 and step != stream.step + 1:
                stats.gaps += step > stream.step + 1
                stats.repeats += step <= stream.step
            stream.step = step
            stats.events += 1
            stats.lags_ms.append(now_ms - int(written_ms))

    def _close(self, fd: int, stream: Stream) -> None:
        self.stats.closed += 1
        self._opening -= not stream.answered
        self._epoll.unregister(fd)
        stream.sock.close()
        del self._streams[fd]

    def discard_lags(self) -> None:
        """Discard the lags from before the measurement."""
        del self.stats.lags_ms[:]

    def read_to_last_step(self, stdin: int) -> None:
        """Read until the input names the last step. Then read until every stream has this step, or a minute passes."""
        self._epoll.register(stdin, select.EPOLLIN | select.EPOLLHUP)
        while not self._input_ready(stdin):
            pass
        self._epoll.unregister(stdin)
        last_step = int(sys.stdin.buffer.readline() or 0)
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and any(
            stream.step < last_step for stream in self._streams.values()
        ):
            self.poll(0.2)

    def _input_ready(self, stdin: int) -> bool:
        ready = False
        for fd, _ in self._epoll.poll(1.0):
            stream = self._streams.get(fd)
            if stream is not None:
                self._read(fd, stream)
            ready = ready or fd == stdin
        return ready

    def close(self) -> None:
        """Close every stream. Record the last steps of the slowest and of the fastest stream."""
        steps = [stream.step for stream in self._streams.values()]
        self.stats.lowest_step, self.stats.highest_step = min(steps, default=-1), max(steps, default=-1)
        for stream in self._streams.values():
            stream.sock.close()


def main(arguments: list[str]) -> None:
    """Run the clients. The docstring of this module describes the arguments, the input and the output."""
    port, first = int(arguments[0]), int(arguments[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 100_000)), hard))
    tasks = json.loads(sys.stdin.buffer.readline())
    clients = Clients(port, tasks, first=first)
    clients.open_all()
    clients.discard_lags()
    print("open", flush=True)
    cpu, began = time.process_time(), time.monotonic()
    clients.read_to_last_step(sys.stdin.fileno())
    busy = (time.process_time() - cpu) / (time.monotonic() - began)
    clients.close()
    stats = clients.stats
    lags = sorted(stats.lags_ms)
    print(
        json.dumps(
            {
                "events": stats.events,
                "gaps": stats.gaps,
                "repeats": stats.repeats,
                "closed": stats.closed,
                "lowest_step": stats.lowest_step,
                "highest_step": stats.highest_step,
                "busy": busy,
                "lags_ms": [round(lag, 2) for lag in lags],
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
