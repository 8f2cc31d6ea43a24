"""Starts the back ends and the routers. If there are several cores, one is for the routers alone.

All other processes of the benchmark share the other cores.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.serving_load import Load
from daybreak_server.local.free_ports import free_port
from daybreak_server.settings.tree import child_environment
from verification.benchmarks.http import parts
from verification.benchmarks.http.parts import Cores, Running
from verification.benchmarks.routing import client
from verification.benchmarks.routing.backend import CHAT
from verification.benchmarks.routing.contenders import POOL, Contender, Place

BACKENDS = 2
DIRECT = "no router"
START_S = 180.0
"""How long a router may take to answer its first request. One of the routers needs half a minute for its imports."""
GROUP_TTL_S = 3600.0


@dataclass(slots=True)
class Bed:
    """The back ends, and what a router needs to find them."""

    folder: Path
    cores: Cores
    backends: Running
    ports: Sequence[int]
    store: Running
    started: list[str] = field(default_factory=list)

    @property
    def direct(self) -> Running:
        """A back end that gets requests without a router."""
        return Running(self.backends.process, self.ports[0])

    def pace(self, *, latency_s: float = 0.0, pause_s: float = 0.0) -> None:
        """Set the latency of the back ends, and the pause between the tokens of a stream."""
        query = f"latency_ms={1000 * latency_s}&pause_ms={1000 * pause_s}"
        url = f"http://127.0.0.1:{self.ports[0]}/pace?{query}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=10).close()

    @contextmanager
    def router(self, contender: Contender) -> Iterator[Router]:
        """Run the router until the block ends. :raises RuntimeError: with its log, if it does not answer in time."""
        folder = self.folder / f"{contender.name}-{len(self.started)}"
        folder.mkdir()
        self.started.append(contender.name)
        place = Place(
            port=free_port(),
            folder=folder,
            backends=self.ports,
            redis_url=f"redis://127.0.0.1:{self.store.port}",
        )
        program, *arguments = contender.command(place)
        self.pace()
        with parts.process(
            [str(contender.programs / program), *arguments],
            port=place.port,
            cores=self.cores.server,
            log=folder / "log",
            ready=lambda port: _answers(port, contender.path),
            start_s=START_S,
            env=child_environment(dict(contender.variables)),
        ) as running:
            yield Router(contender, running)


@dataclass(frozen=True, slots=True)
class Router:
    """A running router. If ``contender`` is ``None``, it is a back end that gets requests without a router."""

    contender: Contender | None
    running: Running

    @property
    def name(self) -> str:
        """Its name in the table."""
        return self.contender.name if self.contender is not None else DIRECT

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return self.running.port

    @property
    def cpu_s(self) -> float:
        """CPU seconds of its processes so far."""
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(used.user + used.system for used in times))

    @property
    def rss_bytes(self) -> int:
        """Memory of its processes now."""
        return int(sum(process.memory_info().rss for process in self._processes()))

    @property
    def path(self) -> str:
        """The path for chat completions."""
        return self.contender.path if self.contender is not None else CHAT.decode()

    def _processes(self) -> list[psutil.Process]:
        return [self.running.process, *self.running.process.children(recursive=True)]


def _answers(port: int, path: str) -> bool:
    """Whether a request returns an answer of the back end."""
    request = client.render(path, client.chat(tokens=1), [("connection", "close")])
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request)
            answer = b""
            while part := connection.recv(65536):
                answer += part
    except OSError:
        return False
    return b" ns" in answer


@contextmanager
def bed(cores: Cores) -> Iterator[Bed]:
    """Start the back ends and Redis, and register the back ends as groups. Move this process to the clients' cores."""
    before = os.sched_getaffinity(0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybreak-routing-")))
        stack.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, cores.clients)
        store = stack.enter_context(parts.valkey(folder / "valkey", fsync="everysec", cores=cores.clients))
        ports = [free_port() for _ in range(BACKENDS)]
        backends = stack.enter_context(
            parts.python(
                "verification.benchmarks.routing.backend",
                *map(str, ports),
                port=ports[-1],
                cores=cores.clients,
                log=folder / "backends.log",
            )
        )
        queue = RedisQueue(f"redis://127.0.0.1:{store.port}", pool=POOL)
        stack.callback(queue.close)
        for port in ports:
            queue.register(_record(port, backends.process.pid), ttl_s=GROUP_TTL_S)
        yield Bed(folder, cores, backends, ports, store)


def _record(port: int, pid: int) -> GroupRecord:
    return GroupRecord(
        id=new_group_id(),
        state=GroupState.IDLE,
        hosts=("here",),
        pids=(pid,),
        loads=1,
        since_ms=time.time_ns() // 1_000_000,
        endpoint=f"http://127.0.0.1:{port}",
        load=Load(),
    )
