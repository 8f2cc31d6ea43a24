"""Runs one variant of a contender, with real workers and a real producer. Each task that runs adds one to a counter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daybreak_server.settings.tree import child_environment
from verification.benchmarks.competitors import counter
from verification.benchmarks.competitors.contenders import PYTHONPATH, Contender, Variant
from verification.benchmarks.queue.server import BenchServer

WARM_UP = 200
LIMIT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures of one variant."""

    variant: str
    tasks_s: tuple[float, ...] = ()
    """Tasks per second in each repeat, from the submit of the first task to the end of the last task."""
    submitted_s: float = 0.0
    """Tasks per second that the producer submitted while the workers ran."""
    delays_ms: tuple[float, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How much to run."""

    tasks: int
    """The maximum number of tasks in one repeat. A slow queue gets fewer, so that a repeat takes about ``seconds``."""
    repeats: int
    seconds: float = 4.0
    light: int
    """The number of tasks that are submitted one at a time, to measure their delay."""
    rate: float
    """How many of these single tasks are submitted per second."""


def run(contender: Contender, variant: Variant, *, server: BenchServer, race: Race, folder: Path) -> Result:
    """Measure tasks per second, then the delay of single tasks. A failure becomes the error of the result."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"url": server.url, **variant.settings}))
    with server.client() as client:
        client.flushall()
    counts = folder / "counter"
    try:
        with _workers(contender, variant, server.url, folder):
            pace, _ = _round(contender, folder, WARM_UP)
            pace, _ = _round(contender, folder, min(race.tasks, 2 * WARM_UP))
            tasks = int(min(race.tasks, max(WARM_UP, pace * race.seconds)))
            rounds = [_round(contender, folder, tasks) for _ in range(race.repeats)]
            counter.clear(counts)
            time.sleep(1)
            _produce(contender, folder, "light", race.light, str(race.rate))
            _wait(counts, race.light)
            delays = tuple(delay / 1e6 for delay in counter.read(counts).delays_ns)
    except (TimeoutError, RuntimeError) as exc:
        return Result(variant=variant.what, error=str(exc)[-300:])
    rates, submitted = zip(*rounds, strict=True)
    return Result(
        variant=variant.what,
        tasks_s=tuple(rates),
        submitted_s=sorted(submitted)[len(submitted) // 2],
        delays_ms=delays,
    )


def _round(contender: Contender, folder: Path, tasks: int) -> tuple[float, float]:
    """Tasks per second from the first submit to the end of the last task, and tasks submitted per second."""
    counts = folder / "counter"
    counter.clear(counts)
    times = _produce(contender, folder, "produce", tasks)
    _wait(counts, tasks)
    elapsed_ns = counter.read(counts).last_ns - times["started_ns"]
    return tasks / elapsed_ns * 1e9, tasks / (times["ended_ns"] - times["started_ns"]) * 1e9


def _environment(contender: Contender, variant: Variant | None = None) -> dict[str, str]:
    path = f"{contender.programs}:/usr/local/bin:/usr/bin:/bin"
    ours = f":{PYTHONPATH / 'src'}" if contender.environment is None else ""
    changes = {"PYTHONPATH": f"{PYTHONPATH}{ours}", "PATH": path, **(variant.env if variant else {})}
    return child_environment(changes)


@contextlib.contextmanager
def _workers(contender: Contender, variant: Variant, url: str, folder: Path) -> Iterator[None]:
    running = []
    with (folder / "workers.log").open("ab") as log:
        try:
            for program, *arguments in variant.workers:
                command = [
                    str(contender.programs / program),
                    *(part.replace("{url}", url) for part in arguments),
                ]
                running.append(
                    subprocess.Popen(
                        command,
                        cwd=folder,
                        env=_environment(contender, variant),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
            # Give all workers time to start. The warm-up tasks prove only that one worker has started.
            time.sleep(2)
            if any(worker.poll() is not None for worker in running):
                raise RuntimeError((folder / "workers.log").read_text()[-300:])
            yield
        finally:
            for worker in running:
                worker.terminate()
            for worker in running:
                _end(worker)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Give the worker 5 s to end, and then kill what is left in its process group."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(10)


def _produce(contender: Contender, folder: Path, *arguments: object) -> dict[str, Any]:
    command = [str(contender.programs / "python"), "-m", contender.app, *map(str, arguments)]
    try:
        result = subprocess.run(
            command,
            check=False,
            cwd=folder,
            env=_environment(contender),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError(f"the producer of {contender.name} did not end within {LIMIT_S:.0f} s") from exc
    if result.returncode:
        raise RuntimeError(f"the producer of {contender.name} failed: {result.stderr[-300:]}")
    times: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return times


def _wait(counts: Path, wanted: int) -> None:
    until = time.monotonic() + LIMIT_S
    while (count := counter.count(counts)) < wanted:
        if time.monotonic() > until:
            raise TimeoutError(f"{count} of {wanted} tasks had run after {LIMIT_S:.0f} s")
        time.sleep(0.01)
