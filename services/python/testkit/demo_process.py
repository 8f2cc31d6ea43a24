"""A demo of ``daybreakd`` as a process, for the tests of the demos."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from daybreak_server.local import reaper
from daybreak_server.local.instance import instance_tag
from testkit.waiting import wait_until

# The background commands of a script ignore SIGINT, and so do the processes that they start. Tests and demos may be
# among these processes, so the program restores the default.
_PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from daybreak_server.cli.main import run
run()
"""


class DemoProcess:
    """Runs ``daybreakd DEMO ARGUMENTS…`` in ``folder``. The command sees only the ``DAYBREAK_…`` variables in
    ``variables``."""

    def __init__(self, folder: Path, demo: str, *arguments: str, **variables: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DAYBREAK_")}
        self._tag = instance_tag(folder / ".daybreak" / demo)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, demo, *arguments],
            cwd=folder,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def remaining(self) -> list[int]:
        """The processes that the demo has started and that still run."""
        return reaper.tagged(self._tag)

    def interrupt(self) -> None:
        """Wait until the demo has started its first process, and press Ctrl-C."""
        wait_until(self.remaining, 180, "the first process of the demo")
        self._process.send_signal(signal.SIGINT)

    def end(self, timeout_s: float) -> tuple[int, str]:
        """Wait for the end. :returns: the exit code and the output."""
        output, _ = self._process.communicate(timeout=timeout_s)
        return self._process.returncode, output

    def close(self) -> None:
        """Kill the demo if it still runs, and wait until all of its processes have ended."""
        self._process.kill()
        wait_until(lambda: not self.remaining(), 60, "all processes of the demo to end")
