"""Measures one gateway with thousands of SSE clients, each of which receives one event a second."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import TaskId, new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import NewTask
from daybreak_server.local.free_ports import free_port
from verification.benchmarks.http import parts
from verification.benchmarks.http.parts import Cores, Running

POOL = "echo"
SLICE_S = 0.02
"""Events are written evenly over each second, in slices of this length."""
SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How many clients, on how many tasks, for how long."""

    clients: int
    tasks: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.clients:,} clients on {self.tasks:,} task{'s' * (self.tasks > 1)}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a run. ``core`` and ``client_core``: how much of a core the gateway and the clients used."""

    shape: Shape
    bytes_each: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    core: float
    client_core: float
    delivered: int
    lost: int
    repeated: int


async def running_tasks(url: str, count: int) -> list[TaskId]:
    """Start tasks, each in its own group."""
    store = RedisStore(url)
    tasks = [
        NewTask(id=new_task_id(POOL), pool=POOL, tenant="default", input_json="{}") for _ in range(count)
    ]
    try:
        await store.submit(tasks)
    finally:
        await store.close()
    queue = RedisQueue(url, pool=POOL, lease_s=3600)
    try:
        for _ in tasks:
            group = GroupRecord(id=new_group_id(), state=GroupState.IDLE)
            queue.register(group, ttl_s=3600)
            if queue.claim(group, wait_s=5) is None:
                raise RuntimeError("a task could not be claimed")
    finally:
        queue.close()
    return [task.id for task in tasks]


class Writer:
    """Writes events as the script `report` does: to the pool's stream, and with the same id to the task's list."""

    def __init__(self, port: int, tasks: Sequence[TaskId]) -> None:
        self._client = redis.Redis(port=port)
        self._tasks = tasks
        self._keys = Keys(prefix="daybreak", pool=POOL)
        self._script = self._client.register_script(
            "for i = 3, #ARGV, 2 do local at = redis.call('XADD', KEYS[1], 'MAXLEN', '~', 1000000, '*', "
            "'task', ARGV[i], 'type', 'progress', 'attempt', '1', 'data', ARGV[2]) "
            "redis.call('RPUSH', ARGV[i + 1], at .. ' progress 1 ' .. ARGV[2]) "
            "redis.call('LTRIM', ARGV[i + 1], -1000, -1) end"
        )

    def write(self, seconds: float) -> int:
        """Write one event per second for each task, evenly spread. :returns: the number of events of each task."""
        slices = max(1, min(len(self._tasks), round(1 / SLICE_S)))
        began = time.monotonic()
        for step in range(round(seconds)):
            data = json.dumps(
                {"phase": "work", "fraction": 0.5, "step": step, "steps": 1000, "eta_s": 12.5, "rate": 1.0},
                separators=(",", ":"),
            )
            for part in range(slices):
                due = began + step + part / slices
                time.sleep(max(0.0, due - time.monotonic()))
                self._write_slice(self._tasks[part::slices], data)
        return round(seconds)

    def _write_slice(self, tasks: Sequence[TaskId], data: str) -> None:
        arguments = [part for task in tasks for part in (task, self._keys.of("ev", task))]
        self._script(keys=[self._keys.single("events")], args=["", data, *arguments])

    def close(self) -> None:
        self._client.close()


class Readers:
    """The processes that run the clients."""

    def __init__(self, port: int, tasks: Sequence[str], *, processes: int) -> None:
        shares = [list(tasks[first::processes]) for first in range(processes)]
        self._children = [
            subprocess.Popen(
                [sys.executable, "-m", "verification.benchmarks.streams.client", str(port), str(number * 5)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=parts.HOME,
            )  # each child runs on the same cores as this process
            for number in range(processes)
        ]
        for child, share in zip(self._children, shares, strict=True):
            assert child.stdin is not None
            child.stdin.write(json.dumps(share).encode() + b"\n")
            child.stdin.flush()

    def opened(self) -> None:
        """Wait until every stream is open. :raises RuntimeError: if a stream was refused."""
        for child in self._children:
            assert child.stdout is not None
            if child.stdout.readline() != b"open\n":
                raise RuntimeError("a client could not open its streams")

    def finish(self, last_step: int = -1) -> list[dict[str, object]]:
        """The figures of the processes, once all streams have received the last step."""
        figures = []
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(b"%d\n" % last_step)
            child.stdin.flush()
        for child in self._children:
            answer, _ = child.communicate(timeout=120)
            figures.append(json.loads(answer))
        return figures

    def kill(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.wait(10)


@contextmanager
def _gateway(cores: Cores) -> Iterator[tuple[Running, Running]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybreak-streams-")))
        before = os.sched_getaffinity(0)
        stack.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, cores.clients)
        store = stack.enter_context(parts.valkey(folder / "valkey", fsync="everysec", cores=cores.clients))
        port = free_port()
        url = f"redis://127.0.0.1:{store.port}"
        gateway = stack.enter_context(
            parts.python(
                "verification.benchmarks.http.serve",
                *("daybreak", str(port), url, str(folder)),
                port=port,
                cores=cores.server,
                log=folder / "gateway.log",
            )
        )
        yield gateway, store


def follow(shape: Shape, cores: Cores, *, processes: int = 1) -> Outcome:
    """Measure on a new Valkey and a new gateway. :raises RuntimeError: if a stream is refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 100_000)), hard))
    with _gateway(cores) as (gateway, store):
        tasks = asyncio.run(running_tasks(f"redis://127.0.0.1:{store.port}", shape.tasks))
        warm = Readers(gateway.port, tasks[:1] * 5, processes=1)
        warm.opened()
        warm.finish()
        time.sleep(0.5)
        before = gateway.rss_bytes
        followed = [tasks[number % len(tasks)] for number in range(shape.clients)]
        readers = Readers(gateway.port, followed, processes=processes)
        writer = Writer(store.port, tasks)
        try:
            readers.opened()
            cpu, began = gateway.cpu_s, time.monotonic()
            written = writer.write(shape.seconds)
            # A short run may use less CPU time than one unit of the process clock. One unit is then assumed.
            core = max(gateway.cpu_s - cpu, 1 / os.sysconf("SC_CLK_TCK")) / (time.monotonic() - began)
            time.sleep(SETTLE_S)
            grown = gateway.rss_bytes - before
            figures = readers.finish(written - 1)
        finally:
            writer.close()
            readers.kill()
    return _outcome(shape, figures, written=written, core=core, grown=grown)


def _outcome(
    shape: Shape, figures: Sequence[dict[str, object]], *, written: int, core: float, grown: int
) -> Outcome:
    lags = sorted(lag for process in figures for lag in process["lags_ms"])  # type: ignore[attr-defined]
    total = {
        name: sum(int(str(process[name])) for process in figures)
        for name in ("events", "gaps", "repeats", "closed")
    }
    return Outcome(
        shape=shape,
        bytes_each=grown / shape.clients,
        p50_ms=lags[len(lags) // 2],
        p99_ms=lags[min(len(lags) - 1, len(lags) * 99 // 100)],
        worst_ms=lags[-1],
        core=core,
        client_core=sum(float(str(process["busy"])) for process in figures),
        delivered=total["events"],
        lost=shape.clients * written - total["events"] + total["repeats"] + total["closed"],
        repeated=total["repeats"],
    )
