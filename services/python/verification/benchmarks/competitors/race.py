"""One variant of one contender against a server: real workers, a real producer, measured by the tasks themselves."""

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
    """What came of one variant."""

    variant: str
    tasks_s: tuple[float, ...] = ()
    """Of each repeat: from the first task handed in to the last one run."""
    handed_in_s: float = 0.0
    """How fast the producer was, with the workers at work beside it."""
    delays_ms: tuple[float, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How much is run."""

    tasks: int
    """At most so many in one repeat; fewer where ``seconds`` would not do."""
    repeats: int
    seconds: float = 4.0
    light: int
    rate: float


def run(contender: Contender, variant: Variant, *, server: BenchServer, race: Race, folder: Path) -> Result:
    """Tasks per second, then the delay at a light rate. What goes wrong becomes the result's error."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"url": server.url, **variant.settings}))
    with server.client() as client:
        client.flushall()
    counts = folder / "tally"
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
    rates, handed = zip(*rounds, strict=True)
    return Result(
        variant=variant.what,
        tasks_s=tuple(rates),
        handed_in_s=sorted(handed)[len(handed) // 2],
        delays_ms=delays,
    )


def _round(contender: Contender, folder: Path, tasks: int) -> tuple[float, float]:
    """Tasks per second from the first handed in to the last run, and as they were handed in."""
    counts = folder / "tally"
    counter.clear(counts)
    told = _produce(contender, folder, "produce", tasks)
    _wait(counts, tasks)
    took = counter.read(counts).last_ns - told["started_ns"]
    return tasks / took * 1e9, tasks / (told["ended_ns"] - told["started_ns"]) * 1e9


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
            for program, *rest in variant.workers:
                command = [str(contender.programs / program), *(part.replace("{url}", url) for part in rest)]
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
            time.sleep(2)  # all workers there before the first task; the warm-up tasks prove one of them
            if any(worker.poll() is not None for worker in running):
                raise RuntimeError((folder / "workers.log").read_text()[-300:])
            yield
        finally:
            for worker in running:
                worker.terminate()
            for worker in running:
                _end(worker)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """The worker and the session of processes that it leads, all started here."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(10)


def _produce(contender: Contender, folder: Path, *arguments: object) -> dict[str, Any]:
    command = [str(contender.programs / "python"), "-m", contender.app, *map(str, arguments)]
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=folder,
            env=_environment(contender),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError(f"the producer did not end in {LIMIT_S:.0f} s") from exc
    if done.returncode:
        raise RuntimeError(f"the producer failed: {done.stderr[-300:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _wait(counts: Path, wanted: int) -> None:
    until = time.monotonic() + LIMIT_S
    while (have := counter.count(counts)) < wanted:
        if time.monotonic() > until:
            raise TimeoutError(f"{have} of {wanted} tasks had run after {LIMIT_S:.0f} s")
        time.sleep(0.01)
