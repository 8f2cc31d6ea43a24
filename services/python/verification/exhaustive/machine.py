"""A store of at most two tasks, as small as possible. Each script is one method, which nothing can interrupt.

The code follows the text of docs/architecture.md and shares nothing with ``daybreak_server.domain``. Tests compare the
behaviour of this store with the state table of that page, and with the scripts on a real server. Time passes in two
ways: a tick advances the lease clock by one, and a jump moves the wall clock past every deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

LEASE = 2
"""Ticks that a lease lasts without renewal."""
STRIKES = 2
"""The number of strikes at which a task fails."""
RELEASES = 2
"""How many times a task can be released without a strike."""
FAILURES = 1
"""How many of these releases may be caused by groups that failed."""
AHEAD = 2
"""Ticks until a task with a start in the future is due."""
NOBODY, ORPHAN = 3, 2
"""Owners other than a leader: no owner, and a group whose process is gone."""
UNTICKED, GRACE = 1, 2
"""Two bits. ``UNTICKED``: no tick has run since the wall clock jumped. ``GRACE``: the previous tick let no lease
expire, because the wall clock had jumped."""
STALE = "stale"
ENDED = frozenset("SFCX")

Token = tuple[int, int]
"""A task's number and the number of its attempt."""


class Task:
    """A task's record and its places in the indices. The places are separate fields, so a bug can make them differ."""

    __slots__ = (
        "attempt",
        "cancel_requested",
        "dead_letters",
        "failures",
        "in_delays",
        "in_leases",
        "in_live",
        "in_queue",
        "overdue",
        "owner",
        "published_attempt",
        "releases",
        "settled_state",
        "settled_token",
        "state",
        "strikes",
        "terminal_events",
        "ticks",
        "ticks_unanswered",
        "token",
    )
    state: str
    """``-`` before submit, then the first letter of the state (Q D R S F C), or X for ``expired``."""
    attempt: int
    strikes: int
    releases: int
    failures: int
    """How many of the releases were caused by groups that failed."""
    cancel_requested: bool
    overdue: bool
    """Its deadline has passed: the start deadline until its first start, afterwards the run deadline."""
    ticks: int
    """In state R: the store's count of ticks since the lease was renewed. In state D: ticks until the task is due."""
    ticks_unanswered: int
    """In state R: ticks since the store last replied to the task's leader. No script depends on this number."""
    owner: int
    token: int
    settled_token: int
    """The token of the last settle; ``settled_state`` is the result of that settle."""
    settled_state: str
    published_attempt: int
    """The attempt whose artifacts were published."""
    terminal_events: int
    """How many terminal events the task's stream has."""
    dead_letters: int
    """How many times the task has become a dead letter."""
    in_queue: bool
    in_delays: bool
    in_leases: bool
    in_live: bool

    def __init__(self, values: Sequence[object]) -> None:
        (
            self.attempt,
            self.cancel_requested,
            self.dead_letters,
            self.failures,
            self.in_delays,
            self.in_leases,
            self.in_live,
            self.in_queue,
            self.overdue,
            self.owner,
            self.published_attempt,
            self.releases,
            self.settled_state,
            self.settled_token,
            self.state,
            self.strikes,
            self.terminal_events,
            self.ticks,
            self.ticks_unanswered,
            self.token,
        ) = values  # type: ignore[assignment]

    def __repr__(self) -> str:
        marks = "".join(
            mark
            for mark, on in (("c", self.cancel_requested), ("l", self.overdue), ("!", self.dead_letters))
            if on
        )
        places = "".join(
            place
            for place, on in (
                ("q", self.in_queue),
                ("d", self.in_delays),
                ("h", self.in_leases),
                ("v", self.in_live),
            )
            if on
        )
        return (
            f"{self.state}{marks} attempt {self.attempt} strikes {self.strikes} releases {self.releases}"
            f" owner {self.owner} ticks {self.ticks} in [{places}] ends {self.terminal_events}"
        )


frozen: Callable[[Task], tuple[object, ...]] = attrgetter(*Task.__slots__)
NEW = (0, False, 0, 0, False, False, False, False, False, NOBODY, 0, 0, "", 0, "-", 0, 0, 0, 0, 0)
USED_UP = (*NEW[:11], RELEASES - 1, *NEW[12:])
"""A new task, with one release left."""


def start(tasks: int) -> tuple[tuple[object, ...], ...]:
    """The tasks at the beginning. If there are two, each has only one release left, which keeps the state space small.
    ``RELEASES`` is then reached no later than ``FAILURES``, so only the run with one task tests ``FAILURES``."""
    return (NEW if tasks == 1 else USED_UP,) * tasks


def _exhausted(t: Task, event: str) -> bool:
    """Whether a release by this event is a strike, because the task has used up its releases."""
    return t.releases >= RELEASES or (event == "group failed" and t.failures >= FAILURES)


Facts = tuple[bool, bool, bool, bool, bool]
Move = tuple[str, str, Facts, str]
"""Old state, event, facts (start ahead, cancel, overdue, last strike, releases exhausted), new state."""


class Store:
    """The scripts. A flaw overrides one of these methods; see ``flaws.py``."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.moves: list[Move] = []
        self.reaped: list[int] = []
        """For each reaped lease: the ticks since the store last replied to the holder of the lease."""
        self.outage = 0
        """The bits ``UNTICKED`` and ``GRACE`` before the tick."""
        self.second_half: tuple[str, int] | None = None
        """If a flaw has split a script in two: the second half of the script, and its task."""

    # ── calls of clients ──────────────────────────────────────────────────────────────────────────────────

    def submit(self, i: int, ahead: bool) -> None:
        t = self.tasks[i]
        if t.state == "-":
            self._move(t, "submit", "D" if ahead else "Q", ahead=ahead)
            self.enter(t)

    def cancel(self, i: int) -> None:
        t = self.tasks[i]
        if t.state in ENDED or t.cancel_requested:
            return
        t.cancel_requested = True
        if t.state == "R":
            self._move(t, "cancel", "R")
        else:
            self.leave_queue(t)
            self.end(t, "cancel", "C")

    # ── calls of groups ───────────────────────────────────────────────────────────────────────────────────

    def claim(self, group: int) -> Token | None:
        self.release_unknown(group)
        return self.next(group)

    def next(self, group: int) -> Token | None:
        for i, t in enumerate(self.tasks):  # the queue has the order of the tasks' numbers
            if t.in_queue and t.overdue:
                self.leave_queue(t)
                self.end(t, "run deadline" if t.attempt else "start deadline", "X")
            elif t.in_queue:
                self.start(t, group)
                return i, t.token
        return None

    def start(self, t: Task, group: int) -> None:
        self._move(t, "claim", "R")
        self.leave_queue(t)
        if t.attempt == 0:
            t.overdue = False  # from now on the run deadline applies
        t.attempt += 1
        t.token = t.attempt
        t.owner, t.in_leases, t.in_live = group, True, True
        t.ticks = t.ticks_unanswered = 0

    def holds(self, t: Task, token: int) -> bool:
        return t.token == token

    def report(self, i: int, token: int) -> str:
        t = self.tasks[i]
        if not self.holds(t, token):
            return STALE
        self._move(t, "renew, report, checkpoint", "R")
        self.renew(t)
        t.ticks_unanswered = 0
        return "stop" if t.cancel_requested or t.overdue else "continue"

    def renew(self, t: Task) -> None:
        t.ticks = 0

    def settle(self, i: int, token: int, outcome: str, then: int) -> tuple[str, Token | None]:
        """Returns the resulting state or ``stale``, and the next claim of the group ``then``."""
        t = self.tasks[i]
        if self.holds(t, token):
            self.apply(t, outcome)
            t.settled_token, t.settled_state = token, t.state
            if then == NOBODY:
                return t.settled_state, None
            self.release_unknown(then)
            return t.settled_state, self.next(then)
        if t.settled_token == token:
            return t.settled_state, self.next_again(then) if then != NOBODY else None
        return STALE, None

    def next_again(self, group: int) -> Token | None:
        """Returns the claim for a settle that is repeated because its first answer was lost."""
        held = self.held(group)
        return (self.tasks.index(held), held.token) if held else self.next(group)

    def restart(self, group: int) -> None:
        """A group restarts or deregisters."""
        self.release_unknown(group)

    def killed(self, group: int) -> None:
        """Not a script: the group's process is gone. It returns as a group with a new name."""
        for t in self.tasks:
            if t.owner == group:
                t.owner = ORPHAN

    def nothing(self) -> None:
        """Not a script: something happens outside the store."""

    def apply(self, t: Task, outcome: str) -> None:
        if outcome == "finish" and not t.cancel_requested:
            t.published_attempt = t.token
            self.detach(t)
            self.end(t, outcome, "S")
        elif outcome in ("release", "stopped"):
            self.release(t, outcome)
        else:
            self.strike(t, outcome)

    def held(self, group: int) -> Task | None:
        return next((t for t in self.tasks if t.owner == group and t.state == "R"), None)

    def release_unknown(self, group: int) -> None:
        held = self.held(group)
        if held:
            self.release(held, "group failed")

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────

    def jump(self, outage: int = 0) -> int:
        """The wall clock jumps: deadlines pass and delays end, but leases do not change. Returns the new bits."""
        for t in self.tasks:
            if t.state == "R" and not t.overdue:
                self._move(t, "run deadline", "R")
            t.overdue = t.overdue or t.state in "QDR"
            if t.state == "D":
                t.ticks = min(t.ticks, 1)
        return outage | UNTICKED

    def tick(self, outage: int = 0) -> int:
        self.outage = outage
        for t in self.tasks:
            t.ticks += (t.state == "R") - (t.state == "D")
            t.ticks_unanswered = min(t.ticks_unanswered + (t.state == "R"), LEASE)
        for t in self.tasks:
            if t.overdue and (t.in_queue or t.in_delays):
                self.leave_queue(t)
                self.end(t, "run deadline" if t.attempt else "start deadline", "X")
        for t in self.tasks:
            if t.in_delays and t.ticks == 0:
                self.promote(t)
        for t in self.tasks:
            if t.in_leases and t.ticks >= LEASE and outage != UNTICKED:
                self.reaped.append(t.ticks_unanswered)
                self.reap(t)
        return GRACE if outage == UNTICKED else 0

    def promote(self, t: Task) -> None:
        t.in_delays = False
        self._move(t, "due", "Q")
        self.enter(t)

    def reap(self, t: Task) -> None:
        self.strike(t, "lease lost")

    # ── how an attempt ends ───────────────────────────────────────────────────────────────────────────────

    def release(self, t: Task, event: str) -> None:
        if t.cancel_requested or t.overdue or _exhausted(t, event):
            self.strike(t, event)
        else:
            self._move(t, event, "Q")
            self.detach(t)
            t.releases += 1
            t.failures += event == "group failed"
            self.enter(t)

    def strike(self, t: Task, event: str) -> None:
        if t.cancel_requested:
            self.detach(t)
            self.end(t, event, "C")
        elif t.overdue and event != "permanent error":
            self.detach(t)
            self.end(t, event, "X")
        elif event == "permanent error" or t.strikes + 1 >= STRIKES:
            self.detach(t)
            self.end(t, event, "F")
            self.count(t)
        else:
            self._move(t, event, "D")
            self.detach(t)
            self.count(t)
            self.enter(t)
            t.ticks = 1

    def count(self, t: Task) -> None:
        t.strikes += 1

    def detach(self, t: Task) -> None:
        t.in_leases = False
        t.owner, t.token, t.ticks, t.ticks_unanswered = NOBODY, 0, 0, 0

    def end(self, t: Task, event: str, state: str) -> None:
        self._move(t, event, state)
        t.in_live = False
        t.terminal_events += 1
        t.ticks = 0
        if state == "F":
            self.bury(t)

    def bury(self, t: Task) -> None:
        t.dead_letters += 1

    # ── the queue ─────────────────────────────────────────────────────────────────────────────────────────

    def enter(self, t: Task) -> None:
        """Put the task into the queue or the delays."""
        t.in_queue, t.in_delays = t.state == "Q", t.state == "D"
        t.in_live = t.in_queue
        t.ticks = AHEAD if t.in_delays else 0

    def leave_queue(self, t: Task) -> None:
        t.in_queue = t.in_delays = False
        t.ticks = 0

    def _move(self, t: Task, event: str, after: str, *, ahead: bool = False) -> None:
        facts = (ahead, t.cancel_requested, t.overdue, t.strikes + 1 >= STRIKES, _exhausted(t, event))
        self.moves.append((t.state, event, facts, after))
        t.state = after
