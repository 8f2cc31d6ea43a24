"""Decides from a history alone which promises were broken. Pure.

Its parts look at one thing each: what clients were told (``accepted``, ``cancels``, ``looks``), the streams
(``streams``, ``readers``, ``relays``), the files, the books, the keys. A violation names its task, so that the
history can be searched for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from verification.faults.checks import accounting, calls, files, streams, task_history
from verification.faults.checks.observations import Observations, Violation, gather
from verification.faults.history import Line

Check = Callable[[Observations], Iterator[Violation]]

CHECKS: tuple[Check, ...] = (
    calls.lost,
    calls.unsettled,
    calls.idempotent,
    calls.cancelled,
    calls.never_back,
    calls.clients_failed,
    task_history.one_end,
    task_history.attempts,
    task_history.progress,
    task_history.strikes,
    task_history.dead_letters,
    streams.in_order,
    streams.readers,
    streams.relays,
    files.readable,
    files.published,
    files.same_seed,
    files.nothing_left,
    accounting.charged,
    accounting.keys,
    accounting.empty,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a history says."""

    violations: tuple[Violation, ...]
    counts: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations

    def of(self, *kinds: str) -> int:
        """How many violations of these kinds."""
        return sum(1 for one in self.violations if one.kind in kinds)

    def text(self, limit: int = 20) -> str:
        """For people."""
        if self.ok:
            return "no violation"
        kinds = ", ".join(
            f"{count} × {kind}" for kind, count in Counter(v.kind for v in self.violations).items()
        )
        lines = [f"  {one.kind}: {one.task or '-'}: {one.what}" for one in self.violations[:limit]]
        more = len(self.violations) - limit
        return "\n".join(
            [f"{len(self.violations)} violations ({kinds})", *lines, *([f"  … and {more} more"] * (more > 0))]
        )


def check(lines: Iterable[Line]) -> Verdict:
    """Decide."""
    told = gather(lines)
    return Verdict(violations=tuple(one for each in CHECKS for one in each(told)), counts=told.counts())
