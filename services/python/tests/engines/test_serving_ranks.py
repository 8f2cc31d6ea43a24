"""A group of two ranks answers requests in lockstep: collectives work, and the ranks stop at the same part."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from daybreak_server.domain.pools import GroupRecord, GroupState
from testkit.pools import Pool
from testkit.ranks import EXIT_BROKEN, Ranks
from testkit.waiting import wait_until


@pytest.fixture
def group(pools: Callable[..., Pool], tmp_path: Path) -> Iterator[Callable[..., tuple[Pool, Ranks, str]]]:
    """Starts a group of two ranks, and returns its pool, its ranks and its URL."""
    started: list[Ranks] = []

    def start(**options: Any) -> tuple[Pool, Ranks, str]:
        pool = pools(**{"workload": "echo-serve", "ranks": 2, "capacity": 2, "drain_s": 30.0, **options})
        ranks = Ranks(pool.settings, pool.name, tmp_path / f"ranks-{len(started)}")
        started.append(ranks)
        wait_until(lambda: [g for g in pool.view().groups if g.state is GroupState.IDLE], 60, "a ready group")
        endpoint = group_of(pool).endpoint
        assert endpoint is not None
        return pool, ranks, endpoint

    yield start
    for ranks in started:
        ranks.stop()


def group_of(pool: Pool) -> GroupRecord:
    (found,) = pool.view().groups
    return found


def post(url: str, **wish: Any) -> httpx.Response:
    return httpx.post(url, json=wish, timeout=60)


def test_ranks_answer_together_by_collectives(group: Callable[..., Any]) -> None:
    pool, _, url = group()
    assert post(url, all_ranks=True).text == "3\n"
    assert post(url, all_ranks=True, chunks=4).text == "3\n" * 4
    record = group_of(pool)
    assert (record.ranks, record.capacity, len(record.pids)) == (2, 2, 2)


def test_ranks_whose_answer_is_dropped_may_yield_empty_parts(group: Callable[..., Any]) -> None:
    pool, _, url = group()
    for blanks in (0, 2):
        wish = {"all_ranks": True, "leader_only": True, "chunks": 3, "blanks": blanks}
        assert post(url, **wish).text == "3\n" * 3
    assert group_of(pool).loads == 1


def test_a_client_that_disconnects_stops_all_ranks_at_the_same_part(group: Callable[..., Any]) -> None:
    """The group stays warm, and the collectives of its next request match."""
    pool, ranks, url = group()
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", url, json={"all_ranks": True, "chunks": 5000, "chunk_s": 0.02}) as response,
    ):
        assert next(response.iter_lines()) == "3"
    assert post(url, all_ranks=True, chunks=2).text == "3\n3\n"
    assert group_of(pool).loads == 1
    assert ranks.alive()


def test_requests_wait_for_their_turn_up_to_the_capacity(group: Callable[..., Any]) -> None:
    pool, _, url = group()
    answers: list[httpx.Response] = []
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", url, json={"chunks": 5000, "chunk_s": 0.02}) as response,
    ):
        lines = response.iter_lines()  # kept, because its garbage collection would close the response
        assert next(lines)
        second = threading.Thread(target=lambda: answers.append(post(url)))
        second.start()

        def waits() -> bool:
            load = group_of(pool).load
            return load is not None and (load.in_flight, load.waiting) == (1, 1)

        wait_until(waits, 60, "a waiting request")
        assert post(url).headers["daybreak-refused"] == "busy"
    second.join(30)
    assert [answer.status_code for answer in answers] == [200]


def test_a_request_whose_deadline_passes_while_it_waits_is_not_run(group: Callable[..., Any]) -> None:
    _, _, url = group()
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", url, json={"chunks": 5000, "chunk_s": 0.02}) as response,
    ):
        lines = response.iter_lines()  # kept, because its garbage collection would close the response
        assert next(lines)
        late = httpx.post(url, json={}, headers={"Daybreak-Deadline-S": "0.3"}, timeout=60)
        assert (late.status_code, late.json()["code"]) == (504, "deadline_passed")
    assert post(url).headers["echo-count"] == "1"


def test_an_error_on_all_ranks_leaves_the_group_warm(group: Callable[..., Any]) -> None:
    pool, _, url = group()
    failed = post(url, fault="error")
    assert (failed.status_code, failed.json()["code"]) == (500, "workload_failed")
    assert post(url, fault="refuse", status=409).status_code == 409
    assert post(url, all_ranks=True).text == "3\n"
    assert group_of(pool).loads == 1


def test_an_error_on_one_rank_breaks_the_group(group: Callable[..., Any]) -> None:
    """The other rank may have begun a collective that can never end."""
    _, ranks, url = group()
    failed = post(url, fault="error", fault_rank=1)
    assert failed.status_code == 500
    assert ranks.all_gone() == [EXIT_BROKEN, EXIT_BROKEN]


def test_a_rank_that_dies_in_the_middle_ends_the_answer_and_the_group(group: Callable[..., Any]) -> None:
    pool, ranks, url = group()
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", url, json={"all_ranks": True, "chunks": 5000, "chunk_s": 0.02}) as response,
    ):
        lines = response.iter_lines()
        assert next(lines) == "3"
        ranks.kill(1)
        with pytest.raises(httpx.TransportError):
            list(lines)
    assert ranks.all_gone()[0] == EXIT_BROKEN
    wait_until(lambda: not pool.view().groups, 30, "the group to deregister")


def test_a_follower_that_must_leave_takes_its_group_along_after_the_answer(group: Callable[..., Any]) -> None:
    pool, ranks, url = group()
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", url, json={"all_ranks": True, "chunks": 50, "chunk_s": 0.02}) as response,
    ):
        lines = response.iter_lines()
        assert next(lines) == "3"
        ranks.ask_to_leave(1)
        assert list(lines) == ["3"] * 49
    wait_until(lambda: not pool.view().groups, 30, "the group to leave")


@pytest.mark.parametrize("all_ranks", [False, True])
def test_if_a_rank_dies_before_the_answer_another_group_gets_the_request(
    group: Callable[..., Any], all_ranks: bool
) -> None:
    """With ``all_ranks``, the leader's collective may fail too. This failure is not an error of the workload."""
    pool, ranks, url = group()
    answers: list[httpx.Response] = []
    client = threading.Thread(target=lambda: answers.append(post(url, latency_s=3.0, all_ranks=all_ranks)))
    client.start()

    def runs() -> bool:
        load = group_of(pool).load
        return load is not None and load.in_flight == 1

    wait_until(runs, 60, "the request to run")
    ranks.kill(1)
    client.join(60)
    assert answers[0].status_code == 503
    assert answers[0].headers["daybreak-refused"] == "broken"
    assert ranks.all_gone()[0] == EXIT_BROKEN
