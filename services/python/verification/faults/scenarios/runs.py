"""Mixed runs: everything at once, by seed."""

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
from verification.faults.options import PoolPlan
from verification.faults.registry import Lab, ViolatedError, scenario
from verification.faults.schedule import schedule
from verification.results import Row

POOLS = (PoolPlan(name="solo", ranks=1, groups=4), PoolPlan(name="pair", ranks=2, groups=2))
HOME = Path(__file__).resolve().parents[3]
NOT_CARRIED_OUT = 70
"""Exit status of a mixed run that broke no promise and came to no end."""
BOUND_S = 90.0
"""Nothing has moved for so long: what has not ended is stuck. A retry is put off for a minute at most."""


def bound(deaths: int) -> str:
    """What no failure in so many tries says, at 95 % confidence."""
    return f"0 in {deaths:,}: below {300 / max(1, deaths):.2g} % a kill (95 %)"


def one_run(
    lab: Lab, *, seed: int, seconds: float, deaths: int, rate: float, cut: float = 0.05, **options: object
) -> Outcome:
    """One mixed run. :raises ViolatedError: with the history's path."""
    with replace(lab, seed=seed).cluster(**{"pools": POOLS, "progress_s": 0.1, **options}) as cluster:
        plan = schedule(
            seed=seed,
            seconds=seconds,
            rate=rate,
            deaths=deaths,
            pools=cluster.options.pools,
            lease_s=cluster.options.lease_s,
            guards=cluster.options.guards,
        )
        try:
            return mixed.run(cluster, plan, cut=cut, bound_s=BOUND_S, say=lab.say)
        except ViolatedError as exc:
            again = f"python -m verification.faults mixed --seed {seed} --seconds {seconds:g} --kills {deaths} --rate {rate:g}"
            raise ViolatedError(f"{exc}\nagain: {again}") from None


def kinds(kills: Counter[str]) -> str:
    """``31 leaders, 4 servers, 12 at failpoints``."""
    at = sum(count for name, count in kills.items() if name.startswith("at "))
    whole = [
        f"{kills[name]} {name}s"
        for name in ("leader", "follower", "guard", "gateway", "server")
        if kills[name]
    ]
    return ", ".join([*whole, f"{at} at failpoints"])


def rows_of(outcomes: list[tuple[str, Outcome]], *, wanted: int) -> list[Row]:
    """The figures of several runs without a violation; ``wanted`` kills make the promise a proven one."""
    kills: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for _, outcome in outcomes:
        kills.update(outcome.kills)
        counts.update(outcome.counts)
    deaths = kills.total()
    tasks = sum(outcome.tasks for _, outcome in outcomes)
    by_fsync = Counter(name for name, _ in outcomes)
    runs = ", ".join(f"{count} × {name}" for name, count in by_fsync.items())
    what = f"{len(outcomes)} mixed runs ({runs})"
    target = f"0 in ≥ {wanted:,} kills" if wanted else "0"
    return [
        Row(f"Tasks lost, {what}", 0, "tasks", target=target, held=deaths >= wanted, note=bound(deaths)),
        Row(
            f"Tasks done twice, {what}", 0, "tasks", target=target, held=deaths >= wanted, note=bound(deaths)
        ),
        Row("Processes killed in them", deaths, "kills", note=kinds(kills)),
        Row("Tasks accepted in them", tasks, "tasks", note=f"{counts['event.saw']:,} events seen by clients"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One of several mixed runs."""

    seed: int
    fsync: str
    seconds: float
    deaths: int
    guards: bool
    flavour: str

    def arguments(self) -> list[str]:
        """Of ``python -m verification.faults``."""
        options = [f"--seed={self.seed}", f"--fsync={self.fsync}", f"--flavour={self.flavour}"]
        options += [f"--seconds={self.seconds:g}", f"--kills={self.deaths}", *(["--guards"] * self.guards)]
        return ["mixed", *options]


def plans(lab: Lab) -> list[Plan]:
    """Short: one run under each fsync policy. Long: fourteen of 180 s, of which four under ``always`` and five with
    guards, as in production; without guards it is the leases that do the work."""
    common = {"flavour": lab.options.flavour}
    if not lab.long:
        return [
            Plan(seed=lab.seed, fsync="everysec", seconds=30.0, deaths=50, guards=False, **common),
            Plan(seed=lab.seed + 1, fsync="always", seconds=20.0, deaths=30, guards=True, **common),
        ]
    return [
        Plan(
            seed=lab.seed + run,
            fsync="always" if run % 4 == 3 else "everysec",
            seconds=180.0,
            deaths=260,
            guards=run % 3 == 1,
            **common,
        )
        for run in range(14)
    ]


@scenario("mixed", "clients at work while anything is killed, frozen and cut; checked as a whole", alone=True)
def run_mixed(lab: Lab) -> list[Row]:
    """Each run in a process of its own, so many side by side as there may be jobs."""
    todo = plans(lab)

    def one(plan: Plan) -> tuple[str, Outcome]:
        with tempfile.TemporaryDirectory() as folder:
            result = (lab.done or Path(folder)) / f"mixed-{plan.seed}.json"
            if not result.exists():
                _elsewhere(plan, result, say=lab.say)
            outcome = Outcome.from_json(result.read_text())
        lab.say(
            f"   seed {plan.seed}, appendfsync {plan.fsync}, {'guards' if plan.guards else 'no guards'}: "
            f"{outcome.deaths} killed, {outcome.tasks} tasks, {outcome.seconds:.0f} s"
        )
        return plan.fsync, outcome

    with ThreadPoolExecutor(lab.jobs) as pool:
        outcomes = list(pool.map(one, todo))
    return rows_of(outcomes, wanted=3000 if lab.long else 0)


def _elsewhere(plan: Plan, result: Path, *, say: Callable[[str], None]) -> None:
    """A run in a process of its own. :raises ViolatedError: with what it said."""
    command = [sys.executable, "-m", "verification.faults", *plan.arguments(), f"--result={result}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HOME)
    if done.returncode == NOT_CARRIED_OUT:
        say(f"   seed {plan.seed} NOT CARRIED OUT, once more: {done.stderr[-1000:]}")
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HOME)
    if done.returncode != 0:
        said = f"{done.stdout[-2000:]}{done.stderr[-6000:]}"
        raise ViolatedError(f"python -m verification.faults {' '.join(plan.arguments())}:\n{said}")
