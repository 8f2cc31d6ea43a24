"""The pure rules (transitions, backoff, fair shares) and the reference model that combines them."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.domain.errors import InvalidTransitionError
from daybreak_server.domain.ids import AttemptToken, attempt_of, new_task_id, pool_of, ulid
from daybreak_server.domain.policy import BACKOFF_BASE_MS, BACKOFF_MAX_MS
from daybreak_server.domain.tasks import Failed, Finished, NewTask, State
from daybreak_server.domain.transitions import TABLE, Facts, Trigger, row, target
from verification.queue_model.backoff import backoff_ms
from verification.queue_model.fairness import FairQueue, order
from verification.queue_model.pool import ModelPool

ALL_FACTS = [
    Facts(cancel=cancel, overdue=overdue, last_strike=last_strike, releases_exhausted=exhausted)
    for cancel, overdue, last_strike, exhausted in itertools.product([False, True], repeat=4)
]


def test_a_terminal_state_rejects_every_event() -> None:
    """No event moves a task out of a terminal state."""
    for state, event, facts in itertools.product(filter(lambda s: s.terminal, State), Trigger, ALL_FACTS):
        with pytest.raises(InvalidTransitionError):
            target(state, event, facts)


def test_every_row_of_the_transition_table_is_used() -> None:
    """Each row of the table decides at least one case; the rows before it do not shadow it."""
    used = set()
    states: list[State | None] = [None, *State]
    for state, event, facts in itertools.product(states, Trigger, [*ALL_FACTS, Facts(delayed=True)]):
        try:
            used.add(id(row(state, event, facts)))
        except InvalidTransitionError:
            continue
    assert used == {id(candidate) for candidate in TABLE}


def test_every_end_of_an_attempt_leads_to_another_state() -> None:
    """The table has a next state for each end of an attempt, and a requested cancel always wins."""
    ending_events = set(Trigger) - {
        Trigger.SUBMIT,
        Trigger.CLAIM,
        Trigger.REPORT,
        Trigger.CANCEL,
        Trigger.DUE,
    }
    ending_events -= {Trigger.START_DEADLINE, Trigger.RUN_DEADLINE}
    for event, facts in itertools.product(ending_events, ALL_FACTS):
        next_state = target(State.RUNNING, event, facts)
        assert next_state is not State.RUNNING
        assert (next_state is State.CANCELLED) == facts.cancel


def test_the_error_of_an_invalid_transition_shows_the_history() -> None:
    """The error lists the events that brought the task to its current state."""
    with pytest.raises(InvalidTransitionError, match="submit → claim → finish") as caught:
        target(State.SUCCEEDED, Trigger.CLAIM, Facts(), history=["submit", "claim", "finish"])
    assert caught.value.history == ("submit", "claim", "finish")


@given(strikes=st.integers(1, 20), token=st.text(min_size=1))
def test_backoff_doubles_within_bounds(strikes: int, token: str) -> None:
    """The full delay is 1, 2, 4 … 60 s. A token always gets the same delay: 50 to 100 % of the full delay."""
    full = min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** (strikes - 1))
    assert full / 2 - 1 <= backoff_ms(strikes, token) <= full
    assert backoff_ms(strikes, token) == backoff_ms(strikes, token)


def test_backoff_differs_between_attempts() -> None:
    """Attempts that fail together get different delays, so that they do not all retry at the same moment."""
    assert len({backoff_ms(3, f"1.{i:x}") for i in range(100)}) > 90


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=4),
    costs=st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=4, max_size=4),
)
def test_tenants_share_gpu_seconds_by_weight(weights: list[float], costs: list[float]) -> None:
    """While all tenants have waiting tasks, their virtual times differ by at most the charge for one task.

    So each tenant gets its share of the GPU-seconds.
    """
    queue = FairQueue()
    for i, weight in enumerate(weights):
        queue.weights[f"t{i}"] = weight
        for n in range(80):
            queue.push(f"t{i}", order(1, n), f"t{i}-{n}")
    for _ in range(60):
        tenant = queue.tenants()[0]
        task_name = next(queue.waiting(tenant))
        queue.remove(tenant, order(1, int(task_name.partition("-")[2])), task_name)
        queue.serve(tenant, costs[int(tenant[1:])])
        if len(queue.tenants()) == len(weights):
            spread = max(queue.shares.values()) - min(queue.shares.values())
            bound = max(costs[i] / weight for i, weight in enumerate(weights))
            assert spread <= bound + 1e-9


def test_a_tenant_pays_for_the_actual_seconds_not_the_estimate() -> None:
    """A tenant pays the difference if its tasks take longer than estimated, and gets it back if they take less."""
    queue = FairQueue()
    queue.push("a", order(1, 1), "a1")
    charge = queue.serve("a", 10.0)
    queue.correct("a", charge, 3.0)
    assert queue.shares["a"] == pytest.approx(3.0)


def test_a_tenant_without_tasks_is_dropped_unless_it_is_in_debt() -> None:
    """The queue drops a tenant without tasks once the virtual time of the pool has reached that of the tenant."""
    queue = FairQueue()
    queue.push("a", order(1, 1), "a1")
    queue.remove("a", order(1, 1), "a1")
    queue.serve("a", 5.0)
    queue.forget("a")
    assert "a" in queue.shares
    queue.vtime = 6.0
    queue.forget("a")
    assert "a" not in queue.shares


def test_the_model_retries_a_failed_task_until_it_succeeds() -> None:
    """Without a store, the reference model takes a task through a strike, a retry and a success, and records events."""
    pool = ModelPool(now=0)
    task_id = new_task_id("video")
    pool.submit(NewTask(id=task_id, pool="video", tenant="t", input_json="{}"))
    pool.tick()
    assert pool.claim("g", ranks=2, lease_ms=15_000, nonce="a") == task_id
    pool.now = 1000
    failed = Failed(code="oops", message="it broke")
    assert pool.settle(task_id, "1.a", failed) == (State.DELAYED, False)
    pool.now = 3000
    assert pool.tick()[0] == 1
    assert pool.claim("g", ranks=2, lease_ms=15_000, nonce="b") == task_id
    pool.now = 5000
    # A second settle of the first attempt gets the first answer again, whatever the new outcome is.
    assert pool.settle(task_id, "1.a", Finished(artifacts=())) == (State.DELAYED, False)
    assert pool.settle(task_id, "2.b", Finished(artifacts=())) == (State.SUCCEEDED, False)
    task = pool.tasks[task_id]
    assert [kind for kind, _, _ in task.events] == ["queued", "started", "retrying", "started", "succeeded"]
    assert task.usage == {"gpu_seconds": 4.0, "wasted_gpu_seconds": 2.0}
    assert Counter(task.history) == {"claim": 2, "retryable error": 1, "due": 1, "finish": 1}


def test_task_ids_sort_by_time_and_contain_the_pool_name() -> None:
    """A later ULID sorts after an earlier one, and the id of a task contains the name of its pool."""
    assert ulid(at_ms=1) < ulid(at_ms=2) < ulid(at_ms=1 << 40)
    assert pool_of(new_task_id("my-pool-2")) == "my-pool-2"
    assert pool_of("video_nonsense") is None
    assert attempt_of(AttemptToken("12.abc")) == 12
