"""Takes the steps of walks through an explored state space, both on a real server and in the small store
(:mod:`~verification.exhaustive.machine`). After every step, it compares the server with the small store.

Together, the walks take every kind of step, unless the number of walks is limited. A kind combines an event, the state
of its leader, the state of its task, this task's counts of strikes, releases and ticks, and the state of the other
task. The search replaces states that behave alike by one canonical state (:func:`canonical`). The scripts treat such
states alike too, so walks use canonical states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from daybreak_server.domain.policy import GROUP_FAILURES_MAX, RELEASES_MAX
from daybreak_server.domain.tasks import Claim, Control, Lease, NewTask, Outcome, Released
from testkit.store_cases import DONE, FATAL, OOPS, new
from testkit.store_driver import Driver
from verification.exhaustive.leaders import IDLE, OLD, Label, Leader, State, canonical, settled, swaps
from verification.exhaustive.machine import (
    AHEAD,
    ENDED,
    FAILURES,
    LEASE,
    NOBODY,
    ORPHAN,
    RELEASES,
    STALE,
    STRIKES,
    Store,
    Task,
    frozen,
    start,
)
from verification.exhaustive.search import Found

TICK_MS = 2_000
"""The longest time by which one tick advances the lease clock. It is longer than the backoff after a first strike."""
JUMP_MS = 3_600_000
WITHIN_MS = 1_800_000
OUTCOME: dict[str, Outcome] = {
    "finish": DONE,
    "retryable error": OOPS,
    "permanent error": FATAL,
    "release": Released(),
}
LETTERS = {
    "queued": "Q",
    "delayed": "D",
    "running": "R",
    "succeeded": "S",
    "failed": "F",
    "cancelled": "C",
    "expired": "X",
}
Walk = list[tuple[Label, int]]


# ── choosing walks ───────────────────────────────────────────────────────────────────────────────────────────────


def kind_of(state: State, label: Label) -> Label:
    """The kind of a step: its name, its leader's state, its task's state and counts, and the other task's state."""
    clients = label[0] in ("submit", "cancel")
    named = label[1] if clients else label[2] if len(label) > 2 else None
    tasks = tuple([_seen(Task(values), whole=i == named) for i, values in enumerate(state.tasks)])
    doing, _, number = IDLE if clients or len(label) == 1 else state.leaders[label[1]]
    return label[0], named, doing, number == OLD, tasks


def _seen(task: Task, *, whole: bool) -> tuple[Any, ...]:
    seen = (task.state, task.overdue, task.cancel_requested, task.owner == ORPHAN)
    return (*seen, task.strikes, task.releases, task.ticks) if whole else seen


def walks(found: Found, most: int | None = None) -> Iterator[Walk]:
    """Walks from the start state, until they have taken all kinds of steps; at most ``most`` walks.

    Each walk takes the shortest path to a state that has a step of a new kind. Then it continues while it finds steps
    of new kinds. The walks to states far from the start come first.
    """
    seen = set[Label]()
    count = 0
    for root in _spread(len(found.states), most):
        if not _fresh(found, root, seen):
            continue
        walk = _path_to(found, root)
        at = 0
        for label, after in walk:
            seen.add(kind_of(found.states[at], label))
            at = after
        while fresh := _fresh(found, at, seen):
            kind, step = fresh
            seen.add(kind)
            walk.append(step)
            at = step[1]
        yield walk
        count += 1
        if count == most:
            return


def _spread(states: int, most: int | None) -> Iterator[int]:
    """The numbers of all states, the last found first. With ``most``, states sampled from all depths come first."""
    stride = max(1, states // (2 * most)) if most else 1
    for first in range(stride):
        yield from range(states - 1 - first, -1, -stride)


def _fresh(found: Found, at: int, seen: set[Label]) -> tuple[Label, tuple[Label, int]] | None:
    state = found.states[at]
    for step in found.out(at):
        kind = kind_of(state, step[0])
        if kind not in seen:
            return kind, step
    return None


def _path_to(found: Found, at: int) -> Walk:
    steps: Walk = []
    while at:
        before, label = found.reached_from[at]
        steps.append((label, at))
        at = before
    return steps[::-1]


# ── one walk ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class ServerWalk:
    """The small store and a real one, side by side."""

    driver: Driver
    tasks: list[Task]
    new: list[NewTask] = field(default_factory=list)
    leaders: list[Leader] = field(default_factory=lambda: [IDLE, IDLE])
    groups: list[int] = field(default_factory=lambda: [0, 0])
    leases: dict[tuple[int, int], Lease] = field(default_factory=dict)
    in_flight: tuple[str, int] | None = None
    outage: int = 0
    history: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, driver: Driver, tasks: int) -> ServerWalk:
        """Start on an empty server."""
        driver.client.flushdb()
        driver.now = 1_800_000_000_000
        driver.tick()
        return cls(driver, [Task(values) for values in start(tasks)])

    def state(self) -> State:
        """The state of the small store and the leaders."""
        tasks = tuple([settled(frozen(task)) for task in self.tasks])
        return State(tasks, (self.leaders[0], self.leaders[1]), self.in_flight, self.outage)

    def take(self, label: Label, expected: State) -> None:
        """Take one step in the small store and on the server. Both must agree with each other and with the search."""
        store = Store(self.tasks)
        if label[0] not in ("submit", "cancel", "tick", "jump") and swaps(self.state()):
            label = (label[0], 1 - label[1], *label[2:])
        self.history.append(" ".join(map(str, label)))
        getattr(self, "_" + label[0].partition(",")[0].split(" ")[0], self._outcome)(store, label)
        assert canonical(self.state()) == expected, self.history
        self._compare()

    # ── clients and time ──────────────────────────────────────────────────────────────────────────────────

    def _submit(self, store: Store, label: Label) -> None:
        _, i, ahead = label
        if i == len(self.new):
            start = self.driver.now + AHEAD * TICK_MS - TICK_MS // 2 if ahead else None
            self.new.append(
                new(
                    start_at_ms=start,
                    start_within_ms=WITHIN_MS,
                    run_within_ms=WITHIN_MS,
                    max_strikes=STRIKES,
                )
            )
            self.driver.submit(self.new[i])
            key = self.driver.keys.of("task", self.new[i].id)
            used = RELEASES_MAX - RELEASES + self.tasks[i].releases
            self.driver.client.hset(key, "releases", used)
            self.driver.client.hset(key, "group_failures", GROUP_FAILURES_MAX - FAILURES)
        else:
            self.driver.submit(self.new[i])
        store.submit(i, ahead)

    def _cancel(self, store: Store, label: Label) -> None:
        self.driver.cancel(self.new[label[1]].id)
        store.cancel(label[1])

    def _tick(self, store: Store, _: Label) -> None:
        self.driver.now += TICK_MS
        self.driver.tick()
        self.outage = store.tick(self.outage)

    def _jump(self, store: Store, _: Label) -> None:
        self.driver.now += JUMP_MS
        self.outage = store.jump(self.outage)

    # ── leaders ───────────────────────────────────────────────────────────────────────────────────────────

    def _killed(self, store: Store, label: Label) -> None:
        w = label[1]
        self.groups[w] += 1
        store.killed(w)
        self._gone(w)

    def _restart(self, store: Store, label: Label) -> None:
        w = label[1]
        self.driver.register(self._group(w), fresh=True)
        store.restart(w)
        self._gone(w)

    def _gone(self, w: int) -> None:
        self.leaders[w] = IDLE
        if self.in_flight == ("claim", w):
            self.in_flight = None

    def _claim(self, store: Store, label: Label) -> None:
        what, w = label
        if what == "claim, delayed":
            self.in_flight = ("claim", w)
            return
        token = self._next(w, self.driver.claim(self._group(w)), store.claim(w))
        if what == "claim":
            self.leaders[w] = ("works", *token) if token else IDLE

    def _late(self, store: Store, label: Label) -> None:
        self.in_flight = None
        self._next(label[1], self.driver.claim(self._group(label[1])), store.claim(label[1]))

    def _report(self, store: Store, label: Label) -> None:
        w = label[1]
        _, i, number = self.leaders[w]
        result = store.report(i, number)
        lease = self.leases[i, number]
        got = self.driver.renew(lease) if len(self.history) % 2 else self.driver.report(lease, step=1)
        assert (got is Control.STALE) == (result == STALE), self.history
        assert (got is Control.CONTINUE) == (result == "continue"), self.history
        if result == STALE:
            self.leaders[w] = IDLE

    def _give(self, _: Store, label: Label) -> None:
        self.leaders[label[1]] = IDLE

    def _repeat(self, store: Store, label: Label) -> None:
        w = label[1]
        _, i, number = self.leaders[w]
        token = self._settle(store, w, i, number, "finish", w)
        self.leaders[w] = ("works", *token) if token else IDLE

    def _outcome(self, store: Store, label: Label) -> None:
        what, w = label[:2]
        _, i, number = self.leaders[w]
        outcome, claims, _ = what.partition(" and claim")
        token = self._settle(store, w, i, number, outcome, w if claims else NOBODY)
        if what.endswith("reply lost"):
            self.leaders[w] = ("resettling", i, number)
        else:
            self.leaders[w] = ("works", *token) if token else IDLE

    def _settle(self, store: Store, w: int, i: int, number: int, outcome: str, then: int) -> Any:
        result, token = store.settle(i, number, outcome, then)
        group = self.driver.group_record(self._group(w)) if then != NOBODY else None
        got = self.driver.settle(self.leases[i, number], OUTCOME[outcome], claim_next=group)
        assert got.stale == (result == STALE), self.history
        assert got.stale or LETTERS[got.state] == result, self.history
        return self._next(w, got.next, token)

    def _next(self, w: int, got: Claim | None, token: tuple[int, int] | None) -> tuple[int, int] | None:
        assert (got is None) == (token is None), self.history
        if got is not None and token is not None:
            assert (got.lease.task, got.attempt) == (self.new[token[0]].id, token[1]), self.history
            self.leases[token] = got.lease
        return token

    def _group(self, w: int) -> str:
        return f"g{w}.{self.groups[w]}"

    # ── the comparison ────────────────────────────────────────────────────────────────────────────────────

    def _compare(self) -> None:
        keys, ids = self.driver.keys, [task.id for task in self.new]
        with self.driver.client.pipeline(transaction=False) as pipe:
            for name in ("delayed", "due_soon", "leases", "live", "dead"):
                pipe.zrange(keys.single(name), 0, -1, withscores=True)
            pipe.zrange(keys.of("wait", "t"), 0, -1, withscores=True)
            pipe.hget(keys.single("meta"), "lease_clock")
            *found, clock = pipe.execute()
        delayed, soon, leases, live, dead, queue = ({m.decode(): s for m, s in pairs} for pairs in found)
        for i, record in enumerate(self.driver.get_all(ids)):
            assert record is not None
            t, name = self.tasks[i], record.id
            got = (LETTERS[record.state], record.attempt, record.strikes, record.cancel_requested)
            assert got == (t.state, t.attempt, t.strikes, t.cancel_requested), (self.history, t)
            assert record.releases - RELEASES_MAX + RELEASES == t.releases, (self.history, t)
            places = (name in queue, name in delayed or name in soon, name in leases, name in live)
            assert places == (t.in_queue, t.in_delays, t.in_leases, t.in_live), (self.history, t)
            assert (name in dead) == bool(t.dead_letters), (self.history, t)
            if t.in_leases:
                assert leases[name] - int(clock or 0) == (LEASE - t.ticks) * TICK_MS, (self.history, t)

    def check_events(self) -> None:
        """Only an ended task has a terminal event, as its last event.

        The pool's stream repeats the events of each task's own stream, with the same ids.
        """
        pool = self.driver.client.xrange(self.driver.keys.single("events"))
        for i, task in enumerate(self.new):
            events = self.driver.events(task.id)
            ends = [at for at, event in enumerate(events) if event.type in LETTERS and event.type != "queued"]
            assert ends == ([len(events) - 1] if self.tasks[i].state in ENDED else []), self.history
            same = [entry.decode() for entry, fields in pool if fields[b"task"].decode() == task.id]
            assert [event.id for event in events] == same, self.history
