"""Bugs in the demand that requests cause: how the store counts it, and how the operator uses it."""

from __future__ import annotations

from verification.mutants.mutant import SERVER, TESTS, Mutant, mutant

_LUA = f"{SERVER}/adapters/redis/lua"
_PLANNER = f"{SERVER}/operator/planner"
_STORE = f"{TESTS}/store/test_demand.py"
_OPERATOR = f"{TESTS}/operator/test_serving_groups.py"

DEMAND: tuple[Mutant, ...] = (
    mutant(
        "dead-gateway-asks-on",
        "the requests of a gateway that died count as demand forever",
        (f"{_LUA}/_demand.lua", "if LeaseClock.is_over(lease_end, lease_clock, grace) then", "if false then"),
        tests=f"{_STORE}::test_a_gateway_that_dies_asks_for_nothing_once_its_lease_ends",
    ),
    mutant(
        "outage-ends-demand",
        "after an outage of Redis, a pool under load scales down before its gateways can report their requests",
        (
            f"{_LUA}/_demand.lua",
            "if LeaseClock.is_over(lease_end, lease_clock, grace)",
            "if tonumber(lease_end) <= lease_clock",
        ),
        tests=f"{_STORE}::test_an_outage_of_the_store_ends_no_demand",
    ),
    mutant(
        "last-request-without-group",
        "requests that do not fill a whole group get no group",
        (f"{_LUA}/_demand.lua", "math.ceil(requests /", "math.floor(requests /"),
        tests=f"{_STORE}::test_requests_need_as_many_groups_as_the_target_load_says",
    ),
    mutant(
        "demand-never-falls",
        "a pool never scales down below the largest number of groups that its requests have needed",
        (f"{_LUA}/_demand.lua", "for n = wanted + 1, before do", "for n = before + 1, before do"),
        tests=f"{_STORE}::test_the_requests_of_all_gateways_are_added_up",
    ),
    mutant(
        "unbounded-demand",
        "with a small target load, one script writes an unlimited number of entries",
        (f"{_LUA}/_demand.lua", "math.min(WANTED_MAX, ", "math.max(0, "),
        tests=f"{_STORE}::test_demand_asks_for_a_limited_number_of_groups",
    ),
    mutant(
        "request-does-not-wake",
        "while requests wake a pool, clients see the pool at zero",
        (f"{_LUA}/group.py", "bool(int(live) or int(wanted))", "bool(int(live))"),
        tests=f"{_STORE}::test_requests_wake_a_pool_as_tasks_do",
    ),
    mutant(
        "fuller-group-first",
        "of two busy groups, the one with more requests is removed",
        (f"{_PLANNER}/eviction.py", "unit.mixed, held, _order", "unit.mixed, -held, _order"),
        tests=_OPERATOR,
    ),
    mutant(
        "mark-counts-as-drained",
        "a group is removed before it has seen the mark to drain, although it still takes requests",
        (f"{_PLANNER}/eviction.py", "group.state is not GroupState.DRAINING", "False"),
        tests=_OPERATOR,
    ),
    mutant(
        "requests-do-not-hold-a-group",
        "a draining group is removed while it still answers requests",
        (f"{_PLANNER}/removal_units.py", " or requests(group) > 0", ""),
        tests=_OPERATOR,
    ),
    mutant(
        "requests-are-no-work",
        "the last group is removed, and the pool's head suspended, while there are requests",
        (f"{SERVER}/domain/pools.py", "self.live > 0 or self.wanted > 0", "self.live > 0"),
        tests=_OPERATOR,
    ),
)
