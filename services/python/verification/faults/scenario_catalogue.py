"""Scenarios by name: each tests one promise or measures one property, and returns its figures."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from verification.faults.cluster import FaultCluster
from verification.faults.options import ClusterOptions
from verification.results import Row

PACKAGES = (
    "verification.faults.scenarios",
    "verification.faults.environment",
    "verification.faults.serving",
    "verification.faults.sessions",
    "verification.faults.workers",
)
"""Importing these packages registers the scenarios."""


class ViolatedError(Exception):
    """A promise was broken. The message says which one and where the evidence is."""


class SkippedError(Exception):
    """This machine lacks what the scenario needs. The message says what is missing."""


@dataclass(slots=True, kw_only=True)
class ScenarioContext:
    """What a scenario receives: the options of its clusters, its seed and size, and where its output goes."""

    options: ClusterOptions = field(default_factory=ClusterOptions)
    seed: int = 0
    long: bool = False
    """Whether the run may take hours. If not, it takes minutes."""
    log: Callable[[str], None] = print
    jobs: int = 1
    """How many clusters may run side by side."""
    done: Path | None = None
    """A folder of results, one file for each scenario. A run does not repeat a scenario whose result is there, so that
    an interrupted run of hours can resume."""

    def repeats(self, short: int, long: int) -> int:
        """How often a run repeats something: ``long`` times if the run is long, otherwise ``short`` times."""
        return long if self.long else short

    @contextlib.contextmanager
    def cluster(self, **changes: Any) -> Iterator[FaultCluster]:
        """A cluster with changed options. After an exception, it keeps its folder and logs the path."""
        with FaultCluster(replace(self.options, seed=self.seed, **changes)) as cluster:
            try:
                yield cluster
            except BaseException:
                cluster.keep = True
                self.log(f"the history and the logs are in {cluster.folder}")
                raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A registered scenario."""

    name: str
    about: str
    run: Callable[[ScenarioContext], list[Row]]
    order: int = 0
    alone: bool = False
    """Whether nothing else may run beside the scenario, because it measures times."""

    @property
    def package(self) -> str:
        """The package that defines it: one of :data:`PACKAGES`."""
        return next(package for package in PACKAGES if self.run.__module__.startswith(package))


_known: dict[str, Scenario] = {}


def scenario(
    name: str, about: str, *, alone: bool = False
) -> Callable[[Callable[[ScenarioContext], list[Row]]], Callable[[ScenarioContext], list[Row]]]:
    """Register a function that runs a scenario and returns its rows.

    ``alone``: nothing else may run beside the scenario, because it measures times. The function raises
    :class:`SkippedError` if this machine lacks something that the scenario needs, and any other exception on failure.
    """

    def register(run: Callable[[ScenarioContext], list[Row]]) -> Callable[[ScenarioContext], list[Row]]:
        _known[name] = Scenario(name=name, about=about, run=run, order=len(_known), alone=alone)
        return run

    return register


def scenarios() -> dict[str, Scenario]:
    """All scenarios, in the order of their registration."""
    for package in PACKAGES:
        importlib.import_module(package)
    return dict(sorted(_known.items(), key=lambda item: item[1].order))


def _run_with_retry(scenario: Scenario, context: ScenarioContext) -> list[Row]:
    try:
        return scenario.run(context)
    except (SkippedError, ViolatedError):
        raise
    except Exception as exc:
        context.log(f"   INCOMPLETE, running it again: {type(exc).__name__}: {exc}")
        return scenario.run(context)


def run(scenario: Scenario, context: ScenarioContext) -> list[Row]:
    """Run a scenario and log its rows. After a :class:`SkippedError`, there are no rows; other exceptions propagate.

    A scenario that could not be completed but broke no promise (for example, a process did not start in time on a busy
    machine) runs a second time, and the log says so. A broken promise is never retried.
    """
    started = time.monotonic()
    context.log(f"── {scenario.name}: {scenario.about}")
    try:
        rows = _run_with_retry(scenario, context)
    except SkippedError as exc:
        context.log(f"   skipped: {exc}")
        return []
    for row in rows:
        mark = {True: "held", False: "MISSED", None: ""}[row.held]
        context.log(f"   {row.what}: {row.value:g} {row.unit}  {row.target}  {mark}  {row.note}".rstrip())
    context.log(f"   {time.monotonic() - started:.1f} s")
    sys.stdout.flush()
    return rows
