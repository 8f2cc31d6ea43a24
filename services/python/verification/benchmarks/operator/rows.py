"""Pure functions that turn the measurements into the rows of the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from daybreak_server.adapters.kube.client import SYNC_S
from verification.results import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of the run."""

    pools: int
    groups: int
    """Groups of each pool."""
    hosts: int
    """Pods of each group."""

    @property
    def pods(self) -> int:
        """The number of all pods, including the Ray heads."""
        return self.pools * (1 + self.groups * self.hosts)

    def __str__(self) -> str:
        return f"{self.pools:,} pools, {self.pods:,} pods"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of all pools at once. Times count from the request for the change."""

    pods_s: float
    """Until the last pod ran or was gone."""
    pools_s: float
    """Until the last pool's status showed the requested state."""
    cpu_s: float
    """CPU seconds that the operator used."""
    calls: float
    """Calls of the operator to the Kubernetes API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """The operator's costs while nothing happens."""

    for_s: float
    calls_an_hour: float
    cores: float
    memory_mib: float


def change_rows(what: str, change: Change, pools: int) -> Iterator[Row]:
    """The row of a change. Its baseline is the time that Kubernetes needs for the pods."""
    yield Row(
        what=what,
        value=change.pools_s,
        unit="s",
        baseline=change.pods_s,
        baseline_what="until the last pod has changed: KubeRay, scheduler, kwok",
        note=f"operator: {change.cpu_s:.1f} s of CPU, {change.calls / pools:.1f} calls to the Kubernetes API per pool",
    )


def idle_rows(size: Size, idle: Idle, empty_mib: float) -> Iterator[Row]:
    """The cost of the operator while nothing changes."""
    yield Row(
        what=f"Operator with {size}: memory at rest",
        value=idle.memory_mib,
        unit="MiB",
        baseline=empty_mib,
        baseline_what="with no pool",
        note=f"{(idle.memory_mib - empty_mib) * 1024 / size.pods:.1f} KiB per pod",
    )
    yield Row(what=f"Operator with {size}: CPU at rest", value=idle.cores, unit="cores")
    yield Row(
        what=f"Operator with {size}: calls to the Kubernetes API in {idle.for_s:.0f} s at rest",
        value=round(idle.calls_an_hour * idle.for_s / 3600),
        unit="calls",
        note=f"watches are not counted; full lists come every {SYNC_S:.0f} s and may fall outside this time",
    )


def restarts(size: Size, seconds: Sequence[float], actions: float, peak_mib: float) -> Iterator[Row]:
    """The rows of an operator that is stopped and started again while all pools and pods exist.

    ``actions``: how many actions the operator took in all restarts together.
    """
    yield Row(
        what=f"Operator stopped and started again with {size}: until every pool is reconciled",
        value=median(seconds),
        unit="s",
        spread=(min(seconds), max(seconds)),
        note=f"from the start of the new process; {actions:.0f} actions in all {len(seconds)} restarts together",
    )
    yield Row(
        what=f"Operator stopped and started again with {size}: peak memory until every pool is reconciled",
        value=peak_mib,
        unit="MiB",
        note=f"the largest of {len(seconds)} restarts; kopf reads its first list in one piece",
    )
