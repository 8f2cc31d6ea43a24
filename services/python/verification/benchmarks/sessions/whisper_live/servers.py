"""Starts WhisperLive with its own Python interpreter, and starts Daybreak."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daybreak_server.local.free_ports import free_port
from daybreak_server.settings.tree import child_environment
from testkit.system import System, kill_tree
from testkit.waiting import wait_until
from verification.benchmarks.competitors.environments import versions_of
from verification.benchmarks.http.parts import raise_priority

APP = Path(__file__).with_name("app.py")
POOL = "speech"
START_S = 180.0


@contextmanager
def whisper_live(python: Path, folder: Path, *, batched: bool) -> Iterator[int]:
    """Run WhisperLive on the yielded port until the block ends.

    :raises RuntimeError: if WhisperLive ends before it listens. The message has the end of its log.
    """
    folder.mkdir()
    port, log = free_port(), folder / "log"
    command = [str(python), str(APP), str(port), str(folder), *(["batched"] if batched else [])]
    environment = child_environment({"HOME": str(folder), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"})
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        raise_priority(process.pid)
        wait_until(lambda: process.poll() is not None or _listens(port), START_S, "WhisperLive to listen")
        if process.poll() is not None:
            raise RuntimeError(f"WhisperLive has ended:\n{log.read_text(errors='replace')[-3000:]}")
        yield port
    finally:
        kill_tree(process)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def version(python: Path) -> str:
    """The version of WhisperLive. :raises subprocess.CalledProcessError: if it is not installed."""
    return versions_of(python.parent, ["whisper-live"])["whisper-live"]


@contextmanager
def daybreak(folder: Path) -> Iterator[str]:
    """Run ``daybreakd up`` with one group of the tiny speech model until the block ends. Yields the API's URL."""
    system = System("up", folder / "d", HOME=str(folder), DAYBREAK_POOLS=f'{{"{POOL}": {{}}}}')
    try:
        yield str(system.ready(START_S)["url"])
    finally:
        system.end()
