"""The lab's checker: a clean history passes, and every lie that is planted in it is found, by its name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from verification.faults.checker import check

TASK = "solo_01JDAAAAAAAAAAAAAAAAAAAAAA"
OTHER = "solo_01JDBBBBBBBBBBBBBBBBBBBBBB"
Tale = Any


def kinds(tale: Tale) -> set[str]:
    return {one.kind for one in check(tale.lines()).violations}


def test_a_clean_history_passes(tale: Tale) -> None:
    """A lost attempt, a lost answer, a success: nothing is wrong with that."""
    verdict = check(tale.lines())
    assert verdict.ok, verdict.text()
    assert verdict.counts["submit.ok"] == 1


LIES: dict[str, tuple[str, Callable[[Tale], Any]]] = {
    "accepted, and gone in the end": ("lost", lambda t: t.finals.clear()),
    "missing in a list": ("lost", lambda t: t.calls[3][3].update(tasks={}, count=0)),
    "404 for a task that was accepted": (
        "lost",
        lambda t: t.later.append(("get", {"task": TASK}, "refused", {"code": "not_found", "error": ""})),
    ),
    "not ended within its bound": ("stuck", lambda t: t.left.append(TASK)),
    "running in the end": ("stuck", lambda t: t.record.update(state="running")),
    "one key, two tasks": (
        "twice",
        lambda t: t.finals.update({OTHER: {**t.record, "id": OTHER}}),
    ),
    "a task that nobody handed in": ("twice", lambda t: t.record.update(metadata={"key": "key-9"})),
    "cancelled by word, succeeded in deed": (
        "cancel",
        lambda t: t.calls.append(
            ("cancel", {"task": TASK}, "ok", {"task": TASK, "state": "running", "cancel_requested": True})
        ),
    ),
    "told that it was cancelled": (
        "two-ends",
        lambda t: t.calls.append(
            ("cancel", {"task": TASK}, "ok", {"task": TASK, "state": "cancelled", "cancel_requested": True})
        ),
    ),
    "running after its end": ("two-ends", lambda t: t.later[1][3].update(state="running")),
    "an attempt number that falls": (
        "attempt-falls",
        lambda t: t.later.append(
            ("get", {"task": TASK}, "ok", {"task": TASK, "state": "succeeded", "attempt": 1, "strikes": 1})
        ),
    ),
    "two successes": ("double-success", lambda t: t.events.append({**t.events[-1], "id": "1009-0"})),
    "an event after the end": ("two-ends", lambda t: t.events.append({**t.events[6], "id": "1009-0"})),
    "no terminal event": ("no-end", lambda t: t.events.pop()),
    "the record says otherwise than the stream": ("two-ends", lambda t: t.record.update(state="failed")),
    "two attempts at once": ("attempt", lambda t: t.events.pop(3)),
    "an attempt that was skipped": ("attempt", lambda t: t.events[4].update(attempt=3)),
    "an event of an older attempt": ("attempt-falls", lambda t: t.events[6].update(attempt=1)),
    "a zombie's event": (
        "zombie",
        lambda t: t.events.insert(4, {**t.events[2], "id": "1003-5", "data": {"step": 2, "fraction": 1.0}}),
    ),
    "a step twice": ("progress", lambda t: t.events[6]["data"].update(step=1)),
    "a step that nobody was told of": ("progress", lambda t: t.events[6]["data"].update(step=3)),
    "a fraction that falls": ("progress", lambda t: t.events[6]["data"].update(fraction=0.1)),
    "more strikes than allowed": ("strikes", lambda t: t.record.update(max_strikes=0)),
    "a strike that nobody was told of": ("strikes", lambda t: t.record.update(strikes=2)),
    "a hand-back that nobody was told of": ("strikes", lambda t: t.record.update(releases=1)),
    "a dead letter of a success": ("dead-letter", lambda t: t.store["dead"].append(TASK)),
    "stored ids that do not rise": ("order", lambda t: t.events[3].update(id="1002-0")),
    "a stream without its beginning": ("gap", lambda t: t.events.pop(0)),
    "a reader with a gap": ("gap", lambda t: t.seen.pop(4)),
    "a reader with a repeat": ("repeat", lambda t: t.seen.insert(3, t.seen[2])),
    "a reader whose stream ended early": ("gap", lambda t: t.seen.pop()),
    "a reader who saw what is not stored": ("gap", lambda t: t.seen[5].update(id="1005-7")),
    "a relay with a gap": ("relay", lambda t: t.relayed.pop(2)),
    "a relay out of order": ("relay", lambda t: t.relayed.insert(1, t.relayed.pop(5))),
    "a relay that says it lost something": (
        "gap",
        lambda t: t.extra.append({"op": "relay", "kind": "gap", "pool": "solo", "error": "trimmed"}),
    ),
    "bytes that are not what was published": ("hash", lambda t: t.later[0][3].update(sha256="00")),
    "a size that is not what was published": ("hash", lambda t: t.later[0][3].update(size=79)),
    "a file that is shown and cannot be read": (
        "unreadable",
        lambda t: t.later.append(
            ("download", {"task": TASK, "name": "echo.txt"}, "refused", {"error": "404"})
        ),
    ),
    "a file that was never read": ("unreadable", lambda t: t.later.pop(0)),
    "the same seed, other bytes": ("seed", lambda t: t.record.update(input={"message": "m1", "steps": 3})),
    "artifacts of a failure": ("published", lambda t: t.record.update(state="failed")),
    "an event that names other artifacts": ("published", lambda t: t.events[-1]["data"].update(artifacts=[])),
    "a file of a lost attempt that stays": ("file-left", lambda t: t.files.append(f"{TASK}/1.aaa/half.bin")),
    "a file of a task that nobody knows": ("file-left", lambda t: t.files.append(f"{OTHER}/1.aaa/echo.txt")),
    "a ledger that does not add up": ("charge", lambda t: t.store["ledger"].update({"ada:used_ms": 900})),
    "a pool's sum that does not add up": ("charge", lambda t: t.store["meta"].update(wasted_ms="0")),
    "more than the time that passed": (
        "charge",
        lambda t: t.store["usage"].update({TASK: ["1000", "500", None, "0", "800"]}),
    ),
    "a record that says another sum": ("charge", lambda t: t.record["usage"].update(gpu_seconds=2.0)),
    "a share below what was used": ("charge", lambda t: t.store["shares"].update(ada="0.2")),
    "a key of no task": ("key-left", lambda t: t.store["families"]["out"].append(OTHER)),
    "a key that nobody knows": ("key-left", lambda t: t.store["strange"].append("daybreak:{solo}:what")),
    "a task that is still live": ("key-left", lambda t: t.store["live"].append(TASK)),
    "a lease of an ended task": ("key-left", lambda t: t.store["leases"].append(TASK)),
    "a token of an ended task": ("key-left", lambda t: t.store["usage"][TASK].__setitem__(2, "2.abc")),
    "retention that forgot a task": ("key-left", lambda t: t.store["expiring"].clear()),
    "a client that gave up": (
        "client",
        lambda t: t.extra.append({"op": "client", "kind": "failed", "error": "ProtocolError: what?"}),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_found(tale: Tale, lie: str) -> None:
    """One change to a clean history; the checker names it."""
    kind, plant = LIES[lie]
    tale.seen, tale.relayed = copy.deepcopy(tale.seen), copy.deepcopy(tale.relayed)
    plant(tale)
    assert kind in kinds(tale)


def test_a_failure_uses_up_its_strikes_and_is_one_dead_letter(tale: Tale) -> None:
    """Failed after the first of three strikes, by an error that may pass: that is a strike too few."""
    tale.events = [*tale.events[:2], {"id": "1009-0", "type": "failed", "attempt": 1, "data": {}}]
    tale.seen, tale.relayed = list(tale.events), list(tale.events)
    tale.record.update(state="failed", attempt=1, strikes=1, artifacts=[], error={"code": "echo_failed"})
    tale.calls, tale.later, tale.files = tale.calls[:2], [], []
    assert kinds(tale) == {"strikes", "dead-letter"}
    tale.record.update(max_strikes=1)
    tale.store["dead"] = [TASK]
    assert kinds(tale) == set()


def test_a_reader_that_was_reset_is_not_held_to_the_whole_history(tale: Tale) -> None:
    """`reset` says that what lies before is not given."""
    tale.seen = [{"id": None, "type": "reset", "attempt": None, "data": {}}, *tale.seen[5:]]
    assert kinds(tale) == set()


def test_an_unfinished_run_is_not_asked_for_its_end(tale: Tale) -> None:
    """Without final reads, a task that is not seen again is no loss."""
    lines = [line for line in tale.lines() if line["op"] in ("run", "submit", "get", "list")]
    assert check(lines).ok
