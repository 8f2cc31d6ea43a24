"""Runs the parts of an instance: starts each, waits until it answers, and starts it again when it dies."""

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
_LOOK_S = 0.1
_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 60.0
"""A part that ran so long starts again without a pause."""
_LAST_LINES = 12

Say = Callable[[str], None]


def _nothing() -> None:
    return None


class ProcessFailedError(Exception):
    """A part did not start; the message says why, with the end of its log."""


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """One process. ``env`` carries its mark, by which all that it starts is found."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    """Whether it answers; asked by one thread, each tenth of a second while it starts."""
    ready_s: float = 60.0
    stop_s: float = 20.0
    after: tuple[str, ...] = ()
    """Parts that must be ready before this one starts."""
    before: Callable[[], None] = _nothing
    """Called before each start."""
    tries: int = 1
    """How often its first start may fail: more where a busy machine alone can make it fail."""


class ManagedProcess:
    """A part with its process."""

    def __init__(self, part: ProcessSpec) -> None:
        self.part = part
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.took_s: float | None = None
        self.ready = False
        self.failures = 0
        self.again_at = 0.0
        self.restarts = 0

    @property
    def mark(self) -> str:
        return self.part.env[reaper.MARK]

    def start(self) -> None:
        self.part.log.parent.mkdir(parents=True, exist_ok=True)
        self.part.before()
        with self.part.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.part.command),
                env=dict(self.part.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
            )
        self.started = time.monotonic()
        self.ready = False

    def why(self) -> str:
        """The end of its log."""
        try:
            lines = self.part.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        except OSError:
            lines = []
        return "\n".join(f"    {line}" for line in lines) or "    (its log is empty)"

    def end(self, *, patience_s: float) -> None:
        """Stop it and all that it has started."""
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                _log.warning("%s does not end in %g s: killing it", self.part.name, patience_s)
                process.kill()
                process.wait()
        reaper.end_all(self.mark, term_s=3.0)


class Supervisor:
    """Starts parts at once, in the order of ``after``; then a thread keeps them running until ``stop``."""

    def __init__(self, parts: Sequence[ProcessSpec], *, say: Say) -> None:
        self._runs = {part.name: ManagedProcess(part) for part in parts}
        self._say = say
        self._stopping = threading.Event()
        self._first = True
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._failed: ProcessFailedError | None = None

    def start(self) -> None:
        """Begin to start the parts; returns at once."""
        self._thread.start()

    def wait_ready(self, *, names: Sequence[str] | None = None, going: Callable[[], bool]) -> bool:
        """Wait for parts to be ready; ``False`` when ``going`` came true.

        :raises ProcessFailedError: when one does not start.
        """
        wanted = [self._runs[name] for name in (names if names is not None else self._runs)]
        while not all(run.ready for run in wanted):
            if self._failed is not None:
                raise self._failed
            if going():
                return False
            time.sleep(_LOOK_S / 2)
        return True

    def settled(self) -> None:
        """The first start has succeeded: from now on nothing is given up, everything is started again."""
        self._first = False

    def pids(self) -> dict[str, int]:
        """The processes by part."""
        return {name: run.process.pid for name, run in self._runs.items() if run.process is not None}

    def restarts(self) -> dict[str, int]:
        """How often each part has been started again."""
        return {name: run.restarts for name, run in self._runs.items()}

    def is_ready(self, name: str) -> bool:
        """Whether a part answers, as far as is known."""
        return self._runs[name].ready

    def stop(self) -> None:
        """Stop all parts, the last one first."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        for run in reversed(self._runs.values()):
            if run.process is not None:
                run.end(patience_s=run.part.stop_s)

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            for run in self._runs.values():
                if self._stopping.is_set() or self._failed is not None:
                    break
                self._look(run)

    def _look(self, run: ManagedProcess) -> None:
        now = time.monotonic()
        if run.process is None:
            if now >= run.again_at and all(self._runs[name].ready for name in run.part.after):
                run.start()
        elif run.process.poll() is not None:
            self._died(run, f"ended with {_exit(run.process.returncode)}")
        elif not run.ready:
            if run.part.ready():
                run.ready, run.took_s = True, now - run.started
                self._say(f"{run.part.name} is {'back' if run.restarts else 'ready'} ({run.took_s:.1f} s)")
            elif now - run.started > run.part.ready_s:
                self._died(run, f"does not answer after {run.part.ready_s:g} s")

    def _died(self, run: ManagedProcess, why: str) -> None:
        name, was_ready = run.part.name, run.ready
        run.ready = False
        if self._first and not was_ready and run.failures + 1 >= run.part.tries:
            run.end(patience_s=5)
            run.process = None
            self._failed = ProcessFailedError(f"{name} {why}; the end of {run.part.log}:\n{run.why()}")
            return
        if time.monotonic() - run.started > _STEADY_S:
            run.failures = 0
        pause = _BACKOFF_S[min(run.failures, len(_BACKOFF_S) - 1)]
        run.failures += 1
        run.restarts += 1
        self._say(f"{name} {why}: starting it again in {pause:g} s (see {run.part.log})")
        run.end(patience_s=5)
        run.process = None
        run.again_at = time.monotonic() + pause


def _exit(code: int) -> str:
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"code {code}"
