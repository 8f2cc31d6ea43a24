"""A scripted fault for each alert that can fire on one machine.

A fault is a context manager: inside its block something is wrong, and after the block everything is as before. The
fault yields a function that does what clients do during the fault. The test calls this function again and again while
the test waits for the alerts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from testkit.observed import BATCH, BATCHES, ITEMS, MEMORY_LIMIT, PARKED, POOL, ObservedRun
from testkit.observed_requests import ANSWERS, CAPACITY, LINE
from testkit.observed_sessions import MAX_SESSIONS, ROOM, SPEECH, noise
from testkit.waiting import wait_until

During = Callable[[], object]


MODELS = "models"
"""The name of the one part of the system that is not a pool: the models on workers."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, and the alerts that it must set off."""

    name: str
    alerts: tuple[str, ...]
    part: str | None
    """What the fault disturbs: a pool, :data:`MODELS`, or, if ``None``, the whole system."""
    context: Callable[[ObservedRun], contextlib.AbstractContextManager[During]]

    @property
    def pool(self) -> str | None:
        return None if self.part == MODELS else self.part


FAULTS: list[Fault] = []
"""All faults, in the order in which they happen. Faults of different parts of the system happen at the same time. A
fault of the whole system happens alone.

During two of the faults, metrics are missing. Without its metrics, an alert seems to have resolved. So one of these
faults, ``the_gateway_hangs``, is the first of all, and the other, ``nobody_scrapes_ray``, is the last. Some alerts look
back for a minute. In each part of the system, the faults for such alerts come first, so that these alerts resolve while
other faults happen.
"""


def fault(
    *alerts: str, part: str | None = None
) -> Callable[[Callable[[ObservedRun], Iterator[During]]], None]:
    """Register a generator function as a fault that must set off these alerts."""

    def register(function: Callable[[ObservedRun], Iterator[During]]) -> None:
        FAULTS.append(Fault(function.__name__, alerts, part, contextlib.contextmanager(function)))

    return register


def nothing() -> None:
    """Do nothing: the fault needs no clients."""


@fault("DaybreakGatewayAbsent", "DaybreakTargetDown")
def the_gateway_hangs(run: ObservedRun) -> Iterator[During]:
    gateway = run.system.state()["pids"]["gateway"]
    os.kill(gateway, signal.SIGSTOP)
    yield nothing
    os.kill(gateway, signal.SIGCONT)


@fault("DaybreakRedisDown", "DaybreakTicksLate", "DaybreakApiErrorBudgetFast", "DaybreakApiErrorBudgetSlow")
def redis_dies(run: ObservedRun) -> Iterator[During]:
    run.redis.stop()
    yield lambda: run.refused("GET", "/v1/tasks")
    run.redis.start()
    with contextlib.closing(run.redis.client()) as client:
        client.config_set("maxmemory", MEMORY_LIMIT)


@fault("DaybreakRedisMemory")
def redis_is_nearly_full(run: ObservedRun) -> Iterator[During]:
    with contextlib.closing(run.redis.client()) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
        yield nothing
        client.config_set("maxmemory", MEMORY_LIMIT)


@fault("DaybreakRedisAof")
def redis_writes_no_file(run: ObservedRun) -> Iterator[During]:
    with contextlib.closing(run.redis.client()) as client:
        client.config_set("appendonly", "no")
        yield nothing
        client.config_set("appendonly", "yes")


@fault("DaybreakModelNotReady", "DaybreakReplicasFail", "DaybreakManagerAbsent", part=MODELS)
def models_cannot_start_and_nobody_plans(run: ObservedRun) -> Iterator[During]:
    """One model fails, another fits on no worker. Then a third, invalid model makes every manager fail to plan."""
    run.models.want_what_cannot_start()
    run.models.stop_managers()
    yield nothing
    received = run.watch.notifications.received

    def reasons() -> set[tuple[str, str]]:
        labels = [alert["labels"] for alert in received]
        return {(each["model"], each["reason"]) for each in labels if "reason" in each}

    both = {("broken", "a replica failed"), ("huge", "no worker has room")}
    wait_until(lambda: both <= reasons(), 60, "an alert for each reason")
    run.models.restore()


@fault("DaybreakGpuWaste", part=POOL)
def tasks_are_cancelled_late(run: ObservedRun) -> Iterator[During]:
    def work_in_vain() -> None:
        number = run.running(steps=1000, step_s=0.1)
        run.post(f"/v1/tasks/{number}/cancel", {})
        run.system.wait(number, "cancelled")

    yield work_in_vain


@fault("DaybreakGroupsRestart", part=POOL)
def both_groups_crash(run: ObservedRun) -> Iterator[During]:
    """The watchdogs of the groups report the crashes at once."""
    run.wait_groups()
    for pid in itertools.chain.from_iterable(group["pids"] for group in run.groups()):
        # When one rank dies, the rest of its group ends by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield nothing
    run.wait_groups()


@fault("DaybreakLeasesLost", part=POOL)
def a_host_dies(run: ObservedRun) -> Iterator[During]:
    """The watchdogs on the host die too, so nothing reports the death, and the lease of the task runs out."""
    run.wait_groups()
    task = run.running(steps=100, step_s=0.1)
    ranks = [psutil.Process(pid) for pid in run.holder(task)["pids"]]
    for process in [*itertools.chain.from_iterable(rank.children(recursive=True) for rank in ranks), *ranks]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    yield nothing
    run.system.wait(task)
    run.wait_groups()


@fault("DaybreakQueueStuck", "DaybreakTasksWait", "DaybreakWakeSlow", part=PARKED)
def a_pool_has_no_group(run: ObservedRun) -> Iterator[During]:
    waiting = run.submit(pool=PARKED)
    yield nothing
    run.post(f"/v1/tasks/{waiting}/cancel", {})


@fault("DaybreakDeadLetters", part=POOL)
def tasks_fail(run: ObservedRun) -> Iterator[During]:
    yield lambda: run.submit(steps=1, fail_at=1, fail_kind="permanent")


@fault("DaybreakRequestsRefused", "DaybreakRequestsLate", part=ANSWERS)
def clients_send_more_than_the_group_can_answer(run: ObservedRun) -> Iterator[During]:
    """The line is full, and its requests wait until their deadline has passed."""
    yield lambda: run.requests.ask_often(CAPACITY + LINE + 10, deadline_s=1.0, latency_s=0.8)


@fault("DaybreakRequestsFail", part=ANSWERS)
def answers_break_off(run: ObservedRun) -> Iterator[During]:
    yield lambda: run.requests.ask_often(4, chunks=2, fault="error", fault_at=2)


@fault("DaybreakLineStuck", "DaybreakRouterRetries", part=ANSWERS)
def somebody_else_fills_the_group(run: ObservedRun) -> Iterator[During]:
    """The requests that fill the group bypass the gateway. So the gateway sees room, but gets only refusals."""
    with contextlib.ExitStack() as requests:
        for _ in range(CAPACITY):
            requests.enter_context(run.requests.open_request(run.requests.answering_group(), latency_s=600.0))
        for _ in range(3):
            requests.enter_context(run.requests.open_request(f"{run.system.url}/v1/pools/{ANSWERS}/serve/"))
        yield nothing


@fault("DaybreakBatchesWait", part=BATCHES)
def batches_are_slow(run: ObservedRun) -> Iterator[During]:
    """Most items wait until several other batches have run."""
    yield lambda: run.requests.ask_often(4 * BATCH, pool=BATCHES, texts=["a text"], batch_s=0.8)


@fault("DaybreakBatchesFail", part=BATCHES)
def batches_fail(run: ObservedRun) -> Iterator[During]:
    def ask() -> None:
        assert set(run.requests.ask_often(BATCH, pool=BATCHES, texts=["a text"], fails=True)) == {500}

    yield ask


@fault("DaybreakItemsRefused", part=BATCHES)
def callers_send_more_than_may_wait(run: ObservedRun) -> Iterator[During]:
    """Each request brings nearly as many items as may wait, so the first request leaves no place for the others."""
    texts = ["a text"] * (ITEMS - BATCH)

    def ask() -> None:
        statuses = run.requests.ask_often(4, pool=BATCHES, texts=texts, batch_s=0.1)
        assert set(statuses) <= {200, 429}, statuses

    yield ask


@fault("DaybreakSessionsRefused", "DaybreakSessionsLag", "DaybreakSessionsDegraded", part=SPEECH)
def too_many_people_speak(run: ObservedRun) -> Iterator[During]:
    """The group cannot keep up with the sessions that it serves, and more clients ask for sessions."""
    speaking = run.sessions.open_all(ROOM)
    for session in speaking:
        run.sessions.speak(session, noise(40.0), end=False)
    yield lambda: run.sessions.open(MAX_SESSIONS)
    run.sessions.close_all()


@fault("DaybreakSessionsWait", part=SPEECH)
def sessions_find_no_place(run: ObservedRun) -> Iterator[During]:
    """The memory of the only group is full."""
    run.sessions.open_all(ROOM + 1)
    yield nothing
    run.sessions.close_all()


@fault("DaybreakSessionsFail", part=SPEECH)
def sessions_fail(run: ObservedRun) -> Iterator[During]:
    def fail() -> None:
        for session in run.sessions.open(3):
            run.sessions.speak(session, bytes(32_000))

    yield fail


@fault("DaybreakStreamResets", part=PARKED)
def subscribers_lag(run: ObservedRun) -> Iterator[During]:
    """Subscribers reconnect after the events that they need next have been trimmed."""
    task, seen = run.trimmed()

    def lag() -> None:
        for _ in range(10):
            assert run.read_stream(task, after=seen)[0] == "reset"

    yield lag


@fault("DaybreakRanksAbsent")
def nobody_scrapes_ray(run: ObservedRun) -> Iterator[During]:
    targets = run.ray_targets.read_text()
    _replace(run, json.dumps([]))
    yield nothing
    _replace(run, targets)


def _replace(run: ObservedRun, targets: str) -> None:
    temporary = run.ray_targets.with_suffix(".new")
    temporary.write_text(targets)
    temporary.replace(run.ray_targets)
