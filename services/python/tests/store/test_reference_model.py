"""The Lua scripts on a real server do exactly what the pure model does, for any calls in any order."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daybreak_server.domain.ids import TaskId, new_task_id
from daybreak_server.domain.tasks import (
    ArtifactRef,
    CheckpointRef,
    EventDraft,
    Failed,
    Finished,
    Lease,
    NewTask,
    Outcome,
    Priority,
    Released,
    Stopped,
)
from daybreak_server.ports.store_errors import IdempotencyMismatchError, QueueFullError
from daybreak_server.ports.tasks import Submitted
from testkit.store_driver import Driver, check_keys
from testkit.valkey import Server
from verification.queue_model.comparison import assert_same
from verification.queue_model.pool import ModelPool
from verification.queue_model.state import any_unpromoted, oldest_wait_ms

TENANTS = st.sampled_from(["alice", "bob", "carol"])
GROUPS = st.sampled_from(["g1", "g2", "g3"])
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.just(
        Finished(
            artifacts=(
                ArtifactRef(name="v.mp4", key="k", content_type="video/mp4", size_bytes=1, sha256="0"),
            )
        )
    ),
    st.builds(
        Failed, code=st.just("oops"), message=st.sampled_from(["", 'a "b" é\n/']), permanent=st.booleans()
    ),
    st.just(Released()),
    st.just(Stopped()),
)
MAX_QUEUED = 12
NOT_TOTALS = {"tenants_max", "metered", "pending_ms"}
PICK = st.integers(0, 20)


class Machine(RuleBasedStateMachine):
    """Drives the store and the model side by side, with every lease ever given, including leases that their
    holders have lost."""

    server: Server
    restarts = False
    tasks: Bundle[str] = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        with self.server.client() as client:
            client.flushall()
        self.driver = Driver(self.server.url)
        self.model = ModelPool(now=self.driver.now, max_queued=MAX_QUEUED)
        self.leases: list[Lease] = []
        self.totals: dict[str, int] = {}
        self.used, self.wasted = 0.0, dict[str, float]()

    @initialize()
    def begin(self) -> None:
        self.tick()

    def _lease(self, at: int) -> Lease | None:
        """Choose mostly a lease that is held now, and sometimes one that its holder has lost."""
        held = [lease for lease in self.leases if self._holds(lease)]
        choice = self.leases if at % 3 == 0 or not held else held
        return choice[-1 - at % len(choice)] if choice else None

    def _holds(self, lease: Lease) -> bool:
        task = self.model.tasks.get(lease.task)
        return task is not None and task.running is not None and task.running.token == lease.token

    # ── submit ────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        target=tasks,
        tenant=TENANTS,
        weight=st.sampled_from([1.0, 1.0, 3.0]),
        priority=st.sampled_from(list(Priority)),
        estimate_s=st.sampled_from([0.5, 1.0, 7.3]),
        start_in=st.sampled_from([None, None, None, -5, 0, 900, 5000]),
        start_within=st.sampled_from([None, None, 1000, 2500]),
        run_within=st.sampled_from([None, 1000, 3000]),
        max_strikes=st.sampled_from([1, 2, 3]),
        key=st.sampled_from([None, None, "k1", "k2"]),
        body=st.sampled_from(["b1", "b2"]),
    )
    def submit(self, key: str | None, body: str, start_in: int | None, **fields: Any) -> Any:
        new = NewTask(
            id=new_task_id("video"),
            pool="video",
            input_json='{"p": "x"}',
            start_at_ms=None if start_in is None else self.driver.now + start_in,
            start_within_ms=fields.pop("start_within"),
            run_within_ms=fields.pop("run_within"),
            idempotency_key=key,
            body_hash=body,
            retention_s=20,
            **fields,
        )
        return self._submit(new)

    @rule(target=tasks, old=tasks)
    def submit_again(self, old: str) -> Any:
        """Repeat a submit, like a client that did not get the answer."""
        task = self.model.tasks.get(old)
        return multiple() if task is None else self._submit(task.new)

    @rule(target=tasks, old=tasks)
    def replay(self, old: str) -> Any:
        """A new task from an old one."""
        fresh = NewTask(
            id=new_task_id("video"), pool="video", tenant="alice", input_json="{}", replay_of=TaskId(old)
        )
        return self._submit(fresh)

    def _submit(self, new: NewTask) -> Any:
        expected, known = self.model.submit(new)
        got = self.driver.submit(new, max_queued=MAX_QUEUED)
        if expected == "full":
            assert isinstance(got, QueueFullError)
            return multiple()
        if expected == "mismatch":
            assert isinstance(got, IdempotencyMismatchError)
            return multiple()
        assert isinstance(got, Submitted)
        assert (got.record.id, got.repeated) == (known, expected == "repeated")
        return new.id if expected == "new" else multiple()

    # ── work ──────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        group=GROUPS,
        ranks=st.sampled_from([1, 2]),
        drain=st.sampled_from([False] * 9 + [True]),
        keep=st.sampled_from([0, 0, 1, 2]),
    )
    def claim(self, group: str, ranks: int, drain: bool, keep: int) -> None:
        """A claim keeps the tasks that the group names. (The store allows several; today's engine holds one.)"""
        known = self.model.groups.get(group)
        kept = tuple(known.tasks[:keep]) if known is not None else ()
        got = self.driver.claim(group, ranks=ranks, drain=drain, kept=kept)
        nonce = got.lease.token.partition(".")[2] if got else "none"
        expected = self.model.claim(group, ranks=ranks, lease_ms=15_000, nonce=nonce, drain=drain, kept=kept)
        assert (got.lease.task if got else None) == expected
        if got is None:
            return
        task = self.model.tasks[got.lease.task]
        assert task.running is not None
        assert (got.attempt, got.lease.token) == (task.attempt, task.running.token)
        assert (got.checkpoint, got.control) == (task.checkpoint, self.model.control(task))
        self.leases.append(got.lease)

    @rule(at=PICK)
    def renew(self, at: int) -> None:
        lease = self._lease(at)
        if lease is None:
            return
        assert self.driver.renew(lease) == self.model.report(lease.task, lease.token, lease_ms=15_000)

    @rule(
        at=PICK,
        step=st.integers(0, 9),
        save=st.booleans(),
        resumed=st.sampled_from([None, None, 3]),
        number=st.sampled_from([0, 1, 2, 3]),
    )
    def report(self, at: int, step: int, save: bool, resumed: int | None, number: int) -> None:
        lease = self._lease(at)
        if lease is None:
            return
        checkpoint = CheckpointRef(key=f"{lease.task}/checkpoints/{step}", step=step) if save else None
        data = {"step": step, "fraction": step / 10}
        fields: dict[str, Any] = {"step": step}
        if resumed is not None:
            fields["resumed_from_step"] = resumed
        got = self.driver.report(
            lease, EventDraft(type="progress", data=data, number=number), checkpoint=checkpoint, **fields
        )
        expected = self.model.report(
            lease.task,
            lease.token,
            lease_ms=15_000,
            events=(("progress", data),),
            numbers=(number,),
            checkpoint=checkpoint,
            resumed_from_step=resumed,
            step=step,
        )
        assert got == expected

    @rule(at=PICK, outcome=OUTCOMES)
    def settle(self, at: int, outcome: Outcome) -> None:
        lease = self._lease(at)
        if lease is None:
            return
        expected = self.model.settle(lease.task, lease.token, outcome)
        got = self.driver.settle(lease, outcome)
        assert (got.state, got.stale) == expected

    @rule(at=PICK, outcome=OUTCOMES, keep=st.booleans())
    def settle_and_claim(self, at: int, outcome: Outcome, keep: bool) -> None:
        """``settle`` with ``claim_next`` does what ``settle`` and then ``claim`` do.

        If the same call is sent again, it returns the same claim.
        """
        lease = self._lease(at)
        if lease is None or not self._holds(lease):
            return
        known = self.model.groups.get(lease.group)
        kept = tuple(known.tasks) if keep and known is not None else ()
        group = self.driver.group_record(lease.group, kept=kept)
        got = self.driver.settle(lease, outcome, claim_next=group)
        assert (got.state, got.stale) == self.model.settle(lease.task, lease.token, outcome)
        nonce = got.next.lease.token.partition(".")[2] if got.next else "none"
        others = tuple(task for task in kept if task != lease.task)
        expected = self.model.claim(group.id, ranks=1, lease_ms=15_000, nonce=nonce, kept=others)
        assert (got.next.lease.task if got.next else None) == expected
        assert self.driver.settle(lease, outcome, claim_next=group) == got
        if got.next:
            self.leases.append(got.next.lease)

    # ── everything else ───────────────────────────────────────────────────────────────────────────────────

    @rule(at=PICK)
    def cancel_running(self, at: int) -> None:
        lease = self._lease(at)
        if lease is not None:
            self.cancel(lease.task)

    @rule(task=tasks)
    def cancel(self, task: str) -> None:
        got = self.driver.cancel(task)
        assert (got.state if got else None) == self.model.cancel(task)

    @rule(
        group=GROUPS,
        fresh=st.booleans(),
        ttl_s=st.sampled_from([2, 20]),
        wake=st.sampled_from([None, {"ray": 3.5, "model": 0.25}]),
    )
    def register(self, group: str, fresh: bool, ttl_s: int, wake: dict[str, float] | None) -> None:
        expected = self.model.register(group, ttl_ms=ttl_s * 1000, fresh=fresh, **(wake or {}))
        assert self.driver.register(group, ttl_s=ttl_s, fresh=fresh, wake=wake) == expected

    @rule(group=GROUPS, died=st.booleans())
    def deregister(self, group: str, died: bool) -> None:
        self.driver.deregister(group, died=died)
        self.model.deregister(group, died=died)

    @rule(group=GROUPS, on=st.booleans())
    def drain(self, group: str, on: bool) -> None:
        got = self.driver.drain(group, on=on)
        known = self.model.groups.get(group)
        assert (got is None) == (known is None)
        if known is not None:
            known.drain = on

    @rule(ms=st.sampled_from([1, 1000, 1000, 3000, 1000, 3_600_000, -3_600_000]))
    def advance(self, ms: int) -> None:
        """Move only the wall clock, by up to an hour in either direction, as if an administrator had set it."""
        self.driver.now += ms
        self.model.now = self.driver.now

    @rule()
    def tick(self) -> None:
        got = self.driver.tick()
        promoted, reaped, expired, retention, garbage = self.model.tick()
        assert (got.promoted, got.reaped, got.expired) == (promoted, reaped, expired)
        assert (set(got.retention_due), set(got.garbage)) == (retention, garbage)
        self.driver.client.zrem(self.driver.keys.single("garbage"), "", *got.garbage)
        for prefix in garbage:
            del self.model.garbage[prefix]

    @rule(seconds=st.sampled_from([2, 5, 16, 25]))
    def time_passes(self, seconds: int) -> None:
        """Let seconds pass with a tick in each, so that leases end."""
        for _ in range(seconds):
            self.advance(1000)
            self.tick()

    @rule(task=consumes(tasks))
    def delete(self, task: str) -> None:
        assert self.driver.delete(task) == self.model.delete(task)

    @precondition(lambda self: self.restarts)
    @rule(hard=st.booleans())
    def restart_server(self, hard: bool) -> None:
        self.server.restart(hard=hard)

    # ── comparison ────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def same(self) -> None:
        assert_same(self.driver, self.model)

    @invariant()
    def totals_never_decrease(self) -> None:
        """The totals do not decrease even when a group is lost, the server restarts, or a tenant is deleted."""
        totals = self.driver.totals()
        for name, before in self.totals.items():
            assert totals.total(name) >= before, name
        self.totals = {name: count for name, count in totals.raw.items() if name not in NOT_TOTALS}
        used, wasted = totals.used_gpu_seconds, totals.wasted_gpu_seconds
        assert used >= self.used
        assert all(seconds >= self.wasted.get(cause, 0.0) for cause, seconds in wasted.items())
        self.used, self.wasted = used, wasted

    @invariant()
    def oldest_waits_are_those_of_the_model(self) -> None:
        """The waits agree even after the clock was set back, and after releases, retries and promotions, which give
        tasks their old places."""
        queue, tasks = self.driver.totals().queue, self.model.tasks.values()
        due = any_unpromoted(tasks, self.model.now)
        for priority in Priority:
            shown = queue[priority.name.lower()].oldest_wait_s
            expected = oldest_wait_ms(tasks, priority, self.model.now) / 1000
            assert shown == expected or (due and shown > expected)

    def teardown(self) -> None:
        try:
            for name, task in self.model.tasks.items():
                got = [(event.type, event.attempt, _shown(event.data)) for event in self.driver.events(name)]
                assert got == task.events
            check_keys(self.driver.client)
            self._streams_agree()
        finally:
            self.driver.close()

    def _streams_agree(self) -> None:
        """The pool's stream has every event of every task, in order, and under the id that the task's history shows."""
        entries = self.driver.client.xrange(self.driver.keys.single("events"))
        for name in self.model.tasks:
            in_pool_stream = [entry for entry, fields in entries if fields[b"task"].decode() == name]
            assert [event.id.encode() for event in self.driver.events(name)] == in_pool_stream


def _shown(data: Any) -> dict[str, Any]:
    if "artifacts" in data:
        return {**data, "artifacts": [artifact["name"] for artifact in data["artifacts"]]}
    return dict(data)


def _run(server: Server, *, examples: int, restarts: bool, phases: Collection[Phase] = tuple(Phase)) -> None:
    kind = type("StoreMachine", (Machine,), {"server": server, "restarts": restarts})
    scale = settings().max_examples / 100  # `--hypothesis-profile long` runs 20 times as many examples
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=max(1, round(examples * scale)),
            stateful_step_count=60,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_the_store_does_what_the_model_does(server: Server) -> None:
    """Store and model agree after every step.

    The steps include lost leases, releases, expiries and calls by zombies.
    """
    _run(server, examples=20, restarts=False)


@pytest.mark.timeout(600)
def test_the_store_does_what_the_model_does_across_restarts(server: Server) -> None:
    """Store and model also agree when the server is stopped or killed, and starts again."""
    _run(server, examples=3, restarts=True)
