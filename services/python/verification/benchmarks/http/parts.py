"""Runs the processes of a benchmark, each on its own cores, and ends them by their ids."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from daybreak_server.local.embedded_valkey import server_program
from daybreak_server.local.free_ports import free_port

START_S = 60.0
NICE = -15
"""The priority that :func:`raise_priority` sets, so that other work does not take the cores of what is measured."""
HOME = Path(__file__).parents[3]
"""The working directory in which `python -m verification.benchmarks…` works."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of the processes: one for the server alone, the others for the client and Redis."""

    server: frozenset[int]
    clients: frozenset[int]

    @classmethod
    def here(cls) -> Cores:
        """The cores of this machine; a single core is shared by all."""
        available = sorted(os.sched_getaffinity(0))
        return cls(frozenset(available[:1]), frozenset(available[1:] or available))

    def __str__(self) -> str:
        if self.server == self.clients:
            return "all on one core"
        return (
            f"server on 1 core; client and Redis on {len(self.clients)} other{'s' * (len(self.clients) > 1)}"
        )


@dataclass(frozen=True, slots=True)
class Running:
    """A process that answers on a port of 127.0.0.1."""

    process: psutil.Popen
    port: int

    @property
    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        used = self.process.cpu_times()
        return float(used.user + used.system)

    @property
    def rss_bytes(self) -> int:
        """Its resident memory now."""
        return int(self.process.memory_info().rss)


def raise_priority(pid: int | None = None) -> None:
    """Let a process (by default, this one) run before other work, if the system allows it.

    Linux first compares the priorities of sessions (autogroups), and then those of the processes in a session. So this
    function raises the priority of the process and that of its session.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid or 0, NICE)
        Path(f"/proc/{pid or 'self'}/autogroup").write_text(str(NICE))


def everywhere() -> frozenset[int]:
    """All cores that this process may use."""
    return frozenset(os.sched_getaffinity(0))


@contextmanager
def process(
    command: Sequence[str],
    *,
    port: int,
    cores: frozenset[int],
    log: Path,
    ready: Callable[[int], bool],
    start_s: float = START_S,
    env: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run a process on ``cores`` until the block ends. :raises RuntimeError: with its log, if it does not get ready."""
    with log.open("ab") as file:
        child = psutil.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=HOME,
            env=env,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    try:
        end = time.monotonic() + start_s
        while not ready(port):
            code = child.poll()
            if code is not None or time.monotonic() > end:
                late = f"did not answer on port {port} within {start_s:g} s"
                why = late if code is None else f"ended with exit code {code}"
                raise RuntimeError(f"{command[0]} {why}:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield Running(child, port)
    finally:
        if child.poll() is None:
            child.terminate()
        try:
            child.wait(60)
        except psutil.TimeoutExpired:
            child.kill()
            child.wait(20)


def listens(port: int) -> bool:
    """Whether a process accepts connections on the port."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _pongs(port: int) -> bool:
    client = redis.Redis(port=port, socket_timeout=2)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


@contextmanager
def valkey(folder: Path, *, fsync: str, cores: frozenset[int]) -> Iterator[Running]:
    """Run the embedded Valkey in an empty folder, with an append-only file."""
    folder.mkdir(parents=True)
    port = free_port()
    options = {
        "port": str(port), "bind": "127.0.0.1", "dir": str(folder), "appendonly": "yes", "appendfsync": fsync,
        "save": "", "maxmemory-policy": "noeviction", "databases": "1",
    }  # fmt: skip
    command = [
        str(server_program()),
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    ]
    with process(command, port=port, cores=cores, log=folder / "log", ready=_pongs) as running:
        yield running


@contextmanager
def python(
    module: str, *arguments: str, port: int, cores: frozenset[int], log: Path, hash_seed: int | None = None
) -> Iterator[Running]:
    """Run ``python -m module arguments…``, which listens on ``port``.

    :param hash_seed: ``PYTHONHASHSEED`` of the process; by default, a random seed. Processes that are compared should
        share a seed, because dictionaries are faster with some seeds than with others.
    """
    command = [sys.executable, "-m", module, *arguments]
    env = None if hash_seed is None else {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    with process(command, port=port, cores=cores, log=log, ready=listens, env=env) as running:
        yield running
