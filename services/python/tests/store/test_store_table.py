"""Every row of the state table, one by one, on a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.storedriver import Driver, lease_of

from daybreak_server.domain.backoff import backoff_ms
from daybreak_server.domain.ids import new_task_id
from daybreak_server.domain.tasks import (
    ArtifactRef,
    CheckpointRef,
    Claim,
    Control,
    EventDraft,
    Failed,
    Finished,
    NewTask,
    Outcome,
    Priority,
    Released,
    State,
    Stopped,
)
from daybreak_server.ports.store import IdempotencyMismatchError, QueueFullError, Submitted

VIDEO = ArtifactRef(name="v.mp4", key="t/1.a/v.mp4", content_type="video/mp4", size_bytes=9, sha256="ab")
DONE = Finished(artifacts=(VIDEO,))
OOPS = Failed(code="oops", message="it broke")
FATAL = Failed(code="bad", message="never", permanent=True)


def new(**fields: Any) -> NewTask:
    return NewTask(
        **{"id": new_task_id("video"), "pool": "video", "tenant": "t", "input_json": "{}", **fields}
    )


def submit(driver: Driver, **fields: Any) -> str:
    answer = driver.submit(new(**fields))
    assert isinstance(answer, Submitted)
    return answer.record.id


def start(driver: Driver, **fields: Any) -> Claim:
    """A task that runs in group ``g``."""
    task = submit(driver, **fields)
    driver.register("g")
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == task
    return claim


def test_submit_queues_with_record_index_and_event(driver: Driver) -> None:
    """A submitted task is queued, live, listed, at position 1, and has one event."""
    task = submit(driver, metadata={"order": "42"}, priority=Priority.HIGH, input_json='{"a": 1}')
    record = driver.get(task)
    answer = driver.submit(new(metadata={"a": "b"}, start_at_ms=driver.now + 500, retention_s=9.5))
    assert isinstance(answer, Submitted)
    assert answer.record == driver.get(answer.record.id)
    driver.cancel(answer.record.id)
    assert (record.state, record.position, record.priority) == (State.QUEUED, 1, Priority.HIGH)
    assert (record.metadata, record.input_json) == ({"order": "42"}, '{"a": 1}')
    assert driver.types(task) == ["queued"]
    assert set(driver.zset("live")) == {task}
    assert driver.view().queued == 1


def test_submit_ahead_is_delayed_then_promoted(driver: Driver) -> None:
    """A start ahead delays; when it is due the task takes its original place and the bell rings."""
    task = submit(driver, start_at_ms=driver.now + 5000)
    later = submit(driver)
    assert driver.get(task).state is State.DELAYED
    assert set(driver.zset("live")) == {later}
    driver.client.delete(driver.keys.one("bell"))
    assert driver.tick().promoted == 0
    driver.now += 5000
    assert driver.tick().promoted == 1
    assert driver.get(task).state is State.QUEUED
    assert driver.client.llen(driver.keys.one("bell")) >= 1
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == task


def test_same_key_same_body_is_the_same_task(driver: Driver) -> None:
    """An idempotency key finds its task again; with another body it is refused; per tenant."""
    first = driver.submit(new(idempotency_key="k", body_hash="a" * 64))
    again = driver.submit(new(idempotency_key="k", body_hash="a" * 64))
    other = driver.submit(new(idempotency_key="k", body_hash="b" * 64))
    foreign = driver.submit(new(idempotency_key="k", body_hash="b" * 64, tenant="u"))
    assert isinstance(first, Submitted)
    assert isinstance(again, Submitted)
    assert (again.record.id, again.replayed, first.replayed) == (first.record.id, True, False)
    assert isinstance(other, IdempotencyMismatchError)
    assert isinstance(foreign, Submitted)
    assert foreign.record.id != first.record.id


def test_same_id_is_the_same_submit(driver: Driver) -> None:
    """A submit that is repeated because its answer was lost is no second task."""
    task = new()
    answers = [driver.submit(task), driver.submit(task)]
    assert all(isinstance(answer, Submitted) and not answer.replayed for answer in answers)
    assert driver.view().queued == 1


def test_full_queue_refuses(driver: Driver) -> None:
    """At the bound on waiting tasks a submit is refused; running ones do not count."""
    assert isinstance(driver.submit(new(), max_queued=1), Submitted)
    assert isinstance(driver.submit(new(), max_queued=1), QueueFullError)
    driver.claim()
    assert isinstance(driver.submit(new(start_at_ms=driver.now + 9000), max_queued=1), Submitted)
    assert isinstance(driver.submit(new(), max_queued=1), QueueFullError)


@pytest.mark.parametrize("ahead", [0, 9000])
def test_cancel_while_waiting(driver: Driver, ahead: int) -> None:
    """Q, D + cancel → C: it leaves the queue at once, with its reason."""
    task = submit(driver, start_at_ms=driver.now + ahead)
    driver.cancel(task, "changed my mind")
    assert driver.get(task).state is State.CANCELLED
    assert driver.events(task)[-1].data["reason"] == "changed my mind"
    assert driver.claim() is None
    assert not driver.zset("live")


@pytest.mark.parametrize("ahead", [0, 9000])
def test_start_deadline_expires_in_tick(driver: Driver, ahead: int) -> None:
    """Q, D + queue deadline → X by a tick; a delayed task's time begins when it is due."""
    task = submit(driver, start_at_ms=driver.now + ahead, start_within_ms=1000)
    driver.now += ahead + 999
    assert driver.tick().expired == 0
    driver.now += 1
    assert driver.tick().expired == 1
    assert driver.get(task).state is State.EXPIRED
    assert driver.events(task)[-1].data["reason"] == "start_within"


def test_start_deadline_expires_in_claim(driver: Driver) -> None:
    """A task that is too late is expired by the claim that finds it, which takes the next one."""
    late = [submit(driver, start_within_ms=1000) for _ in range(120)]
    good = submit(driver)
    driver.now += 1000
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == good
    assert {driver.get(task).state for task in late} == {State.EXPIRED}


def test_claim_starts_an_attempt(driver: Driver) -> None:
    """Q + claim → R: attempt 1, token, lease, events `queued` (its old id) and `started`."""
    task = submit(driver, estimate_s=4.0, weight=2.0)
    queued = driver.events(task)
    driver.register("g", ranks=2)
    claim = driver.claim(ranks=2)
    assert claim is not None
    assert (claim.attempt, claim.lease.token.split(".")[0], claim.control) == (1, "1", Control.GO_ON)
    record = driver.get(task)
    assert (record.state, record.attempt, record.started_ms) == (State.RUNNING, 1, driver.now)
    events = driver.events(task)
    assert events[0] == queued[0]
    assert (events[1].type, events[1].data) == ("started", {"group": "g", "ranks": 2})
    assert driver.zset("tenants") == {}
    assert float(driver.client.hget(driver.keys.one("shares"), "t") or 0) == 2.0
    assert driver.view().groups[0].task == task


@pytest.mark.parametrize("by_itself", [True, False])
def test_draining_group_claims_nothing(driver: Driver, by_itself: bool) -> None:
    """No claim for a group that drains, whether it says so or was marked; a mark reaches its worker."""
    first = start(driver)
    submit(driver)
    driver.drain("g")
    assert driver.renew(first.lease) is Control.DRAIN
    driver.drain("g", on=False)
    if not by_itself:
        driver.drain("g")
    assert driver.settle(first.lease, DONE, claim_next=driver.group_record("g", drain=by_itself)).next is None
    assert driver.claim("g", drain=by_itself) is None
    assert driver.claim("other") is not None


def test_unknown_spec_version_is_left_for_others(driver: Driver) -> None:
    """An older worker passes over a task whose spec it does not know; a newer one takes it."""
    new_kind = submit(driver, spec_version=2)
    plain = submit(driver)
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == plain
    assert driver.claim("old") is None
    claim = driver.claim("new", spec_version=2)
    assert claim is not None
    assert claim.lease.task == new_kind


def test_report_extends_lease_and_tells(driver: Driver) -> None:
    """R + report → R: events in both streams, fields in the record, the checkpoint, a longer lease."""
    claim = start(driver)
    driver.pass_time(10_000)
    got = driver.report(
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
    assert got is Control.GO_ON
    driver.pass_time(10_000)
    record = driver.get(claim.lease.task)
    assert (record.state, record.phase, record.fraction) == (State.RUNNING, "denoise", 0.5)
    assert (record.step, record.steps, record.eta_s, record.resumed_from_step) == (3, 6, 1.25, 2)
    assert driver.types(claim.lease.task) == ["queued", "started", "progress", "checkpoint"]
    assert record.last_event_id == driver.events(claim.lease.task)[-1].id
    with pytest.raises(ValueError, match="may not set"):
        driver.report(claim.lease, state="succeeded")


def test_renew_keeps_the_lease(driver: Driver) -> None:
    """R + renew → R: a leader that renews keeps its task as long as it likes."""
    claim = start(driver)
    for _ in range(5):
        driver.pass_time(10_000)
        assert driver.renew(claim.lease) is Control.GO_ON
    assert driver.get(claim.lease.task).strikes == 0


def test_cancel_while_running(driver: Driver) -> None:
    """R + cancel → R, marked once, live until the group stops; then C, and its files are garbage."""
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


def test_finish_publishes(driver: Driver) -> None:
    """R + finish → S: artifacts, usage, corrected charge, history; the event shows where to get the files."""
    claim = start(driver, estimate_s=100.0, cost=2.0)
    driver.now += 3000
    settled = driver.settle(claim.lease, DONE)
    assert (settled.state, settled.stale) == (State.SUCCEEDED, False)
    task = claim.lease.task
    record = driver.get(task)
    assert (record.artifacts, record.gpu_seconds, record.finished_ms) == ((VIDEO,), 3.0, driver.now)
    assert record.expires_ms == driver.now + 7 * 86_400_000
    last = driver.events(task)[-1]
    assert last.data["usage"] == {"gpu_seconds": 3.0, "wasted_gpu_seconds": 0.0}
    assert last.data["artifacts"] == [
        {
            "name": "v.mp4",
            "content_type": "video/mp4",
            "size_bytes": 9,
            "sha256": "ab",
            "url": f"/v1/tasks/{task}/artifacts/v.mp4",
        }
    ]
    view = driver.view()
    assert (view.seconds_per_cost, view.used_gpu_seconds, view.ended[State.SUCCEEDED]) == (1.5, 3.0, 1)
    assert float(driver.client.hget(driver.keys.one("shares"), "t") or 0) == 3.0
    assert not driver.zset("garbage")


def test_deadline_does_not_undo_a_finish(driver: Driver) -> None:
    """A finish behind the run deadline is still a success."""
    claim = start(driver, run_within_ms=1000)
    driver.now += 2000
    assert driver.settle(claim.lease, DONE).state is State.SUCCEEDED


def _lapse(driver: Driver, claim: Claim) -> None:
    driver.pass_time(15_000)


def _by(outcome: Outcome) -> Callable[[Driver, Claim], None]:
    def settle(driver: Driver, claim: Claim) -> None:
        assert not driver.settle(claim.lease, outcome).stale

    return settle


ENDS = {
    "finish": _by(DONE),
    "error": _by(OOPS),
    "permanent": _by(FATAL),
    "release": _by(Released()),
    "stopped": _by(Stopped()),
    "lapse": _lapse,
    "leave": lambda driver, claim: driver.leave("g"),
    "restart": lambda driver, claim: driver.register("g", fresh=True),
    "claim lost": lambda driver, claim: driver.claim("g"),
}


@pytest.mark.parametrize("end", ENDS)
def test_cancel_wins(driver: Driver, end: str) -> None:
    """R with cancel requested → C, however the attempt ends, even behind its deadline."""
    claim = start(driver, run_within_ms=500, max_strikes=1)
    driver.cancel(claim.lease.task)
    driver.now += 600
    ENDS[end](driver, claim)
    assert driver.get(claim.lease.task).state is State.CANCELLED


@pytest.mark.parametrize("end", [end for end in ENDS if end not in ("finish", "permanent")])
def test_deadline_beats_strike(driver: Driver, end: str) -> None:
    """R behind its run deadline → X where it would be tried again."""
    claim = start(driver, run_within_ms=500, max_strikes=1)
    driver.now += 600
    assert driver.renew(claim.lease) is Control.EXPIRE
    ENDS[end](driver, claim)
    record = driver.get(claim.lease.task)
    assert (record.state, record.strikes) == (State.EXPIRED, 0)
    assert driver.events(claim.lease.task)[-1].data["reason"] == "run_within"


@pytest.mark.parametrize("end", ["error", "lapse"])
def test_strike_delays_with_backoff(driver: Driver, end: str) -> None:
    """R + retryable error or lost lease → D with a strike and a jittered backoff, then its original place."""
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
def test_last_strike_fails(driver: Driver, end: str) -> None:
    """R + the last strike → F, a dead letter with its error; a replay is a new task."""
    claim = start(driver, max_strikes=1)
    task = claim.lease.task
    ENDS[end](driver, claim)
    record = driver.get(task)
    assert (record.state, record.strikes) == (State.FAILED, 1)
    assert record.error_code == ("oops" if end == "error" else "lease_lost")
    assert driver.events(task)[-1].data["error"]["code"] == record.error_code
    assert set(driver.zset("dead")) == {task}
    again = submit(driver, replay_of=task)
    assert driver.get(again).replay_of == task


def test_permanent_error_fails_at_once(driver: Driver) -> None:
    """R + permanent error → F whatever strikes are left."""
    claim = start(driver)
    assert driver.settle(claim.lease, FATAL).state is State.FAILED


def test_permanent_error_outranks_the_deadline(driver: Driver) -> None:
    """R behind its run deadline with a permanent error → F: the error says more."""
    claim = start(driver, run_within_ms=500)
    driver.now += 600
    assert driver.settle(claim.lease, FATAL).state is State.FAILED


@pytest.mark.parametrize("end", ["release", "stopped", "leave", "restart", "claim lost"])
def test_hand_back_keeps_place_and_checkpoint(driver: Driver, end: str) -> None:
    """R + release, group gone or restarted → Q: no strike, its original place, its checkpoint."""
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
    assert (record.strikes, record.hand_backs) == (0, 1)
    assert driver.events(task)[-1].data["resumed_from_step"] == 4
    assert driver.get(later).state is State.QUEUED
    assert driver.renew(claim.lease) is Control.STALE


def test_handed_back_too_often_is_a_strike(driver: Driver) -> None:
    """The 51st hand-back counts as a strike."""
    claim: Claim | None = start(driver)
    for _ in range(50):
        assert claim is not None
        assert driver.settle(claim.lease, Released()).state is State.QUEUED
        claim = driver.claim()
    assert claim is not None
    assert driver.settle(claim.lease, Released()).state is State.DELAYED
    record = driver.get(claim.lease.task)
    assert (record.strikes, record.hand_backs, record.error_code) == (1, 50, "handed_back")


@pytest.mark.parametrize(
    "outcome", [DONE, OOPS, FATAL, Released(), Stopped()], ids=lambda o: type(o).__name__
)
def test_same_outcome_again_has_the_same_answer(driver: Driver, outcome: Outcome) -> None:
    """A settle that is sent again answers as the first time, next claim included, and writes nothing."""
    claim = start(driver)
    submit(driver)
    group = driver.group_record("g")
    first = driver.settle(claim.lease, outcome, claim_next=group)
    events = driver.types(claim.lease.task)
    assert first.next is not None
    assert driver.settle(claim.lease, outcome, claim_next=group) == first
    assert driver.types(claim.lease.task) == events


def test_zombie_writes_nothing(driver: Driver) -> None:
    """Any call with a token that is not the current one is STALE and changes nothing at all."""
    claim = start(driver)
    driver.pass_time(16_000)
    driver.now += 1000
    driver.tick()
    current = driver.claim("h")
    assert current is not None
    before = _dump(driver)
    assert driver.renew(claim.lease) is Control.STALE
    progress = EventDraft(type="progress", data={})
    assert (
        driver.report(claim.lease, progress, checkpoint=CheckpointRef(key="z", step=1), step=1)
        is Control.STALE
    )
    for outcome in (DONE, OOPS, FATAL, Released(), Stopped()):
        assert driver.settle(claim.lease, outcome).stale
    assert driver.settle(lease_of(new_task_id("video"), "1.x"), DONE).stale
    assert _dump(driver) == before
    assert driver.settle(current.lease, DONE).state is State.SUCCEEDED


def _dump(driver: Driver) -> dict[bytes, bytes | None]:
    return {key: driver.client.dump(key) for key in driver.client.scan_iter()}


def test_cancel_after_the_end_changes_nothing(driver: Driver) -> None:
    """A terminal state is final."""
    claim = start(driver)
    driver.settle(claim.lease, DONE)
    before = _dump(driver)
    record = driver.cancel(claim.lease.task)
    assert record is not None
    assert (record.state, record.cancel_requested) == (State.SUCCEEDED, False)
    assert _dump(driver) == before


def test_an_outage_ends_no_lease(driver: Driver) -> None:
    """An hour without ticks is two seconds on the lease clock."""
    claim = start(driver)
    driver.tick()
    driver.now += 3_600_000
    assert driver.tick().reaped == 0
    assert driver.renew(claim.lease) is Control.GO_ON


def test_retention_takes_everything(driver: Driver) -> None:
    """After retention a task is named once a minute until it is forgotten; then nothing of it is left."""
    claim = start(driver, retention_s=60, idempotency_key="k")
    task = claim.lease.task
    driver.report(claim.lease, checkpoint=CheckpointRef(key="c", step=1))
    driver.settle(claim.lease, FATAL)
    assert driver.forget(submit(driver)) == -1
    assert set(driver.tick().garbage) == {f"{task}/{claim.lease.token}/", f"{task}/checkpoints/"}
    assert driver.tick().garbage == ()
    driver.now += 60_000
    assert driver.tick().retention_due == (task,)
    assert driver.tick().retention_due == ()
    driver.now += 60_000
    assert driver.tick().retention_due == (task,)
    assert (driver.forget(task), driver.forget(task)) == (1, 0)
    assert not [key for key in driver.client.scan_iter() if task.encode() in key]


def test_tick_is_bounded(driver: Driver) -> None:
    """A tick handles at most its limit and says that there is more."""
    for _ in range(25):
        submit(driver, start_at_ms=driver.now + 10)
    driver.now += 10
    reports = [driver.tick(limit=10) for _ in range(3)]
    assert [report.promoted for report in reports] == [10, 10, 5]
    assert [report.more for report in reports] == [True, True, False]


def test_lost_group_vanishes(driver: Driver) -> None:
    """A group that stops refreshing is lost, shown as such for a while, and then gone."""
    driver.register("g", ttl_s=5)
    driver.pass_time(6000)
    assert [group.state for group in driver.view().groups] == ["lost"]
    driver.pass_time(301_000)
    assert driver.view().groups == ()


def test_delayed_is_live_when_a_wake_takes_as_long(driver: Driver) -> None:
    """A delayed task is live as early as the pool's last wake took, so that it finds a group ready."""
    driver.client.hset(driver.keys.one("meta"), "wake_ms", 3000)
    task = submit(driver, start_at_ms=driver.now + 5000)
    assert driver.tick().promoted == 0
    assert task not in driver.zset("live")
    driver.now += 2000
    driver.tick()
    assert task in driver.zset("live")
    assert (driver.view().queued, driver.view().delayed) == (0, 1)
