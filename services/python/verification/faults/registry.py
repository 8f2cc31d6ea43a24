"""Scenarios by name: each proves one promise, and gives its figures."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from verification.faults.cluster import FaultCluster
from verification.faults.options import ClusterOptions
from verification.results import Row

ROOMS = ("verification.faults.scenarios", "verification.faults.environment")
"""Packages whose import registers scenarios."""


class ViolatedError(Exception):
    """A promise was broken. The message says which, and where the evidence lies."""


class SkippedError(Exception):
    """This machine lacks what the scenario needs. The message says what."""


@dataclass(slots=True, kw_only=True)
class Lab:
    """What a scenario is given."""

    options: ClusterOptions = field(default_factory=ClusterOptions)
    seed: int = 0
    long: bool = False
    """Hours instead of minutes."""
    say: Callable[[str], None] = print
    jobs: int = 1
    """How many systems may run side by side."""
    done: Path | None = None
    """Where results are kept, and taken from instead of being run again: a run of hours may be interrupted."""

    def times(self, short: int, long: int) -> int:
        """A count, by how long this may take."""
        return long if self.long else short

    @contextlib.contextmanager
    def cluster(self, **changes: Any) -> Iterator[FaultCluster]:
        """A cluster with these options changed. Its folder is kept, and told, when something goes wrong in it."""
        with FaultCluster(replace(self.options, seed=self.seed, **changes)) as cluster:
            try:
                yield cluster
            except BaseException:
                cluster.keep = True
                self.say(f"the history and the logs are in {cluster.folder}")
                raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A scenario."""

    name: str
    about: str
    run: Callable[[Lab], list[Row]]
    order: int = 0
    alone: bool = False
    """Measures times: nothing else runs meanwhile."""

    @property
    def room(self) -> str:
        """The package that it is from: one of :data:`ROOMS`."""
        return next(room for room in ROOMS if self.run.__module__.startswith(room))


_known: dict[str, Scenario] = {}


def scenario(
    name: str, about: str, *, alone: bool = False
) -> Callable[[Callable[[Lab], list[Row]]], Callable[[Lab], list[Row]]]:
    """Register a function that runs a scenario and gives its rows. ``alone``: it measures times.

    It raises :class:`SkippedError` where this machine lacks something, and any other exception when it fails.
    """

    def register(run: Callable[[Lab], list[Row]]) -> Callable[[Lab], list[Row]]:
        _known[name] = Scenario(name=name, about=about, run=run, order=len(_known), alone=alone)
        return run

    return register


def scenarios() -> dict[str, Scenario]:
    """All that there are, in the order in which they were written."""
    for room in ROOMS:
        if importlib.util.find_spec(room) is not None:
            importlib.import_module(room)
    return dict(sorted(_known.items(), key=lambda item: item[1].order))


def _twice(one: Scenario, lab: Lab) -> list[Row]:
    try:
        return one.run(lab)
    except (SkippedError, ViolatedError):
        raise
    except Exception as exc:
        lab.say(f"   NOT CARRIED OUT, once more: {type(exc).__name__}: {exc}")
        return one.run(lab)


def run(one: Scenario, lab: Lab) -> list[Row]:
    """Run one, and say how it went. Exceptions pass through, save :class:`SkippedError` (no rows).

    What broke no promise but could not be carried out (a part that did not start in its time, on a machine that
    had other things to do) is tried a second time, and that is said. A broken promise never is.
    """
    started = time.monotonic()
    lab.say(f"── {one.name}: {one.about}")
    try:
        rows = _twice(one, lab)
    except SkippedError as exc:
        lab.say(f"   skipped: {exc}")
        return []
    for row in rows:
        mark = {True: "held", False: "MISSED", None: ""}[row.held]
        lab.say(f"   {row.what}: {row.value:g} {row.unit}  {row.target}  {mark}  {row.note}".rstrip())
    lab.say(f"   {time.monotonic() - started:.1f} s")
    sys.stdout.flush()
    return rows
