"""Turns the measurements into the rows of the table. Pure."""

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
    """Of a pool."""
    hosts: int
    """Pods of a group."""

    @property
    def pods(self) -> int:
        """All pods, including the heads."""
        return self.pools * (1 + self.groups * self.hosts)

    def __str__(self) -> str:
        return f"{self.pools:,} pools, {self.pods:,} pods"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A change of all pools at once. Seconds count from the request."""

    pods_s: float
    """Until the last pod ran, or was gone."""
    pools_s: float
    """Until the last pool's status showed the requested state."""
    cpu_s: float
    """CPU that the operator used."""
    calls: float
    """Of the operator to the Kubernetes API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """While nothing happens."""

    for_s: float
    calls_an_hour: float
    cores: float
    memory_mib: float


def way(what: str, of: Way, pools: int) -> Iterator[Row]:
    """A change of all pools, beside the time that Kubernetes needs for the pods."""
    yield Row(
        what=what,
        value=of.pools_s,
        unit="s",
        baseline=of.pods_s,
        baseline_what="the last pod: KubeRay, scheduler, kwok",
        note=f"operator: {of.cpu_s:.1f} s of CPU, {of.calls / pools:.1f} calls to Kubernetes a pool",
    )


def rest(size: Size, of: Rest, empty_mib: float) -> Iterator[Row]:
    """The cost of the operator while nothing changes."""
    yield Row(
        what=f"operator, {size}: memory",
        value=of.memory_mib,
        unit="MiB",
        baseline=empty_mib,
        baseline_what="without a pool",
        note=f"{(of.memory_mib - empty_mib) * 1024 / size.pods:.1f} KiB a pod",
    )
    yield Row(what="… at rest: CPU", value=of.cores, unit="cores")
    yield Row(
        what="… at rest: calls to the Kubernetes API an hour",
        value=of.calls_an_hour,
        unit="calls",
        note=f"seen for {of.for_s:.0f} s, without its watches; full lists come every {SYNC_S:.0f} s",
    )


def restarts(size: Size, seconds: Sequence[float], actions: float, memory_mib: float) -> Iterator[Row]:
    """A new operator beside all existing pools and pods."""
    yield Row(
        what=f"operator killed and started again, {size}: every pool reconciled",
        value=median(seconds),
        unit="s",
        spread=(min(seconds), max(seconds)),
        note=f"from the start of the process; it did {actions:.0f} actions",
    )
    yield Row(
        what="… its memory then",
        value=memory_mib,
        unit="MiB",
        note="kopf reads its first list whole: this is the peak",
    )
