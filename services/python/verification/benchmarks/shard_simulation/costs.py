"""The costs of operations as `verification.benchmarks.queue` measured them; assumptions are in `assumptions.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from verification.results import FOLDER, Report, load


class NotMeasuredError(LookupError):
    """A figure that the simulator needs has not been measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The measured costs: for each operation, how many CPU seconds it takes on a shard's single core.

    Some fields have other units. Fields whose names end in ``_bytes`` have bytes, those whose names end in ``_s`` have
    operations per second, and the two hand-offs have seconds of elapsed time.
    """

    submit: float
    settle: float
    """A settle that claims the next task."""
    claim_none: float
    refresh: float
    renew: float
    report: float
    tick: float
    event_out: float
    """One event that is sent to one reader, while the reader waits for it."""
    event_out_many: float
    """One event that is sent to one reader, when events come faster than readers read."""
    queued_bytes: float
    ended_bytes: float
    handoff_raw: float
    """The time of a raw hand-off (RPUSH to BLPOP). It includes two trips over the network and two clients' work."""
    handoff: float
    submits_s: float
    settles_s: float
    tasks_s: float


_ROWS = {
    "submit": ("Server CPU of a submit in a batch", 1e-6),
    "settle": ("Server CPU of a settle that claims the next", 1e-6),
    "claim_none": ("Server CPU of a claim that finds nothing", 1e-6),
    "refresh": ("Server CPU of a refresh of a group", 1e-6),
    "renew": ("Server CPU of a renewal of a lease", 1e-6),
    "report": ("Server CPU of a report of one event", 1e-6),
    "tick": ("Server CPU of a tick", 1e-6),
    "event_out": ("Server CPU of an event sent to one reader", 1e-6),
    "event_out_many": ("Server CPU of an event sent to one reader, many at once", 1e-6),
    "queued_bytes": ("Memory of a queued task", 1.0),
    "ended_bytes": ("Memory of an ended task", 1.0),
    "handoff": ("Enqueue → claim by an idle group, median", 1e-3),
    "submits_s": ("Submit alone", 1.0),
    "settles_s": ("Settle and claim the next alone", 1.0),
    "tasks_s": ("No-op tasks", 1.0),
}
"""For each field: the name of its row in the report, and the factor from the row's unit to the field's unit.

The name of a row may end with a comma and the depth of the queue. If the names of several rows differ only in the
depth, only the first of these rows counts. It has the smallest depth."""


def measured(folder: Path = FOLDER) -> tuple[Costs, Report]:
    """The costs, and the report that they come from. :raises NotMeasuredError: with the name of a missing figure."""
    path = folder / "queue.json"
    if not path.exists():
        raise NotMeasuredError(f"{path} does not exist: run python -m verification.benchmarks.queue first")
    report = load(path)
    values: dict[str, float] = {}
    for field, (name, unit) in _ROWS.items():
        rows = [row for row in report.rows if row.what == name or row.what.rpartition(", ")[0] == name]
        if not rows:
            raise NotMeasuredError(
                f"{path} has no row {name!r}: run python -m verification.benchmarks.queue again"
            )
        values[field] = rows[0].value * unit
    raw = {row.what: row.baseline for row in report.rows}[_ROWS["handoff"][0]]
    if raw is None:
        raise NotMeasuredError(
            f"{path}: the hand-off has no baseline; run python -m verification.benchmarks.queue again"
        )
    return Costs(**values, handoff_raw=raw / 1e3), report


def shares(load_by_operation: Mapping[str, float]) -> list[tuple[str, float]]:
    """The operations with their shares of the load, the largest share first."""
    return sorted(load_by_operation.items(), key=lambda item: -item[1])
