"""Mixed runs: kills, freezes and preemptions at random times. The seed determines these faults and their times.

Each run has its own process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from verification.faults import mixed
from verification.faults.mixed import Outcome
from verification.faults.options import PoolOptions
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError, scenario
from verification.faults.schedule import schedule
from verification.results import Row

POOLS = (PoolOptions(name="solo", ranks=1, groups=4), PoolOptions(name="pair", ranks=2, groups=2))
HOME = Path(__file__).resolve().parents[3]
INCOMPLETE = 70
"""The exit status of a mixed run that broke no promise but could not be completed."""
BOUND_S = 90.0
"""If nothing changes for this long, the remaining tasks are stuck: no retry is delayed by more than a minute."""


def bound(count: int, fault: str = "kill") -> str:
    """The upper bound of the failure rate, at 95 % confidence, after ``count`` faults without a failure."""
    return f"0 in {count:,} {fault}s: a rate below {300 / max(1, count):.2g} % per {fault} (95 % confidence)"


def one_run(
    context: ScenarioContext,
    *,
    seed: int,
    seconds: float,
    deaths: int,
    rate: float,
    cut: float = 0.05,
    **options: object,
) -> Outcome:
    """Run one mixed schedule on a new cluster.

    :raises ViolatedError: with the path of the history and the command that repeats the run.
    """
    with replace(context, seed=seed).cluster(**{"pools": POOLS, "progress_s": 0.1, **options}) as cluster:
        plan = schedule(
            seed=seed,
            seconds=seconds,
            rate=rate,
            deaths=deaths,
            pools=cluster.options.pools,
            lease_s=cluster.options.lease_s,
            watchdogs=cluster.options.watchdogs,
        )
        try:
            return mixed.run(cluster, plan, cut=cut, bound_s=BOUND_S, log=context.log)
        except ViolatedError as exc:
            options_text = f"--seed {seed} --seconds {seconds:g} --kills {deaths} --rate {rate:g}"
            raise ViolatedError(
                f"{exc}\nto repeat: python -m verification.faults mixed {options_text}"
            ) from None


def kinds(kills: Counter[str]) -> str:
    """The counts in words: ``31 leaders, 4 servers, 12 at failpoints``."""
    at_failpoints = sum(count for name, count in kills.items() if name.startswith("at "))
    parts = [
        f"{kills[name]:,} {name}s"
        for name in ("leader", "follower", "watchdog", "gateway", "server")
        if kills[name]
    ]
    return ", ".join([*parts, f"{at_failpoints} at failpoints"])


def rows_of(outcomes: list[tuple[str, Outcome]], *, wanted: int) -> list[Row]:
    """The figures of several runs without a violation. The target holds with at least ``wanted`` kills."""
    kills: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for _, outcome in outcomes:
        kills.update(outcome.kills)
        counts.update(outcome.counts)
    deaths = kills.total()
    tasks = sum(outcome.tasks for _, outcome in outcomes)
    by_fsync = Counter(name for name, _ in outcomes)
    runs = ", ".join(f"{count} with `{name}`" for name, count in by_fsync.items())
    what = f"{len(outcomes)} mixed runs ({runs})"
    target = f"0 in ≥ {wanted:,} kills" if wanted else "0"
    return [
        Row(
            f"Accepted tasks lost in {what}",
            0,
            "tasks",
            target=target,
            held=deaths >= wanted,
            note=bound(deaths),
        ),
        Row(
            f"Tasks completed twice in {what}",
            0,
            "tasks",
            target=target,
            held=deaths >= wanted,
            note=bound(deaths),
        ),
        Row("Processes killed in the mixed runs", deaths, "kills", note=kinds(kills)),
        Row(
            "Tasks accepted in the mixed runs",
            tasks,
            "tasks",
            note=f"{counts['event.saw']:,} events seen by clients",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedRun:
    """One of several mixed runs."""

    seed: int
    fsync: str
    seconds: float
    deaths: int
    watchdogs: bool
    flavour: str

    def arguments(self) -> list[str]:
        """The arguments of ``python -m verification.faults``."""
        options = [f"--seed={self.seed}", f"--fsync={self.fsync}", f"--flavour={self.flavour}"]
        options += [
            f"--seconds={self.seconds:g}",
            f"--kills={self.deaths}",
            *(["--watchdogs"] * self.watchdogs),
        ]
        return ["mixed", *options]


def mixed_runs(context: ScenarioContext) -> list[MixedRun]:
    """The mixed runs of a short or a long scenario.

    A short scenario has one run under ``everysec``, and one under ``always`` with watchdogs. A long scenario has
    fourteen runs of 180 s, of which three are under ``always`` and five have watchdogs. Production has watchdogs;
    without them, only leases detect dead leaders.
    """
    common = {"flavour": context.options.flavour}
    if not context.long:
        return [
            MixedRun(seed=context.seed, fsync="everysec", seconds=30.0, deaths=50, watchdogs=False, **common),
            MixedRun(
                seed=context.seed + 1, fsync="always", seconds=20.0, deaths=30, watchdogs=True, **common
            ),
        ]
    return [
        MixedRun(
            seed=context.seed + run,
            fsync="always" if run % 4 == 3 else "everysec",
            seconds=180.0,
            deaths=260,
            watchdogs=run % 3 == 1,
            **common,
        )
        for run in range(14)
    ]


@scenario(
    "mixed",
    "kills and freezes any process and cuts streams while clients work; checks every promise",
    alone=True,
)
def run_mixed(context: ScenarioContext) -> list[Row]:
    """Run each mixed run in its own process, as many side by side as ``jobs`` allows."""

    def run_one(run: MixedRun) -> tuple[str, Outcome]:
        with tempfile.TemporaryDirectory() as folder:
            result = (context.done or Path(folder)) / f"mixed-{run.seed}.json"
            if not result.exists():
                _run_in_subprocess(run, result, log=context.log)
            outcome = Outcome.from_json(result.read_text())
        context.log(
            f"   seed {run.seed}, appendfsync {run.fsync}, {'watchdogs' if run.watchdogs else 'no watchdogs'}: "
            f"{outcome.deaths} killed, {outcome.tasks} tasks, {outcome.seconds:.0f} s"
        )
        return run.fsync, outcome

    with ThreadPoolExecutor(context.jobs) as pool:
        outcomes = list(pool.map(run_one, mixed_runs(context)))
    return rows_of(outcomes, wanted=3000 if context.long else 0)


def _run_in_subprocess(run: MixedRun, result: Path, *, log: Callable[[str], None]) -> None:
    """Start ``run`` as a process. If the run is incomplete, start it a second time.

    :raises ViolatedError: with the output of the process, if the process fails.
    """
    command = [sys.executable, "-m", "verification.faults", *run.arguments(), f"--result={result}"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HOME)
    if completed.returncode == INCOMPLETE:
        log(f"   seed {run.seed} INCOMPLETE, running it again: {completed.stderr[-1000:]}")
        completed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HOME)
    if completed.returncode != 0:
        output = f"{completed.stdout[-2000:]}{completed.stderr[-6000:]}"
        raise ViolatedError(f"python -m verification.faults {' '.join(run.arguments())}:\n{output}")
