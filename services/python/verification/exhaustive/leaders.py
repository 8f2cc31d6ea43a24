"""The possible steps of a small system: two leaders, a client, the clock, and the store (``machine.Store``).

A leader knows only the replies that it received. It has one of three states:

* ``idle``: it holds no task.
* ``works``: it believes that it holds a token.
* ``resettling``: it got no reply to its settle. It repeats the call or gives up.

In some orders of the steps, a leader takes no step for a while, as if it were paused or disconnected. So
zombies need no separate rule. A killed leader returns as a group with a new name, and the tasks that it held belong to
a group that is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from verification.exhaustive.machine import ENDED, NOBODY, RELEASES, STALE, Move, Store, Task, frozen, start
from verification.exhaustive.rules import reply_violation, script_violation, task_violation

OUTCOMES = ("finish", "retryable error", "permanent error", "release")
OLD = -1
"""Stands for the number of any attempt that the store has forgotten. The store treats all such attempts alike."""

Values = tuple[Any, ...]
Tasks = tuple[Values, ...]
Leader = tuple[str, int, int]
"""A leader's state, and the task and attempt that it believes it holds."""
InFlight = tuple[str, int] | None
"""A call in flight whose reply no leader awaits: a group's ``claim``, or the second half of a split script."""
Label = tuple[Any, ...]
IDLE: Leader = ("idle", 0, 0)
STATE, ATTEMPT, TOKEN, SETTLED_TOKEN, OWNER = (
    Task.__slots__.index(name) for name in ("state", "attempt", "token", "settled_token", "owner")
)


class State(NamedTuple):
    """The whole world at one moment."""

    tasks: Tasks
    leaders: tuple[Leader, Leader]
    in_flight: InFlight = None
    outage: int = 0
    """The bits ``UNTICKED`` and ``GRACE``."""


class Effect(NamedTuple):
    """What a script did: the tasks afterwards, its answer, the second half if it is split, and a violation, if any."""

    tasks: Tasks
    answer: Any
    second_half: InFlight
    violation: str | None


@dataclass(slots=True)
class World:
    """One search: the store, the number of tasks, whether claims may arrive late, and the moves that tasks have
    made so far."""

    kind: type[Store] = Store
    tasks: int = 2
    delayed: bool = False
    moves: set[Move] = field(default_factory=set)
    _effects: dict[Tasks, dict[Label, Effect]] = field(default_factory=dict)

    @property
    def start(self) -> State:
        """The start state. No task has been submitted, and both leaders are idle."""
        return State(start(self.tasks), (IDLE, IDLE))

    def run(self, tasks: Tasks, script: Label, effects: dict[Label, Effect]) -> Effect:
        """Run one script, and add its result to ``effects``, the known results in this state of the store."""
        known = effects.get(script)
        if known is None:
            store = self.kind([Task(values) for values in tasks])
            answer = getattr(store, script[0])(*script[1:])
            after = tuple([frozen(task) for task in store.tasks])
            violation = None
            before = [_thawed(values) for values in tasks]
            if after != tasks:
                violation = task_violation(store.tasks) or script_violation(before, store)
                after = tuple([settled(values) for values in after])
                self.moves.update(store.moves)
            if script[0] in ("report", "settle"):
                violation = violation or reply_violation(script, before, store, answer)
            known = effects[script] = Effect(after, answer, store.second_half, violation)
        return known

    def steps(self, state: State) -> Iterator[tuple[Label, State, str | None]]:
        """Every possible next step: its label, the state that follows, and the violation if there is one."""
        effects = self._effects.setdefault(state.tasks, {})
        for label, script, leaders, in_flight in self._choices(state):
            effect = self.run(state.tasks, script, effects)
            leaders_after = leaders(effect.answer) if callable(leaders) else leaders
            outage = effect.answer if script[0] in ("tick", "jump") else state.outage
            after = canonical(State(effect.tasks, leaders_after, effect.second_half or in_flight, outage))
            yield label, after, effect.violation or _two_holders(after)

    def _choices(self, state: State) -> Iterator[tuple[Label, Label, Any, InFlight]]:
        tasks, leaders, in_flight, outage = state
        for i, task in enumerate(tasks):
            if i and tasks[i - 1][STATE] == "-":
                break  # tasks are alike, so they are submitted in order
            yield ("submit", i, False), ("submit", i, False), leaders, in_flight
            if task[STATE] == "-":
                yield ("submit", i, True), ("submit", i, True), leaders, in_flight
            else:
                yield ("cancel", i), ("cancel", i), leaders, in_flight
        yield ("tick",), ("tick", outage), leaders, in_flight
        yield ("jump",), ("jump", outage), leaders, in_flight
        if in_flight is not None:
            yield (f"late {in_flight[0]}", in_flight[1]), in_flight, leaders, None
            if in_flight[0] != "claim":
                yield ("second half lost", in_flight[1]), ("nothing",), leaders, None
        for w, leader in enumerate(leaders):
            yield from self._leader_choices(state, w, leader)

    def _leader_choices(
        self, state: State, w: int, leader: Leader
    ) -> Iterator[tuple[Label, Label, Any, InFlight]]:
        doing, i, number = leader
        in_flight = state.in_flight
        other = state.leaders[1 - w]

        def with_leader(changed: Leader) -> tuple[Leader, Leader]:
            return (changed, other) if w == 0 else (other, changed)

        def after_claim(answer: Any) -> tuple[Leader, Leader]:
            token = answer[1] if answer and isinstance(answer[0], str) else answer
            return with_leader(("works", *token) if token else IDLE)

        without_own_claim = None if in_flight == ("claim", w) else in_flight
        yield ("killed", w), ("killed", w), with_leader(IDLE), without_own_claim
        yield ("restart", w), ("restart", w), with_leader(IDLE), without_own_claim
        if doing == "idle":
            yield ("claim", w), ("claim", w), after_claim, in_flight
            yield ("claim, reply lost", w), ("claim", w), state.leaders, in_flight
            if self.delayed and in_flight is None:
                yield ("claim, delayed", w), ("nothing",), state.leaders, ("claim", w)
        elif doing == "resettling":
            yield ("repeat", w, i), ("settle", i, number, "finish", w), after_claim, in_flight
            yield ("give up", w), ("nothing",), with_leader(IDLE), in_flight
        else:
            report = ("report", i, number)
            yield (
                ("report", w, i),
                report,
                lambda got: with_leader(IDLE if got == STALE else leader),
                in_flight,
            )
            for outcome in OUTCOMES:
                settle_only, settle_and_claim = (
                    ("settle", i, number, outcome, NOBODY),
                    ("settle", i, number, outcome, w),
                )
                yield (outcome, w, i), settle_only, with_leader(IDLE), in_flight
                if number != OLD or outcome == "finish":  # a zombie's outcome has no effect, so one is enough
                    yield (f"{outcome} and claim", w, i), settle_and_claim, after_claim, in_flight
                    unanswered = with_leader(("resettling", i, number))
                    yield (f"{outcome} and claim, reply lost", w, i), settle_and_claim, unanswered, in_flight


def _two_holders(state: State) -> str | None:
    first, second = state.leaders
    if first == second and first[0] == "works" and first[2] == state.tasks[first[1]][TOKEN]:
        return f"two leaders hold the token of task {first[1]}"
    return None


# ── equivalent states ──────────────────────────────────────────────────────────────────────────────────


def canonical(state: State) -> State:
    """The state that represents all states that behave as ``state`` does.

    The number of an attempt that the store has forgotten makes no difference. The token of a task's last settle matters
    only while a leader may repeat that settle. Nothing uses the counters of an ended task. The two leaders are
    interchangeable.
    """
    tasks, (first, second), in_flight, outage = state
    first, second = _remembered(first, tasks), _remembered(second, tasks)
    for i, task in enumerate(tasks):
        if (
            task[SETTLED_TOKEN]
            and first != ("resettling", i, task[SETTLED_TOKEN])
            and second != ("resettling", i, task[SETTLED_TOKEN])
        ):
            tasks = (*tasks[:i], _forgotten(task), *tasks[i + 1 :])
    if _swaps(first, second, tasks, in_flight):
        first, second = second, first
        tasks = tuple([_swapped(task) for task in tasks])
        if in_flight is not None and in_flight[0] == "claim":
            in_flight = ("claim", 1 - in_flight[1])
    return State(tasks, (first, second), in_flight, outage)


def swaps(state: State) -> bool:
    """Whether :func:`canonical` swaps the two leaders of this state."""
    tasks, (first, second), in_flight, _ = state
    return _swaps(_remembered(first, tasks), _remembered(second, tasks), tasks, in_flight)


def _swaps(first: Leader, second: Leader, tasks: Tasks, in_flight: InFlight) -> bool:
    if first != second:
        return second < first
    for task in tasks:  # equal leaders: order them by what the store knows about their groups
        if task[OWNER] in (0, 1):
            return bool(task[OWNER])
    return in_flight == ("claim", 1)


def _remembered(leader: Leader, tasks: Tasks) -> Leader:
    doing, i, number = leader
    if (
        doing == "idle"
        or number == tasks[i][TOKEN]
        or (doing == "resettling" and number == tasks[i][SETTLED_TOKEN])
    ):
        return leader
    return "works", i, OLD


@cache
def _thawed(task: Values) -> Task:
    return Task(task)  # read-only


@cache
def _forgotten(task: Values) -> Values:
    t = Task(task)
    t.settled_token, t.settled_state = 0, ""
    return frozen(t)


@cache
def _swapped(task: Values) -> Values:
    t = Task(task)
    t.owner = 1 - t.owner if t.owner in (0, 1) else t.owner
    return frozen(t)


@cache
def settled(task: Values) -> Values:
    """A task without the counters that no step uses any more."""
    t = Task(task)
    if t.releases >= RELEASES:
        t.failures = 0
    if t.state in ENDED:
        t.attempt = t.strikes = t.releases = t.failures = t.published_attempt = 0
        t.overdue = False
    return frozen(t)
