"""A task's life, by its stored stream and its last record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from verification.faults.checks.observations import TERMINAL, Observations, Violation

PERMANENT = frozenset({"echo_refused", "invalid_input"})


def one_end(told: Observations) -> Iterator[Violation]:
    """Exactly one terminal event, as the last one, and the record says the same."""
    for task, events in told.streams.items():
        ends = [event["type"] for event in events if event["type"] in TERMINAL]
        if ends.count("succeeded") > 1:
            yield Violation(
                kind="double-success", task=task, what=f"succeeded {ends.count('succeeded')} times"
            )
        if len(ends) != 1:
            yield Violation(kind="two-ends" if ends else "no-end", task=task, what=f"terminal events: {ends}")
        elif events[-1]["type"] != ends[0]:
            yield Violation(kind="two-ends", task=task, what=f"{events[-1]['type']} after {ends[0]}")
        state = told.finals.get(task, {}).get("state")
        if ends and state in TERMINAL and state != ends[-1]:
            yield Violation(
                kind="two-ends", task=task, what=f"the stream says {ends[-1]}, the record {state}"
            )


def attempts(told: Observations) -> Iterator[Violation]:
    """Attempts begin one after the other, each after the one before was given up; none writes out of turn."""
    for task, events in told.streams.items():
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
                        kind="attempt-falls", task=task, what=f"{kind} of attempt {attempt} in {current}"
                    )
                elif not open_ and kind not in TERMINAL:
                    yield Violation(
                        kind="zombie", task=task, what=f"{kind} of attempt {attempt} after its end"
                    )
                if kind == "retrying" or kind in TERMINAL:
                    open_ = False
        final = told.finals.get(task)
        if final is not None and final.get("attempt", 0) != current:
            what = f"the record says attempt {final.get('attempt', 0)}, the stream {current}"
            yield Violation(kind="attempt", task=task, what=what)


def progress(told: Observations) -> Iterator[Violation]:
    """Within a phase of an attempt steps rise, and none is left out; they and the fraction never fall.

    An event may cover several steps (``from_step``); after an outage it may cover again what is told already. A
    phase may begin where the one before has ended (decoding at the last step), or where a checkpoint was left.
    """
    for task, events in told.streams.items():
        step, phase, fraction, attempt = None, None, 0.0, -1
        for event in events:
            if event["attempt"] != attempt:
                step, phase, fraction, attempt = None, None, 0.0, event["attempt"]
            if event["type"] != "progress":
                continue
            data = event["data"]
            now = data.get("step")
            if now is not None:
                same = data.get("phase") == phase
                on = now > step if step is not None else True
                # What follows the last step (encoding) has no steps of its own: then the fraction rises.
                more = now == data.get("steps") and data["fraction"] > fraction
                on = on or (now == step and (more or not same))
                left_out = same and step is not None and data.get("from_step", now) > step + 1
                if not on or left_out:
                    what = f"step {data.get('from_step', now)} to {now} after step {step}, attempt {attempt}"
                    yield Violation(kind="progress", task=task, what=what)
                step, phase = now, data.get("phase")
            if data["fraction"] < fraction:
                yield Violation(kind="progress", task=task, what=f"{data['fraction']} after {fraction}")
            fraction = max(fraction, data["fraction"])


def strikes(told: Observations) -> Iterator[Violation]:
    """Never more strikes than allowed; a failure has used all of them, unless the error was permanent."""
    for task, record in told.finals.items():
        allowed, had = record.get("max_strikes", 3), record.get("strikes", 0)
        if had > allowed:
            yield Violation(kind="strikes", task=task, what=f"{had} strikes of {allowed}")
        if record.get("attempt", 0) > had + record.get("releases", 0) + 1:
            what = f"{record.get('attempt')} attempts, {had} strikes, {record.get('releases', 0)} hand-backs"
            yield Violation(kind="strikes", task=task, what=what)
        code = (record.get("error") or {}).get("code")
        if record["state"] == "failed" and had != allowed and code not in PERMANENT:
            yield Violation(
                kind="strikes", task=task, what=f"failed ({code}) after {had} strikes of {allowed}"
            )
        events = told.streams.get(task)
        if events is not None:
            yield from _retries(task, record, events)


def _retries(task: str, record: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[Violation]:
    """Each strike and each hand-back that did not end the task is told once."""
    told = [event["data"]["reason"] for event in events if event["type"] == "retrying"]
    backs = told.count("released")
    struck = len(told) - backs + (record["state"] == "failed")
    if backs != record.get("releases", 0):
        yield Violation(
            kind="strikes", task=task, what=f"{record.get('releases', 0)} hand-backs, {backs} told"
        )
    if struck != record.get("strikes", 0):
        yield Violation(kind="strikes", task=task, what=f"{record.get('strikes', 0)} strikes, {struck} told")


def dead_letters(told: Observations) -> Iterator[Violation]:
    """A task that failed is a dead letter, once; no other is."""
    for pool, store in told.stores.items():
        dead = store["dead"]
        failed = {t for t, r in told.finals.items() if r["pool"] == pool and r["state"] == "failed"}
        if len(dead) != len(set(dead)) or set(dead) != failed:
            for task in sorted(set(dead) ^ failed):
                yield Violation(
                    kind="dead-letter", task=task, what="failed and no dead letter, or the reverse"
                )
