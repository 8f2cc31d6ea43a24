"""Two leaders, a client and time around the small store: every step that any of them may take next.

A leader knows only the replies that it received. It has one of three states:

* ``idle``: it holds no task.
* ``works``: it believes that it holds a token.
* ``resettling``: its settle was not answered, and it will repeat the call.

A paused or disconnected leader takes no step while the others do, so zombies need no separate rule. A killed leader
returns as a group with a new name, and its tasks belong to a dead group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from verification.exhaustive.machine import ENDED, NOBODY, RELEASES, STALE, Move, Store, Task, frozen, start
from verification.exhaustive.rules import wrong_answer, wrong_script, wrong_tasks

OUTCOMES = ("finish", "retryable error", "permanent error", "release")
OLD = -1
"""The number that stands for every attempt that the store has forgotten, because it treats all of them alike."""

Values = tuple[Any, ...]
Tasks = tuple[Values, ...]
Leader = tuple[str, int, int]
"""A leader's state, and the task and attempt that it believes it holds."""
Later = tuple[str, int] | None
"""A call in flight whose reply no leader awaits: a group's ``claim``, or the second half of a split script."""
Label = tuple[Any, ...]
IDLE: Leader = ("idle", 0, 0)
STATE, ATTEMPT, TOKEN, DONE, OWNER = (
    Task.__slots__.index(name) for name in ("state", "attempt", "token", "done", "owner")
)


class State(NamedTuple):
    """The whole world at one moment."""

    tasks: Tasks
    leaders: tuple[Leader, Leader]
    later: Later = None
    quiet: int = 0
    """The bits ``SILENT`` and ``SPARED``."""


class Ran(NamedTuple):
    """The effect of a script, and the violation if there is one."""

    tasks: Tasks
    answer: Any
    torn: Later
    wrong: str | None


@dataclass(slots=True)
class World:
    """The parameters of one search: the store, the number of tasks, and whether claims may arrive late."""

    kind: type[Store] = Store
    tasks: int = 2
    delayed: bool = False
    moves: set[Move] = field(default_factory=set)
    _ran: dict[Label, Ran] = field(default_factory=dict)

    @property
    def start(self) -> State:
        """Nothing has been submitted, and both leaders are idle."""
        return State(start(self.tasks), (IDLE, IDLE))

    def run(self, tasks: Tasks, script: Label) -> Ran:
        """Run one script. The result is cached for each state of the store."""
        known = self._ran.get((tasks, script))
        if known is None:
            store = self.kind([Task(values) for values in tasks])
            answer = getattr(store, script[0])(*script[1:])
            after = tuple([frozen(task) for task in store.tasks])
            wrong = None
            if after != tasks:
                wrong = wrong_tasks(store.tasks) or wrong_script([_thawed(values) for values in tasks], store)
                after = tuple([settled(values) for values in after])
                self.moves.update(store.moves)
            if script[0] in ("report", "settle"):
                wrong = wrong or wrong_answer(script, [_thawed(values) for values in tasks], store, answer)
            known = self._ran[tasks, script] = Ran(after, answer, store.torn, wrong)
        return known

    def steps(self, state: State) -> Iterator[tuple[Label, State, str | None]]:
        """Every possible next step: its label, the state that follows, and the violation if there is one."""
        for label, script, leaders, later in self._choices(state):
            ran = self.run(state.tasks, script)
            leaders_after = leaders(ran.answer) if callable(leaders) else leaders
            quiet = ran.answer if script[0] in ("tick", "leap") else state.quiet
            after = canonical(State(ran.tasks, leaders_after, ran.torn or later, quiet))
            yield label, after, ran.wrong or _two_holders(after)

    def _choices(self, state: State) -> Iterator[tuple[Label, Label, Any, Later]]:
        tasks, leaders, later, quiet = state
        for i, task in enumerate(tasks):
            if i and tasks[i - 1][STATE] == "-":
                break  # by symmetry, the first submitted task is task 0
            yield ("submit", i, False), ("submit", i, False), leaders, later
            if task[STATE] == "-":
                yield ("submit", i, True), ("submit", i, True), leaders, later
            else:
                yield ("cancel", i), ("cancel", i), leaders, later
        yield ("tick",), ("tick", quiet), leaders, later
        yield ("leap",), ("leap", quiet), leaders, later
        if later is not None:
            yield (f"late {later[0]}", later[1]), later, leaders, None
            if later[0] != "claim":
                yield ("torn off", later[1]), ("nothing",), leaders, None
        for w, leader in enumerate(leaders):
            yield from self._leader_choices(state, w, leader)

    def _leader_choices(
        self, state: State, w: int, leader: Leader
    ) -> Iterator[tuple[Label, Label, Any, Later]]:
        doing, i, number = leader
        later = state.later
        other = state.leaders[1 - w]

        def becomes(become: Leader) -> tuple[Leader, Leader]:
            return (become, other) if w == 0 else (other, become)

        def begins(answer: Any) -> tuple[Leader, Leader]:
            token = answer[1] if answer and isinstance(answer[0], str) else answer
            return becomes(("works", *token) if token else IDLE)

        mine = None if later == ("claim", w) else later
        yield ("killed", w), ("killed", w), becomes(IDLE), mine
        yield ("restart", w), ("restart", w), becomes(IDLE), mine
        if doing == "idle":
            yield ("claim", w), ("claim", w), begins, later
            yield ("claim, reply lost", w), ("claim", w), state.leaders, later
            if self.delayed and later is None:
                yield ("claim, delayed", w), ("nothing",), state.leaders, ("claim", w)
        elif doing == "resettling":
            yield ("repeat", w, i), ("settle", i, number, "finish", w), begins, later
            yield ("give up", w), ("nothing",), becomes(IDLE), later
        else:
            report = ("report", i, number)
            yield ("report", w, i), report, lambda got: becomes(IDLE if got == STALE else leader), later
            for outcome in OUTCOMES:
                alone, both = ("settle", i, number, outcome, NOBODY), ("settle", i, number, outcome, w)
                yield (outcome, w, i), alone, becomes(IDLE), later
                if number != OLD or outcome == "finish":  # the store ignores a zombie's outcome
                    yield (f"{outcome} and claim", w, i), both, begins, later
                    again = becomes(("resettling", i, number))
                    yield (f"{outcome} and claim, reply lost", w, i), both, again, later


def _two_holders(state: State) -> str | None:
    first, second = state.leaders
    if first == second and first[0] == "works" and first[2] == state.tasks[first[1]][TOKEN]:
        return f"two leaders hold the token of task {first[1]}"
    return None


# ── equivalent states ──────────────────────────────────────────────────────────────────────────────────


def canonical(state: State) -> State:
    """The representative of all states that behave in the same way.

    The number of an attempt that the store has forgotten makes no difference. The answer to a repeated settle depends
    on its token alone. Nothing uses the counters of an ended task. The two leaders are interchangeable.
    """
    tasks, (first, second), later, quiet = state
    first, second = _remembered(first, tasks), _remembered(second, tasks)
    for i, task in enumerate(tasks):
        if task[DONE] and first != ("resettling", i, task[DONE]) and second != ("resettling", i, task[DONE]):
            tasks = (*tasks[:i], _forgotten(task), *tasks[i + 1 :])
    if _swaps(first, second, tasks, later):
        first, second = second, first
        tasks = tuple([_swapped(task) for task in tasks])
        if later is not None and later[0] == "claim":
            later = ("claim", 1 - later[1])
    return State(tasks, (first, second), later, quiet)


def swaps(state: State) -> bool:
    """Whether the canonical state swaps the leaders."""
    tasks, (first, second), later, _ = state
    return _swaps(_remembered(first, tasks), _remembered(second, tasks), tasks, later)


def _swaps(first: Leader, second: Leader, tasks: Tasks, later: Later) -> bool:
    if first != second:
        return second < first
    for task in tasks:  # equal leaders: order them by what the store knows about their groups
        if task[OWNER] in (0, 1):
            return bool(task[OWNER])
    return later == ("claim", 1)


def _remembered(leader: Leader, tasks: Tasks) -> Leader:
    doing, i, number = leader
    if doing == "idle" or number == tasks[i][TOKEN] or (doing == "resettling" and number == tasks[i][DONE]):
        return leader
    return "works", i, OLD


@cache
def _thawed(task: Values) -> Task:
    return Task(task)  # read-only


@cache
def _forgotten(task: Values) -> Values:
    t = Task(task)
    t.done, t.answer = 0, ""
    return frozen(t)


@cache
def _swapped(task: Values) -> Values:
    t = Task(task)
    t.owner = 1 - t.owner if t.owner in (0, 1) else t.owner
    return frozen(t)


@cache
def settled(task: Values) -> Values:
    """A task without the counters that nothing uses any more."""
    t = Task(task)
    if t.releases >= RELEASES:
        t.failures = 0
    if t.state in ENDED:
        t.attempt = t.strikes = t.releases = t.failures = t.won = 0
        t.late = False
    return frozen(t)
