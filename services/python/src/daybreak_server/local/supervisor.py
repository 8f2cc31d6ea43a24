"""Runs the processes of an instance: starts each one, waits until it answers, and restarts it when it dies.

One thread polls all processes every tenth of a second, and starts a process once those in its ``after`` are ready. It
restarts a process that exits, or that does not answer within ``ready_s`` of its start. Once a process has answered, the
thread does not ask it again before its next start. The delay before a restart grows with failures in a row, and is
short again after a process has answered and run for a minute.

Until ``mark_started``, a process that fails for the ``tries``-th time before it is ready ends the whole start:
``wait_ready`` raises :class:`ProcessFailedError`. Afterwards the supervisor never gives up.

Each process runs in a session of its own, so that Ctrl-C in the terminal reaches only the supervisor. The environment
of each process carries a tag, by which :mod:`~daybreak_server.local.reaper` finds the process and everything that it
started.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daybreak_server.local import reaper

_log = logging.getLogger(__name__)
_POLL_S = 0.1
_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_STABLE_S = 60.0
"""After running this long, a process that has answered restarts with the shortest delay."""
_LAST_LINES = 12

Say = Callable[[str], None]


def _nothing() -> None:
    return None


class ProcessFailedError(Exception):
    """A process did not start; the message says why and shows the end of its log."""


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """How to run a process. ``env`` carries the tag by which the process and its descendants are found."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    """Whether the process answers. One thread calls this every tenth of a second while the process starts."""
    ready_s: float = 60.0
    stop_s: float = 20.0
    after: tuple[str, ...] = ()
    """Names of processes that must be ready before this one starts."""
    before: Callable[[], None] = _nothing
    """Called before each start."""
    tries: int = 1
    """How many times the first start is tried. Set more than 1 if a start can fail just because the machine is busy."""


class ManagedProcess:
    """A process with its spec and its history. The supervisor's thread decides when to start and end it."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.ready = False
        self.failures = 0
        self.restart_at = 0.0
        self.restarts = 0

    @property
    def tag(self) -> str:
        """The tag that the process and its descendants carry."""
        return self.spec.env[reaper.INSTANCE_TAG]

    def start(self) -> None:
        """Start the process, with its output appended to its log."""
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        self.spec.before()
        with self.spec.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.spec.command),
                env=dict(self.spec.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started = time.monotonic()
        self.ready = False

    def log_tail(self) -> str:
        """The last lines of the log."""
        try:
            lines = self.spec.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        except OSError:
            lines = []
        return "\n".join(f"    {line}" for line in lines) or "    (its log is empty)"

    def end(self, *, patience_s: float) -> None:
        """Stop the process and everything that it started."""
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                _log.warning("%s did not exit within %g s of SIGTERM: killing it", self.spec.name, patience_s)
                process.kill()
                process.wait()
        reaper.end_all(self.tag, term_s=3.0)


class ProcessSupervisor:
    """Starts processes in the order of their ``after``, and keeps them running until ``stop``."""

    def __init__(self, specs: Sequence[ProcessSpec], *, say: Say) -> None:
        self._processes = {spec.name: ManagedProcess(spec) for spec in specs}
        self._say = say
        self._stopping = threading.Event()
        self._starting = True
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._failed: ProcessFailedError | None = None

    def start(self) -> None:
        """Begin to start the processes, and return at once."""
        self._thread.start()

    def wait_ready(self, *, names: Sequence[str] | None = None, stopping: Callable[[], bool]) -> bool:
        """Wait until processes are ready (all, or those in ``names``). :returns: ``False`` once ``stopping()`` is true.

        :raises ProcessFailedError: when a process does not start.
        """
        awaited = [self._processes[name] for name in (names if names is not None else self._processes)]
        while not all(managed.ready for managed in awaited):
            if self._failed is not None:
                raise self._failed
            if stopping():
                return False
            time.sleep(_POLL_S / 2)
        return True

    def mark_started(self) -> None:
        """Record that the first start has succeeded: from now on every failed process is restarted."""
        self._starting = False

    def pids(self) -> dict[str, int]:
        """Name → process id of the processes that run."""
        running = ((name, managed.process) for name, managed in self._processes.items())
        return {name: process.pid for name, process in running if process is not None}

    def restarts(self) -> dict[str, int]:
        """Name → number of restarts."""
        return {name: managed.restarts for name, managed in self._processes.items()}

    def is_ready(self, name: str) -> bool:
        """Whether a process has answered since its last start. ``False`` again once the supervisor sees it exit."""
        return self._processes[name].ready

    def stop(self) -> None:
        """Stop all processes, in reverse order."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        for managed in reversed(self._processes.values()):
            if managed.process is not None:
                managed.end(patience_s=managed.spec.stop_s)

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_S):
            for managed in self._processes.values():
                if self._stopping.is_set() or self._failed is not None:
                    break
                self._poll(managed)

    def _poll(self, managed: ManagedProcess) -> None:
        now, spec = time.monotonic(), managed.spec
        if managed.process is None:
            if now >= managed.restart_at and all(self._processes[name].ready for name in spec.after):
                managed.start()
        elif managed.process.poll() is not None:
            self._on_failure(managed, f"exited with {_exit_status(managed.process.returncode)}")
        elif not managed.ready:
            start_s = now - managed.started
            if spec.ready():
                managed.ready = True
                self._say(f"{spec.name} is {'back' if managed.restarts else 'ready'} ({start_s:.1f} s)")
            elif start_s > spec.ready_s:
                self._on_failure(managed, f"does not answer after {spec.ready_s:g} s")

    def _on_failure(self, managed: ManagedProcess, why: str) -> None:
        spec, was_ready = managed.spec, managed.ready
        managed.ready = False
        if self._starting and not was_ready and managed.failures + 1 >= spec.tries:
            managed.end(patience_s=5)
            managed.process = None
            self._failed = ProcessFailedError(
                f"{spec.name} {why}; the end of {spec.log}:\n{managed.log_tail()}"
            )
            return
        if was_ready and time.monotonic() - managed.started > _STABLE_S:
            managed.failures = 0
        delay_s = _BACKOFF_S[min(managed.failures, len(_BACKOFF_S) - 1)]
        managed.failures += 1
        managed.restarts += 1
        self._say(f"{spec.name} {why}: restarting it in {delay_s:g} s (see {spec.log})")
        managed.end(patience_s=5)
        managed.process = None
        managed.restart_at = time.monotonic() + delay_s


def _exit_status(code: int) -> str:
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"code {code}"
