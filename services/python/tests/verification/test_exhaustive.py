"""An exhaustive search of a second model of the queue: whatever the order of events, two leaders lose no task.

This model, ``verification.exhaustive``, shares no code with the first one, ``verification.queue_model``, which
Hypothesis drives.
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
from daybreak_server.domain.transitions import TABLE, Facts, Trigger, row
from verification.exhaustive.flaws import FLAWS, STUCK
from verification.exhaustive.leaders import World
from verification.exhaustive.machine import LEASE, Move, Store
from verification.exhaustive.search import Found, endless, explore
from verification.exhaustive.server_walks import LETTERS, TICK_MS, ServerWalk, walks

pytestmark = pytest.mark.timeout(1800)  # on an idle core, the whole search takes about ten seconds
WALKS = 250
"""How many walks of each world run on a real server. With `--hypothesis-profile long`, all walks run."""


@pytest.fixture(scope="module")
def two_tasks() -> tuple[World, Found]:
    """A search of the whole state space of two leaders and two tasks."""
    world = World(tasks=2)
    began = time.perf_counter()
    search = explore(world)
    seconds = time.perf_counter() - began
    print(
        f"\n{len(search.states):,} states, {search.steps:,} steps, depth {max(search.depth)}, {seconds:.1f} s"
    )
    return world, search


@pytest.fixture(scope="module")
def one_task() -> tuple[World, Found]:
    """A search with two leaders and one task. A claim may reach the store after its group has stopped waiting."""
    world = World(tasks=1, delayed=True)
    return world, explore(world)


@pytest.fixture
def driver(valkey: Server) -> Iterator[Driver]:
    """Runs the scripts on a real server, with a clock that the test sets."""
    driver = Driver(valkey.url, lease_s=LEASE * TICK_MS / 1000)
    yield driver
    check_keys(driver.client)
    driver.close()


def _assert_right(search: Found) -> None:
    assert search.violation is None, "\n".join([str(search.violation), *search.path])


@pytest.mark.heavy
def test_two_leaders_and_two_tasks(two_tasks: tuple[World, Found]) -> None:
    """In every state, no task is lost, and each task has at most one holder, one end and one dead letter.

    A zombie's steps change nothing.
    """
    _, search = two_tasks
    _assert_right(search)
    assert len(search.states) > 40_000  # a much smaller search would prove less


@pytest.mark.heavy
def test_every_fair_run_ends(two_tasks: tuple[World, Found]) -> None:
    """From every state, all tasks end if time passes and the remaining groups keep working."""
    assert endless(two_tasks[1]) is None


def test_late_claims_lose_no_task(one_task: tuple[World, Found]) -> None:
    """No task is lost, and every task ends, even if a claim reaches the store after its group has stopped waiting."""
    _assert_right(one_task[1])
    assert endless(one_task[1]) is None


@pytest.mark.heavy
def test_the_model_follows_the_state_table(two_tasks: tuple[World, Found]) -> None:
    """Every change of state in the search is a row of the state table, and every row occurs."""
    world, _ = two_tasks
    used = {id(_row_of(move)) for move in world.moves}
    assert [table_row.effect for table_row in TABLE if id(table_row) not in used] == []


def _row_of(move: Move) -> object:
    before, event, (ahead, cancel, late, last, enough), after = move
    facts = Facts(delayed=ahead, cancel=cancel, overdue=late, last_strike=last, releases_exhausted=enough)
    states = {letter: State(name) for name, letter in LETTERS.items()}
    table_row = row(states.get(before), Trigger(event), facts)
    assert table_row.target is states[after], (move, table_row.effect)
    return table_row


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: flaw.__name__)
def test_a_planted_flaw_is_found(flaw: type[Store]) -> None:
    """The search finds each planted bug, and shows the shortest path to it."""
    for tasks in (1, 2):
        search = explore(World(kind=flaw, tasks=tasks), limit=20_000)
        if search.violation is not None:
            break
    assert search.violation is not None, f"the search did not find this bug: {flaw.__doc__}"
    print(f"\n{flaw.__doc__}\n{search.violation}", *search.path, sep="\n  ")


@pytest.mark.parametrize("flaw", STUCK, ids=lambda flaw: flaw.__name__)
def test_a_task_that_never_ends_is_found(flaw: type[Store]) -> None:
    """The search finds a bug that breaks no rule in any single state, but keeps a task from ending."""
    search = explore(World(kind=flaw, tasks=1), limit=20_000)
    assert search.violation is None
    stuck = endless(search)
    assert stuck is not None, f"the search did not find this bug: {flaw.__doc__}"
    print(f"\n{flaw.__doc__}\n{stuck}")


@pytest.mark.parametrize("world", ["one_task", pytest.param("two_tasks", marks=pytest.mark.heavy)])
def test_the_scripts_behave_like_the_model(
    request: pytest.FixtureRequest, driver: Driver, world: str
) -> None:
    """The test repeats walks through the state space on a real server.

    After every step, the server's reply and state equal those of the model.
    """
    rules, search = request.getfixturevalue(world)
    walk_count = step_count = 0
    for walk in walks(search, None if settings().max_examples > 100 else WALKS):
        server_walk = ServerWalk.begin(driver, rules.tasks)
        for label, after in walk:
            server_walk.take(label, search.states[after])
        server_walk.check_events()
        walk_count, step_count = walk_count + 1, step_count + len(walk)
    print(f"\n{walk_count:,} walks, {step_count:,} steps")
