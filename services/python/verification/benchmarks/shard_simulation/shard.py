"""Simulates one shard by discrete events: a core that serves operations in order, and groups that run tasks or wait.

The server is one first-come-first-served queue. An operation that arrives at `t`, while the core is busy until `free`,
ends at `max(t, free) + cost`. Operations take effect in the order of their arrival, as scripts do in Redis. For the
wake-up list, `claim` and `settle`, the simulation follows the rules in `docs/03-queue.md`.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from verification.benchmarks.shard_simulation.costs import Costs

WAKEUP_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLoad:
    """The load of one shard. Times are in seconds, but ``tasks_s`` is a rate."""

    tasks_s: float
    """Submitted tasks per second."""
    groups: int
    run_s: float
    """The mean run time of a task."""
    readers: float
    """The number of gateways that follow the pool. Each of them gets every event."""
    tickers: float
    """The number of gateways that tick the pool. Each ticks once a second."""
    net_s: float
    """How long one trip between a client and the server takes, including the client's CPU time."""
    event_out_s: float
    """How long the core works to send one event to one reader."""
    reports: float = 0.0
    """The number of progress reports of each task."""
    refresh_every_s: float = 5.0
    """How often each group refreshes its record."""
    for_s: float = 6.0
    warm_up_s: float = 1.5


@dataclass(slots=True)
class ShardResult:
    """The result of a simulation. ``used``, ``lags`` and ``waits`` leave out the warm-up."""

    used: float = 0.0
    """The utilization of the core; 1 if it was busy all the time."""
    lags: list[float] = field(default_factory=list)
    """Seconds from the call of submit to the start of the task."""
    waits: list[float] = field(default_factory=list)
    """Seconds that operations waited for the core."""
    wakes: int = 0
    wasted: int = 0
    """How many wake-ups woke a leader that then found no task."""
    unstarted: int = 0
    """How many tasks still wait at the end."""

    def lag(self, share: float) -> float:
        """A quantile of the lags; infinite if no task started after the warm-up."""
        return _quantile(self.lags, share)

    def wait(self, share: float) -> float:
        """A quantile of the waits."""
        return _quantile(self.waits, share)


def _quantile(values: list[float], share: float) -> float:
    if not values:
        return math.inf
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Shard:
    """Simulates one shard under a load."""

    def __init__(self, load: ShardLoad, costs: Costs, *, seed: int) -> None:
        self._load = load
        self._costs = costs
        self._chance = random.Random(seed)
        self._now = 0.0
        self._free = 0.0
        self._busy = 0.0
        self._calendar: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._queue: deque[float] = deque()
        self._tokens = 0
        self._idle: deque[int] = deque()
        self._result = ShardResult()
        self._event = load.readers * load.event_out_s

    def run(self) -> ShardResult:
        """Simulate. At the start, all groups are idle."""
        load = self._load
        self._idle.extend(range(load.groups))
        self._every(load.tasks_s, self._submit)
        self._every(load.tickers, lambda: self._serve(self._costs.tick) and None)
        self._every(load.groups / load.refresh_every_s, lambda: self._serve(self._costs.refresh) and None)
        while self._calendar:
            at, _, action = heapq.heappop(self._calendar)
            if at > load.for_s:
                break
            self._now = at
            action()
        self._result.used = self._busy / (load.for_s - load.warm_up_s)
        self._result.unstarted = len(self._queue)
        return self._result

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._calendar, (when, self._number, action))

    def _every(self, rate: float, action: Callable[[], None]) -> None:
        if rate <= 0:
            return

        def again() -> None:
            self._at(self._now + self._chance.expovariate(rate), again)
            action()

        self._at(self._chance.expovariate(rate), again)

    def _serve(self, cost: float) -> float:
        """Occupy the core for a random time, whose mean is ``cost``. :returns: the time at which the operation ends."""
        cost *= self._chance.lognormvariate(-0.03, 0.245)  # mean 1, standard deviation 1/4
        started = max(self._now, self._free)
        self._free = started + cost
        if self._now >= self._load.warm_up_s:
            self._result.waits.append(started - self._now)
            self._busy += cost
        return self._free

    def _submit(self) -> None:
        called = self._now - self._load.net_s
        served_at = self._serve(self._costs.submit + self._event)
        self._queue.append(called)
        self._wake_one(served_at)

    def _wake_one(self, served_at: float) -> None:
        if self._idle:
            group = self._idle.popleft()
            self._result.wakes += 1
            self._at(served_at + 2 * self._load.net_s, lambda: self._claim(group, woken=True))
        else:
            self._tokens = min(WAKEUP_MAX, self._tokens + 1)

    def _claim(self, group: int, *, woken: bool = False) -> None:
        if not self._queue:
            self._result.wasted += woken
            served_at = self._serve(self._costs.claim_none)
            self._tokens = 0
            self._at(served_at + 2 * self._load.net_s, lambda: self._listen(group))
            return
        self._start(group, self._serve(self._claim_cost))

    @property
    def _claim_cost(self) -> float:
        """The cost of a claim and its `started` event. A claim costs half as much as a settle that claims a task."""
        return self._costs.settle / 2 + self._event

    def _start(self, group: int, served_at: float) -> None:
        called = self._queue.popleft()
        if self._queue and not self._tokens:
            self._wake_one(served_at)
        load, started = self._load, served_at + self._load.net_s
        if started >= load.warm_up_s:
            self._result.lags.append(started - called)
        ran_s = load.run_s * self._chance.lognormvariate(-0.03, 0.245)
        for at in range(int(load.reports)):
            when = started + ran_s * (at + 1) / (load.reports + 1)
            self._at(when, lambda: self._serve(self._costs.report + self._event) and None)
        self._at(started + ran_s + load.net_s, lambda: self._settle(group))

    def _settle(self, group: int) -> None:
        if self._queue:
            self._start(group, self._serve(self._costs.settle + 2 * self._event))
            return
        served_at = self._serve(self._costs.settle / 2 + self._event)
        back = served_at + 2 * self._load.net_s
        self._at(back, lambda: self._at(self._serve(self._costs.refresh) + 2 * self._load.net_s, look))

        def look() -> None:
            self._claim(group)

    def _listen(self, group: int) -> None:
        if self._tokens:
            self._tokens -= 1
            self._result.wakes += 1
            self._at(self._now + 2 * self._load.net_s, lambda: self._claim(group, woken=True))
        else:
            self._idle.append(group)
