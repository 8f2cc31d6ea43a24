"""The simulator against reality at small size: what it predicts for one shard, beside what was measured.

Two stations in a closed loop: the server's core, and the core that producer and leaders share. The clients' own
time is fitted to "submit alone" and "settle alone"; "both together" and the hand-off are predicted from that.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from verification.benchmarks.queue.rate import BATCH, LEADERS, WIDTH
from verification.benchmarks.simulate.costs import Costs

TASKS = 6_000


def predicted_tasks_s(costs: Costs) -> float:
    """Submitted, claimed and settled per second, by one producer and the leaders of the benchmark."""
    mine = max(0.0, 1 / costs.submits_s - costs.submit)
    theirs = fitted(
        lambda client: closed(client=0, leader=client, costs=costs, produce=False), costs.settles_s
    )
    return closed(client=mine, leader=theirs, costs=costs, produce=True)


def predicted_handoff_s(costs: Costs) -> float:
    """Submit, bell, claim, answer: two raw hand-offs, and the two scripts."""
    return 2 * costs.handoff_raw + costs.submit + costs.settle / 2


def fitted(simulate: Callable[[float], float], wanted: float) -> float:
    """The client's seconds a task with which ``simulate`` comes to ``wanted`` per second."""
    low, high = 0.0, 0.01
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if simulate(middle) > wanted else (low, middle)
    return (low + high) / 2


def closed(*, client: float, leader: float, costs: Costs, produce: bool) -> float:
    """Tasks per second of a closed loop: each customer takes turns on the clients' core and on the server's."""
    free = {"client": 0.0, "server": 0.0}
    waiting = 0 if produce else TASKS + LEADERS
    made = settled = 0
    number = LEADERS + 1
    calendar = [(0.0, at, at) for at in range(0 if produce else 1, number)]
    heapq.heapify(calendar)
    now = 0.0
    idle: list[int] = []

    def serve(station: str, at: float, cost: float) -> float:
        free[station] = max(at, free[station]) + cost
        return free[station]

    while settled < TASKS and calendar:
        now, _, who = heapq.heappop(calendar)
        number += 1
        if who == 0:  # the producer, in batches
            if made >= TASKS:
                continue
            done = serve("server", serve("client", now, client * BATCH), costs.submit * BATCH)
            made += BATCH
            waiting += BATCH
            for one in idle:
                heapq.heappush(calendar, (done, number + one, one))
            idle.clear()
            heapq.heappush(calendar, (done, number, 0))
        elif not waiting:
            idle.append(who)
        else:
            some = min(WIDTH, waiting)
            waiting -= some
            settled += some
            done = serve("server", serve("client", now, leader * some), costs.settle * some)
            heapq.heappush(calendar, (done, number, who))
    return settled / max(now, 1e-9)
