"""Starts an engine as a child of a guardian, keeps the last lines of its output, and stops it.

The engine and everything that it starts write to one pipe. The worker reads the pipe and logs each line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from daybreak_server.model_worker import guardian, process_tree
from daybreak_server.settings.tree import foreign_environment

_output = logging.getLogger("daybreak.engine")
LAST_LINES = 200
"""Enough for the tracebacks of all processes of vLLM. The first traceback shows the cause."""
_LINE_BYTES = 1000
_READ_BYTES = 1 << 16
_DRAIN_S = 2.0
"""How long to wait, after the process has ended, for the rest of its output."""


class EngineProcess:
    """A running engine. When :meth:`wait` returns, the engine and everything that it started have ended."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        *,
        name: str,
        lines: deque[str],
        on_end: Callable[[int, int], Awaitable[None]],
    ) -> None:
        self._process = process
        self._name = name
        self._lines = lines
        self._on_end = on_end
        self._reader = asyncio.create_task(self._read())

    async def wait(self) -> int:
        """Wait until the engine has ended. :returns: the exit code.

        If a signal ended the engine, the code is above 128. If a signal ended the guardian, the code is negative.
        """
        code = await self._process.wait()
        await self._on_end(self._process.pid, code)
        await asyncio.wait({self._reader}, timeout=_DRAIN_S)
        self._reader.cancel()
        return code

    def stop(self) -> None:
        """Ask the engine to end. :meth:`wait` returns once it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while data := await self._process.stdout.read(_READ_BYTES):
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                self._take(line)
            if len(rest) > _READ_BYTES:
                rest = rest[:_LINE_BYTES]
        self._take(rest)

    def _take(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode(errors="replace").rstrip()
        if text:
            self._lines.append(text)
            _output.info("%s: %s", self._name, text)


class Launcher:
    """Starts a worker's engines. If a guardian is killed, the launcher ends what is left of the guardian's engine."""

    def __init__(self) -> None:
        process_tree.become_subreaper()
        self._guardians: set[int] = set()
        self._lock = asyncio.Lock()

    async def start(
        self, command: Sequence[str], *, name: str, env: Mapping[str, str], stop_s: float, lines: deque[str]
    ) -> EngineProcess:
        """Start an engine.

        :param name: The prefix of each line of its output in the log.
        :param env: Variables that the engine gets besides those of this process. It gets no settings of Daybreak.
        :param stop_s: How long the engine may take to stop.
        :param lines: Gets the last lines of its output.
        :raises OSError: if no process can be started.
        """
        async with self._lock:
            process = await asyncio.create_subprocess_exec(
                *guardian.command_of(command, stop_s=stop_s),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=foreign_environment(env),
                start_new_session=True,
            )
            self._guardians.add(process.pid)
        return EngineProcess(process, name=name, lines=lines, on_end=self._on_end)

    async def _on_end(self, pid: int, code: int) -> None:
        """Forget a guardian. If it was killed, end what is left of its engine, whose parent is now this process."""
        async with self._lock:
            self._guardians.discard(pid)
            if code < 0:
                guardians = frozenset(self._guardians)
                await asyncio.to_thread(process_tree.kill_below, os.getpid(), without=guardians)


def new_lines() -> deque[str]:
    """A place for the last lines of an engine's output."""
    return deque(maxlen=LAST_LINES)


def exit_reason(code: int) -> str:
    """``exited with code 1`` or ``was ended by SIGKILL``."""
    number = -code if code < 0 else code - 128
    if code < 0 or code > 128:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(number).name}"
    return f"exited with code {code}"
