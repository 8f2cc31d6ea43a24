"""Steps become phases that do not overlap. A phase has a bounded number of events, which cover each step once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.observability.span_steps import EVENTS_MAX, Phases, PhaseSteps

MOVES = st.lists(
    st.tuples(st.sampled_from(["load", "denoise", "upload"]), st.booleans(), st.integers(0, 1000)),
    max_size=60,
)


@given(MOVES, st.integers(0, 1000))
def test_phases_follow_each_other_without_overlap(moves: list[tuple[str, bool, int]], rest: int) -> None:
    """Each phase begins when the phase before it ended, or later, whatever the workload yields."""
    at, phases, found = 100, Phases(100), list[PhaseSteps | None]()
    for name, is_step, took in moves:
        at += took
        found.append(phases.step(name, 1, 2, at) if is_step else phases.enter(name, at))
    found.append(phases.end(at + rest))
    ended = [phase for phase in found if phase is not None]
    edges = [edge for phase in ended for edge in (phase.start_ns, phase.end_ns)]
    assert edges == sorted(edges)
    assert not edges or (edges[0] >= 100 and edges[-1] <= at + rest)
    assert bool(ended) == bool(moves)


@given(st.integers(1, 3000), st.integers(0, 100))
def test_the_events_of_a_phase_cover_each_step_once(count: int, first: int) -> None:
    phase = PhaseSteps("denoise", 0, 0)
    for step in range(first, first + count):
        phase.step(step, 5000, step)
    assert len(phase.events) <= EVENTS_MAX
    covered = [step for event in phase.events for step in range(event.first, event.last + 1)]
    assert covered == list(range(first, first + count))
    assert [event.at_ns for event in phase.events] == [event.last for event in phase.events]
    if count <= EVENTS_MAX:
        assert all(event.first == event.last for event in phase.events)
