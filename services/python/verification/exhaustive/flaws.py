"""Stores with one planted bug each: what the search must find, or it proves nothing."""

from __future__ import annotations

from typing import Any

from verification.exhaustive.machine import LEASE, SILENT, SPARED, STALE, Store, Task


class NoTokenCheck(Store):
    """A report and a settle are taken from whoever names a running task."""

    def holds(self, t: Task, token: int) -> bool:
        return t.state == "R"


class SettleWithoutFence(Store):
    """Only a settle is taken from anybody."""

    def settle(self, i: int, token: int, outcome: str, then: int) -> Any:
        t = self.tasks[i]
        return super().settle(i, t.token if t.state == "R" else token, outcome, then)


class RenewWithoutFence(Store):
    """Only a report is taken from anybody: a zombie keeps the lease of its heir alive."""

    def report(self, i: int, token: int) -> str:
        t = self.tasks[i]
        return super().report(i, t.token if t.state == "R" else token)


class SettleAfterTheEnd(Store):
    """A worker may settle a task that has ended."""

    def settle(self, i: int, token: int, outcome: str, then: int) -> Any:
        t = self.tasks[i]
        if t.state in "SFCX" and t.done != token:
            self.end(t, outcome, "S" if outcome == "finish" else "F")
            return t.state, None
        return super().settle(i, token, outcome, then)


class TornSubmit(Store):
    """The record by one script, the place in the queue by another."""

    def submit(self, i: int, ahead: bool) -> None:
        t = self.tasks[i]
        if t.state == "-":
            self._move(t, "submit", "D" if ahead else "Q", ahead=ahead)
            self.torn = ("enter_late", i)

    def enter_late(self, i: int) -> None:
        self.enter(self.tasks[i])


class TornClaim(Store):
    """Out of the queue by one script, the lease by another."""

    def start(self, t: Task, group: int) -> None:
        super().start(t, group)
        t.leased = False
        self.torn = ("lease_late", self.tasks.index(t))

    def lease_late(self, i: int) -> None:
        self.tasks[i].leased = True


class TornEnd(Store):
    """The terminal state by one script, its event by another."""

    def end(self, t: Task, event: str, state: str) -> None:
        super().end(t, event, state)
        t.ends -= 1
        self.torn = ("tell_late", self.tasks.index(t))

    def tell_late(self, i: int) -> None:
        self.tasks[i].ends += 1


class LeaseInWallTime(Store):
    """Leases see the wall clock leap."""

    def leap(self, quiet: int = 0) -> int:
        for t in self.tasks:
            t.ticks += 2 * (t.state == "R")
        return super().leap(quiet)


class ReportRenewsNothing(Store):
    """A live worker's lease runs out all the same."""

    def renew(self, t: Task) -> None:
        pass


class StrikeNotCounted(Store):
    """A task that kills its worker is tried for ever."""

    def count(self, t: Task) -> None:
        pass


class ReleasesUnbounded(Store):
    """A task is handed back for ever."""

    def release(self, t: Task, event: str) -> None:
        if t.cancel or t.late:
            self.strike(t, event)
        else:
            self._move(t, event, "Q")
            self.detach(t)
            self.enter(t)


class GroupFailuresFree(Store):
    """A group that fails is a hand-back like any other."""

    def release(self, t: Task, event: str) -> None:
        failures = t.failures
        t.failures = 0
        super().release(t, event)
        t.failures += failures


class ReleaseForgets(Store):
    """What is handed back does not enter the queue."""

    def release(self, t: Task, event: str) -> None:
        super().release(t, event)
        if t.state == "Q":
            t.queued = False


class CancelForgotten(Store):
    """A finish is a success although the cancel came first."""

    def apply(self, t: Task, outcome: str) -> None:
        cancel, t.cancel = t.cancel, t.cancel and outcome != "finish"
        super().apply(t, outcome)
        t.cancel = cancel


class CancelEndsAtOnce(Store):
    """A cancelled task ends while its group still works on it."""

    def cancel(self, i: int) -> None:
        t = self.tasks[i]
        super().cancel(i)
        if t.state == "R":
            self.end(t, "cancel", "C")


class CancelNotTold(Store):
    """The cancel is marked, but no worker hears of it."""

    def report(self, i: int, token: int) -> str:
        told = super().report(i, token)
        return told if told == STALE else "go on"


class DeadLetterMissing(Store):
    """A failed task leaves none."""

    def bury(self, t: Task) -> None:
        pass


class LeaseKeptByTheEnded(Store):
    """The end of an attempt leaves its lease; it is reaped again."""

    def detach(self, t: Task) -> None:
        super().detach(t)
        t.leased = True


class LiveForgotten(Store):
    """An ended task still holds a group."""

    def end(self, t: Task, event: str, state: str) -> None:
        super().end(t, event, state)
        t.live = True


class TokenUsedTwice(Store):
    """The number of an attempt does not rise."""

    def start(self, t: Task, group: int) -> None:
        attempt = t.attempt
        super().start(t, group)
        if attempt:
            t.attempt = t.token = attempt


class RepeatIsStale(Store):
    """Who repeats a settle is told that it lost."""

    def settle(self, i: int, token: int, outcome: str, then: int) -> Any:
        repeated = self.tasks[i].done == token
        told = super().settle(i, token, outcome, then)
        return (STALE, None) if repeated else told


class RepeatClaimsAgain(Store):
    """Who repeats a settle gets a second task."""

    def next_again(self, group: int) -> Any:
        return self.next(group)


class StaleIsSuccess(Store):
    """A worker that lost its task is told that it won."""

    def settle(self, i: int, token: int, outcome: str, then: int) -> Any:
        told = super().settle(i, token, outcome, then)
        return ("S", None) if told[0] == STALE and self.tasks[i].state == "S" else told


class SubmitTwice(Store):
    """A submit that is sent again begins the task anew."""

    def submit(self, i: int, ahead: bool) -> None:
        t = self.tasks[i]
        if t.state in "QS":
            t.state, t.ends, t.attempt = "-", 0, 0
        super().submit(i, ahead)


class ClaimKeepsTheLast(Store):
    """A group that claims although it holds a task, keeps that as well."""

    def claim(self, group: int) -> Any:
        return self.next(group)


class NobodyReaps(Store):
    """No lease ever ends."""

    def reap(self, t: Task) -> None:
        t.ticks = 0


class NoGrace(Store):
    """The first tick after a silence takes what was nearly over before it."""

    def tick(self, quiet: int = 0) -> int:
        super().tick(quiet | SPARED)
        self.quiet = quiet
        return 0


class GraceForEver(Store):
    """Ticks that always come late end no lease."""

    def tick(self, quiet: int = 0) -> int:
        super().tick(quiet & SILENT)
        for t in self.tasks:
            t.ticks = min(
                t.ticks, LEASE
            )  # how long it has been over makes no difference, and has no end here
        return 0


class NobodyPromotes(Store):
    """What is delayed stays so."""

    def promote(self, t: Task) -> None:
        t.ticks = 1


class ReleasedIsSkipped(Store):
    """A claim passes by what was handed back."""

    def next(self, group: int) -> Any:
        back = [t for t in self.tasks if t.queued and t.backs]
        for t in back:
            t.queued = False
        token = super().next(group)
        for t in back:
            t.queued = True
        return token


FLAWS: tuple[type[Store], ...] = (
    NoTokenCheck,
    SettleWithoutFence,
    RenewWithoutFence,
    SettleAfterTheEnd,
    TornSubmit,
    TornClaim,
    TornEnd,
    LeaseInWallTime,
    NoGrace,
    ReportRenewsNothing,
    StrikeNotCounted,
    ReleasesUnbounded,
    GroupFailuresFree,
    ReleaseForgets,
    CancelForgotten,
    CancelEndsAtOnce,
    CancelNotTold,
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
"""Found by a state or a step that is wrong."""
STUCK: tuple[type[Store], ...] = (NobodyReaps, GraceForEver, NobodyPromotes, ReleasedIsSkipped)
"""Found only by what never ends."""
