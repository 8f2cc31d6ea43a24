"""Runs the gateway and its baselines alternately, so that a slow moment of the machine affects all of them."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from daybreak_server.local.free_ports import free_port
from verification.benchmarks.http import load, parts
from verification.benchmarks.http.load import Sample
from verification.benchmarks.http.parts import Cores, Running
from verification.results import Row

BODY = b'{"pool":"echo","input":{"message":"a red circle moving left"},"metadata":{"user":"u-1"}}'
BATCH = 100
CONCURRENCY = (1, 16, 64)
_PLAIN = load.post("/v1/tasks", BODY)
_BATCH = load.post("/v1/tasks:batch", b'{"tasks":[' + b",".join([BODY] * BATCH) + b"]}")
_KEYED = load.post("/v1/tasks", BODY, headers=f"Idempotency-Key: {'0' * 26}\r\n")


def plain(number: int) -> bytes:
    """A submit request."""
    return _PLAIN


def keyed(number: int) -> bytes:
    """A submit request with a new idempotency key."""
    return _KEYED.replace(b"0" * 26, b"%026d" % number, 1)


def batch(number: int) -> bytes:
    """100 tasks in one request."""
    return _BATCH


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    seconds: float
    concurrency: tuple[int, ...] = CONCURRENCY


FULL = Effort(rounds=5, seconds=2.0)
QUICK = Effort(rounds=1, seconds=0.3, concurrency=(4,))


@dataclass(slots=True)
class Testbed:
    """The servers under test, and how busy their processes were."""

    servers: dict[str, Running]
    store: Running
    busy: dict[str, list[float]] = field(default_factory=dict)

    def measure(
        self,
        kind: str,
        render: Callable[[int], bytes],
        *,
        concurrency: int,
        seconds: float,
        status: int = 202,
    ) -> Sample:
        """Run one round against one server."""
        server = self.servers[kind]
        used, stored = server.cpu_s, self.store.cpu_s
        sample = load.run(server.port, render, concurrency=concurrency, seconds=seconds, status=status)
        self.busy.setdefault(kind, []).append((server.cpu_s - used) / seconds)
        self.busy.setdefault(f"client of {kind}", []).append(sample.client_busy)
        self.busy.setdefault(f"Redis of {kind}", []).append((self.store.cpu_s - stored) / seconds)
        return sample

    def shares(self) -> str:
        """How busy each process was, as a share of a core."""
        return ", ".join(
            f"{name} {statistics.median(busy_shares):.2f}" for name, busy_shares in self.busy.items()
        )


@contextmanager
def testbed(cores: Cores) -> Iterator[Testbed]:
    """Start Valkey and three servers, and warm up the servers. While they run, this process uses the client's cores."""
    before = os.sched_getaffinity(0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybreak-http-")))
        stack.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, cores.clients)
        store = stack.enter_context(parts.valkey(folder / "valkey", fsync="everysec", cores=cores.clients))
        servers = {}
        for kind in ("noop", "bare", "daybreak"):
            port = free_port()
            where = (f"redis://127.0.0.1:{store.port}", str(folder)) if kind == "daybreak" else ()
            servers[kind] = stack.enter_context(
                parts.python(
                    "verification.benchmarks.http.serve",
                    *(kind, str(port), *where),
                    port=port,
                    cores=cores.server,
                    log=folder / f"{kind}.log",
                )
            )
            load.run(port, plain, concurrency=8, seconds=0.3)
        yield Testbed(servers, store)


def compare(bench: Testbed, effort: Effort) -> list[Row]:
    """Measure submits to the gateway and to the baselines, at each concurrency."""
    rows: list[Row] = []
    for concurrency in effort.concurrency:
        samples_of: dict[str, list[Sample]] = {"noop": [], "bare": [], "daybreak": []}
        for _ in range(effort.rounds):
            for kind, samples in samples_of.items():
                samples.append(bench.measure(kind, plain, concurrency=concurrency, seconds=effort.seconds))
        rows += _rows(concurrency, samples_of)
    return rows


def _rows(concurrency: int, samples_of: dict[str, list[Sample]]) -> list[Row]:
    at = f"{concurrency} at once" if concurrency > 1 else "one at a time"
    ours, baseline, bare = (samples_of[kind] for kind in ("daybreak", "noop", "bare"))
    note = f"bare ASGI: {_middle(bare, 'rps'):,.0f}/s"
    return [
        _row(f"POST /v1/tasks, {at}: rate", "rps", "requests/s", ours, baseline, least=0.8, note=note),
        _row(f"POST /v1/tasks, {at}: p50", "p50_ms", "ms", ours, baseline, most=1.25),
        _row(f"POST /v1/tasks, {at}: p99", "p99_ms", "ms", ours, baseline),
    ]


def _row(
    what: str,
    name: str,
    unit: str,
    ours: list[Sample],
    baseline: list[Sample],
    *,
    least: float | None = None,
    most: float | None = None,
    note: str = "",
) -> Row:
    value, base = _middle(ours, name), _middle(baseline, name)
    target, held = "", None
    if least is not None:
        target, held = f"≥ {least:g} × the baseline", value >= least * base
    if most is not None:
        target, held = f"≤ {most:g} × the baseline", value <= most * base
    every = [getattr(sample, name) for sample in ours]
    return Row(
        what,
        round(value, 3),
        unit,
        baseline=round(base, 3),
        baseline_what="no-op FastAPI route",
        target=target,
        held=held,
        spread=(round(min(every), 3), round(max(every), 3)),
        note=note,
    )


def _middle(samples: list[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)


def other_rows(bench: Testbed, effort: Effort) -> list[Row]:
    """Measure other kinds of submits, and submits with an fsync before each response."""
    rows = []
    for what, render, status, tasks_a_request in (
        ("POST /v1/tasks with an Idempotency-Key, 16 at once: rate", keyed, 202, 1),
        ("POST /v1/tasks:batch with 100 tasks, 4 at once: rate", batch, 207, BATCH),
    ):
        concurrency = 4 if tasks_a_request > 1 else 16
        sample = bench.measure(
            "daybreak", render, concurrency=concurrency, seconds=effort.seconds, status=status
        )
        rows.append(
            Row(what, round(sample.rps * tasks_a_request), "tasks/s", note=f"p50 {sample.p50_ms:.2f} ms")
        )
    with redis.Redis(port=bench.store.port) as client:
        client.config_set("appendfsync", "always")
        sample = bench.measure("daybreak", plain, concurrency=64, seconds=effort.seconds)
        client.config_set("appendfsync", "everysec")
    rows.append(
        Row("POST /v1/tasks, fsync before every answer (`always`), 64 at once: rate", round(sample.rps), "requests/s",
            note=f"p50 {sample.p50_ms:.2f} ms")
    )  # fmt: skip
    return rows
