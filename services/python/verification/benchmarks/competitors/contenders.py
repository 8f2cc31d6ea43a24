"""The queues that are compared, and their settings. For each queue, the report's table shows only the variant with the
highest rate and the variant with the shortest delay. The JSON has all variants."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHONPATH = HERE.parents[2]
"""`services/python`. In the environment of each queue, the modules in `apps` are imported from this folder. Daybreak
itself is installed only in Daybreak's environment."""
ENVIRONMENTS = HERE.parents[4] / "build" / "competitors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run the workers."""

    what: str
    workers: tuple[tuple[str, ...], ...]
    """The commands that start the workers, without the path to the environment's programs."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A queue. The report names the versions of its ``packages``."""

    name: str
    keeps: str
    """What the queue keeps of a task, and when it acknowledges the task."""
    packages: tuple[str, ...]
    variants: tuple[Variant, ...]
    environment: str | None = None
    """The name of a folder in ``build/competitors``, or ``None`` for Daybreak's environment."""

    @property
    def app(self) -> str:
        """The module with the queue's task and producer."""
        return f"verification.benchmarks.competitors.apps.{self.name.lower()}_app"

    @property
    def programs(self) -> Path:
        """The folder with the environment's Python and commands."""
        return (
            Path(sys.executable).parent
            if self.environment is None
            else ENVIRONMENTS / self.environment / "bin"
        )

    @property
    def installed(self) -> bool:
        """Whether the queue's environment exists."""
        return (self.programs / "python").exists()


APPS = "verification.benchmarks.competitors.apps"


def _processes(number: int) -> str:
    return f"{number} process{'es' * (number > 1)}"


def _taskiq(workers: int, prefetch: int) -> Variant:
    command = (
        "taskiq", "worker", f"{APPS}.taskiq_app:broker", "--workers", str(workers), "--max-async-tasks", "100",
        "--max-prefetch", str(prefetch), "--log-level", "WARNING", "--no-parse",
    )  # fmt: skip
    return Variant(what=f"{_processes(workers)}, prefetch {prefetch}", workers=(command,))


def _dramatiq(processes: int, threads: int) -> Variant:
    command = ("dramatiq", f"{APPS}.dramatiq_app", "--processes", str(processes), "--threads", str(threads))
    return Variant(
        what=f"{_processes(processes)} × {threads} threads", workers=((*command, "--skip-logging"),)
    )


def _celery(pool: str, concurrency: int, prefetch: int) -> Variant:
    command = (
        "celery", "-A", f"{APPS}.celery_app", "worker", "-P", pool, "-c", str(concurrency), "-l", "WARNING",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip
    workers = (command,)
    if pool == "solo":
        workers = tuple((*command, "-n", f"solo{at}@%h") for at in range(2))
    what = f"{pool} pool, {concurrency * len(workers)} processes, prefetch multiplier {prefetch}"
    return Variant(what=what, workers=workers, settings={"prefetch": prefetch})


def _arq(workers: int, max_jobs: int, poll_delay: float) -> Variant:
    return Variant(
        what=f"{_processes(workers)}, max_jobs {max_jobs}, poll every {1000 * poll_delay:g} ms",
        workers=(("arq", f"{APPS}.arq_app.WorkerSettings"),) * workers,
        settings={"max_jobs": max_jobs, "poll_delay": poll_delay},
    )


def _rq(workers: int) -> Variant:
    command = (
        "rq", "worker-pool", "-n", str(workers), "-w", "rq.worker.SimpleWorker", "-S", "rq.serializers.JSONSerializer",
        "-u", "{url}", "-l", "WARNING", "-q",
    )  # fmt: skip
    return Variant(what=f"{workers} SimpleWorkers", workers=(command,))


def _daybreak(processes: int, groups: int) -> Variant:
    return Variant(
        what=f"{_processes(processes)} × {groups} group{'s' * (groups > 1)}",
        workers=(("python", "-m", f"{APPS}.daybreak_app", "lead"),) * processes,
        settings={"groups": groups},
    )


CONTENDERS: Sequence[Contender] = (
    Contender(
        name="Daybreak",
        keeps="keeps record, events, charge and ledger for 7 days; fenced, at least once",
        packages=("redis", "hiredis"),
        variants=(_daybreak(2, 8), _daybreak(2, 1), _daybreak(1, 16)),
    ),
    Contender(
        name="Taskiq",
        keeps="keeps nothing (no result backend); acknowledges a task after it ran",
        environment="taskiq",
        packages=("taskiq", "taskiq-redis", "redis"), variants=(_taskiq(2, 0), _taskiq(1, 100)),
    ),
    Contender(
        name="Dramatiq", keeps="keeps nothing; acknowledges a task after it ran", environment="dramatiq",
        packages=("dramatiq", "redis"), variants=(_dramatiq(2, 8), _dramatiq(1, 8)),
    ),
    Contender(
        name="Celery", keeps="keeps nothing; acknowledges a task before it runs (the default)", environment="celery",
        packages=("celery", "kombu", "redis"),
        variants=(_celery("prefork", 2, 64), _celery("solo", 1, 64)),
    ),
    Contender(
        name="arq", keeps="keeps nothing (keep_result 0); at least once", environment="arq",
        packages=("arq", "redis"), variants=(_arq(2, 100, 0.005), _arq(1, 100, 0.005)),
    ),
    Contender(
        name="RQ",
        keeps="keeps nothing (result_ttl 0); the task of a dead worker stays lost until a clean-up",
        environment="rq",
        packages=("rq", "redis"), variants=(_rq(2),),
    ),
)  # fmt: skip
