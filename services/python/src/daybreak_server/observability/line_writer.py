"""Writes lines to standard error without ever waiting for its reader.

A gateway writes its log on its event loop. If standard error is a pipe that nobody reads, for example because the disk
of the node stalls, a plain write would stop the gateway after 64 KiB. So a line is written at once only if the write
needs no waiting. Otherwise, the line goes into a buffer, and a thread writes the buffer as fast as the reader reads it.
While the buffer has lines, later lines are added to it, so the order stays. If the buffer is full, lines are lost, and
a later line says how many.

- A line that is not urgent may wait for others (:meth:`LineWriter.later`). A gateway writes such a line for each
  submit: fifty lines that are made and written together cost a third of what they cost one by one. While such lines
  wait, only their ``Facts`` (a time and texts) are kept. Before an urgent line is written, the lines that wait are
  written, so the order stays.
- A write must not block. The flag ``O_NONBLOCK`` belongs to the open pipe, which other processes may share. So a pipe
  or a terminal is opened a second time, through ``/proc``. For sockets, and where that is impossible, the writer calls
  ``poll`` before each write. A write to a file may wait for the disk.
- When a process ends, it waits up to :data:`EXIT_S` for its buffer to be read.
- After a fork, the child empties its copy of the buffer, because the parent writes these lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import stat
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

BUFFER_BYTES = 4 * 1024 * 1024
"""The most bytes that may wait for the reader: about 20,000 lines."""
EXIT_S = 1.0
LATER_S = 0.05
"""The longest time that a line waits for others."""
LATER_MAX = 256
_PART = select.PIPE_BUF
"""If a pipe accepts a write at all, it accepts this many bytes as a whole."""
_FILE_PART = 64 * 1024
"""A file takes any number of bytes as a whole. The limit bounds the time of a write."""
_POLL_S = 0.5
_now = time.time
Facts = tuple[float, tuple[str, ...]]
"""What a line is made from: the time of the event, in seconds since 1970, and texts."""
_AT_ONCE = 64
"""How many parts of the buffer the thread writes before it releases the lock, for which other threads may wait."""


class LineWriter:
    """Writes lines to the file descriptor ``fd``. Any thread may call it, also inside a signal handler.

    :param lost: Makes the line that says how many lines were lost.
    :param make: Makes lines from the facts of :meth:`later`, each with its newline. Must not raise.
    """

    def __init__(
        self,
        fd: int,
        *,
        lost: Callable[[int], bytes],
        make: Callable[[Sequence[Facts]], bytes],
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self._fd, self._may_block = _open(fd)
        self._part = _FILE_PART if _is_file(self._fd) else _PART
        if self._fd != fd:
            # At the exit of the process, the descriptor stays open, because the buffer must still be written.
            weakref.finalize(self, os.close, self._fd).atexit = False
        self._lost = lost
        self._make = make
        self._max = buffer_bytes
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._later: deque[Facts] = deque()
        self._buffer: deque[bytes] = deque()
        self._waiting = self._dropped = 0
        self._thread: threading.Thread | None = None

    def __call__(self, line: bytes) -> None:
        """Write a line (given without its newline) at once, or buffer it. If the buffer is full, drop the line.

        Never raises, and never waits for the reader.
        """
        with self._lock:
            if self._later:
                self.write_later()
            self._put(line + b"\n")

    def later(self, *facts: str) -> None:
        """Write the line that ``make`` makes of the facts, within ``LATER_S`` and together with others.

        An urgent line never overtakes it. Without an event loop, the line is written at once.
        """
        later = self._later
        later.append((_now(), facts))
        waiting = len(later)
        if waiting == 1:
            try:
                asyncio.get_running_loop().call_later(LATER_S, self.write_later)
            except RuntimeError:
                self.write_later()
        elif waiting >= LATER_MAX:
            self.write_later()

    def write_later(self) -> None:
        """Write the lines that wait for others. Never waits for the reader."""
        with self._lock:
            facts = []
            while self._later:
                # Facts are removed one by one, so that a signal handler that logs during this loop repeats no line.
                facts.append(self._later.popleft())
            data = self._make(facts)
            if len(data) <= self._part:
                self._put(data, len(facts))
                return
            lines: list[bytes] = []
            size = 0
            for line in data.splitlines(keepends=True):
                if size + len(line) > self._part:
                    self._put(b"".join(lines), len(lines))
                    lines, size = [], 0
                lines.append(line)
                size += len(line)
            self._put(b"".join(lines), len(lines))

    def _put(self, data: bytes, lines: int = 1) -> None:
        """Write what can be written without waiting, and keep the rest in the buffer. Drop the lines if it is full.

        The caller holds the lock.
        """
        if not data:
            return
        if not self._buffer and (rest := self._write(data)) == b"":
            return
        if not self._buffer:
            data = rest
        elif self._dropped or self._waiting + len(data) > self._max:
            self._dropped += lines
            return
        self._buffer.append(data)
        self._waiting += len(data)
        if self._thread is None:
            self._start()

    def flush(self, timeout_s: float = EXIT_S) -> None:
        """Wait until the buffer is written, up to ``timeout_s``."""
        self.write_later()
        until = time.monotonic() + timeout_s
        while self._buffer and (left := until - time.monotonic()) > 0:
            self._can_write(left)
            self._drain()

    def _write(self, data: bytes) -> bytes:
        """Write as much as is possible without waiting. :returns: the rest."""
        try:
            while data:
                if self._may_block and not self._can_write(0):
                    return data
                data = data[os.write(self._fd, data[: self._part]) :]
        except BlockingIOError:
            return data
        except OSError:  # standard error is closed, or its reader is gone, so the lines are lost
            return b""
        return data

    def _drain(self) -> None:
        """Write some lines of the buffer, as far as the reader has made room for them."""
        with self._lock:
            for _ in range(min(_AT_ONCE, len(self._buffer))):
                line = self._buffer[0]
                rest = self._write(line)
                self._waiting -= len(line) - len(rest)
                if rest:
                    self._buffer[0] = rest
                    return
                self._buffer.popleft()
                if not self._buffer and self._dropped:
                    self._buffer.append(self._lost(self._dropped) + b"\n")
                    self._waiting, self._dropped = len(self._buffer[0]), 0

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        with contextlib.suppress(RuntimeError):  # the interpreter is exiting, so `flush` writes the buffer
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            self._can_write(_POLL_S)
            with self._lock:
                self._drain()
                if not self._buffer:
                    self._thread = None
                    return

    def _can_write(self, timeout_s: float) -> bool:
        poll = select.poll()  # a new object, because two threads must not use the same one at the same time
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(timeout_s * 1000))


class LineHandler(logging.Handler):
    """Logs records as lines of a writer."""

    def __init__(self, write: LineWriter) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line."""
        try:
            self._write(self.format(record).encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait a moment for the reader. ``logging`` calls this when the process ends."""
        self._write.flush()


_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()


def _after_fork() -> None:
    for writer in list(_writers):
        writer._begin()


os.register_at_fork(after_in_child=_after_fork)


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def _open(fd: int) -> tuple[int, bool]:
    """A descriptor to write to, and whether a write may block."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return fd, False
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{fd}", flags), False
    except OSError:
        pass
    return fd, True
