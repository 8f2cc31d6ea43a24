"""The table decides which groups may get requests, from the store's views and from what the gateway itself has seen."""

from __future__ import annotations

from daybreak_server.api.routing.group_table import LEFT_FOR_VIEWS, MAX_BUSY_PAUSE_S, GroupTable
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.domain.serving_load import Load


def record(name: str, state: GroupState = GroupState.IDLE, **changes) -> GroupRecord:
    return GroupRecord(id=GroupId(name), state=state, **{"endpoint": f"http://{name}:1", **changes})


def view(*groups: GroupRecord) -> PoolView:
    return PoolView(name="answers", groups=groups)


def table_of(*groups: GroupRecord) -> GroupTable:
    table = GroupTable()
    table.update(view(*groups))
    return table


def ids(table: GroupTable) -> list[str]:
    return [group.id for group in table.ready]


def test_groups_that_are_ready_and_not_marked_get_requests():
    table = table_of(
        record("g-b", GroupState.BUSY),
        record("g-a"),
        record("g-c", drain=True),
        record("g-d", GroupState.LOADING),
        record("g-e", GroupState.LOST),
        record("g-f", GroupState.DRAINING, drain=True),
        record("g-g", endpoint=None),
    )
    assert ids(table) == ["g-a", "g-b"]


def test_a_group_is_lost_when_its_lease_ends_but_not_when_it_drains():
    table = table_of(record("g-a"), record("g-b"))
    assert table.update(view(record("g-a", drain=True))) == {"g-b"}
    assert ids(table) == []


def test_requests_of_other_gateways_are_those_that_this_one_did_not_send():
    table = table_of(record("g-a", load=Load(in_flight=5, waiting=1)))
    (group,) = table.ready
    assert (group.own, group.others) == (0, 6)
    for _ in range(4):
        table.sent(group)
    for _ in range(4):
        table.ended(group)
    table.update(view(record("g-a", load=Load(in_flight=5))))  # the report may count any of the four
    assert (group.own, group.others) == (0, 1)
    table.update(view(record("g-a", load=Load(in_flight=5))))
    assert group.others == 1
    table.update(view(record("g-a", load=Load(in_flight=5))))
    assert group.others == 5


def test_a_full_group_is_blocked_until_a_request_ends_with_growing_pauses():
    table = table_of(record("g-a"))
    (group,) = table.ready
    table.sent(group)
    pauses = [table.refused(group) for _ in range(9)]
    assert not group.free
    assert ids(table) == ["g-a"]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_BUSY_PAUSE_S
    table.ended(group)
    assert group.free
    table.answered(group)
    assert table.refused(group) == pauses[0]


def test_an_unreachable_group_is_out_until_its_pause_ends():
    table = table_of(record("g-a"), record("g-b"))
    first = table.ready[0]
    pause_s = table.unreachable(first)
    assert ids(table) == ["g-b"]
    table.update(view(record("g-a"), record("g-b")))
    assert ids(table) == ["g-b"]
    table.reachable(first)
    assert ids(table) == ["g-a", "g-b"]
    assert table.unreachable(first) == 2 * pause_s


def test_a_group_that_says_that_it_drains_is_out_before_the_store_knows():
    table = table_of(record("g-a"))
    table.leaves(table.ready[0])
    table.update(view(record("g-a")))
    assert ids(table) == []
    for _ in range(LEFT_FOR_VIEWS):
        table.update(view(record("g-a", drain=True)))
    assert ids(table) == []
    table.update(view(record("g-a")))  # the mark was removed
    assert ids(table) == ["g-a"]


def test_capacity_counts_own_requests_and_keeps_them_over_views():
    table = table_of(record("g-a", capacity=2))
    (group,) = table.ready
    table.sent(group)
    table.sent(group)
    table.update(view(record("g-a", capacity=2)))
    assert table.ready[0] is group
    assert not group.free


def test_a_group_with_another_endpoint_keeps_its_count_of_requests():
    table = table_of(record("g-a", capacity=1))
    (group,) = table.ready
    table.sent(group)
    table.update(view(record("g-a", capacity=1, endpoint="http://elsewhere:2")))
    assert [(known.endpoint, known.own) for known in table.ready] == [("http://elsewhere:2", 1)]
    table.ended(group)
    assert [known.own for known in table.ready] == [0]


def test_the_list_of_groups_is_another_object_only_if_they_have_changed():
    table = table_of(record("g-a"), record("g-b"))
    before = table.ready
    table.update(view(record("g-a", load=Load(in_flight=5)), record("g-b")))
    assert table.ready is before
    table.update(view(record("g-a")))
    assert table.ready is not before
