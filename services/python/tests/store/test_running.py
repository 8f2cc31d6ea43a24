"""Tests, on a real server, of every row of the state table for tasks that run or have ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daybreak_server.domain.ids import new_task_id
from daybreak_server.domain.tasks import (
    CheckpointRef,
    Claim,
    Control,
    EventDraft,
    Outcome,
    Released,
    State,
    Stopped,
)
from testkit.store_cases import DONE, FATAL, OOPS, VIDEO, dump, start, submit
from testkit.store_driver import Driver, lease_of
from verification.queue_model.backoff import backoff_ms


def test_a_report_extends_the_lease_and_updates_the_record(driver: Driver) -> None:
    """Running + report → running, with a longer lease.

    The report updates the record and the checkpoint, and adds events.
    """
    claim = start(driver)
    driver.pass_time(10_000)
    control = driver.report(
        claim.lease,
        EventDraft(type="progress", data={"fraction": 0.5}),
        checkpoint=CheckpointRef(key="k", step=3),
        phase="denoise",
        fraction=0.5,
        step=3,
        steps=6,
        eta_s=1.25,
        resumed_from_step=2,
    )
    assert control is Control.CONTINUE
    driver.pass_time(10_000)
    record = driver.get(claim.lease.task)
    assert (record.state, record.phase, record.fraction) == (State.RUNNING, "denoise", 0.5)
    assert (record.step, record.steps, record.eta_s, record.resumed_from_step) == (3, 6, 1.25, 2)
    assert driver.types(claim.lease.task) == ["queued", "started", "progress", "checkpoint"]
    assert record.last_event_id == driver.events(claim.lease.task)[-1].id
    with pytest.raises(ValueError, match="may not set"):
        driver.report(claim.lease, state="succeeded")


def test_a_leader_that_renews_keeps_its_task(driver: Driver) -> None:
    """Running + renew → running: a leader that renews its lease in time keeps its task indefinitely."""
    claim = start(driver)
    for _ in range(5):
        driver.pass_time(10_000)
        assert driver.renew(claim.lease) is Control.CONTINUE
    assert driver.get(claim.lease.task).strikes == 0


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
def test_a_jump_of_the_wall_clock_is_not_charged(driver: Driver, jump_ms: int) -> None:
    """A jump of the wall clock by an hour costs at most two GPU-seconds and ends no lease."""
    claim = start(driver)
    driver.pass_time(3000)
    driver.now += jump_ms
    driver.pass_time(4000)
    assert driver.renew(claim.lease) is Control.CONTINUE
    driver.settle(claim.lease, DONE)
    assert 7.0 <= (driver.get(claim.lease.task).gpu_seconds or 0) <= 9.0


def test_a_repeated_report_writes_no_event_twice(driver: Driver) -> None:
    """The store recognises a repeated event by its number and drops it, but writes the new event of the same report."""
    claim = start(driver)
    first, second = (EventDraft(type="progress", data={"step": n}, number=n) for n in (1, 2))
    checkpoint = CheckpointRef(key="c", step=1)
    driver.report(claim.lease, first, checkpoint=checkpoint)
    driver.report(claim.lease, first, second, checkpoint=checkpoint)
    assert driver.types(claim.lease.task) == ["queued", "started", "progress", "checkpoint", "progress"]


def test_a_running_task_is_cancelled_when_its_group_stops(driver: Driver) -> None:
    """Running + cancel → running, until the group stops the task.

    Then the task is cancelled, and its files are garbage.
    """
    claim = start(driver)
    task = claim.lease.task
    first = driver.cancel(task, "why")
    assert first is not None
    assert (first.state, first.cancel_requested) == (State.RUNNING, True)
    driver.cancel(task, "again")
    assert driver.renew(claim.lease) is Control.CANCEL
    assert task in driver.zset("live")
    assert driver.settle(claim.lease, Stopped()).state is State.CANCELLED
    assert driver.events(task)[-1].data["reason"] == "why"
    assert set(driver.zset("garbage")) == {f"{task}/{claim.lease.token}/"}
    assert not driver.zset("live")


def test_a_finish_publishes_artifacts_and_usage(driver: Driver) -> None:
    """Running + finish → succeeded: the record and the event show the artifacts and the usage.

    The store also corrects the tenant's charge, and the pool's seconds per unit of cost.
    """
    claim = start(driver, estimate_s=100.0, cost=2.0)
    driver.pass_time(3000)
    settled = driver.settle(claim.lease, DONE)
    assert (settled.state, settled.stale) == (State.SUCCEEDED, False)
    task = claim.lease.task
    record = driver.get(task)
    assert (record.artifacts, record.gpu_seconds, record.finished_ms) == ((VIDEO,), 3.0, driver.now)
    assert record.expires_ms == driver.now + 7 * 86_400_000
    last_event = driver.events(task)[-1]
    assert last_event.data["usage"] == {"gpu_seconds": 3.0, "wasted_gpu_seconds": 0.0}
    assert last_event.data["artifacts"] == [
        {
            "name": "v.mp4",
            "content_type": "video/mp4",
            "size_bytes": 9,
            "sha256": "ab",
        }
    ]
    totals = driver.totals()
    assert (totals.used_gpu_seconds, totals.ended[State.SUCCEEDED]) == (3.0, 1)
    view = driver.view()
    assert view.seconds_per_cost == 1.5
    assert float(driver.client.hget(driver.keys.single("shares"), "t") or 0) == 3.0
    assert not driver.zset("garbage")


def test_a_finish_after_the_run_deadline_is_a_success(driver: Driver) -> None:
    """A task that finishes after its run deadline still succeeds."""
    claim = start(driver, run_within_ms=1000)
    driver.now += 2000
    assert driver.settle(claim.lease, DONE).state is State.SUCCEEDED


def _let_the_lease_end(driver: Driver, claim: Claim) -> None:
    driver.pass_time(15_000)


def _settle_with(outcome: Outcome) -> Callable[[Driver, Claim], None]:
    def settle(driver: Driver, claim: Claim) -> None:
        assert not driver.settle(claim.lease, outcome).stale

    return settle


ENDS = {
    "finish": _settle_with(DONE),
    "error": _settle_with(OOPS),
    "permanent": _settle_with(FATAL),
    "release": _settle_with(Released()),
    "stopped": _settle_with(Stopped()),
    "lapse": _let_the_lease_end,
    "deregister": lambda driver, claim: driver.deregister("g"),
    "restart": lambda driver, claim: driver.register("g", fresh=True),
    "claim lost": lambda driver, claim: driver.claim("g"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_requested_cancel_wins(driver: Driver, end: str) -> None:
    """Running with a requested cancel → cancelled, however the attempt ends, even after the run deadline."""
    claim = start(driver, run_within_ms=500, max_strikes=1)
    driver.cancel(claim.lease.task)
    driver.now += 600
    ENDS[end](driver, claim)
    assert driver.get(claim.lease.task).state is State.CANCELLED


@pytest.mark.parametrize("end", [end for end in ENDS if end not in ("finish", "permanent")])
def test_a_task_past_its_run_deadline_expires_without_a_strike(driver: Driver, end: str) -> None:
    """A task whose attempt ends after the run deadline expires, unless the attempt succeeded or failed permanently."""
    claim = start(driver, run_within_ms=500, max_strikes=1)
    driver.now += 600
    assert driver.renew(claim.lease) is Control.EXPIRE
    ENDS[end](driver, claim)
    record = driver.get(claim.lease.task)
    assert (record.state, record.strikes) == (State.EXPIRED, 0)
    assert driver.events(claim.lease.task)[-1].data["reason"] == "run_within"


@pytest.mark.parametrize("end", ["error", "lapse"])
def test_a_strike_delays_the_task_with_a_backoff(driver: Driver, end: str) -> None:
    """Running + retryable error or lost lease → delayed, with a strike and a jittered backoff.

    When the delay is over, the task takes its original place in the queue.
    """
    claim = start(driver)
    task, token = claim.lease.task, claim.lease.token
    ENDS[end](driver, claim)
    record = driver.get(task)
    assert (record.state, record.strikes, record.error_attempt) == (State.DELAYED, 1, 1)
    retrying = driver.events(task)[-1]
    expected = "error" if end == "error" else "lease_lost"
    assert (retrying.type, retrying.data["reason"]) == ("retrying", expected)
    assert retrying.data["delay_s"] == backoff_ms(1, token) / 1000
    later = submit(driver)
    driver.now += 1000
    driver.tick()
    claim_again = driver.claim("h")
    assert claim_again is not None
    assert (claim_again.lease.task, claim_again.attempt) == (task, 2)
    assert driver.get(later).state is State.QUEUED


@pytest.mark.parametrize("end", ["error", "lapse"])
def test_the_last_strike_fails_the_task(driver: Driver, end: str) -> None:
    """Running + the last strike → failed: the task is a dead letter that shows its error. A replay is a new task."""
    claim = start(driver, max_strikes=1)
    task = claim.lease.task
    ENDS[end](driver, claim)
    record = driver.get(task)
    assert (record.state, record.strikes) == (State.FAILED, 1)
    assert record.error_code == ("oops" if end == "error" else "lease_lost")
    assert driver.events(task)[-1].data["error"]["code"] == record.error_code
    assert set(driver.zset("dead")) == {task}
    replay = submit(driver, replay_of=task)
    assert driver.get(replay).replay_of == task


def test_a_permanent_error_fails_the_task_at_once(driver: Driver) -> None:
    """Running + permanent error → failed, however many strikes are left."""
    claim = start(driver)
    assert driver.settle(claim.lease, FATAL).state is State.FAILED


def test_a_permanent_error_outranks_the_run_deadline(driver: Driver) -> None:
    """Running after its run deadline + permanent error → failed: the error says more than the deadline."""
    claim = start(driver, run_within_ms=500)
    driver.now += 600
    assert driver.settle(claim.lease, FATAL).state is State.FAILED


@pytest.mark.parametrize("end", ["release", "stopped", "deregister", "restart", "claim lost"])
def test_a_release_keeps_place_and_checkpoint(driver: Driver, end: str) -> None:
    """Running + release, lost group or restarted group → queued in its original place, without a strike.

    The next attempt gets the checkpoint.
    """
    claim = start(driver)
    task = claim.lease.task
    later = submit(driver)
    driver.report(claim.lease, checkpoint=CheckpointRef(key="c", step=4))
    driver.now += 1000
    if end == "claim lost":
        again = driver.claim("g")
    else:
        ENDS[end](driver, claim)
        assert driver.get(task).state is State.QUEUED
        again = driver.claim("g2")
    assert again is not None
    assert (again.lease.task, again.attempt, again.checkpoint) == (task, 2, CheckpointRef(key="c", step=4))
    record = driver.get(task)
    assert (record.strikes, record.releases) == (0, 1)
    assert driver.events(task)[-1].data["resumed_from_step"] == 4
    assert driver.get(later).state is State.QUEUED
    assert driver.renew(claim.lease) is Control.STALE


def test_a_task_released_too_often_gets_a_strike(driver: Driver) -> None:
    """The 51st release counts as a strike."""
    claim: Claim | None = start(driver)
    for _ in range(50):
        assert claim is not None
        assert driver.settle(claim.lease, Released()).state is State.QUEUED
        claim = driver.claim()
    assert claim is not None
    assert driver.settle(claim.lease, Released()).state is State.DELAYED
    record = driver.get(claim.lease.task)
    assert (record.strikes, record.releases, record.error_code) == (1, 50, "released")


@pytest.mark.parametrize("end", ["deregister", "restart", "claim lost"])
def test_repeated_failures_of_its_group_give_a_task_strikes(driver: Driver, end: str) -> None:
    """The first two failures of a task's group count as releases, not as strikes.

    Each further failure is a strike with a backoff, and the event names the reason.
    """
    claim = start(driver, max_strikes=2)
    task = claim.lease.task
    for _ in range(2):
        ENDS[end](driver, claim)
        if driver.get(task).state is State.QUEUED:
            assert driver.claim("g") is not None
    ENDS[end](driver, claim)
    record = driver.get(task)
    assert (record.state, record.strikes, record.releases) == (State.DELAYED, 1, 2)
    assert record.error_code == "group_failed"
    retrying = driver.events(task)[-1]
    assert (retrying.data["reason"], retrying.data["strikes"]) == ("error", 1)
    assert "failed more than 2 times" in retrying.data["message"]
    driver.pass_time(5_000)
    claim = driver.claim("g")
    assert claim is not None
    # A release by a group that drains is still no strike.
    assert driver.settle(claim.lease, Released()).state is State.QUEUED
    assert driver.claim("g") is not None
    ENDS[end](driver, claim)
    assert (driver.get(task).state, driver.get(task).strikes) == (State.FAILED, 2)


@pytest.mark.parametrize(
    "outcome", [DONE, OOPS, FATAL, Released(), Stopped()], ids=lambda o: type(o).__name__
)
def test_a_repeated_settle_gets_the_same_answer(driver: Driver, outcome: Outcome) -> None:
    """A settle that is sent again gets the first answer, including the next claim, and writes nothing."""
    claim = start(driver)
    submit(driver)
    group = driver.group_record("g")
    first = driver.settle(claim.lease, outcome, claim_next=group)
    events = driver.types(claim.lease.task)
    assert first.next is not None
    assert driver.settle(claim.lease, outcome, claim_next=group) == first
    assert driver.types(claim.lease.task) == events


def test_a_zombie_writes_nothing(driver: Driver) -> None:
    """Each call with an outdated token returns STALE and changes nothing."""
    claim = start(driver)
    driver.pass_time(16_000)
    driver.now += 1000
    driver.tick()
    current = driver.claim("h")
    assert current is not None
    before = dump(driver)
    assert driver.renew(claim.lease) is Control.STALE
    progress = EventDraft(type="progress", data={})
    assert (
        driver.report(claim.lease, progress, checkpoint=CheckpointRef(key="z", step=1), step=1)
        is Control.STALE
    )
    for outcome in (DONE, OOPS, FATAL, Released(), Stopped()):
        assert driver.settle(claim.lease, outcome).stale
    assert driver.settle(lease_of(new_task_id("video"), "1.x"), DONE).stale
    assert dump(driver) == before
    assert driver.settle(current.lease, DONE).state is State.SUCCEEDED


def test_a_cancel_after_the_end_changes_nothing(driver: Driver) -> None:
    """A terminal state is final."""
    claim = start(driver)
    driver.settle(claim.lease, DONE)
    before = dump(driver)
    record = driver.cancel(claim.lease.task)
    assert record is not None
    assert (record.state, record.cancel_requested) == (State.SUCCEEDED, False)
    assert dump(driver) == before
