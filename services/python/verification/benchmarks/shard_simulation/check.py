"""Checks the simulator's method on one shard: makes predictions that can be compared with measured figures.

The model is a closed loop of two stations: the server's core, and the core that the clients (the producer and the
leaders) share. The clients' CPU time follows from the measured rates of "submit alone" and "settle alone"; the rate of
both together is then predicted. In a hand-off (from a submit to the claim by an idle leader), two messages pass through
the server. The predicted time of a hand-off is twice the time that a message takes if it runs no script, plus the cost
of the scripts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from verification.benchmarks.queue.rate import BATCH, LEADERS, WIDTH
from verification.benchmarks.shard_simulation.costs import Costs

TASKS = 6_000


def predicted_tasks_s(costs: Costs) -> float:
    """How many tasks are submitted, claimed and settled per second, with one producer and the benchmark's leaders."""
    producer_s = max(0.0, 1 / costs.submits_s - costs.submit)
    leader_s = fitted(
        lambda client: closed(client=0, leader=client, costs=costs, produce=False), costs.settles_s
    )
    return closed(client=producer_s, leader=leader_s, costs=costs, produce=True)


def predicted_handoff_s(costs: Costs) -> float:
    """Seconds from submit to claim.

    A hand-off consists of two messages through the server: from the submit to the wake-up, and from the claim to its
    reply. Each message runs one script. The predicted time of a message is the measured time from an RPUSH to a BLPOP,
    where no script runs, plus the cost of the message's script. A claim is assumed to cost half of a settle that claims
    the next task.
    """
    return 2 * costs.handoff_raw + costs.submit + costs.settle / 2


def fitted(simulate: Callable[[float], float], wanted: float) -> float:
    """The client's seconds per task with which ``simulate`` reaches ``wanted`` tasks per second."""
    low, high = 0.0, 0.01
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if simulate(middle) > wanted else (low, middle)
    return (low + high) / 2


def closed(*, client: float, leader: float, costs: Costs, produce: bool) -> float:
    """Tasks per second of a closed loop: each customer, which is the producer or a leader, alternates between the
    clients' core and the server's. Number 0 is the producer."""
    free = {"client": 0.0, "server": 0.0}
    waiting = 0 if produce else TASKS + LEADERS
    submitted = settled = 0
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
            if submitted >= TASKS:
                continue
            served_at = serve("server", serve("client", now, client * BATCH), costs.submit * BATCH)
            submitted += BATCH
            waiting += BATCH
            for customer in idle:
                heapq.heappush(calendar, (served_at, number + customer, customer))
            idle.clear()
            heapq.heappush(calendar, (served_at, number, 0))
        elif not waiting:
            idle.append(leader_number)
        else:
            claimed = min(WIDTH, waiting)
            waiting -= claimed
            settled += claimed
            served_at = serve("server", serve("client", now, leader * claimed), costs.settle * claimed)
            heapq.heappush(calendar, (served_at, number, leader_number))
    return settled / max(now, 1e-9)
