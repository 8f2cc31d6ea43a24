"""What the wire, the documents and the client say of states, phases and defaults is what the domain says.

The client must not import the server, so its own lists are compared here. ``docs/wire.md`` is written by hand.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

import daybreak_server
from daybreak import testing
from daybreak.cli.timeline import PHASES as WORDS
from daybreak.wire import EventType, Priority, TaskState
from daybreak.wire import pools as wire_pools
from daybreak.wire import tasks as wire_tasks
from daybreak_server.domain import names, policy, pools, tasks
from daybreak_server.domain.pools import GroupState, WakePhase
from daybreak_server.domain.tasks import State

SOURCE = Path(daybreak_server.__file__).parent
WIRE = (Path(__file__).resolve().parents[4] / "docs" / "wire.md").read_text(encoding="utf-8")


def listed(pattern: str) -> list[str]:
    """The words of the list in ``docs/wire.md`` that follows ``pattern``."""
    match = re.search(pattern + r"\s*`([a-z_ ]+)`", WIRE)
    assert match is not None, f"docs/wire.md has no list behind {pattern!r}"
    return match[1].split()


def test_a_ready_group_has_formed_and_a_draining_one_accepts_nothing() -> None:
    """The two questions that others ask of a group's state, for every state."""
    assert {state for state in GroupState if state.ready} == {"idle", "busy", "draining"}
    assert {state for state in GroupState if state.accepts_tasks} == {"idle", "busy"}


def test_a_waiting_task_is_neither_running_nor_ended() -> None:
    """Every state is waiting, running or terminal, and only one of them."""
    for state in State:
        assert [state.waiting, state is State.RUNNING, state.terminal].count(True) == 1


def test_phases_of_a_wake_are_those_of_the_cluster_then_of_the_group() -> None:
    """The parts that other modules use make up the whole, in order."""
    assert (*pools.CLUSTER_PHASES, *pools.GROUP_PHASES, WakePhase.READY) == pools.WAKE_PHASES


def test_the_wire_has_the_domains_words() -> None:
    """Group states, wake phases, task states and priorities of the client are those of the server."""
    assert wire_pools.WAKE_PHASES == pools.WAKE_PHASES
    assert wire_pools.RESTING_PHASES == pools.RESTING_PHASES
    assert tuple(GroupState) == wire_pools.GROUP_STATES
    assert tuple(TaskState) == tuple(dict.fromkeys(state.public for state in State))
    assert {state for state in TaskState if state.terminal} == {state for state in State if state.terminal}
    assert {priority.name for priority in Priority} == {priority.name for priority in tasks.Priority}


def test_the_client_knows_the_domains_words() -> None:
    """It has words for every phase of a wake, and waits for groups that accept tasks."""
    assert set(pools.WAKE_PHASES) <= set(WORDS)
    assert {state for state in GroupState if state.accepts_tasks} == testing._READY_STATES


def test_the_wire_has_the_domains_defaults() -> None:
    """How many strikes a task may have, and what a pool may be called."""
    assert wire_tasks.DEFAULT_MAX_STRIKES == policy.MAX_STRIKES
    pattern = next(iter(wire_tasks.PoolName.__metadata__)).pattern
    assert pattern == names.POOL_NAME


def test_the_page_of_the_wire_has_the_domains_words() -> None:
    """The lists in ``docs/wire.md``, in their order."""
    assert listed("Group states:") == list(GroupState)
    assert listed("Wake phases in order:") == list(pools.WAKE_PHASES)
    assert f'"state": "running",                    // {" ".join(TaskState)}\n' in WIRE
    assert f"`{names.POOL_NAME.strip('^$')}`; `{names.API_APPLICATION}` is reserved" in WIRE


def test_the_page_of_the_wire_has_every_event() -> None:
    """The table of events; the types outside the log stand below it."""
    cells = re.findall(r"^\| (`[a-z`, ]+`) \|", WIRE, re.MULTILINE)
    logged = {word for cell in cells for word in re.findall(r"[a-z]+", cell)}
    outside = {EventType.WAKE, EventType.POSITION, EventType.RESET}
    assert logged & set(EventType) == set(EventType) - outside
    assert all(f"`{event}`" in WIRE for event in outside)


def test_a_pools_names_follow_from_its_own() -> None:
    """What Ray Serve and the environment call it, also where it has a dash."""
    assert names.deployment_name("video-hd") == "VideoHdGenerator"
    assert names.environment_variable("pools", "video-hd", "ranks") == "DAYBREAK_POOLS__VIDEO_HD__RANKS"


def lists_of_members(kind: type[StrEnum], tree: ast.AST) -> Iterator[ast.AST]:
    """Where code lists several members of ``kind`` by itself, as ``{"idle", "busy"}`` or ``(Kind.A, Kind.B)``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Tuple | ast.List | ast.Set) or len(node.elts) < 2:
            continue
        if all(_is_member(kind, element) for element in node.elts):
            yield node


def _is_member(kind: type[StrEnum], node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value in set(kind)
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == kind.__name__
    )


@pytest.mark.parametrize("kind", [State, GroupState, WakePhase])
def test_sets_of_states_are_defined_in_the_domain_only(kind: type[StrEnum]) -> None:
    """A module that lists states or phases would have its own definition of what the list means."""
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        if path.parent.name != "domain"
        for node in lists_of_members(kind, ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == [], "ask the state itself (`.ready`, `.waiting`, …), or define the set in domain"
