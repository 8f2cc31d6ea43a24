"""The guardian of one engine: a small process between the worker and the engine.

The guardian starts the engine, leaves no process of the engine behind, and ends in one of three ways:

* The engine ends, or cannot be started. The guardian kills the processes that the engine has left (those of vLLM may
  hold a GPU after their parent has died), and exits with the code of the engine.
* The worker sends the guardian SIGTERM. The guardian sends the engine SIGTERM, waits up to ``stop_s``, and kills
  what is left.
* The guardian's standard input ends, because the worker has died. The guardian does the same as after SIGTERM, but
  waits at most ``ORPHANED_S``.

If the guardian itself is killed, Linux kills the engine. The worker becomes the parent of the processes that the engine
had started, and kills them (:mod:`~daybreak_server.model_worker.engine_process`).

The guardian runs with ``python -I -S``, which starts fast. So it may import only the standard library and
``process_tree``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from daybreak_server.model_worker import process_tree

ORPHANED_S = 5.0
"""How long an engine may take to stop after its worker has died."""
_NOT_STARTED = 127
_STDIN = 0
_PROGRAM = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from daybreak_server.model_worker import guardian; guardian.main()"
)


def command_of(engine: Sequence[str], *, stop_s: float) -> list[str]:
    """The command that starts a guardian for ``engine``."""
    folder = str(Path(__file__).parents[2])
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, folder, f"{stop_s:g}", *engine]


class Guardian:
    """Runs one engine to its end."""

    def __init__(self, command: list[str], *, stop_s: float) -> None:
        self._command = command
        self._stop_s = stop_s
        self._code: int | None = None
        self._pid = 0

    def run(self) -> int:
        """Run the engine. :returns: its exit code; 128 plus the number of the signal, if a signal has ended it."""
        process_tree.become_subreaper()
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        stopping: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self._pid = self._start()
        self._reap()
        while self._code is None and not stopping:
            readable, _, _ = select.select([_STDIN, wake], [], [])
            if wake in readable:
                os.read(wake, 4096)
                self._reap()
            elif not os.read(_STDIN, 4096):
                self._stop_s = min(self._stop_s, ORPHANED_S)
                break
        self._stop()
        return 128 - self._code if self._code is not None and self._code < 0 else self._code or 0

    def _start(self) -> int:
        guardian = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            process_tree.die_with_parent(guardian)
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, _STDIN)
            os.execvp(self._command[0], self._command)  # noqa: S606 - a shell is not wanted
        except OSError as exc:
            sys.stderr.write(f"{self._command[0]} cannot be started: {exc.strerror}\n")
            sys.stderr.flush()
        finally:
            os._exit(_NOT_STARTED)

    def _stop(self) -> None:
        """Stop the engine if it runs, and then everything that is left of it."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)
            end = time.monotonic() + self._stop_s
            while self._code is None and time.monotonic() < end:
                time.sleep(0.02)
                self._reap()
        while not process_tree.kill_below(os.getpid()):
            sys.stderr.write("processes of the engine cannot be killed; they may wait for a broken device\n")
            sys.stderr.flush()
        self._reap()

    def _reap(self) -> None:
        self._code = process_tree.reap().get(self._pid, self._code)


def main() -> None:
    """Run the engine. The arguments are ``STOP_S COMMAND…``, which :func:`command_of` writes."""
    sys.exit(Guardian(sys.argv[2:], stop_s=float(sys.argv[1])).run())
