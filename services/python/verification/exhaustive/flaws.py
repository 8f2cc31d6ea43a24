"""Stores with one planted bug each. If the search missed one of these bugs, it would prove nothing."""

from __future__ import annotations

from typing import Any

from verification.exhaustive.machine import GRACE, LEASE, STALE, UNTICKED, Store, Task


class NoTokenCheck(Store):
    """While a task runs, accepts a report or a settle with any token."""

    def holds(self, t: Task, token: int) -> bool:
        return t.state == "R"


class SettleWithoutFence(Store):
    """Accepts a settle with any token."""

    def settle(self, i: int, token: int, outcome: str, then: int) -> Any:
        t = self.tasks[i]
        return super().settle(i, t.token if t.state == "R" else token, outcome, then)


class RenewWithoutFence(Store):
    """Accepts a report with any token, so a zombie keeps the lease of its successor alive."""

    def report(self, i: int, token: int) -> str:
        t = self.tasks[i]
        return super().report(i, t.token if t.state == "R" else token)


class SettleAfterTheEnd(Store):
    """A leader may settle a task that has ended."""

    def settle(self, i: int, token: int, outcome: str, then: int) -> Any:
        t = self.tasks[i]
        if t.state in "SFCX" and t.settled_token != token:
            self.end(t, outcome, "S" if outcome == "finish" else "F")
            return t.state, None
        return super().settle(i, token, outcome, then)


class SplitSubmit(Store):
    """Writes the record in one script and the queue entry in another."""

    def submit(self, i: int, ahead: bool) -> None:
        t = self.tasks[i]
        if t.state == "-":
            self._move(t, "submit", "D" if ahead else "Q", ahead=ahead)
            self.second_half = ("enter_late", i)

    def enter_late(self, i: int) -> None:
        self.enter(self.tasks[i])


class SplitClaim(Store):
    """Takes the task from the queue in one script and writes the lease in another."""

    def start(self, t: Task, group: int) -> None:
        super().start(t, group)
        t.in_leases = False
        self.second_half = ("lease_late", self.tasks.index(t))

    def lease_late(self, i: int) -> None:
        self.tasks[i].in_leases = True


class SplitEnd(Store):
    """Writes the terminal state in one script and its event in another."""

    def end(self, t: Task, event: str, state: str) -> None:
        super().end(t, event, state)
        t.terminal_events -= 1
        self.second_half = ("write_event_late", self.tasks.index(t))

    def write_event_late(self, i: int) -> None:
        self.tasks[i].terminal_events += 1


class LeaseInWallTime(Store):
    """Leases expire by wall time, so a jump of the wall clock makes them older."""

    def jump(self, outage: int = 0) -> int:
        for t in self.tasks:
            t.ticks += 2 * (t.state == "R")
        return super().jump(outage)


class ReportRenewsNothing(Store):
    """A report does not extend the lease."""

    def renew(self, t: Task) -> None:
        pass


class StrikeNotCounted(Store):
    """A task that kills its leader is retried forever."""

    def count(self, t: Task) -> None:
        pass


class ReleasesUnbounded(Store):
    """A task may be released any number of times."""

    def release(self, t: Task, event: str) -> None:
        if t.cancel_requested or t.overdue:
            self.strike(t, event)
        else:
            self._move(t, event, "Q")
            self.detach(t)
            self.enter(t)


class GroupFailuresFree(Store):
    """Counts the failure of a group as an ordinary release."""

    def release(self, t: Task, event: str) -> None:
        failures = t.failures
        t.failures = 0
        super().release(t, event)
        t.failures += failures


class ReleaseForgets(Store):
    """A released task does not enter the queue."""

    def release(self, t: Task, event: str) -> None:
        super().release(t, event)
        if t.state == "Q":
            t.in_queue = False


class CancelForgotten(Store):
    """A task succeeds although it was cancelled before its leader finished it."""

    def apply(self, t: Task, outcome: str) -> None:
        cancel, t.cancel_requested = t.cancel_requested, t.cancel_requested and outcome != "finish"
        super().apply(t, outcome)
        t.cancel_requested = cancel


class CancelEndsAtOnce(Store):
    """A cancelled task ends while its group still works on it."""

    def cancel(self, i: int) -> None:
        t = self.tasks[i]
        super().cancel(i)
        if t.state == "R":
            self.end(t, "cancel", "C")


class CancelNotReported(Store):
    """Marks the cancel, but never reports it to the leader."""

    def report(self, i: int, token: int) -> str:
        result = super().report(i, token)
        return result if result == STALE else "continue"


class DeadLetterMissing(Store):
    """A failed task leaves no dead letter."""

    def bury(self, t: Task) -> None:
        pass


class LeaseKeptByTheEnded(Store):
    """The end of an attempt does not remove its lease, so the attempt is reaped again."""

    def detach(self, t: Task) -> None:
        super().detach(t)
        t.in_leases = True


class LiveForgotten(Store):
    """An ended task stays in ``live``, so a group is kept for it."""

    def end(self, t: Task, event: str, state: str) -> None:
        super().end(t, event, state)
        t.in_live = True


class TokenUsedTwice(Store):
    """A new attempt gets the number of the attempt before it."""

    def start(self, t: Task, group: int) -> None:
        attempt = t.attempt
        super().start(t, group)
        if attempt:
            t.attempt = t.token = attempt


class RepeatIsStale(Store):
    """A repeated settle gets the answer STALE."""

    def settle(self, i: int, token: int, outcome: str, then: int) -> Any:
        repeated = self.tasks[i].settled_token == token
        result = super().settle(i, token, outcome, then)
        return (STALE, None) if repeated else result


class RepeatClaimsAgain(Store):
    """A repeated settle claims a second task."""

    def next_again(self, group: int) -> Any:
        return self.next(group)


class StaleIsSuccess(Store):
    """A leader that has lost its task gets the answer that the task succeeded, instead of STALE."""

    def settle(self, i: int, token: int, outcome: str, then: int) -> Any:
        result = super().settle(i, token, outcome, then)
        return ("S", None) if result[0] == STALE and self.tasks[i].state == "S" else result


class SubmitTwice(Store):
    """A repeated submit starts the task again."""

    def submit(self, i: int, ahead: bool) -> None:
        t = self.tasks[i]
        if t.state in "QS":
            t.state, t.terminal_events, t.attempt = "-", 0, 0
        super().submit(i, ahead)


class ClaimKeepsTheLast(Store):
    """A group that claims a task while it holds another one keeps both tasks."""

    def claim(self, group: int) -> Any:
        return self.next(group)


class NobodyReaps(Store):
    """No lease ever expires."""

    def reap(self, t: Task) -> None:
        t.ticks = 0


class NoGrace(Store):
    """The first tick after an outage expires leases that were nearly over before the outage."""

    def tick(self, outage: int = 0) -> int:
        super().tick(outage | GRACE)
        self.outage = outage
        return 0


class GraceForever(Store):
    """If every tick comes late, no lease expires."""

    def tick(self, outage: int = 0) -> int:
        super().tick(outage & UNTICKED)
        for t in self.tasks:
            # Keep the number of states finite: any value from `LEASE` on has the same effect.
            t.ticks = min(t.ticks, LEASE)
        return 0


class NobodyPromotes(Store):
    """A delayed task stays delayed."""

    def promote(self, t: Task) -> None:
        t.ticks = 1


class ReleasedIsSkipped(Store):
    """A claim skips released tasks."""

    def next(self, group: int) -> Any:
        released = [t for t in self.tasks if t.in_queue and t.releases]
        for t in released:
            t.in_queue = False
        token = super().next(group)
        for t in released:
            t.in_queue = True
        return token


FLAWS: tuple[type[Store], ...] = (
    NoTokenCheck,
    SettleWithoutFence,
    RenewWithoutFence,
    SettleAfterTheEnd,
    SplitSubmit,
    SplitClaim,
    SplitEnd,
    LeaseInWallTime,
    NoGrace,
    ReportRenewsNothing,
    StrikeNotCounted,
    ReleasesUnbounded,
    GroupFailuresFree,
    ReleaseForgets,
    CancelForgotten,
    CancelEndsAtOnce,
    CancelNotReported,
    DeadLetterMissing,
    LeaseKeptByTheEnded,
    LiveForgotten,
    TokenUsedTwice,
    RepeatIsStale,
    RepeatClaimsAgain,
    StaleIsSuccess,
    SubmitTwice,
    ClaimKeepsTheLast,
)
"""The search finds these by a state or step that violates an invariant."""
STUCK: tuple[type[Store], ...] = (NobodyReaps, GraceForever, NobodyPromotes, ReleasedIsSkipped)
"""These violate no invariant. The search finds them because, with each of them, a fair run may never end."""
