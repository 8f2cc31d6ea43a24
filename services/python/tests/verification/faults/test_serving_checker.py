"""The checker of serving pools accepts every history that keeps the promises, and finds each broken promise.

A *script* writes the history of one request: the lines of clients, groups and the cluster. Good scripts may be combined
at will. A bad script breaks one promise. The checker must name the request of the bad script, whatever good scripts run
beside it.
"""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verification.faults.serving.checker import MAX_TRIES, check
from verification.faults.serving.history_builder import WISH, RequestHistory, Script, history_of


def plain(history: RequestHistory) -> None:
    history.whole_run()
    history.answered()


def cut_by_the_death_of_its_group(history: RequestHistory) -> None:
    history.run("begin")
    history.killed()
    history.sent("cut", size=50)


def cut_by_the_death_of_its_gateway(history: RequestHistory) -> None:
    history.run("begin")
    history.killed("gateway")
    history.sent("cut", size=70)
    history.run("stop")


def cut_in_the_middle_of_the_head(history: RequestHistory) -> None:
    history.run("begin")
    history.killed("gateway")
    history.sent("cut", first=history.now)


def run_again_after_the_death_of_a_follower(history: RequestHistory) -> None:
    for pid in (history.pid + 1, history.pid + 2):
        history.line("component", "started", name=f"online-{history.number}", pid=pid)
    history.run("begin", pid=history.pid + 1)
    history.line("fault", "kill-follower", name=f"online-{history.number}.1", pid=history.pid + 2)
    history.whole_run()
    history.answered()


def run_again_after_a_death(history: RequestHistory) -> None:
    history.run("begin", pid=history.pid + 1)
    history.killed(pid=history.pid + 1)
    history.whole_run()
    history.answered()


def cut_by_the_death_of_its_engine(history: RequestHistory) -> None:
    history.run("begin")
    history.killed("engine")
    history.sent("cut", size=50)


def run_again_after_the_death_of_a_worker(history: RequestHistory) -> None:
    for pid in (history.pid + 1, history.pid + 2):
        history.line("component", "started", name=f"worker-{history.number}", pid=pid)
    history.run("begin", pid=history.pid + 1)
    history.killed("worker", pid=history.pid + 2)
    history.whole_run()
    history.answered()


def read_late_by_the_engine_of_a_killed_worker(history: RequestHistory) -> None:
    for pid in (history.pid + 1, history.pid + 2):
        history.line("component", "started", name=f"worker-{history.number}", pid=pid)
    history.killed("worker", pid=history.pid + 2)
    history.whole_run()
    history.answered()
    history.run("begin", pid=history.pid + 1)


def sent_again_after_the_death_of_a_gateway(history: RequestHistory) -> None:
    history.run("begin", pid=history.pid + 1)
    history.killed("gateway")
    history.sent("broken")
    history.whole_run(send=2)
    history.answered(send=2, gateway="gateway-other")


def sent_again_after_a_gateway_reported_that_it_closes(history: RequestHistory) -> None:
    history.line("fault", "preempt-gateway", name=f"gateway-{history.number}", pid=history.pid)
    history.sent("closing", first=history.now, status=503)
    history.whole_run(send=2)
    history.answered(send=2)


GOOD: list[Script] = [
    plain,
    cut_by_the_death_of_its_group,
    cut_by_the_death_of_its_gateway,
    cut_in_the_middle_of_the_head,
    run_again_after_a_death,
    run_again_after_the_death_of_a_follower,
    cut_by_the_death_of_its_engine,
    run_again_after_the_death_of_a_worker,
    read_late_by_the_engine_of_a_killed_worker,
    sent_again_after_the_death_of_a_gateway,
    sent_again_after_a_gateway_reported_that_it_closes,
]


def never_sent(history: RequestHistory) -> None:
    pass


def error_of_the_gateway(history: RequestHistory) -> None:
    history.run("begin")
    history.killed()
    history.sent("complete", size=10, status=502, pid=0)


def not_ready_although_time_is_left(history: RequestHistory) -> None:
    history.sent("complete", size=10, status=503, pid=0)


def broken_to_the_end(history: RequestHistory) -> None:
    history.killed("gateway")
    history.sent("broken")


def too_late(history: RequestHistory) -> None:
    history.whole_run()
    history.now += 31
    history.answered()


def cut_although_nothing_died(history: RequestHistory) -> None:
    history.whole_run()
    history.sent("cut", size=50)


def cut_long_before_its_group_died(history: RequestHistory) -> None:
    history.run("begin")
    history.sent("cut", size=50)
    history.now += 10
    history.killed()


def run_again_after_the_death_of_a_stranger(history: RequestHistory) -> None:
    history.line("component", "started", name=f"online-{history.number}", pid=history.pid + 1)
    history.line("component", "started", name=f"online-{history.number}x", pid=history.pid + 2)
    history.run("begin", pid=history.pid + 1)
    history.line("fault", "kill-follower", name=f"online-{history.number}x.1", pid=history.pid + 2)
    history.whole_run()
    history.answered()


def cut_by_the_death_of_another_worker(history: RequestHistory) -> None:
    history.line("component", "started", name=f"worker-{history.number}", pid=history.pid)
    history.line("component", "started", name=f"worker-{history.number}x", pid=history.pid + 1)
    history.run("begin")
    history.killed("worker", pid=history.pid + 1)
    history.sent("cut", size=50)


def cut_although_its_worker_was_only_stopped(history: RequestHistory) -> None:
    history.line("component", "started", name=f"worker-{history.number}", pid=history.pid)
    history.line("component", "started", name=f"worker-{history.number}", pid=history.pid + 1)
    history.run("begin")
    history.line("fault", "preempt-worker", name=f"worker-{history.number}", pid=history.pid + 1)
    history.sent("cut", size=50)


def cut_by_the_death_of_another_group(history: RequestHistory) -> None:
    history.run("begin")
    history.killed(pid=history.pid + 1)
    history.sent("cut", size=50)


def broken_although_no_gateway_died(history: RequestHistory) -> None:
    history.sent("broken")
    history.whole_run(send=2)
    history.answered(send=2)


def complete_but_short(history: RequestHistory) -> None:
    history.run("begin")
    history.killed()
    history.sent("complete", size=100)


def the_answer_of_another_request(history: RequestHistory) -> None:
    history.whole_run()
    history.answered(crc=zlib.crc32(WISH.answer(history.number + 1)))


def cut_with_wrong_bytes(history: RequestHistory) -> None:
    history.run("begin")
    history.killed()
    history.sent("cut", size=50, crc=1)


def run_on_another_group_after_the_first_byte(history: RequestHistory) -> None:
    history.run("begin")
    history.killed()
    history.whole_run(pid=history.pid + 1)
    history.sent("cut", size=50, first=history.now - 0.5)


def sent_again_after_the_first_byte(history: RequestHistory) -> None:
    cut_by_the_death_of_its_group(history)
    history.whole_run(send=2, pid=history.pid + 1)
    history.answered(send=2, pid=history.pid + 1)


def taken_from_a_group_that_lives(history: RequestHistory) -> None:
    history.whole_run(pid=history.pid + 1)
    history.whole_run()
    history.answered()


def run_twice_on_a_group_that_lives(history: RequestHistory) -> None:
    history.whole_run()
    history.whole_run()
    history.answered()


def broke_too_many_groups(history: RequestHistory) -> None:
    for pid in range(history.pid + 1, history.pid + 1 + MAX_TRIES):
        history.run("begin", pid=pid)
        history.killed(pid=pid)
    history.whole_run()
    history.answered()


def answered_by_nobody(history: RequestHistory) -> None:
    history.answered()


def answered_without_an_end(history: RequestHistory) -> None:
    history.run("begin")
    history.answered()


BAD: dict[Script, str] = {
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


scripts = st.lists(st.tuples(st.sampled_from(GOOD), st.floats(0, 5)), max_size=12)


@given(scripts)
def test_whatever_keeps_the_promises_passes(good: list[tuple[Script, float]]) -> None:
    verdict = check(history_of(good))
    assert verdict.ok, verdict.text()


@given(scripts, st.sampled_from(list(BAD)), st.floats(0, 5), st.integers(0, 12))
def test_every_broken_promise_is_found(
    good: list[tuple[Script, float]], bad: Script, began: float, place: int
) -> None:
    mixed = [*good[:place], (bad, began), *good[place:]]
    number = mixed.index((bad, began)) + 1
    violations = check(history_of(mixed)).violations
    assert (BAD[bad], f"request {number}") in {(found.kind, found.task) for found in violations}
    assert {found.task for found in violations} == {f"request {number}"}


@pytest.mark.parametrize("bad", BAD)
def test_each_broken_promise_is_found_alone(bad: Script) -> None:
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
    def refused(history: RequestHistory) -> None:
        history.killed("gateway")
        history.now += 20
        history.sent("broken", gateway="gateway-1")
        history.whole_run(send=2)
        history.answered(send=2, gateway="gateway-2")

    other: Script = lambda history: (history.whole_run(), history.answered(gateway="gateway-1"))  # noqa: E731
    history = history_of([(refused, 0.0), (other if answers else plain, 15.0)])
    assert [found.kind for found in check(history).violations] == kinds


def test_an_engine_that_outlives_its_worker_is_found() -> None:
    lines = history_of([(plain, 0.0)])
    lines.insert(-1, {"op": "orphan", "kind": "left", "name": "worker-1", "pid": 100, "t": 1.0})
    assert [found.kind for found in check(lines).violations] == ["orphan"]


@pytest.mark.parametrize(("silent_after", "kinds"), [(80, []), (40, ["left"]), (2, ["left"])])
def test_a_living_group_that_gets_no_more_requests_is_found(silent_after: int, kinds: list[str]) -> None:
    """Two groups answer 80 requests alternately, until one of the groups gets no more."""

    def on(pid: int) -> Script:
        def script(history: RequestHistory) -> None:
            history.whole_run(pid=pid)
            history.answered(pid=pid)

        return script

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
