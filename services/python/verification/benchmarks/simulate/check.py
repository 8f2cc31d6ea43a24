"""Checks the simulator at small size: its predictions for one shard beside the measured figures.

The model is a closed loop of two stations: the server's core, and the core that producer and leaders share. The
clients' CPU time is fitted to "submit alone" and "settle alone"; the rate of both together and the hand-off are
predicted from it.
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
    """Submit, wake-up, claim, reply: two raw hand-offs, and the two scripts."""
    return 2 * costs.handoff_raw + costs.submit + costs.settle / 2


def fitted(simulate: Callable[[float], float], wanted: float) -> float:
    """The client's seconds per task with which ``simulate`` reaches ``wanted`` tasks per second."""
    low, high = 0.0, 0.01
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if simulate(middle) > wanted else (low, middle)
    return (low + high) / 2


def closed(*, client: float, leader: float, costs: Costs, produce: bool) -> float:
    """Tasks per second of a closed loop: each customer alternates between the clients' core and the server's."""
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
        now, _, leader_number = heapq.heappop(calendar)
        number += 1
        if leader_number == 0:  # the producer, in batches
            if made >= TASKS:
                continue
            done = serve("server", serve("client", now, client * BATCH), costs.submit * BATCH)
            made += BATCH
            waiting += BATCH
            for customer in idle:
                heapq.heappush(calendar, (done, number + customer, customer))
            idle.clear()
            heapq.heappush(calendar, (done, number, 0))
        elif not waiting:
            idle.append(leader_number)
        else:
            some = min(WIDTH, waiting)
            waiting -= some
            settled += some
            done = serve("server", serve("client", now, leader * some), costs.settle * some)
            heapq.heappush(calendar, (done, number, leader_number))
    return settled / max(now, 1e-9)
