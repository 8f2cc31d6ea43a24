"""The router of one pool: its line of waiting requests, its groups, and the slots that requests hold in them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.api.routing.candidates import RoutingRequest
from daybreak_server.api.routing.pool_router import (
    BROKEN_PAUSE_S,
    ClosingError,
    NoGroupError,
    PoolRouter,
    Slot,
    WaitedTooLongError,
)
from daybreak_server.api.routing.waiting_line import LineFullError, Ticket
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.domain.routing import RoutingPolicy


def make(**changes) -> PoolRouter:
    options = {
        "policy": RoutingPolicy.LEAST_LOADED,
        "max_waiting": 100,
        "max_waiting_per_tenant": 100,
        "max_wait_s": 60.0,
    }
    return PoolRouter(**{**options, **changes})


def view(*names: str, capacity: int | None = 1) -> PoolView:
    groups = [
        GroupRecord(id=GroupId(name), state=GroupState.IDLE, endpoint=f"http://{name}:1", capacity=capacity)
        for name in names
    ]
    return PoolView(name="answers", groups=tuple(groups))


def ticket(tenant: str = "default", session: bytes | None = None) -> Ticket:
    return Ticket(tenant=tenant, request=RoutingRequest(session=session))


def later() -> float:
    return asyncio.get_running_loop().time() + 60


async def wait_for(router: PoolRouter, number: int = 1, **options) -> list[asyncio.Task[Slot]]:
    """Start requests that must wait, and return their asyncio tasks in order."""
    before = router.waiting
    tasks = [asyncio.create_task(router.acquire(ticket(**options), deadline=later())) for _ in range(number)]
    while router.waiting < before + number:
        await asyncio.sleep(0)
    return tasks


async def test_requests_are_served_in_the_order_of_their_arrival():
    router = make()
    tasks = await wait_for(router, 3)
    router.update(view("g-a"))
    for number, task in enumerate(tasks):
        slot = await task
        assert [other.done() for other in tasks].count(True) == number + 1
        assert router.acquire_now(ticket()) is None
        slot.release()
    assert router.demand == 0


async def test_a_slot_that_ends_goes_to_the_line_and_not_to_a_later_request():
    router = make()
    router.update(view("g-a"))
    slot = await router.acquire(ticket(), deadline=later())
    (task,) = await wait_for(router)
    slot.release()
    assert router.acquire_now(ticket()) is None
    slot.release()  # a second release changes nothing
    assert (await task).group.own == 1


async def test_a_request_that_waits_for_its_own_group_holds_nobody_up():
    router = make(policy=RoutingPolicy.SESSION)
    router.update(view("g-a", "g-b"))
    first = await router.acquire(ticket(session=b"x"), deadline=later())
    (same,) = await wait_for(router, session=b"x")
    (other,) = await wait_for(router, 1, session=b"x")
    free = await router.acquire(ticket(), deadline=later())
    assert free.group is not first.group
    first.release()
    assert (await same).group is first.group
    assert not other.done()
    other.cancel()


async def test_a_request_that_had_a_group_waits_at_the_front_and_is_never_refused():
    router = make(max_waiting=1)
    router.update(view("g-a"))
    again = ticket()
    slot = await router.acquire(again, deadline=later())
    (new,) = await wait_for(router)
    router.broke(slot, again)
    assert (await new).group.id == "g-a"
    (newer,) = await wait_for(router)
    first = asyncio.create_task(router.acquire(again, deadline=later()))
    while router.waiting < 2:
        await asyncio.sleep(0)
    router.update(view("g-a", "g-b"))
    assert (await first).group.id == "g-b"
    assert not newer.done()
    newer.cancel()


async def test_a_request_that_must_not_wake_a_pool_waits_for_a_busy_group_only():
    router = make()
    not_waking = Ticket(tenant="default", request=RoutingRequest(), wakes=False)
    with pytest.raises(NoGroupError):
        await router.acquire(not_waking, deadline=later())
    router.update(view("g-a"))
    slot = await router.acquire(ticket(), deadline=later())
    (request,) = await wait_for(router)
    task = asyncio.create_task(router.acquire(not_waking, deadline=later()))
    while router.waiting < 2:
        await asyncio.sleep(0)
    router.update(view())
    with pytest.raises(NoGroupError):
        await task
    assert (router.waiting, request.done(), slot.lost) == (1, False, True)
    request.cancel()


async def test_the_line_is_bounded_in_number_and_by_tenant():
    router = make(max_waiting=3, max_waiting_per_tenant=2)
    tasks = await wait_for(router, 2, tenant="a")
    with pytest.raises(LineFullError, match="waiting_per_tenant"):
        await router.acquire(ticket("a"), deadline=later())
    tasks += await wait_for(router, 1, tenant="b")
    with pytest.raises(LineFullError, match=r"^waiting$"):
        await router.acquire(ticket("c"), deadline=later())
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    tasks += await wait_for(router, 1, tenant="a")
    router.close()
    for task in tasks[1:]:
        with pytest.raises(ClosingError):
            await task
    with pytest.raises(ClosingError):
        await router.acquire(ticket(), deadline=later())


async def test_a_request_waits_until_its_deadline_or_the_longest_wait():
    now = asyncio.get_running_loop().time()
    for router, deadline in ((make(max_wait_s=0.01), now + 60), (make(), now + 0.01)):
        with pytest.raises(WaitedTooLongError):
            await router.acquire(ticket(), deadline=deadline)
        assert router.demand == 0


async def test_a_request_is_not_given_to_a_group_that_broke_it():
    router = make()
    router.update(view("g-a"))
    broken = ticket()
    router.broke(await router.acquire(broken, deadline=later()), broken)
    task = asyncio.create_task(router.acquire(broken, deadline=later()))
    while not router.waiting:
        await asyncio.sleep(0)
    assert router.acquire_now(ticket()) is not None
    router.update(view("g-a", "g-b"))
    assert (await task).group.id == "g-b"


async def test_a_request_goes_back_to_the_group_that_broke_it_if_there_is_no_other():
    router = make()
    router.update(view("g-a"))
    broken = ticket()
    for pause_s in (BROKEN_PAUSE_S, 2 * BROKEN_PAUSE_S):
        router.broke(await router.acquire(broken, deadline=later()), broken)
        broke_at = asyncio.get_running_loop().time()
        assert router.acquire_now(broken) is None
        assert broken.broke == {"g-a": pytest.approx(broke_at + pause_s, abs=0.2)}
    assert (await router.acquire(broken, deadline=later())).group.id == "g-a"
    assert asyncio.get_running_loop().time() >= broken.broke["g-a"]


async def test_a_request_waits_for_a_full_group_rather_than_for_one_that_broke_it():
    router = make()
    router.update(view("g-a", "g-b"))
    broken = ticket()
    slot = await router.acquire(broken, deadline=later())
    other = await router.acquire(ticket(), deadline=later())
    router.broke(slot, broken)
    broken.broke[slot.group.id] = 0.0  # its pause is over
    assert router.acquire_now(broken) is None
    other.release()
    assert (await router.acquire(broken, deadline=later())).group is other.group


async def test_a_full_group_gets_the_request_again_after_a_pause():
    router = make()
    router.update(view("g-a", capacity=None))
    slot = await router.acquire(ticket(), deadline=later())
    router.refused(slot, leaves=False)
    assert (slot.group.own, router.in_flight) == (0, 0)
    assert router.acquire_now(ticket()) is None
    assert (await router.acquire(ticket(), deadline=later())).group is slot.group


async def test_a_client_that_leaves_at_the_moment_of_its_turn_gives_the_slot_back():
    router = make()
    router.update(view("g-a"))
    slot = await router.acquire(ticket(), deadline=later())
    leaving, staying = await wait_for(router, 2)
    slot.release()
    leaving.cancel()
    assert (await staying).group.own == 1
    assert leaving.cancelled()


async def test_slots_of_a_group_whose_lease_ends_are_lost():
    router = make()
    router.update(view("g-a", "g-b"))
    slots = [await router.acquire(ticket(), deadline=later()) for _ in range(2)]
    lost: list[str] = []
    for slot in slots:
        slot.on_lost = lambda slot=slot: lost.append(slot.group.id)
    router.update(view("g-b"))
    assert lost == ["g-a"]
    assert {slot.group.id: slot.lost for slot in slots} == {"g-a": True, "g-b": False}


async def test_a_group_that_refuses_connections_is_tried_again_after_one_pause():
    """Several requests that fail to connect cause one pause.

    If there were several pauses, the end of the first would end the others early.
    """
    router = make()
    router.update(view("g-a", capacity=2))
    slots = [await router.acquire(ticket(), deadline=later()) for _ in range(2)]
    pauses: list[float] = []
    router._later = lambda seconds, *_: pauses.append(seconds)  # type: ignore[method-assign]
    assert [router.unreachable(slot) for slot in slots] == [True, False]
    assert pauses == [1.0]


async def test_requests_that_wait_for_one_full_group_cost_nothing_while_others_come_and_go():
    router = make(policy=RoutingPolicy.SESSION, max_waiting=2000, max_waiting_per_tenant=2000)
    router.update(view("g-a", "g-b"))
    full = await router.acquire(ticket(session=b"x"), deadline=later())
    (other,) = [group for group in router.groups if group is not full.group]
    tasks = await wait_for(router, 1000, session=b"x")
    looks = 0
    only_group = router._only_group

    def counted(waiting: Ticket):
        nonlocal looks
        looks += 1
        return only_group(waiting)

    router._only_group = counted  # type: ignore[method-assign]
    for _ in range(10):
        slot = await router.acquire(ticket(), deadline=later())
        assert slot.group is other
        slot.release()
    assert looks <= 1000  # the router looks at each waiting request at most once
    full.release()
    assert (await tasks[0]).group is full.group
    assert not tasks[1].done()
    router.update(view(other.id))  # now all go to the other group
    assert (await tasks[1]).group is other
    for task in tasks:
        task.cancel()


async def test_a_change_of_policy_gives_other_groups_to_those_that_waited_for_one():
    router = make(policy=RoutingPolicy.SESSION)
    router.update(view("g-a", "g-b"))
    full = await router.acquire(ticket(session=b"x"), deadline=later())
    (waiting,) = await wait_for(router, session=b"x")
    # The release makes the router look at the line while a group is free.
    (await router.acquire(ticket(), deadline=later())).release()
    assert not waiting.done()
    router.update(replace(view("g-a", "g-b"), routing=RoutingPolicy.LEAST_LOADED))
    assert (await waiting).group is not full.group


class Life:
    """Requests, slots and groups of one router, to which anything may happen in any order."""

    def __init__(self, policy: RoutingPolicy) -> None:
        self.router = make(policy=policy)
        self.slots: list[Slot] = []
        self.waiting: dict[asyncio.Task[Slot], Ticket] = {}
        self._tickets: dict[Slot, Ticket] = {}
        self._names: list[str] = []
        self._stored: RoutingPolicy | None = None

    def step(self, kind: str, number: int) -> None:
        match kind:
            case "come":
                self._wait(ticket(str(number % 3), session=(b"x", b"x", b"y", b"z", None, None)[number]))
            case "leave" if self.waiting:
                list(self.waiting)[number % len(self.waiting)].cancel()
            case "policy":
                self._stored = list(RoutingPolicy)[number]
                self._update()
            case "groups":
                self._names = [f"g-{n}" for n in range(number)]
                self._update()
            case "end" | "full" | "break" if self.slots:
                self._end(kind, self.slots.pop(number % len(self.slots)))

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        for task in [task for task in self.waiting if task.done()]:
            waiter = self.waiting.pop(task)
            if not task.cancelled():
                self.slots.append(task.result())
                self._tickets[task.result()] = waiter

    def check(self) -> None:
        router = self.router
        assert (router.in_flight, router.waiting) == (len(self.slots), len(self.waiting))
        for group in router.groups:
            assert group.own == sum(slot.group is group for slot in self.slots) <= 1
        for waiter in self.waiting.values():
            assert router._choose(waiter) is None, "a request waits although a group that it may use is free"

    async def end(self) -> None:
        for task in self.waiting:
            task.cancel()
        for slot in self.slots:
            slot.release()
        await self.settle()
        for slot in self.slots:
            slot.release()

    def _end(self, kind: str, slot: Slot) -> None:
        if kind == "full":
            self.router.refused(slot, leaves=False)
            return
        if kind == "break":
            self.router.broke(slot, self._tickets[slot])
            self._wait(self._tickets[slot])
        else:
            slot.release()

    def _wait(self, waiter: Ticket) -> None:
        self.waiting[asyncio.create_task(self.router.acquire(waiter, deadline=later()))] = waiter

    def _update(self) -> None:
        self.router.update(replace(view(*self._names, capacity=1), routing=self._stored))


@pytest.mark.parametrize("policy", list(RoutingPolicy))
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("come"), st.integers(0, 5)),
            st.tuples(st.sampled_from(["end", "leave", "full", "break"]), st.integers(0, 3)),
            st.tuples(st.just("policy"), st.integers(0, 5)),
            st.tuples(st.just("groups"), st.integers(0, 3)),
        ),
        min_size=5,
        max_size=40,
    )
)
def test_no_request_and_no_slot_is_ever_lost(policy, steps):
    """In any order of events, counts are exact, no group is overfull, and no request waits if it could get a group."""

    async def run() -> None:
        life = Life(policy)
        life.step("groups", 2)
        for number in (0, 1, 4, 0, 2, 4):
            life.step("come", number)
        await life.settle()
        for kind, number in steps:
            life.step(kind, number)
            if number % 2:  # after an even number, the next step follows at once
                await life.settle()
                life.check()
        await life.settle()
        life.check()
        await life.end()

    asyncio.run(run())
