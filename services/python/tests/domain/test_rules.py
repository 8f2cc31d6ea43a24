"""The pure rules: transitions, backoff, fair shares, and the model that they make."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.domain.errors import InvalidTransitionError
from daybreak_server.domain.ids import Token, attempt_of, new_task_id, pool_of, ulid
from daybreak_server.domain.policy import BACKOFF_BASE_MS, BACKOFF_MAX_MS
from daybreak_server.domain.tasks import Failed, Finished, NewTask, State
from daybreak_server.domain.transitions import TABLE, Event, Facts, row, target
from verification.queue_model.backoff import backoff_ms
from verification.queue_model.fairness import FairQueue, order
from verification.queue_model.pool import ModelPool

ALL_FACTS = [
    Facts(cancel=c, overdue=o, last_strike=s, releases_exhausted=h)
    for c, o, s, h in itertools.product([False, True], repeat=4)
]


def test_terminal_states_take_nothing() -> None:
    """Nothing follows a terminal state, whatever happens."""
    for state, event, facts in itertools.product(filter(lambda s: s.terminal, State), Event, ALL_FACTS):
        with pytest.raises(InvalidTransitionError):
            target(state, event, facts)


def test_every_row_is_used() -> None:
    """Each row of the table decides something; none is shadowed by those before it."""
    used = set()
    states: list[State | None] = [None, *State]
    for state, event, facts in itertools.product(states, Event, [*ALL_FACTS, Facts(delayed=True)]):
        try:
            used.add(id(row(state, event, facts)))
        except InvalidTransitionError:
            continue
    assert used == {id(candidate) for candidate in TABLE}


def test_running_always_ends_somewhere() -> None:
    """However an attempt ends, and whatever else is true, the table says what follows; cancel always wins."""
    ends = set(Event) - {Event.SUBMIT, Event.CLAIM, Event.REPORT, Event.CANCEL, Event.DUE}
    ends -= {Event.START_DEADLINE, Event.RUN_DEADLINE}
    for event, facts in itertools.product(ends, ALL_FACTS):
        after = target(State.RUNNING, event, facts)
        assert after is not State.RUNNING
        assert (after is State.CANCELLED) == facts.cancel


def test_an_invalid_transition_names_the_history() -> None:
    """The error of an impossible step says how the task came where it is."""
    with pytest.raises(InvalidTransitionError, match="submit → claim → finish") as caught:
        target(State.SUCCEEDED, Event.CLAIM, Facts(), history=["submit", "claim", "finish"])
    assert caught.value.history == ("submit", "claim", "finish")


@given(strikes=st.integers(1, 20), token=st.text(min_size=1))
def test_backoff_doubles_within_bounds(strikes: int, token: str) -> None:
    """A wait is between half of and the whole of 1, 2, 4 … 60 s, and the same each time it is asked."""
    full = min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** (strikes - 1))
    assert full / 2 - 1 <= backoff_ms(strikes, token) <= full
    assert backoff_ms(strikes, token) == backoff_ms(strikes, token)


def test_backoff_is_spread() -> None:
    """Different attempts wait for different times: no herd."""
    assert len({backoff_ms(3, f"1.{i:x}") for i in range(100)}) > 90


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=4),
    costs=st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=4, max_size=4),
)
def test_shares_follow_weights(weights: list[float], costs: list[float]) -> None:
    """While all wait, virtual times stay within one task of each other: each has its share of GPU-seconds."""
    queue = FairQueue()
    for i, weight in enumerate(weights):
        queue.weights[f"t{i}"] = weight
        for n in range(80):
            queue.push(f"t{i}", order(1, n), f"t{i}-{n}")
    for _ in range(60):
        tenant = queue.tenants()[0]
        name = next(queue.waiting(tenant))
        queue.remove(tenant, order(1, int(name.partition("-")[2])), name)
        queue.serve(tenant, costs[int(tenant[1:])])
        if len(queue.tenants()) == len(weights):
            spread = max(queue.shares.values()) - min(queue.shares.values())
            bound = max(costs[i] / weight for i, weight in enumerate(weights))
            assert spread <= bound + 1e-9


def test_estimates_are_corrected() -> None:
    """A tenant whose tasks take longer than estimated pays for it, one whose take less gets it back."""
    queue = FairQueue()
    queue.push("a", order(1, 1), "a1")
    charge = queue.serve("a", 10.0)
    queue.correct("a", charge, 3.0)
    assert queue.shares["a"] == pytest.approx(3.0)


def test_forgotten_tenant_leaves_its_debt_only() -> None:
    """A tenant of whom nothing is left is dropped, unless it has used more than the others."""
    queue = FairQueue()
    queue.push("a", order(1, 1), "a1")
    queue.remove("a", order(1, 1), "a1")
    queue.serve("a", 5.0)
    queue.forget("a")
    assert "a" in queue.shares
    queue.vtime = 6.0
    queue.forget("a")
    assert "a" not in queue.shares


def test_model_lives_a_task_s_life() -> None:
    """The reference model by itself: a strike, a retry, a success, and what the events say."""
    pool = ModelPool(now=0)
    name = new_task_id("video")
    pool.submit(NewTask(id=name, pool="video", tenant="t", input_json="{}"))
    pool.tick()
    assert pool.claim("g", ranks=2, lease_ms=15_000, nonce="a") == name
    pool.now = 1000
    failed = Failed(code="oops", message="it broke")
    assert pool.settle(name, "1.a", failed) == (State.DELAYED, False)
    pool.now = 3000
    assert pool.tick()[0] == 1
    assert pool.claim("g", ranks=2, lease_ms=15_000, nonce="b") == name
    pool.now = 5000
    assert pool.settle(name, "1.a", Finished(artifacts=())) == (State.DELAYED, False)  # the first answer
    assert pool.settle(name, "2.b", Finished(artifacts=())) == (State.SUCCEEDED, False)
    task = pool.tasks[name]
    assert [kind for kind, _, _ in task.events] == ["queued", "started", "retrying", "started", "succeeded"]
    assert task.usage == {"gpu_seconds": 4.0, "wasted_gpu_seconds": 2.0}
    assert Counter(task.history) == {"claim": 2, "retryable error": 1, "due": 1, "finish": 1}


def test_ids_sort_by_time_and_name_their_pool() -> None:
    """Ids of later tasks sort behind earlier ones, and say which pool they belong to."""
    assert ulid(at_ms=1) < ulid(at_ms=2) < ulid(at_ms=1 << 40)
    assert pool_of(new_task_id("my-pool-2")) == "my-pool-2"
    assert pool_of("video_nonsense") is None
    assert attempt_of(Token("12.abc")) == 12
