"""The pure parts of a group: what all ranks do next, the heartbeat, the ETA and the event buffer."""

from __future__ import annotations

import pytest

from daybreak_server.domain.tasks import Control, EventDraft
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.progress import MANY, MAX_PENDING, EventBuffer, PhaseEta
from daybreak_server.engines.ranks.consensus import (
    GroupDecision,
    RankReport,
    Status,
    decide,
    report_of,
    worst,
)
from daybreak_server.workloads.base import PermanentError, RetryableError, Step

STEPPED = RankReport(point=3, status=Status.STEPPED)
DONE = RankReport(point=3, status=Status.DONE)
ERROR = report_of(RetryableError("no"), point=3)
PERMANENT = report_of(PermanentError("never", code="bad_prompt"), point=3)


@pytest.mark.parametrize(
    ("reports", "control", "release", "decision"),
    [
        ([STEPPED, STEPPED], Control.CONTINUE, False, GroupDecision.CONTINUE),
        ([STEPPED], Control.DRAIN, False, GroupDecision.CONTINUE),
        ([STEPPED, STEPPED], Control.CONTINUE, True, GroupDecision.RELEASE),
        ([STEPPED, STEPPED], Control.CANCEL, False, GroupDecision.STOP),
        ([STEPPED, STEPPED], Control.EXPIRE, True, GroupDecision.STOP),
        ([STEPPED], Control.CANCEL | Control.STALE, False, GroupDecision.ABANDON),
        ([DONE, DONE], Control.CONTINUE, False, GroupDecision.FINISH),
        ([DONE, DONE], Control.CONTINUE, True, GroupDecision.FINISH),
        ([DONE, DONE], Control.CANCEL, False, GroupDecision.STOP),
        ([DONE], Control.STALE, False, GroupDecision.ABANDON),
        ([ERROR, ERROR], Control.CONTINUE, False, GroupDecision.FAIL),
        ([PERMANENT, PERMANENT], Control.CANCEL, False, GroupDecision.FAIL),
        ([ERROR], Control.STALE, False, GroupDecision.ABANDON),
        ([ERROR, STEPPED], Control.CONTINUE, False, GroupDecision.BREAK),
        ([STEPPED, PERMANENT], Control.CANCEL, False, GroupDecision.BREAK),
        ([DONE, STEPPED], Control.STALE, False, GroupDecision.BREAK),
        ([ERROR, PERMANENT], Control.CONTINUE, False, GroupDecision.BREAK),
        ([STEPPED, RankReport(point=4, status=Status.STEPPED)], Control.CONTINUE, False, GroupDecision.BREAK),
    ],
)
def test_rank_reports_and_control_bits_lead_to_one_verdict(
    reports: list[RankReport], control: Control, release: bool, decision: GroupDecision
) -> None:
    """Ranks that disagree break the group.

    If they agree, the first of these that applies decides: a stale token, an error, a cancel or deadline, the end of
    the work, a release.
    """
    assert decide(reports, control, release=release) is decision


def test_an_unrecoverable_device_error_breaks_even_a_group_of_one_rank() -> None:
    """A process that can do no more work must not stay warm."""

    class AcceleratorError(RuntimeError):
        pass

    report = report_of(AcceleratorError("illegal address"), point=1)
    assert report.status is Status.UNRECOVERABLE
    assert decide([report], Control.CONTINUE) is GroupDecision.BREAK


def test_a_permanent_error_explains_a_failure_best_and_a_dead_peer_least() -> None:
    """An error about a dead peer is only a consequence of the error that ended the peer."""
    echo = RankReport(point=3, status=Status.UNRECOVERABLE, code="rank_lost")
    assert worst([STEPPED, echo, ERROR, PERMANENT]) is PERMANENT
    assert worst([echo, ERROR]) is ERROR
    assert worst([STEPPED]) is None


def test_error_codes_and_messages_come_from_the_workload() -> None:
    """A workload's own error keeps its code and message. For any other exception, the message names its class."""
    assert (PERMANENT.code, PERMANENT.message, PERMANENT.permanent) == ("bad_prompt", "never", True)
    foreign = report_of(KeyError("x"), point=0)
    assert (foreign.code, foreign.permanent) == ("workload_failed", False)
    assert foreign.message.startswith("KeyError")


def test_a_heartbeat_reports_a_stall_when_no_beat_comes_in_time() -> None:
    """Only silence beyond the current activity's limit is a stall, and the reason names the activity."""
    now = [0.0]
    heartbeat = Heartbeat(10.0, clock=lambda: now[0])
    now[0] = 10.0
    assert heartbeat.stalled() is None
    now[0] = 10.5
    assert "10.5 s" in (heartbeat.stalled() or "")
    heartbeat.beat("model", limit_s=100.0)
    now[0] = 90.0
    assert heartbeat.stalled() is None
    with heartbeat.during("upload", 5.0):
        now[0] = 96.0
        assert "upload" in (heartbeat.stalled() or "")
    now[0] = 190.0
    assert heartbeat.stalled() is None


def test_the_eta_comes_from_each_phases_own_pace() -> None:
    """If the last phase of a task was slow, the next task's estimate includes that phase from the first step on."""
    now = [0.0]
    phase_eta = PhaseEta(clock=lambda: now[0])
    phase_eta.start()
    for number in range(1, 9):
        now[0] += 1.0
        eta = phase_eta.step("denoise", number / 10)
    assert eta == pytest.approx(2.0)  # no other phase is known yet
    now[0] += 20.0
    phase_eta.step("decode", 1.0)
    phase_eta.start()
    now[0] += 1.0
    assert phase_eta.step("denoise", 0.1) == pytest.approx(7.0 + 20.0, rel=0.01)


def test_the_first_step_of_a_resumed_task_gives_no_pace() -> None:
    """The first step after a snapshot covers work that an earlier attempt did."""
    now = [0.0]
    phase_eta = PhaseEta(clock=lambda: now[0])
    phase_eta.start()
    phase_eta.rebase()
    now[0] += 1.0
    assert phase_eta.step("denoise", 0.6) is None
    now[0] += 1.0
    assert phase_eta.step("denoise", 0.7) == pytest.approx(3.0)


def test_fast_steps_are_merged_and_none_is_lost() -> None:
    """If more steps wait than fit into one write, the oldest are merged into one event.

    This event names the first step that it covers.
    """
    event_buffer = EventBuffer()
    for number in range(1, 101):
        event_buffer.step(
            Step(phase="echo", fraction=0, step=number, steps=100), fraction=number / 100, eta_s=1.0
        )
    events, fields = event_buffer.take()
    assert len(events) == MAX_PENDING
    assert (events[0].data["from_step"], events[0].data["step"]) == (1, 100 - MAX_PENDING + 1)
    assert [event.data["step"] for event in events] == list(range(100 - MAX_PENDING + 1, 101))
    assert (fields["step"], fields["phase"], fields["fraction"]) == (100, "echo", 1.0)
    event_buffer.clear()
    assert not event_buffer


@pytest.mark.parametrize("step_s", [0.025, 0.75], ids=["20 minutes", "10 hours"])
def test_fast_steps_of_a_long_task_leave_room_for_its_other_events(step_s: float) -> None:
    """The store keeps about a thousand events of a task, so one event covers many fast steps."""
    now = [0.0]
    event_buffer = EventBuffer(clock=lambda: now[0])
    written: list[EventDraft] = []

    def step(phase: str, number: int) -> None:
        event_buffer.step(Step(phase=phase, fraction=0, step=number, steps=48_000), fraction=0, eta_s=None)

    def write(number: int) -> None:
        events, fields = event_buffer.take()
        assert fields["step"] == number, "the record has every step"
        written.extend(events)
        event_buffer.clear()

    for number in range(1, 48_001):
        now[0] += step_s
        step("lines", number)
        if number == 40_005:
            event_buffer.note(EventDraft(type="log", data={"message": "more than half of them"}))
        if number % 10 == 0:
            write(number)
    step("upload", 48_000)
    write(48_000)
    step("upload", 48_001)
    assert event_buffer.take()[0] == [], "a step of a long task waits for later steps"
    assert [event.data["step"] for event in event_buffer.take(last=True)[0]] == [48_001]
    event_buffer.clear()
    assert MANY < len(written) < 950
    log = next(at for at, event in enumerate(written) if event.type == "log")
    assert written[log - 1].data["step"] == 40_005, "the steps before a log line are written before the line"
    *steps, last, upload = (event for event in written if event.type == "progress")
    assert (last.data["step"], upload.data["phase"]) == (48_000, "upload"), (
        "a new phase ends the one before it"
    )
    covered = 0
    for event in (*steps, last):
        assert event.data.get("from_step", event.data["step"]) == covered + 1
        covered = event.data["step"]
    numbers = [event.number for event in written]
    assert numbers == sorted(numbers), "the store skips an event whose number is not new"
