"""Runs ``daybreakd up`` as a child process of a demo, with a data folder of its own, and stops it at the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daybreak_server.local.console import say
from daybreak_server.settings.tree import Settings, child_environment

_START_S = 600.0
_STOP_S = 90.0
_UP = """
import sys, pathlib
from daybreak_server.settings.child_settings import read_settings
from daybreak_server.local.up import run_up
sys.exit(run_up(read_settings(pathlib.Path(sys.argv[1]))))
"""


class DemoError(Exception):
    """The demo cannot continue; the message says why."""


class Up:
    """`daybreakd up` as a child process in a new session, so that Ctrl-C reaches only the demo."""

    def __init__(self, config: Path, state: Path) -> None:
        self._state = state
        self._began = time.monotonic()
        self._quiet = threading.Event()
        self._lines: list[str] = []
        self.start_s = 0.0
        """Seconds until the gateway accepted tasks."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _UP, str(config)],
            env=child_environment({}),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line.rstrip())
            if not self._quiet.is_set():
                say(f"  {line.rstrip()}")

    def wait_accepting(self) -> str:
        """Wait until the gateway accepts tasks. :returns: its URL.

        From then on, until :meth:`stop`, the output of ``up`` is not shown, because the demo's own output says more.

        :raises DemoError: if ``up`` has exited, or if the gateway does not accept tasks in time.
        """
        end = self._began + _START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise self.failure()
            if self._state.exists():
                self._quiet.set()
                self.start_s = time.monotonic() - self._began
                return str(json.loads(self._state.read_text(encoding="utf-8"))["url"])
            time.sleep(0.05)
        raise DemoError(
            f"Daybreak did not start within {_START_S:g} s; see the logs in {self._state.parent / 'logs'}"
        )

    def failure(self) -> DemoError:
        """The error for an ``up`` that has exited by itself. Its message is what ``up`` printed about the reason."""
        self._reader.join(5)
        why = [line for line in self._lines if line.startswith("cannot start")] or self._lines[-1:]
        return DemoError(" ".join(why) or f"`daybreakd up` exited with code {self.process.returncode}")

    def stop(self) -> None:
        """Let ``up`` stop its processes. If this takes too long, kill ``up``. Its reaper then ends the rest."""
        if self.process.poll() is None:
            # A second Ctrl-C must not interrupt the shutdown halfway.
            previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._quiet.clear()
            try:
                self.process.terminate()
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            finally:
                signal.signal(signal.SIGINT, previous)
        self._reader.join(5)


@contextmanager
def running(settings: Settings) -> Iterator[Up]:
    """Run ``up`` with these settings. :raises DemoError: if their data folder cannot be created."""
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DemoError(
            f"cannot create the data folder {folder}: {exc.strerror}; set DAYBREAK_DATA_DIR to a writable folder"
        ) from exc
    config = folder / "demo.json"
    config.touch(mode=0o600)
    config.write_text(settings.model_dump_json(), encoding="utf-8")
    state = folder / "up.json"
    state.unlink(missing_ok=True)
    up = Up(config, state)
    try:
        yield up
    finally:
        up.stop()
