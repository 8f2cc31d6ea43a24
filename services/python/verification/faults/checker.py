"""Decides which promises were broken, from a history alone. The module is pure.

:func:`check` sorts the lines of a history into :class:`Observations` and runs every function of ``CHECKS`` on them.
Each check is a pure function that yields violations of one promise. The checks are in these modules:

* ``calls``         compares the responses that clients got with the final records
* ``task_history``  checks attempts, steps, strikes and the end of each task, in its stored events and final record
* ``streams``       compares what readers and relays received with the stored events
* ``files``         checks that artifacts are published, readable and correct, and that no other file is left
* ``accounting``    checks that charged seconds add up, and that at the end no stray key is left and no task waits,
  runs or is in a group

A violation that concerns one task names this task, so that you can search the history for it.
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
    """The result of checking a history."""

    violations: tuple[Violation, ...]
    counts: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations

    def count(self, *kinds: str) -> int:
        """The number of violations of these kinds."""
        return sum(1 for violation in self.violations if violation.kind in kinds)

    def text(self, limit: int = 20) -> str:
        """A summary for people, with at most ``limit`` violations."""
        if self.ok:
            return "no violation"
        kinds = ", ".join(
            f"{count} × {kind}" for kind, count in Counter(v.kind for v in self.violations).items()
        )
        lines = [f"  {v.kind}: {v.task or '-'}: {v.what}" for v in self.violations[:limit]]
        hidden = len(self.violations) - limit
        return "\n".join(
            [
                f"{len(self.violations)} violations ({kinds})",
                *lines,
                *([f"  … and {hidden} more"] * (hidden > 0)),
            ]
        )


def check(lines: Iterable[Line]) -> Verdict:
    """Run every check on the lines of a history."""
    observations = gather(lines)
    violations = tuple(violation for rule in CHECKS for violation in rule(observations))
    return Verdict(violations=violations, counts=observations.counts())
