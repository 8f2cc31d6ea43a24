"""A second model, walked to the end of its state space: whatever happens in whatever order, nothing is lost.

It shares no code with the first (``verification.queue_model.pool``, which Hypothesis drives); see ``exhaustive``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from testkit.store_driver import Driver, check_keys
from testkit.valkey import Server

sys.path.insert(0, str(Path(__file__).parent))

from daybreak_server.domain.tasks import State
from daybreak_server.domain.transitions import TABLE, Event, Facts, row
from verification.exhaustive.flaws import FLAWS, STUCK
from verification.exhaustive.machine import LEASE, Move, Store
from verification.exhaustive.search import Found, endless, explore
from verification.exhaustive.server_walks import LETTERS, TICK_MS, ServerWalk, walks
from verification.exhaustive.workers import World

pytestmark = pytest.mark.timeout(900)  # the whole search is some ten seconds of one core that is free
WALKS = 250
"""On a real server, of each world; `--hypothesis-profile long` takes all."""


@pytest.fixture(scope="module")
def two_tasks() -> tuple[World, Found]:
    """Two workers, two tasks, to the end of the state space."""
    world = World(tasks=2)
    began = time.perf_counter()
    found = explore(world)
    seconds = time.perf_counter() - began
    print(f"\n{len(found.states):,} states, {found.steps:,} steps, depth {max(found.depth)}, {seconds:.1f} s")
    return world, found


@pytest.fixture(scope="module")
def one_task() -> tuple[World, Found]:
    """Two workers, one task, and claims that are carried out long after they were given up."""
    world = World(tasks=1, delayed=True)
    return world, explore(world)


@pytest.fixture
def driver(valkey: Server) -> Iterator[Driver]:
    """The scripts with a clock of the test's own."""
    driver = Driver(valkey.url, lease_s=LEASE * TICK_MS / 1000)
    yield driver
    check_keys(driver.client)
    driver.close()


def _assert_right(found: Found) -> None:
    assert found.wrong is None, "\n".join([str(found.wrong), *found.trace])


def test_two_workers_and_two_tasks(two_tasks: tuple[World, Found]) -> None:
    """In every state: nothing lost, one holder, one end, one dead letter; of every step: a zombie changes nothing."""
    _, found = two_tasks
    _assert_right(found)
    assert len(found.states) > 40_000  # that the search has not become small unseen


def test_every_fair_run_ends(two_tasks: tuple[World, Found]) -> None:
    """Whatever has happened, all tasks end if time passes and the remaining groups keep working."""
    assert endless(two_tasks[1]) is None


def test_claims_that_come_late(one_task: tuple[World, Found]) -> None:
    """The same where a claim reaches the store after its group has given it up and gone on."""
    _assert_right(one_task[1])
    assert endless(one_task[1]) is None


def test_it_moves_as_the_table_says(two_tasks: tuple[World, Found]) -> None:
    """Every move that the search made is a row of the state table, and no row was left out."""
    world, _ = two_tasks
    used = {id(_row_of(move)) for move in world.moves}
    assert [found.effect for found in TABLE if id(found) not in used] == []


def _row_of(move: Move) -> object:
    before, event, (ahead, cancel, late, last, enough), after = move
    facts = Facts(delayed=ahead, cancel=cancel, overdue=late, last_strike=last, releases_exhausted=enough)
    states = {letter: State(name) for name, letter in LETTERS.items()}
    found = row(states.get(before), Event(event), facts)
    assert found.target is states[after], (move, found.effect)
    return found


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: flaw.__name__)
def test_a_planted_flaw_is_found(flaw: type[Store]) -> None:
    """The search can fail: each bug is found, by the shortest way to it."""
    for tasks in (1, 2):
        found = explore(World(kind=flaw, tasks=tasks), limit=20_000)
        if found.wrong is not None:
            break
    assert found.wrong is not None, f"nobody saw that {flaw.__doc__}"
    print(f"\n{flaw.__doc__}\n{found.wrong}", *found.trace, sep="\n  ")


@pytest.mark.parametrize("flaw", STUCK, ids=lambda flaw: flaw.__name__)
def test_what_never_ends_is_found(flaw: type[Store]) -> None:
    """States that are all right one by one, in which a task stays forever."""
    found = explore(World(kind=flaw, tasks=1), limit=20_000)
    assert found.wrong is None
    stuck = endless(found)
    assert stuck is not None, f"nobody saw that {flaw.__doc__}"
    print(f"\n{flaw.__doc__}\n{stuck}")


@pytest.mark.parametrize("world", ["one_task", "two_tasks"])
def test_the_scripts_do_the_same(request: pytest.FixtureRequest, driver: Driver, world: str) -> None:
    """Walks through the state space on a real server: the same answers, and the same state after every step."""
    rules, found = request.getfixturevalue(world)
    took = steps = 0
    for walk in walks(found, None if settings().max_examples > 100 else WALKS):
        server_walk = ServerWalk.begin(driver, rules.tasks)
        for label, after in walk:
            server_walk.take(label, found.states[after])
        server_walk.check_events()
        took, steps = took + 1, steps + len(walk)
    print(f"\n{took:,} walks, {steps:,} steps")
