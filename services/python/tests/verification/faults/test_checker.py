"""The checker passes a clean history and finds every error that a test plants in a history."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from verification.faults.checker import check

TASK = "solo_01JDAAAAAAAAAAAAAAAAAAAAAA"
OTHER = "solo_01JDBBBBBBBBBBBBBBBBBBBBBB"
Story = Any


def kinds(story: Story) -> set[str]:
    return {violation.kind for violation in check(story.lines()).violations}


def test_a_clean_history_passes(story: Story) -> None:
    """A lost attempt, a lost response and a success break no promise."""
    verdict = check(story.lines())
    assert verdict.ok, verdict.text()
    assert verdict.counts["submit.ok"] == 1


ERRORS: dict[str, tuple[str, Callable[[Story], Any]]] = {
    "an accepted task is missing at the end": ("lost", lambda t: t.final_records.clear()),
    "a list lacks a task": ("lost", lambda t: t.calls[3][3].update(tasks={}, count=0)),
    "404 for an accepted task": (
        "lost",
        lambda t: t.later.append(("get", {"task": TASK}, "refused", {"code": "not_found", "error": ""})),
    ),
    "a task does not end in time": ("stuck", lambda t: t.left.append(TASK)),
    "a task still runs at the end": ("stuck", lambda t: t.record.update(state="running")),
    "one key has two tasks": (
        "twice",
        lambda t: t.final_records.update({OTHER: {**t.record, "id": OTHER}}),
    ),
    "no client submitted the task": ("twice", lambda t: t.record.update(metadata={"key": "key-9"})),
    "an acknowledged cancel, yet the task succeeds": (
        "cancel",
        lambda t: t.calls.append(
            ("cancel", {"task": TASK}, "ok", {"task": TASK, "state": "running", "cancel_requested": True})
        ),
    ),
    "a cancel returns cancelled, yet the task succeeds": (
        "two-ends",
        lambda t: t.calls.append(
            ("cancel", {"task": TASK}, "ok", {"task": TASK, "state": "cancelled", "cancel_requested": True})
        ),
    ),
    "a task runs after its end": ("two-ends", lambda t: t.later[1][3].update(state="running")),
    "an attempt number falls": (
        "attempt-falls",
        lambda t: t.later.append(
            ("get", {"task": TASK}, "ok", {"task": TASK, "state": "succeeded", "attempt": 1, "strikes": 1})
        ),
    ),
    "two successes": ("double-success", lambda t: t.events.append({**t.events[-1], "id": "1009-0"})),
    "an event after the end": ("two-ends", lambda t: t.events.append({**t.events[6], "id": "1009-0"})),
    "no terminal event": ("no-end", lambda t: t.events.pop()),
    "the record and the stream have different states": (
        "two-ends",
        lambda t: t.record.update(state="failed"),
    ),
    "two attempts at once": ("attempt", lambda t: t.events.pop(3)),
    "a skipped attempt": ("attempt", lambda t: t.events[4].update(attempt=3)),
    "an event of an older attempt": ("attempt-falls", lambda t: t.events[6].update(attempt=1)),
    "a zombie's event": (
        "zombie",
        lambda t: t.events.insert(4, {**t.events[2], "id": "1003-5", "data": {"step": 2, "fraction": 1.0}}),
    ),
    "a step twice": ("progress", lambda t: t.events[6]["data"].update(step=1)),
    "a missing step": ("progress", lambda t: t.events[6]["data"].update(step=3)),
    "a fraction that falls": ("progress", lambda t: t.events[6]["data"].update(fraction=0.1)),
    "more strikes than allowed": ("strikes", lambda t: t.record.update(max_strikes=0)),
    "a strike without an event": ("strikes", lambda t: t.record.update(strikes=2)),
    "a release without an event": ("strikes", lambda t: t.record.update(releases=1)),
    "a dead letter of a success": ("dead-letter", lambda t: t.store["dead"].append(TASK)),
    "stored ids that do not increase": ("order", lambda t: t.events[3].update(id="1002-0")),
    "a stream without its beginning": ("gap", lambda t: t.events.pop(0)),
    "a reader with a gap": ("gap", lambda t: t.seen.pop(4)),
    "a reader with a repeat": ("repeat", lambda t: t.seen.insert(3, t.seen[2])),
    "a reader whose stream ended early": ("gap", lambda t: t.seen.pop()),
    "a reader that saw an event that is not stored": ("gap", lambda t: t.seen[5].update(id="1005-7")),
    "a relay with a gap": ("relay", lambda t: t.relayed.pop(2)),
    "a relay out of order": ("relay", lambda t: t.relayed.insert(1, t.relayed.pop(5))),
    "a relay that reports a gap": (
        "gap",
        lambda t: t.extra.append({"op": "relay", "kind": "gap", "pool": "solo", "error": "trimmed"}),
    ),
    "a SHA-256 that differs from the published one": ("hash", lambda t: t.later[0][3].update(sha256="00")),
    "a size that differs from the published one": ("hash", lambda t: t.later[0][3].update(size=79)),
    "a visible file that cannot be read": (
        "unreadable",
        lambda t: t.later.append(
            ("download", {"task": TASK, "name": "echo.txt"}, "refused", {"error": "404"})
        ),
    ),
    "a file that was never read": ("unreadable", lambda t: t.later.pop(0)),
    "the same input with other bytes": (
        "seed",
        lambda t: t.record.update(input={"message": "m1", "steps": 3}),
    ),
    "artifacts of a failure": ("published", lambda t: t.record.update(state="failed")),
    "an event that names other artifacts": ("published", lambda t: t.events[-1]["data"].update(artifacts=[])),
    "a left-over file of a lost attempt": ("file-left", lambda t: t.files.append(f"{TASK}/1.aaa/half.bin")),
    "a file of an unknown task": ("file-left", lambda t: t.files.append(f"{OTHER}/1.aaa/echo.txt")),
    "a ledger that does not add up": ("charge", lambda t: t.store["ledger"].update({"ada:used_ms": 900})),
    "a tenant's total that does not add up": (
        "charge",
        lambda t: t.store["tenant_totals"].update({"ada:used_ms": "0"}),
    ),
    "a charge above the time that passed": (
        "charge",
        lambda t: t.store["usage"].update({TASK: ["1000", "500", None, "0", "800"]}),
    ),
    "a record with another charge": ("charge", lambda t: t.record["usage"].update(gpu_seconds=2.0)),
    "a share below what was used": ("charge", lambda t: t.store["shares"].update(ada="0.2")),
    "a key without a task": ("key-left", lambda t: t.store["families"]["out"].append(OTHER)),
    "an unknown key": ("key-left", lambda t: t.store["unknown_keys"].append("daybreak:{solo}:what")),
    "a task that is still live": ("key-left", lambda t: t.store["live"].append(TASK)),
    "a lease of an ended task": ("key-left", lambda t: t.store["leases"].append(TASK)),
    "a token of an ended task": ("key-left", lambda t: t.store["usage"][TASK].__setitem__(2, "2.abc")),
    "an ended task without retention": ("key-left", lambda t: t.store["expiring"].clear()),
    "a client that gave up": (
        "client",
        lambda t: t.extra.append({"op": "client", "kind": "failed", "error": "ProtocolError: what?"}),
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_every_planted_error_is_found(story: Story, error: str) -> None:
    """One change to a clean history gives a violation of the right kind."""
    kind, plant = ERRORS[error]
    story.seen, story.relayed = copy.deepcopy(story.seen), copy.deepcopy(story.relayed)
    plant(story)
    assert kind in kinds(story)


def test_a_failed_task_has_used_all_its_strikes_and_is_one_dead_letter(story: Story) -> None:
    """A transient error must not fail a task after only one of its three strikes."""
    story.events = [*story.events[:2], {"id": "1009-0", "type": "failed", "attempt": 1, "data": {}}]
    story.seen, story.relayed = list(story.events), list(story.events)
    story.record.update(state="failed", attempt=1, strikes=1, artifacts=[], error={"code": "echo_failed"})
    story.calls, story.later, story.files = story.calls[:2], [], []
    assert kinds(story) == {"strikes", "dead-letter"}
    story.record.update(max_strikes=1)
    story.store["dead"] = [TASK]
    assert kinds(story) == set()
    story.store["dead"] = [TASK, TASK]
    assert kinds(story) == {"dead-letter"}


def test_a_reader_may_miss_the_events_before_a_reset(story: Story) -> None:
    """`reset` means that earlier events are not available."""
    story.seen = [{"id": None, "type": "reset", "attempt": None, "data": {}}, *story.seen[5:]]
    assert kinds(story) == set()


def test_an_unfinished_run_has_no_lost_tasks(story: Story) -> None:
    """Without the final reads, a task that no client sees again does not count as lost."""
    lines = [line for line in story.lines() if line["op"] in ("run", "submit", "get", "list")]
    assert check(lines).ok
