"""Invariants of every state of the store in ``machine``, and of every script that this store runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verification.exhaustive.machine import (
    ENDED,
    FAILURES,
    LEASE,
    NOBODY,
    RELEASES,
    STALE,
    STRIKES,
    UNTICKED,
    Store,
    Task,
)

PLACES = {
    "-": (False, False, False, False),
    "Q": (True, False, False, True),
    "D": (False, True, False, False),
    "R": (False, False, True, True),
    **dict.fromkeys(ENDED, (False, False, False, False)),
}
"""For each state of a task: whether the task is in the queue, in the delays, in the leases, and in ``live``.

``live`` has the tasks that are due and those that run.
"""
_AGE = {"R": 0, "D": 1, "Q": 2}


def task_violation(tasks: Sequence[Task]) -> str | None:
    """The first violation in a state of the store, or ``None``."""
    for i, t in enumerate(tasks):
        if (t.in_queue, t.in_delays, t.in_leases, t.in_live) != PLACES[t.state]:
            return f"task {i} is lost, or in two places"
        if t.terminal_events != (t.state in ENDED):
            return f"task {i} has {t.terminal_events} terminal events"
        if t.dead_letters != (t.state == "F"):
            return f"task {i} has {t.dead_letters} dead letters"
        if t.state in ENDED and t.cancel_requested != (t.state == "C"):
            return f"task {i} was cancelled first, but did not end as cancelled"
        if t.attempt > STRIKES + RELEASES or t.strikes > STRIKES or t.releases > RELEASES:
            return f"task {i} is retried forever"
        if t.failures > FAILURES:
            return f"task {i} makes groups fail without a strike"
        if (t.state == "R") != (t.token > 0):
            return f"task {i} runs without a token, or has one and does not run"
    for group in (0, 1):
        if sum(t.owner == group for t in tasks) > 1:
            return f"group {group} holds two tasks"
    return None


def script_violation(was: Sequence[Task], store: Store) -> str | None:
    """The first violation in the effect of a script, or ``None``."""
    for i, (old, new) in enumerate(zip(was, store.tasks, strict=True)):
        if progress(new) < progress(old):
            return f"task {i} went back: {old} → {new}"
        if old.state in ENDED and (new.state != old.state or new.terminal_events != old.terminal_events):
            return f"task {i} changed after it had ended"
    if any(ticks < LEASE for ticks in store.reaped):
        return "a lease expired although its holder had just received a reply"
    if store.reaped and store.outage == UNTICKED:
        return "a lease expired at the first tick after an outage, in which no holder could renew"
    return None


def reply_violation(script: tuple[Any, ...], old: Sequence[Task], store: Store, answer: Any) -> str | None:
    """The first violation in a reply to a leader, or in the effect of the leader's call. ``None`` if there is none."""
    i, number = script[1], script[2]
    was, now = old[i], store.tasks[i]
    current, repeated = number == was.token, script[0] == "settle" and number == was.settled_token
    result = answer if script[0] == "report" else answer[0]
    if (result == STALE) == (current or repeated):
        return f"a leader wrongly received {result!r}"
    alone = script[0] == "report" or script[4] == NOBODY
    if not current and alone and (now.state, now.ticks, now.attempt) != (was.state, was.ticks, was.attempt):
        return f"a leader without the token changed task {i}"
    if result == "S" and current and now.published_attempt != number:
        return "a leader received the success of another attempt"
    if (
        current
        and script[0] == "report"
        and result != ("stop" if was.cancel_requested or was.overdue else "continue")
    ):
        return f"a leader wrongly received {result!r}"
    return None


def progress(t: Task) -> tuple[int, int]:
    """The progress of a task, which no step may decrease. Between two claims, a task can go only forward through these
    states: running, delayed, queued."""
    if t.state == "-":
        return -1, 0
    return (99, 0) if t.state in ENDED else (t.attempt, _AGE[t.state])
