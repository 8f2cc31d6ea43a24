"""The wire package, ``docs/wire.md`` and the client have the same states, phases and defaults as the domain.

The client must not import the server, and ``docs/wire.md`` is written by hand, so each has its own lists. These tests
compare these lists with the lists of the domain.
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
from daybreak.cli.timeline import PHASES as PHASE_DESCRIPTIONS
from daybreak.wire import EventType, Priority, TaskState
from daybreak.wire import pools as wire_pools
from daybreak.wire import tasks as wire_tasks
from daybreak_server.domain import names, policy, pools, tasks
from daybreak_server.domain.pools import GroupState, WakePhase
from daybreak_server.domain.tasks import State

SOURCE = Path(daybreak_server.__file__).parent
WIRE = (Path(__file__).resolve().parents[4] / "docs" / "wire.md").read_text(encoding="utf-8")


def words_after(pattern: str) -> list[str]:
    """The words of the list that follows ``pattern`` in ``docs/wire.md``."""
    match = re.search(pattern + r"\s*`([a-z_ ]+)`", WIRE)
    assert match is not None, f"docs/wire.md has no list after {pattern!r}"
    return match[1].split()


def test_a_ready_group_has_formed_and_a_draining_one_accepts_nothing() -> None:
    """Every group state has the right values of `ready` and `accepts_tasks`."""
    assert {state for state in GroupState if state.ready} == {"idle", "busy", "draining"}
    assert {state for state in GroupState if state.accepts_tasks} == {"idle", "busy"}


def test_a_task_state_is_waiting_running_or_terminal() -> None:
    """Every task state is exactly one of waiting, running and terminal."""
    for state in State:
        assert [state.waiting, state is State.RUNNING, state.terminal].count(True) == 1


def test_a_wake_passes_the_cluster_phases_and_then_the_group_phases() -> None:
    """Joined in order, the partial lists that other modules use are the whole list of phases."""
    assert (*pools.CLUSTER_PHASES, *pools.GROUP_PHASES, WakePhase.READY) == pools.WAKE_PHASES


def test_the_wire_package_has_the_same_states_and_phases_as_the_domain() -> None:
    """The client's group states, wake phases, task states and priorities match the server's."""
    assert wire_pools.WAKE_PHASES == pools.WAKE_PHASES
    assert wire_pools.NOT_WAKING == pools.NOT_WAKING
    assert tuple(GroupState) == wire_pools.GROUP_STATES
    assert tuple(TaskState) == tuple(dict.fromkeys(state.public for state in State))
    assert {state for state in TaskState if state.terminal} == {state for state in State if state.terminal}
    assert {priority.name for priority in Priority} == {priority.name for priority in tasks.Priority}


def test_the_client_describes_every_wake_phase() -> None:
    """The command line describes every phase of a wake, and the test helpers wait for a group that accepts tasks."""
    assert set(pools.WAKE_PHASES) <= set(PHASE_DESCRIPTIONS)
    assert {state for state in GroupState if state.accepts_tasks} == testing._READY_STATES


def test_the_wire_package_has_the_same_defaults_as_the_domain() -> None:
    """The client has the server's default number of strikes and its pattern of pool names."""
    assert wire_tasks.DEFAULT_MAX_STRIKES == policy.MAX_STRIKES
    pattern = next(iter(wire_tasks.PoolName.__metadata__)).pattern
    assert pattern == names.POOL_NAME


def test_the_wire_page_has_the_same_states_and_phases_as_the_domain() -> None:
    """The lists in ``docs/wire.md`` have the domain's words in the domain's order."""
    assert words_after("Group states:") == list(GroupState)
    assert words_after("Wake phases in order:") == list(pools.WAKE_PHASES)
    assert f'"state": "running",                    // {" ".join(TaskState)}\n' in WIRE
    assert (
        f"`{names.POOL_NAME.strip('^$')}`; `{names.API_APPLICATION}` and `{names.REGISTRY}` are reserved"
        in WIRE
    )


def test_the_wire_page_describes_every_event_type() -> None:
    """A table in ``docs/wire.md`` describes each stored event type. The text below the table names the other types."""
    section = WIRE[WIRE.index("## Events:") : WIRE.index("## Log:")]
    cells = re.findall(r"^\| (`[a-z`, ]+`) \|", section, re.MULTILINE)
    logged = {word for cell in cells for word in re.findall(r"[a-z]+", cell)}
    outside = {EventType.WAKE, EventType.POSITION, EventType.RESET}
    assert logged & set(EventType) == set(EventType) - outside
    assert all(f"`{event}`" in WIRE for event in outside)


def test_serve_and_environment_names_derive_from_the_pool_name() -> None:
    """Ray Serve and the environment each have their own spelling of a pool name with a dash."""
    assert names.deployment_name("video-hd") == "VideoHdGenerator"
    assert names.environment_variable("pools", "video-hd", "ranks") == "DAYBREAK_POOLS__VIDEO_HD__RANKS"


def lists_of_members(kind: type[StrEnum], tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every place where code spells out several members of ``kind``.

    Both ``{"idle", "busy"}`` and ``(Kind.A, Kind.B)`` count.
    """
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
    """A list of states in another package would be a second definition of the same set."""
    second_definitions = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        if path.parent.name != "domain"
        for node in lists_of_members(kind, ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert second_definitions == [], (
        "use a property of the state (`.ready`, `.waiting`, …), or define the set in domain"
    )
