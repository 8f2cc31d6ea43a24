"""The modes that the benchmark compares, and the CPU time of processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from daybreak_server.adapters.redis import scripts
from daybreak_server.settings.log import LogSettings
from daybreak_server.settings.tracing import TracingSettings

EVERY = 1e6
"""More traces per second than any process begins."""


@dataclass(frozen=True, slots=True)
class Mode:
    """Which parts of observability are on."""

    totals: bool = False
    """The Redis scripts count totals."""
    metrics: bool = False
    """The process has metrics of its own."""
    log: bool = False
    """The log has lines of level ``info``."""
    traces_per_s: float | None = None
    """The maximum number of traces that begin per second; ``None`` means that tracing is off."""


TURNS = 4
"""How many gateways take turns. The limit of traces is a token bucket, which also fills while the other gateways work.
So each gateway gets a quarter of the default limit. In its turns, it samples about as many traces per second as a
gateway that has the default limit and works all the time."""
_ON = Mode(totals=True, metrics=True, log=True, traces_per_s=TracingSettings().max_per_s / TURNS)
MODES = {"off": Mode(), "on": _ON, "all": replace(_ON, traces_per_s=EVERY)}
PARTS = {
    "totals": Mode(totals=True),
    "metrics": Mode(metrics=True),
    "log": Mode(log=True),
    "tracing": Mode(traces_per_s=_ON.traces_per_s),
}
"""Modes in which only one part is on."""
# Lua allows 200 locals, so this reassigns the existing functions instead of defining new ones.
_COUNT_NOTHING = """
observe = function() end
add_total = observe
tenant_totals.add = observe
tenant_totals.bill = observe
"""


def count_nothing() -> None:
    """Make the Redis scripts of this process count nothing. Call this before the first script runs."""
    read = scripts._read
    scripts._read = lambda file: read(file) + (_COUNT_NOTHING if file == "_totals.lua" else "")  # type: ignore[assignment]


def find(name: str) -> Mode:
    """The mode of this name."""
    return (MODES | PARTS)[name]


def log_settings(mode: Mode) -> LogSettings:
    """The log settings of this mode."""
    return LogSettings(format="json", level="info" if mode.log else "error", container="never")


def tracing_settings(mode: Mode, collector: str) -> TracingSettings:
    """The tracing settings of this mode, with this collector."""
    if mode.traces_per_s is None:
        return TracingSettings()
    return TracingSettings(enabled=True, endpoint=collector, max_per_s=mode.traces_per_s)


def cpu_s(*pids: int) -> float:
    """CPU seconds of all threads of these processes, to the nanosecond; ``cpu_times`` counts in steps of 10 ms."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(thread.read_text().split()[0])
    return total / 1e9
