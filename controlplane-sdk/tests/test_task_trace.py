"""A trace is made from a task's events and shows where the task's time went.

The parts of a trace never overlap, and add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from daybreak.cli import waterfall
from daybreak.core.task_trace import Part, PartKind, Piece, TaskTrace, trace_of
from daybreak.core.trace_json import to_json
from daybreak.wire import Event, Task

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
USAGE = {"gpu_seconds": 18.0, "wasted_gpu_seconds": 6.0}


def _task(**fields: Any) -> Task:
    links = dict.fromkeys(("self", "events", "ws", "cancel"), "/")
    base = {"id": "video_01", "pool": "video", "tenant": "default", "state": "succeeded", "created_at": START}
    return Task.model_validate(base | {"links": links} | fields)


def _events(*made: tuple[float, str, int, dict[str, Any]]) -> list[Event]:
    return [
        Event.model_validate(
            {
                "id": f"{number}-0",
                "task": "video_01",
                "type": kind,
                "at": START + timedelta(seconds=at_s),
                "attempt": attempt or None,
                "data": data,
            }
        )
        for number, (at_s, kind, attempt, data) in enumerate(made, start=1)
    ]


def _progress(phase: str, step: int | None = None, **more: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"phase": phase, "fraction": 0.5}
    return data | ({"step": step, "steps": 20} if step is not None else {}) | more


def _pieces(part: Part) -> list[tuple[str, float]]:
    return [(piece.name, piece.seconds) for piece in part.pieces]


RETRIED = _events(
    (0.0, "queued", 0, {"position": 1}),
    (
        9.0,
        "started",
        1,
        {"group": "g-a", "ranks": 2, "wake": {"pods_s": 2.0, "model_s": 4.0, "since_ready_s": 1.0}},
    ),
    (10.0, "progress", 1, _progress("load")),
    (11.0, "progress", 1, _progress("denoise", 3, from_step=1)),
    (12.0, "progress", 1, _progress("denoise", 4)),
    (12.0, "checkpoint", 1, {"step": 4}),
    (15.0, "retrying", 1, {"reason": "lease_lost", "strikes": 1, "delay_s": 2.0, "message": "Group g-a stopped"}),
    (18.0, "started", 2, {"group": "g-b", "ranks": 2, "resumed_from_step": 4}),
    (22.0, "progress", 2, _progress("denoise", 20, from_step=5)),
    (23.0, "progress", 2, _progress("upload")),
    (24.0, "artifact", 2, {"name": "video.mp4", "size_bytes": 2048}),
    (24.0, "succeeded", 2, {"artifacts": [], "usage": USAGE}),
)  # fmt: skip


def test_a_retried_task_has_its_waits_attempts_and_phases() -> None:
    trace = trace_of(_task(), RETRIED)
    assert [(part.kind, part.start_ms, part.end_ms) for part in trace.parts] == [
        (PartKind.WAIT, 0, 9000),
        (PartKind.ATTEMPT, 9000, 15000),
        (PartKind.WAIT, 15000, 18000),
        (PartKind.ATTEMPT, 18000, 24000),
    ]
    queued, first, pause, second = trace.parts
    # The attempt began nine seconds after the submit. The group had become ready one second earlier. Its wake took six
    # seconds, so the wake began two seconds after the submit.
    assert _pieces(queued) == [("queue", 2.0), ("pods", 2.0), ("model", 4.0), ("queue", 1.0)]
    assert _pieces(first) == [("load", 1.0), ("denoise", 2.0), ("silent", 3.0)]
    assert (first.pieces[1].first_step, first.pieces[1].last_step, first.pieces[1].steps) == (1, 4, 20)
    assert (first.outcome, first.message, first.checkpoints) == ("lease_lost", "Group g-a stopped", (4,))
    assert _pieces(pause) == [("backoff", 2.0), ("queue", 1.0)]
    assert (second.group, second.resumed_from_step, second.outcome) == ("g-b", 4, "succeeded")
    assert (second.uploads, second.gpu_seconds) == ((("video.mp4", 2048),), 12.0)
    assert _pieces(second) == [("denoise", 4.0), ("upload", 2.0)]
    assert trace.usage is not None
    assert (trace.total_ms, trace.usage.wasted_gpu_seconds) == (24000, 6.0)


def test_a_wake_that_began_before_the_submit_counts_from_the_submit() -> None:
    wake = {"pods_s": 30.0, "model_s": 4.0, "since_ready_s": 0.0}
    trace = trace_of(_task(), _events((6.0, "started", 1, {"group": "g", "ranks": 1, "wake": wake})))
    assert _pieces(trace.parts[0]) == [("pods", 2.0), ("model", 4.0)]


def test_a_task_with_a_start_time_waits_for_it_before_it_waits_in_the_queue() -> None:
    task = _task(start_at=START + timedelta(seconds=60), state="cancelled")
    trace = trace_of(task, _events((70.0, "cancelled", 0, {"reason": "requested"})))
    assert _pieces(trace.parts[0]) == [("delay", 60.0), ("queue", 10.0)]
    assert (trace.reason, trace.state) == ("requested", "cancelled")


def test_a_running_task_has_a_trace_up_to_now() -> None:
    events = _events(
        (1.0, "started", 1, {"group": "g", "ranks": 4}), (3.0, "progress", 1, _progress("denoise", 1))
    )
    trace = trace_of(_task(state="running"), events, now=START + timedelta(seconds=5))
    assert _pieces(trace.parts[1]) == [("denoise", 4.0)]
    assert (trace.parts[1].outcome, trace.parts[1].gpu_seconds, trace.total_ms) == ("running", 16.0, 5000)


def test_a_trimmed_history_says_what_is_unknown() -> None:
    """The server begins such a history with `reset`."""
    reset = Event.model_validate({"task": "video_01", "type": "reset", "at": START, "data": {}})
    rest = _events((50.0, "progress", 3, _progress("denoise", 9)), (52.0, "succeeded", 3, {"usage": USAGE}))
    trace = trace_of(_task(), [reset, *rest])
    assert trace.trimmed
    assert [(part.kind, part.seconds) for part in trace.parts] == [
        (PartKind.UNKNOWN, 50.0),
        (PartKind.ATTEMPT, 2.0),
    ]
    assert (trace.parts[1].attempt, trace.parts[1].group) == (3, None)


def test_the_json_has_seconds_and_no_absent_fields() -> None:
    shown = to_json(trace_of(_task(), RETRIED))
    assert shown["parts"][0]["pieces"][1] == {"name": "pods", "wake": True, "start_s": 2.0, "end_s": 4.0}
    assert shown["parts"][1]["outcome"] == "lease_lost"
    assert (shown["total_s"], shown["usage"], shown["trimmed"]) == (24.0, USAGE, False)
    assert "null" not in repr(shown)
    assert "None" not in repr(shown)


# ── any history ───────────────────────────────────────────────────────────────────────────────────────────

SECONDS = st.integers(0, 20_000).map(lambda ms: ms / 1000)
PHASES = st.sampled_from(["load", "denoise", "decode", "encode", "upload"])


@st.composite
def _histories(draw: st.DrawFn) -> tuple[Task, list[Event], bool]:
    """What the server can write: waits and attempts in turn. The first events may be missing. Times may step back."""
    at, attempt = 0.0, 0
    made: list[tuple[float, str, int, dict[str, Any]]] = [(0.0, "queued", 0, {"position": 1})]
    for _ in range(draw(st.integers(0, 3))):
        attempt += 1
        at += draw(SECONDS)
        started: dict[str, Any] = {"group": f"g-{attempt}", "ranks": draw(st.integers(1, 8))}
        if draw(st.booleans()):
            stamps = draw(
                st.dictionaries(st.sampled_from(["detect_s", "pods_s", "ray_s", "model_s"]), SECONDS)
            )
            started["wake"] = {**stamps, "since_ready_s": draw(SECONDS)}
        made.append((at, "started", attempt, started))
        for step in range(draw(st.integers(0, 4))):
            at += draw(SECONDS)
            made.append((at, "progress", attempt, _progress(draw(PHASES), step)))
            if draw(st.booleans()):
                made.append((at, "checkpoint", attempt, {"step": step}))
        at += draw(SECONDS)
        reason = draw(st.sampled_from(["error", "stalled", "lease_lost", "released"]))
        made.append(
            (
                at,
                "retrying",
                attempt,
                {"reason": reason, "strikes": 1, "delay_s": draw(SECONDS), "message": "m"},
            )
        )
    ends = draw(st.sampled_from(["succeeded", "failed", "cancelled", "expired", None]))
    if ends is not None:
        made.append((at + draw(SECONDS), ends, attempt, {"usage": USAGE}))
    lost = draw(st.integers(0, len(made) - 1))
    kept = [(max(0.0, at - draw(st.sampled_from([0.0, 0.0, 3.0]))), *rest) for at, *rest in made][lost:]
    state = ends if ends is not None else draw(st.sampled_from(["queued", "running"]))
    due = draw(st.one_of(st.none(), SECONDS))
    task = _task(state=state, start_at=None if due is None else START + timedelta(seconds=due))
    events = _events(*kept)  # type: ignore[arg-type]
    if lost and draw(st.booleans()):
        events.insert(0, Event.model_validate({"task": "video_01", "type": "reset", "at": START, "data": {}}))
    return task, events, ends is None


def _adds_up(parts: Sequence[Part | Piece], start_ms: int, end_ms: int) -> None:
    at = start_ms
    for part in parts:
        assert part.start_ms == at, "the parts follow each other without a gap or an overlap"
        assert part.end_ms >= part.start_ms
        at = part.end_ms
    assert at == end_ms, "the parts add up to the whole"


@given(_histories(), SECONDS)
def test_the_parts_of_any_history_add_up(history: tuple[Task, list[Event], bool], later_s: float) -> None:
    task, events, alive = history
    latest = max((event.at for event in events), default=START)
    trace = trace_of(task, events, now=latest + timedelta(seconds=later_s))
    _adds_up(trace.parts, 0, trace.total_ms)
    for part in trace.parts:
        _adds_up(part.pieces, part.start_ms, part.end_ms)
        assert all(piece.end_ms > piece.start_ms for piece in part.pieces)
    assert trace.total_ms >= max(
        (round((event.at - START).total_seconds() * 1000) for event in events), default=0
    )
    if alive:
        assert not [part for part in trace.parts if part.outcome in {"succeeded", "failed", "expired"}]
    started = sum(event.type == "started" for event in events)
    assert sum(part.group is not None for part in trace.parts) == started
    _can_be_drawn(trace)


def _can_be_drawn(trace: TaskTrace) -> None:
    """Every bar is inside the drawing and can be seen."""
    assert waterfall.headline(trace).startswith("video_01")
    for row in waterfall.rows(trace):
        offset, length = waterfall.bar(row, total_ms=trace.total_ms, width=40)
        assert 0 <= offset < 40
        assert 1 <= length <= 40 - offset
        assert row.label


@given(st.lists(st.sampled_from(RETRIED), max_size=15))
def test_events_in_any_order_and_number_still_give_a_trace(events: list[Event]) -> None:
    """A server of another version may write a history that this client does not expect."""
    trace = trace_of(_task(), events, now=START + timedelta(seconds=30))
    _adds_up(trace.parts, 0, trace.total_ms)
    for part in trace.parts:
        _adds_up(part.pieces, part.start_ms, part.end_ms)
    _can_be_drawn(trace)
