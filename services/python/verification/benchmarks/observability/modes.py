"""The modes that the benchmark compares, and the CPU time of processes."""

from __future__ import annotations

from pathlib import Path

from daybreak_server.adapters.redis import scripts
from daybreak_server.settings.log import LogSettings
from daybreak_server.settings.tracing import TracingSettings

MODES = ("off", "on", "all")
"""``all`` is ``on`` with every trace sampled."""
SAMPLED = {"off": 0.0, "on": TracingSettings().sample_ratio, "all": 1.0}

# The fragments' functions are locals of the library's text, which may have at most 200, so they get other values.
_COUNT_NOTHING = """
observe = function() end
add_total = observe
tenant_totals.add = observe
tenant_totals.bill = observe
"""


def count_nothing() -> None:
    """From now on, the Redis scripts of this process count nothing. Call it before the first script runs."""
    read = scripts._read
    scripts._read = lambda file: read(file) + (_COUNT_NOTHING if file == "_totals.lua" else "")  # type: ignore[assignment]


def log_settings(mode: str) -> LogSettings:
    """The log of this mode."""
    return LogSettings(format="json", level="error" if mode == "off" else "info", container="never")


def tracing_settings(mode: str, collector: str) -> TracingSettings:
    """Tracing of this mode, to this collector."""
    if mode == "off":
        return TracingSettings()
    return TracingSettings(enabled=True, endpoint=collector, sample_ratio=SAMPLED[mode])


def cpu_s(*pids: int) -> float:
    """CPU seconds of all threads of these processes, to the nanosecond; ``cpu_times`` counts in steps of 10 ms."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(thread.read_text().split()[0])
    return total / 1e9
