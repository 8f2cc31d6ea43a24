"""Explores a whole state space breadth first, then looks for a fair run that never ends (:func:`endless`)."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from verification.exhaustive.leaders import ATTEMPT, OUTCOMES, STATE, TOKEN, Label, State, World
from verification.exhaustive.machine import ENDED, Task


@dataclass(slots=True)
class Found:
    """A state space. States have numbers, in the order in which they were found.

    ``violation`` is the first violation, if there is one, and ``path`` the shortest path to it.
    """

    violation: str | None = None
    path: list[str] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    depth: array[int] = field(default_factory=lambda: array("i"))
    reached_from: list[tuple[int, Label]] = field(default_factory=list)
    """For each state, the state before it on the shortest path, and the step between them."""
    labels: list[Label] = field(default_factory=list)
    edges: list[array[int]] = field(default_factory=list)
    """For each state, its steps. A step is two numbers in a row: its label's number, and the next state's number."""

    @property
    def steps(self) -> int:
        """The number of edges."""
        return sum(len(out) for out in self.edges) // 2

    def out(self, state: int) -> Iterator[tuple[Label, int]]:
        """The steps from a state."""
        out = self.edges[state]
        return ((self.labels[out[at]], out[at + 1]) for at in range(0, len(out), 2))

    def path_to(self, state: int) -> list[str]:
        """The shortest path to a state, as lines."""
        lines: list[str] = []
        while state:
            before, label = self.reached_from[state]
            lines.append(line(label, self.states[state]))
            state = before
        return lines[::-1]


def line(label: Label, state: State) -> str:
    """A step and its resulting state, as a line."""
    tasks = " | ".join(repr(Task(values)) for values in state.tasks)
    return f"{' '.join(map(str, label)):<40} {tasks}"


def explore(world: World, *, limit: int = 2_000_000) -> Found:
    """Explore all reachable states, up to the first violation. :raises RuntimeError: at more than ``limit`` states."""
    collecting = gc.isenabled()
    gc.disable()  # the tuples form no cycles, and scanning millions of them would take most of the time
    try:
        return _explore(world, limit)
    finally:
        if collecting:
            gc.enable()


def _explore(world: World, limit: int) -> Found:
    found = Found(states=[world.start], depth=array("i", [0]), reached_from=[(0, ())])
    numbers = {world.start: 0}
    names: dict[Label, int] = {}
    at = 0
    while at < len(found.states):
        out = array("i")
        for label, after, violation in world.steps(found.states[at]):
            if violation is not None:
                found.violation, found.path = violation, [*found.path_to(at), line(label, after)]
                return found
            number = numbers.setdefault(after, len(numbers))
            if number == len(found.states):
                found.states.append(after)
                found.depth.append(found.depth[at] + 1)
                found.reached_from.append((at, label))
            out.append(names.setdefault(label, len(names)))
            out.append(number)
        found.edges.append(out)
        if len(numbers) > limit:
            raise RuntimeError(f"more than {limit} states: the model is not bounded")
        at += 1
    found.labels = list(names)
    return found


# ── every fair run ends ───────────────────────────────────────────────────────────────────────────────────────


def endless(found: Found) -> str | None:
    """Look for states that a fair run may never leave although a task has not ended.

    :returns: the path to these states, as text, or ``None`` if there are none.

    Progress is a change of a task's state or attempt. :func:`explore` has shown that nothing undoes progress. So a run
    that never ends is, from some point on, in one cycle of steps without progress. We assume fairness: each of the
    following steps happens eventually, if it stays possible: a tick; a claim by an idle leader; the step with which a
    leader ends the attempt that it holds; one call by a leader that has lost its task. For each cycle, we look for one
    of these steps that is possible in every state of the cycle and always leads out of the cycle.
    """
    for group in _cycles(found):
        inside = set(group)
        if not _all_ended(found.states[group[0]]) and not _fair_way_out(found, inside):
            return "\n".join([*found.path_to(group[0]), f"… and then forever among {len(group)} states"])
    return None


def _all_ended(state: State) -> bool:
    return all(task[STATE] in ENDED or task[STATE] == "-" for task in state.tasks)


def _fair_way_out(found: Found, inside: set[int]) -> bool:
    fair: set[str] | None = None
    for number in inside:
        leads_out: dict[str, bool] = {}
        for label, after in found.out(number):
            kind = _fairness(found.states[number], label)
            if kind is not None:
                leads_out[kind] = leads_out.get(kind, True) and after not in inside
        always = {kind for kind, out in leads_out.items() if out}
        fair = always if fair is None else fair & always
    return bool(fair)


def _fairness(state: State, label: Label) -> str | None:
    """The kind of a step that a fair run must take if it stays possible; ``None`` for other steps."""
    if label[0] in ("tick", "claim"):
        return str(label[0])
    if label[0] in (*OUTCOMES, "report", "repeat"):
        leader, task = label[1], label[2]
        _, _, token = state.leaders[leader]
        if token != state.tasks[task][TOKEN]:
            return "a zombie receives a reply"
        return None if label[0] == "report" else f"the end of task {task}"
    return None


def _cycles(found: Found) -> Iterator[list[int]]:
    """Sets of states that are strongly connected by steps without progress (Tarjan's algorithm, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    on, stack = set[int](), list[int]()
    for root in range(len(found.states)):
        if root in index:
            continue
        index[root] = low[root] = len(index)
        stack.append(root)
        on.add(root)
        work = [(root, iter(_steps_without_progress(found, root)))]
        while work:
            at, ahead = work[-1]
            for after in ahead:
                if after not in index:
                    index[after] = low[after] = len(index)
                    stack.append(after)
                    on.add(after)
                    work.append((after, iter(_steps_without_progress(found, after))))
                    break
                if after in on:
                    low[at] = min(low[at], index[after])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[at])
                if low[at] == index[at]:
                    cut = stack.index(at) if stack[-1] != at else len(stack) - 1
                    group = stack[cut:]
                    del stack[cut:]
                    on.difference_update(group)
                    yield group


def _steps_without_progress(found: Found, at: int) -> set[int]:
    """The next states in which no task has made progress."""
    tasks = _progress(found.states[at])
    out = found.edges[at]
    return {after for after in out[1::2] if after != at and _progress(found.states[after]) == tasks}


def _progress(state: State) -> tuple[object, ...]:
    """The state and the attempt of each task. A step that changes them is progress."""
    return tuple([(task[STATE], task[ATTEMPT]) for task in state.tasks])
