"""Checks the history of each task: its stored events and its final record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from verification.faults.checks.observations import TERMINAL, Observations, Violation

PERMANENT = frozenset({"echo_refused", "invalid_input"})


def one_end(observations: Observations) -> Iterator[Violation]:
    """A task has exactly one terminal event. This event is the last one, and the record has the same state."""
    for task, events in observations.streams.items():
        ends = [event["type"] for event in events if event["type"] in TERMINAL]
        if ends.count("succeeded") > 1:
            yield Violation(
                kind="double-success", task=task, what=f"succeeded {ends.count('succeeded')} times"
            )
        if len(ends) != 1:
            yield Violation(kind="two-ends" if ends else "no-end", task=task, what=f"terminal events: {ends}")
        elif events[-1]["type"] != ends[0]:
            yield Violation(kind="two-ends", task=task, what=f"{events[-1]['type']} after {ends[0]}")
        state = observations.final_records.get(task, {}).get("state")
        if ends and state in TERMINAL and state != ends[-1]:
            yield Violation(
                kind="two-ends", task=task, what=f"the stream ends with {ends[-1]}, the record is {state}"
            )


def attempts(observations: Observations) -> Iterator[Violation]:
    """Each attempt starts after the previous one has ended, and writes its events between its start and its end.

    There is one exception: if a task ends while it waits for its next attempt, its terminal event comes after the end
    of the last attempt.
    """
    for task, events in observations.streams.items():
        current, open_ = 0, False
        for event in events:
            kind, attempt = event["type"], event["attempt"] or 0
            if kind == "started":
                if attempt != current + 1 or open_:
                    what = f"attempt {attempt} began after {current} ({'open' if open_ else 'closed'})"
                    yield Violation(kind="attempt", task=task, what=what)
                current, open_ = max(attempt, current), True
            elif kind != "queued":
                if attempt != current:
                    yield Violation(
                        kind="attempt-falls", task=task, what=f"{kind} of attempt {attempt} during {current}"
                    )
                elif not open_ and kind not in TERMINAL:
                    yield Violation(
                        kind="zombie", task=task, what=f"{kind} of attempt {attempt} after its end"
                    )
                if kind == "retrying" or kind in TERMINAL:
                    open_ = False
        final = observations.final_records.get(task)
        if final is not None and final.get("attempt", 0) != current:
            what = f"the record has attempt {final.get('attempt', 0)}, the stream {current}"
            yield Violation(kind="attempt", task=task, what=what)


def progress(observations: Observations) -> Iterator[Violation]:
    """Within one phase of an attempt, steps rise without gaps. Within an attempt, neither step nor fraction falls.

    An event may cover several steps (``from_step``). After an outage, an event may also cover steps that an earlier
    event has reported. A phase may start at the last step of the previous phase, as decoding does, or at a checkpoint.
    """
    for task, events in observations.streams.items():
        step, phase, fraction, attempt = None, None, 0.0, -1
        for event in events:
            if event["attempt"] != attempt:
                step, phase, fraction, attempt = None, None, 0.0, event["attempt"]
            if event["type"] != "progress":
                continue
            data = event["data"]
            reached = data.get("step")
            if reached is not None:
                same = data.get("phase") == phase
                advances = reached > step if step is not None else True
                # Work after the last step (encoding) has no steps of its own; only its fraction rises.
                fraction_rises = reached == data.get("steps") and data["fraction"] > fraction
                advances = advances or (reached == step and (fraction_rises or not same))
                left_out = same and step is not None and data.get("from_step", reached) > step + 1
                if not advances or left_out:
                    what = f"step {data.get('from_step', reached)} to {reached} after step {step}, attempt {attempt}"
                    yield Violation(kind="progress", task=task, what=what)
                step, phase = reached, data.get("phase")
            if data["fraction"] < fraction:
                yield Violation(kind="progress", task=task, what=f"{data['fraction']} after {fraction}")
            fraction = max(fraction, data["fraction"])


def strikes(observations: Observations) -> Iterator[Violation]:
    """A task never has more strikes than allowed. A failed task has exactly the allowed number, unless its error is
    permanent."""
    for task, record in observations.final_records.items():
        allowed, had = record.get("max_strikes", 3), record.get("strikes", 0)
        if had > allowed:
            yield Violation(kind="strikes", task=task, what=f"{had} strikes of {allowed}")
        if record.get("attempt", 0) > had + record.get("releases", 0) + 1:
            what = f"{record.get('attempt')} attempts, {had} strikes, {record.get('releases', 0)} releases"
            yield Violation(kind="strikes", task=task, what=what)
        code = (record.get("error") or {}).get("code")
        if record["state"] == "failed" and had != allowed and code not in PERMANENT:
            yield Violation(
                kind="strikes", task=task, what=f"failed ({code}) after {had} strikes of {allowed}"
            )
        events = observations.streams.get(task)
        if events is not None:
            yield from _retries(task, record, events)


def _retries(task: str, record: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[Violation]:
    """Each strike and each release that did not end the task has exactly one ``retrying`` event."""
    reasons = [event["data"]["reason"] for event in events if event["type"] == "retrying"]
    released = reasons.count("released")
    struck = len(reasons) - released + (record["state"] == "failed")
    if released != record.get("releases", 0):
        what = f"{record.get('releases', 0)} releases, {released} events"
        yield Violation(kind="strikes", task=task, what=what)
    if struck != record.get("strikes", 0):
        what = f"{record.get('strikes', 0)} strikes, {struck} events"
        yield Violation(kind="strikes", task=task, what=what)


def dead_letters(observations: Observations) -> Iterator[Violation]:
    """Every failed task is a dead letter exactly once, and no other task is."""
    for pool, store in observations.stores.items():
        dead = store["dead"]
        failed = {
            t for t, r in observations.final_records.items() if r["pool"] == pool and r["state"] == "failed"
        }
        for task in sorted(set(dead) ^ failed):
            yield Violation(
                kind="dead-letter",
                task=task,
                what="failed without a dead letter, or has a dead letter without having failed",
            )
        for task, count in Counter(dead).items():
            if count > 1:
                yield Violation(kind="dead-letter", task=task, what=f"has {count} dead letters")
