"""Groups of several ranks for tests: real processes, gloo on 127.0.0.1, no Ray.

A fork server with torch preloaded starts a rank in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from daybreak_server.settings.tree import Settings
from testkit import forkserver
from testkit.rendezvous import FolderRendezvousStore
from testkit.waiting import wait_until

EXIT_BROKEN = 70
PRELOAD = ("torch.distributed", "daybreak_server.wiring", "testkit.ranks")


def _rank(settings: str, pool: str, rank: int, folder: str, pipe: Connection) -> None:
    """The process of a rank: it serves until the test stops it, and exits if its group breaks."""
    from daybreak_server import wiring

    log = os.open(f"{folder}/rank-{rank}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True)
    served_rank = wiring.build_rank(
        Settings.model_validate_json(settings),
        pool,
        rank=rank,
        on_broken=lambda why: os._exit(EXIT_BROKEN),
        rendezvous=FolderRendezvousStore(Path(folder)),
    )
    served_rank.start()
    while True:
        try:
            command, timeout_s = pipe.recv()
        except EOFError:  # the test process has ended
            os._exit(1)
        if command == "stop":
            pipe.send(served_rank.stop(timeout_s=timeout_s))
            os._exit(0)
        if command == "ask_to_leave":
            served_rank.ask_to_leave()


class Ranks:
    """One group of rank processes."""

    def __init__(self, settings: Settings, pool: str, folder: Path, *, size: int = 2) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._pipes: list[Any] = []
        self.processes: list[Any] = []
        context = forkserver.context(*PRELOAD)
        for rank in range(size):
            parent_end, child_end = context.Pipe()
            process = context.Process(
                target=_rank,
                args=(settings.model_dump_json(), pool, rank, str(folder), child_end),
                daemon=True,
            )
            process.start()
            child_end.close()
            self._pipes.append(parent_end)
            self.processes.append(process)

    def kill(self, rank: int) -> None:
        os.kill(self.processes[rank].pid, signal.SIGKILL)

    def freeze(self, rank: int) -> None:
        os.kill(self.processes[rank].pid, signal.SIGSTOP)

    def thaw(self, rank: int) -> None:
        os.kill(self.processes[rank].pid, signal.SIGCONT)

    def ask_to_leave(self, rank: int) -> None:
        self._pipes[rank].send(("ask_to_leave", 0))

    def all_gone(self, timeout: float = 60.0) -> list[int | None]:
        """Wait until every rank has ended by itself, and return the exit codes."""
        wait_until(
            lambda: not any(process.is_alive() for process in self.processes), timeout, "the end of all ranks"
        )
        return [process.exitcode for process in self.processes]

    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stop like Serve does: ask each rank to leave, then kill those that remain."""
        for pipe, process in zip(self._pipes, self.processes, strict=True):
            if process.is_alive():
                with contextlib.suppress(OSError):
                    self.thaw(self.processes.index(process))
                    pipe.send(("stop", timeout_s))
        end = time.monotonic() + timeout_s + 10
        for process in self.processes:
            process.join(max(0.1, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()
