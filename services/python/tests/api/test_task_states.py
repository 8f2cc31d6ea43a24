"""Tests of the rows of the state table in ``docs/architecture.md``, through HTTP, with a stand-in for the leader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from api_support import Api, FakeLeader, read_events

from daybreak_server.domain.tasks import CheckpointRef, Control, EventDraft
from testkit.waiting import wait_until


def kinds(api: Api, task: str) -> list[str]:
    """The types of an ended task's events."""
    return [event["type"] for event in read_events(api.url, task)]


def test_submit_queues_a_task(api: Api) -> None:
    """New → queued: record, queue position and event exist as soon as the response does."""
    task = api.submit()
    assert api.get(task["id"])["queue"]["position"] == 1
    events = read_events(api.url, task["id"], until="queued")
    assert events[0]["data"]["position"] == 1


def test_a_waiting_task_is_cancelled_at_once(api: Api) -> None:
    """Queued or delayed → cancelled: the task leaves the queue at once."""
    due = api.submit()
    delayed = api.submit(start_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    for task in (due, delayed):
        response = api.client.post(f"/v1/tasks/{task['id']}/cancel")
        assert (response.status_code, response.json()["state"]) == (202, "cancelled")
        assert {"queue", "wake"}.isdisjoint(response.json())
        assert kinds(api, task["id"]) == ["queued", "cancelled"]


def test_a_task_that_does_not_start_in_time_expires(api: Api) -> None:
    """Queued → expired: the tick expires the task after start_within_s, without any leader."""
    task = api.submit(start_within_s=0.2)
    shown = api.until(task["id"], "expired")
    assert shown["finished_at"] >= shown["created_at"]
    assert kinds(api, task["id"]) == ["queued", "expired"]


def test_a_delayed_task_is_claimed_when_it_is_due(api: Api, leader: FakeLeader) -> None:
    """Delayed → queued: a leader does not get the task before its time."""
    start = datetime.now(UTC) + timedelta(seconds=1.0)
    task = api.submit(start_at=start.isoformat())
    claim = leader.claim(wait_s=60)
    assert claim.lease.task == task["id"]
    assert datetime.now(UTC) >= start - timedelta(milliseconds=50)
    leader.finish(claim)


def test_a_claim_starts_the_first_attempt(api: Api, leader: FakeLeader) -> None:
    """Queued → running: the task has no queue position any more, and the pool shows its group as busy."""
    task = api.submit()
    leader.claim()
    shown = api.get(task["id"])
    assert (shown["state"], shown["attempt"]) == ("running", 1)
    assert "started_at" in shown
    assert "queue" not in shown

    def busy() -> bool:
        groups = api.client.get("/v1/pools/echo").json()["groups"]
        return [(g["state"], g.get("tasks")) for g in groups] == [("busy", [task["id"]])]

    wait_until(busy, 30, "the group to be shown as busy")


def test_a_draining_group_claims_nothing(api: Api, leader: FakeLeader) -> None:
    """Queued → running happens only in a group that does not drain."""
    api.submit()
    leader.group = replace(leader.group, drain=True)
    leader.register()
    assert leader.queue.claim(leader.group, wait_s=0.3) is None


def test_a_report_updates_record_and_stream(api: Api, leader: FakeLeader) -> None:
    """Running → running: record and stream show progress and checkpoint, and the leader continues."""
    task = api.submit()
    claim = leader.claim()
    assert leader.progress(claim, 3, 10, phase="denoise") == Control.CONTINUE
    leader.queue.report(
        claim.lease, [], checkpoint=CheckpointRef(key=f"{task['id']}/checkpoints/x.bin", step=3)
    )
    shown = api.get(task["id"])
    assert shown["phase"] == "denoise"
    assert shown["progress"] == {"fraction": 0.3, "step": 3, "steps": 10, "eta_s": 7.0}
    leader.finish(claim)
    assert kinds(api, task["id"]) == ["queued", "started", "progress", "checkpoint", "succeeded"]


def test_a_running_task_is_cancelled_when_its_group_has_stopped(api: Api, leader: FakeLeader) -> None:
    """Running → running → cancelled: the reply to the leader's next call has the bit CANCEL, and the leader stops."""
    task = api.submit()
    claim = leader.claim()
    response = api.client.post(f"/v1/tasks/{task['id']}/cancel")
    assert response.status_code == 202
    assert (response.json()["state"], response.json()["cancel_requested"]) == ("running", True)
    assert api.client.post(f"/v1/tasks/{task['id']}/cancel").status_code == 202
    assert leader.progress(claim, 1, 2) & Control.CANCEL
    leader.stop(claim)
    assert api.get(task["id"])["state"] == "cancelled"
    assert api.client.post(f"/v1/tasks/{task['id']}/cancel").status_code == 200
    assert kinds(api, task["id"])[-1] == "cancelled"


def test_a_finish_publishes_files_and_usage(api: Api, leader: FakeLeader) -> None:
    """Running → succeeded: the files have checksums, and a repeated finish changes nothing."""
    task = api.submit()
    claim = leader.claim()
    file = leader.upload(claim, "echo.txt", b"hello")
    first = leader.finish(claim, file)
    shown = api.get(task["id"])
    assert shown["state"] == "succeeded"
    assert [a["sha256"] for a in shown["artifacts"]] == [file.sha256]
    assert shown["usage"]["gpu_seconds"] >= 0
    assert "key" not in shown["artifacts"][0]
    repeated = leader.finish(claim, file)
    assert (repeated.state, repeated.stale) == (first.state, False)
    assert kinds(api, task["id"]).count("succeeded") == 1
    assert api.client.post(f"/v1/tasks/{task['id']}/cancel").json()["state"] == "succeeded"


def test_a_finish_after_a_cancel_publishes_nothing(api: Api, leader: FakeLeader) -> None:
    """Running with a requested cancel → cancelled: the files are deleted."""
    task = api.submit()
    claim = leader.claim()
    api.client.post(f"/v1/tasks/{task['id']}/cancel")
    leader.finish(claim, leader.upload(claim, "echo.txt", b"late"))
    shown = api.get(task["id"])
    assert (shown["state"], shown["artifacts"]) == ("cancelled", [])

    def deleted() -> bool:
        return not list(api.blobs.list(task["id"]))

    wait_until(deleted, 60, "the files of the cancelled task to be deleted")


def test_an_error_or_release_after_a_cancel_is_not_a_retry(
    api: Api, start_leader: Callable[..., FakeLeader]
) -> None:
    """Running with a requested cancel → cancelled, and not queued."""
    for end in ("fail", "release"):
        leader = start_leader()
        task = api.submit()
        claim = leader.claim()
        api.client.post(f"/v1/tasks/{task['id']}/cancel")
        getattr(leader, end)(claim)
        assert api.get(task["id"])["state"] == "cancelled", end


def test_an_error_is_retried_after_a_backoff(api: Api, leader: FakeLeader) -> None:
    """Running → delayed → queued → running: a strike and a backoff come before the next attempt."""
    task = api.submit()
    leader.fail(leader.claim())
    shown = api.get(task["id"])
    assert (shown["state"], shown["strikes"]) == ("queued", 1)
    assert shown["error"] == {"code": "boom", "message": "it broke", "attempt": 1}
    second = leader.claim(wait_s=60)
    assert second.attempt == 2
    leader.finish(second)
    assert kinds(api, task["id"]) == ["queued", "started", "retrying", "started", "succeeded"]


def test_the_last_strike_fails_the_task(api: Api, leader: FakeLeader) -> None:
    """Running → failed: the task shows the error and its strikes."""
    task = api.submit(max_strikes=1)
    leader.fail(leader.claim())
    shown = api.get(task["id"])
    assert (shown["state"], shown["strikes"], shown["error"]["code"]) == ("failed", 1, "boom")
    last = read_events(api.url, task["id"])[-1]
    assert (last["type"], last["data"]["error"]["message"]) == ("failed", "it broke")


def test_a_permanent_error_is_not_retried(api: Api, leader: FakeLeader) -> None:
    """Running → failed, however many strikes are left."""
    task = api.submit(max_strikes=5)
    leader.fail(leader.claim(), permanent=True)
    assert api.get(task["id"])["state"] == "failed"


def test_a_leader_that_loses_its_lease_loses_its_task(
    api: Api, start_leader: Callable[..., FakeLeader]
) -> None:
    """Running → delayed: the tick ends the lease, and later calls of the old leader change nothing."""
    zombie = start_leader(lease_s=0.5)
    task = api.submit()
    claim = zombie.claim()
    shown = api.until(task["id"], "queued")
    assert shown["strikes"] == 1
    assert zombie.progress(claim, 1, 2) & Control.STALE
    assert zombie.finish(claim).stale
    assert api.get(task["id"])["state"] == "queued"
    next_leader = start_leader()
    second = next_leader.claim(wait_s=60)
    assert second.attempt == 2
    assert zombie.queue.renew(claim.lease) == Control.STALE
    next_leader.finish(second)
    events = read_events(api.url, task["id"])
    assert [e["data"]["reason"] for e in events if e["type"] == "retrying"] == ["lease_lost"]


def test_a_lost_lease_after_a_cancel_is_not_a_strike(
    api: Api, start_leader: Callable[..., FakeLeader]
) -> None:
    """Running with a requested cancel → cancelled: a cancel takes precedence over a strike."""
    leader = start_leader(lease_s=4.0)
    task = api.submit()
    leader.claim()
    api.client.post(f"/v1/tasks/{task['id']}/cancel")
    assert api.until(task["id"], "cancelled")["strikes"] == 0


def test_a_released_task_keeps_its_queue_position(api: Api, leader: FakeLeader) -> None:
    """Running → queued: the task also keeps its checkpoint, and gets no strike."""
    first = api.submit()
    second = api.submit()
    claim = leader.claim()
    leader.queue.report(claim.lease, [], checkpoint=CheckpointRef(key=f"{first['id']}/checkpoints/1", step=1))
    leader.release(claim)
    shown = api.get(first["id"])
    assert (shown["state"], shown["strikes"], shown["releases"]) == ("queued", 0, 1)
    assert shown["queue"]["position"] < api.get(second["id"])["queue"]["position"]
    again = leader.claim()
    assert (again.lease.task, again.attempt) == (first["id"], 2)
    assert again.checkpoint == CheckpointRef(key=f"{first['id']}/checkpoints/1", step=1)
    leader.queue.report(
        again.lease,
        [EventDraft(type="log", data={"level": "info", "message": "on"})],
        fields={"resumed_from_step": 1},
    )
    assert api.get(first["id"])["resumed_from_step"] == 1


def test_a_task_past_its_run_deadline_is_stopped(api: Api, leader: FakeLeader) -> None:
    """Running → running → expired: after run_within_s the leader gets the bit EXPIRE. Then it stops the task."""
    task = api.submit(run_within_s=0.2)
    claim = leader.claim()
    wait_until(lambda: leader.queue.renew(claim.lease) & Control.EXPIRE, 30, "the bit EXPIRE")
    assert api.get(task["id"])["state"] == "running"
    leader.stop(claim)
    assert api.get(task["id"])["state"] == "expired"


def test_a_silent_leader_past_the_run_deadline_leaves_an_expired_task(
    api: Api, start_leader: Callable[..., FakeLeader]
) -> None:
    """Running → expired, without a strike."""
    leader = start_leader(lease_s=0.7)
    task = api.submit(run_within_s=0.1)
    leader.claim()
    assert api.until(task["id"], "expired")["strikes"] == 0


def test_a_group_that_deregisters_releases_its_task_at_once(api: Api, leader: FakeLeader) -> None:
    """Running → queued: the task is queued again, which counts as one release or one strike."""
    task = api.submit()
    leader.claim()
    leader.queue.deregister(leader.group)
    shown = api.get(task["id"])
    assert shown["state"] == "queued"
    assert shown["releases"] + shown["strikes"] == 1


def test_every_ended_state_can_be_replayed(api: Api, leader: FakeLeader) -> None:
    """A cancelled, an expired and a succeeded task can each be submitted again as a new task."""
    cancelled = api.submit()
    api.client.post(f"/v1/tasks/{cancelled['id']}/cancel")
    expired = api.submit(start_within_s=0.1)
    api.until(expired["id"], "expired")
    done = api.submit()
    leader.finish(leader.claim())
    for task in (cancelled, expired, done):
        response: dict[str, Any] = api.client.post(f"/v1/tasks/{task['id']}/replay").json()
        assert (response["replay_of"], response["state"]) == (task["id"], "queued")


def test_priorities_are_served_in_order(api: Api, leader: FakeLeader) -> None:
    """Within a tenant, high comes before normal and normal before low, whatever the order of submits."""
    ids = {priority: api.submit(priority=priority)["id"] for priority in ("low", "normal", "high")}
    served = []
    for _ in ids:
        claim = leader.claim()
        served.append(claim.lease.task)
        leader.finish(claim)
    assert served == [ids["high"], ids["normal"], ids["low"]]
