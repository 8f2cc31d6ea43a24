"""What each policy promises, for any groups and requests."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.api.routing.candidates import Candidate, RoutingRequest
from daybreak_server.api.routing.policies import BOUND, POLICIES
from daybreak_server.domain.routing import RoutingPolicy

EVERY = sorted(POLICIES)
GIB = 1 << 30


def policy(name: str):
    return POLICIES[RoutingPolicy(name)]


def idle(count: int, **changes) -> list[Candidate]:
    return [Candidate(id=f"g-{number}", endpoint=f"http://h:{number}", **changes) for number in range(count)]


@st.composite
def groups(draw, min_size: int = 0) -> list[Candidate]:
    figures = st.fixed_dictionaries(
        {
            "capacity": st.none() | st.integers(1, 8),
            "own": st.integers(0, 8),
            "others": st.integers(0, 8),
            "free_memory_bytes": st.none() | st.integers(0, 80 * GIB),
            "blocked": st.booleans(),
        }
    )
    drawn = draw(st.lists(figures, min_size=min_size, max_size=8))
    return [Candidate(id=f"g-{n}", endpoint=f"http://h:{n}", **group) for n, group in enumerate(drawn)]


requests = st.builds(RoutingRequest, session=st.none() | st.binary(min_size=1), prefix=st.binary(max_size=40))
choice_counts = st.integers(0, 1 << 40)


def test_every_policy_has_a_class():
    assert set(POLICIES) == set(RoutingPolicy)


@pytest.mark.parametrize("name", EVERY)
@given(found=groups(), request=requests, choices=choice_counts)
def test_the_chosen_group_is_free_and_the_choice_depends_on_the_arguments_only(name, found, request, choices):
    chosen = policy(name).choose(found, request, choices)
    assert chosen is None or (chosen.free and any(chosen is group for group in found))
    assert policy(name).choose([replace(group) for group in found], request, choices) == chosen


@pytest.mark.parametrize("name", [name for name in EVERY if name != RoutingPolicy.SESSION])
@given(found=groups(), request=requests, choices=choice_counts)
def test_a_request_waits_only_if_no_group_is_free(name, found, request, choices):
    chosen = policy(name).choose(found, request, choices)
    assert (chosen is not None) == any(group.free for group in found)


@given(found=groups(min_size=1), choices=choice_counts)
def test_least_loaded_chooses_the_smallest_share_of_the_capacity(found, choices):
    chosen = policy("least_loaded").choose(found, RoutingRequest(), choices)
    free = [group for group in found if group.free]
    assert chosen is None or chosen.relative_load == min(group.relative_load for group in free)


@pytest.mark.parametrize("name", ["least_loaded", "round_robin", "power_of_two"])
def test_equal_groups_get_equal_shares(name):
    counts = Counter(policy(name).choose(idle(4), RoutingRequest(), choices).id for choices in range(4000))
    assert len(counts) == 4
    assert min(counts.values()) > 900


@given(found=groups(min_size=2), choices=choice_counts)
def test_power_of_two_never_chooses_the_most_loaded_of_several(found, choices):
    found = [replace(group, blocked=False, capacity=None, own=number) for number, group in enumerate(found)]
    for group in found:
        group.others = 0
    chosen = policy("power_of_two").choose(found, RoutingRequest(), choices)
    assert chosen is not found[-1]


def test_gpu_memory_prefers_free_memory_and_counts_what_was_sent_since_the_report():
    small, large = idle(2)
    small.free_memory_bytes, large.free_memory_bytes = 10 * GIB, 50 * GIB
    chosen = []
    for choices in range(6):
        group = policy("gpu_memory").choose([small, large], RoutingRequest(), choices)
        group.own += 1
        chosen.append(group is large)
    assert chosen.count(True) in (4, 5)
    assert chosen[0]
    unknown = Candidate(id="g-9", endpoint="http://h:9")
    assert policy("gpu_memory").choose([unknown, small], RoutingRequest(), 0) is small


sessions = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=50, unique=True)


@given(keys=sessions, count=st.integers(2, 8), data=st.data())
def test_only_the_sessions_of_a_group_that_leaves_move(keys, count, data):
    before = idle(count)
    leaving = data.draw(st.sampled_from(before))
    after = [group for group in before if group is not leaving]
    for key in keys:
        request = RoutingRequest(session=key)
        first = policy("session").choose(before, request, 0)
        second = policy("session").choose(after, request, 1)
        assert second is first or first is leaving


def test_sessions_spread_over_the_groups_and_wait_for_their_own():
    found = idle(4, capacity=1)
    counts = Counter(
        policy("session").choose(found, RoutingRequest(session=str(number).encode()), 0).id
        for number in range(4000)
    )
    assert min(counts.values()) > 850
    request = RoutingRequest(session=b"mine")
    policy("session").choose(found, request, 0).own = 1
    assert policy("session").choose(found, request, 0) is None


@given(keys=sessions, count=st.integers(1, 8), popular=st.booleans())
def test_prefix_keeps_the_same_group_within_the_bound(keys, count, popular):
    found = idle(count)
    for choices, key in enumerate(keys):
        request = RoutingRequest(prefix=keys[0] if popular else key)
        bound = math.ceil(BOUND * (sum(group.load for group in found) + 1) / count)
        chosen = policy("prefix").choose(found, request, choices)
        assert chosen.load < bound
        favourite = policy("prefix").choose(idle(count), request, 0)
        if next(group for group in found if group.id == favourite.id).load < bound:
            assert chosen.id == favourite.id
        chosen.own += 1
