"""The checker of serving pools passes every history that keeps the promises, and finds each broken one.

A *plot* is what happens to one request: the lines that clients, groups and the cluster write about it. Good plots may
be combined at will. A bad plot breaks one promise, and the checker must name its request, whatever happens around it.
"""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testkit.serving_tale import WISH, Plot, Tale, history_of
from verification.faults.serving.checker import MAX_TRIES, check


def plain(tale: Tale) -> None:
    tale.whole_run()
    tale.answered()


def cut_by_the_death_of_its_group(tale: Tale) -> None:
    tale.run("begin")
    tale.killed()
    tale.sent("cut", size=50)


def cut_by_the_death_of_its_gateway(tale: Tale) -> None:
    tale.run("begin")
    tale.killed("gateway")
    tale.sent("cut", size=70)
    tale.run("stop")


def cut_in_the_middle_of_the_head(tale: Tale) -> None:
    tale.run("begin")
    tale.killed("gateway")
    tale.sent("cut", first=tale.now)


def run_again_after_the_death_of_a_follower(tale: Tale) -> None:
    for pid in (tale.pid + 1, tale.pid + 2):
        tale.line("component", "started", name=f"online-{tale.number}", pid=pid)
    tale.run("begin", pid=tale.pid + 1)
    tale.line("fault", "kill-follower", name=f"online-{tale.number}.1", pid=tale.pid + 2)
    tale.whole_run()
    tale.answered()


def run_again_after_a_death(tale: Tale) -> None:
    tale.run("begin", pid=tale.pid + 1)
    tale.killed(pid=tale.pid + 1)
    tale.whole_run()
    tale.answered()


def cut_by_the_death_of_its_engine(tale: Tale) -> None:
    tale.run("begin")
    tale.killed("engine")
    tale.sent("cut", size=50)


def run_again_after_the_death_of_a_worker(tale: Tale) -> None:
    for pid in (tale.pid + 1, tale.pid + 2):
        tale.line("component", "started", name=f"worker-{tale.number}", pid=pid)
    tale.run("begin", pid=tale.pid + 1)
    tale.killed("worker", pid=tale.pid + 2)
    tale.whole_run()
    tale.answered()


def sent_again_after_the_death_of_a_gateway(tale: Tale) -> None:
    tale.run("begin", pid=tale.pid + 1)
    tale.killed("gateway")
    tale.sent("broken")
    tale.whole_run(send=2)
    tale.answered(send=2, gateway="gateway-other")


def sent_again_after_a_gateway_said_that_it_closes(tale: Tale) -> None:
    tale.line("fault", "preempt-gateway", name=f"gateway-{tale.number}", pid=tale.pid)
    tale.sent("closing", first=tale.now, status=503)
    tale.whole_run(send=2)
    tale.answered(send=2)


GOOD: list[Plot] = [
    plain,
    cut_by_the_death_of_its_group,
    cut_by_the_death_of_its_gateway,
    cut_in_the_middle_of_the_head,
    run_again_after_a_death,
    run_again_after_the_death_of_a_follower,
    cut_by_the_death_of_its_engine,
    run_again_after_the_death_of_a_worker,
    sent_again_after_the_death_of_a_gateway,
    sent_again_after_a_gateway_said_that_it_closes,
]


def never_sent(tale: Tale) -> None:
    pass


def error_of_the_gateway(tale: Tale) -> None:
    tale.run("begin")
    tale.killed()
    tale.sent("complete", size=10, status=502, pid=0)


def not_ready_although_time_is_left(tale: Tale) -> None:
    tale.sent("complete", size=10, status=503, pid=0)


def broken_to_the_end(tale: Tale) -> None:
    tale.killed("gateway")
    tale.sent("broken")


def too_late(tale: Tale) -> None:
    tale.whole_run()
    tale.now += 31
    tale.answered()


def cut_although_nothing_died(tale: Tale) -> None:
    tale.whole_run()
    tale.sent("cut", size=50)


def cut_long_before_its_group_died(tale: Tale) -> None:
    tale.run("begin")
    tale.sent("cut", size=50)
    tale.now += 10
    tale.killed()


def run_again_after_the_death_of_a_stranger(tale: Tale) -> None:
    tale.line("component", "started", name=f"online-{tale.number}", pid=tale.pid + 1)
    tale.line("component", "started", name=f"online-{tale.number}x", pid=tale.pid + 2)
    tale.run("begin", pid=tale.pid + 1)
    tale.line("fault", "kill-follower", name=f"online-{tale.number}x.1", pid=tale.pid + 2)
    tale.whole_run()
    tale.answered()


def cut_by_the_death_of_another_worker(tale: Tale) -> None:
    tale.line("component", "started", name=f"worker-{tale.number}", pid=tale.pid)
    tale.line("component", "started", name=f"worker-{tale.number}x", pid=tale.pid + 1)
    tale.run("begin")
    tale.killed("worker", pid=tale.pid + 1)
    tale.sent("cut", size=50)


def cut_although_its_worker_was_only_stopped(tale: Tale) -> None:
    tale.line("component", "started", name=f"worker-{tale.number}", pid=tale.pid)
    tale.line("component", "started", name=f"worker-{tale.number}", pid=tale.pid + 1)
    tale.run("begin")
    tale.line("fault", "preempt-worker", name=f"worker-{tale.number}", pid=tale.pid + 1)
    tale.sent("cut", size=50)


def cut_by_the_death_of_another_group(tale: Tale) -> None:
    tale.run("begin")
    tale.killed(pid=tale.pid + 1)
    tale.sent("cut", size=50)


def broken_although_no_gateway_died(tale: Tale) -> None:
    tale.sent("broken")
    tale.whole_run(send=2)
    tale.answered(send=2)


def complete_but_short(tale: Tale) -> None:
    tale.run("begin")
    tale.killed()
    tale.sent("complete", size=100)


def the_answer_of_another_request(tale: Tale) -> None:
    tale.whole_run()
    tale.answered(crc=zlib.crc32(WISH.answer(tale.number + 1)))


def cut_with_wrong_bytes(tale: Tale) -> None:
    tale.run("begin")
    tale.killed()
    tale.sent("cut", size=50, crc=1)


def run_on_another_group_after_the_first_byte(tale: Tale) -> None:
    tale.run("begin")
    tale.killed()
    tale.whole_run(pid=tale.pid + 1)
    tale.sent("cut", size=50, first=tale.now - 0.5)


def sent_again_after_the_first_byte(tale: Tale) -> None:
    cut_by_the_death_of_its_group(tale)
    tale.whole_run(send=2, pid=tale.pid + 1)
    tale.answered(send=2, pid=tale.pid + 1)


def taken_from_a_group_that_lives(tale: Tale) -> None:
    tale.whole_run(pid=tale.pid + 1)
    tale.whole_run()
    tale.answered()


def run_twice_on_a_group_that_lives(tale: Tale) -> None:
    tale.whole_run()
    tale.whole_run()
    tale.answered()


def broke_too_many_groups(tale: Tale) -> None:
    for pid in range(tale.pid + 1, tale.pid + 1 + MAX_TRIES):
        tale.run("begin", pid=pid)
        tale.killed(pid=pid)
    tale.whole_run()
    tale.answered()


def answered_by_nobody(tale: Tale) -> None:
    tale.answered()


def answered_without_an_end(tale: Tale) -> None:
    tale.run("begin")
    tale.answered()


BAD: dict[Plot, str] = {
    never_sent: "failed",
    error_of_the_gateway: "failed",
    not_ready_although_time_is_left: "failed",
    broken_to_the_end: "failed",
    too_late: "late",
    cut_although_nothing_died: "unexplained",
    cut_long_before_its_group_died: "unexplained",
    cut_by_the_death_of_another_group: "unexplained",
    cut_by_the_death_of_another_worker: "unexplained",
    cut_although_its_worker_was_only_stopped: "unexplained",
    run_again_after_the_death_of_a_stranger: "abandoned",
    broken_although_no_gateway_died: "unexplained",
    complete_but_short: "truncated",
    the_answer_of_another_request: "wrong",
    cut_with_wrong_bytes: "wrong",
    run_on_another_group_after_the_first_byte: "twice",
    sent_again_after_the_first_byte: "twice",
    taken_from_a_group_that_lives: "abandoned",
    run_twice_on_a_group_that_lives: "abandoned",
    broke_too_many_groups: "tries",
    answered_by_nobody: "phantom",
    answered_without_an_end: "phantom",
}


plots = st.lists(st.tuples(st.sampled_from(GOOD), st.floats(0, 5)), max_size=12)


@given(plots)
def test_whatever_keeps_the_promises_passes(good: list[tuple[Plot, float]]) -> None:
    verdict = check(history_of(good))
    assert verdict.ok, verdict.text()


@given(plots, st.sampled_from(list(BAD)), st.floats(0, 5), st.integers(0, 12))
def test_every_broken_promise_is_found(
    good: list[tuple[Plot, float]], bad: Plot, began: float, place: int
) -> None:
    mixed = [*good[:place], (bad, began), *good[place:]]
    number = mixed.index((bad, began)) + 1
    violations = check(history_of(mixed)).violations
    assert (BAD[bad], f"request {number}") in {(found.kind, found.task) for found in violations}
    assert {found.task for found in violations} == {f"request {number}"}


@pytest.mark.parametrize("bad", BAD)
def test_each_broken_promise_is_found_alone(bad: Plot) -> None:
    kinds = {found.kind for found in check(history_of([(bad, 0.0)])).violations}
    assert BAD[bad] in kinds


def test_a_history_that_ends_before_its_clients_does_not_pass() -> None:
    assert [found.kind for found in check(history_of([(plain, 0.0)], settled=False)).violations] == [
        "unsettled"
    ]


def test_a_run_that_belongs_to_no_request_is_found() -> None:
    lines = history_of([(plain, 0.0)])
    stray = {"op": "ran", "kind": "begin", "request": 9, "send": 1, "pid": 1, "at": 1.0, "t": 1.0}
    assert [found.kind for found in check([*lines, stray]).violations] == ["stray"]


@pytest.mark.parametrize(("answers", "kinds"), [(False, []), (True, ["unexplained"])])
def test_a_gateway_that_restarts_slowly_explains_refused_connections_until_it_answers(
    answers: bool, kinds: list[str]
) -> None:
    def refused(tale: Tale) -> None:
        tale.killed("gateway")
        tale.now += 20
        tale.sent("broken", gateway="gateway-1")
        tale.whole_run(send=2)
        tale.answered(send=2, gateway="gateway-2")

    other: Plot = lambda tale: (tale.whole_run(), tale.answered(gateway="gateway-1"))  # noqa: E731
    history = history_of([(refused, 0.0), (other if answers else plain, 15.0)])
    assert [found.kind for found in check(history).violations] == kinds


def test_an_engine_that_outlives_its_worker_is_found() -> None:
    lines = history_of([(plain, 0.0)])
    lines.insert(-1, {"op": "orphan", "kind": "left", "name": "worker-1", "pid": 100, "t": 1.0})
    assert [found.kind for found in check(lines).violations] == ["orphan"]


@pytest.mark.parametrize(("silent_after", "kinds"), [(80, []), (40, ["left"]), (2, ["left"])])
def test_a_living_group_that_gets_no_more_requests_is_found(silent_after: int, kinds: list[str]) -> None:
    """Two groups take turns in 80 requests, until one of them gets no more."""

    def on(pid: int) -> Plot:
        def plot(tale: Tale) -> None:
            tale.whole_run(pid=pid)
            tale.answered(pid=pid)

        return plot

    pids = [1 + number % 2 if number < silent_after else 1 for number in range(80)]
    lines = history_of([(on(pid), float(number)) for number, pid in enumerate(pids)])
    lines.insert(1, {"op": "expect", "kind": "stay", "t": 0.0})
    assert [found.kind for found in check(lines).violations] == kinds


def test_a_group_that_ends_although_nothing_stopped_it_is_found() -> None:
    lines = history_of([(plain, 0.0)])
    lines[1:1] = [
        {"op": "expect", "kind": "stay", "t": 0.0},
        {"op": "component", "kind": "ended", "name": "online-1", "pid": 100, "status": 9, "t": 0.1},
    ]
    assert [found.kind for found in check(lines).violations] == ["left"]
