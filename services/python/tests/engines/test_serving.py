"""A group of one rank answers HTTP requests, refuses those that it cannot take, and drains before it leaves."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest

from daybreak_server.domain import private_inputs
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.engines.serving.exchange import BUFFER_BYTES
from daybreak_server.workloads.base import Group, NoInput, WorkloadSpec
from daybreak_server.workloads.serving import Request
from testkit.pools import Pool, make_settings
from testkit.valkey import Server, start_valkey
from testkit.waiting import wait_until

SLOW: dict[str, Any] = {"chunks": 2000, "chunk_s": 0.05}
"""A stream that takes longer than any test."""


class Endless:
    """Yields parts without end, and counts them."""

    produced = 0
    closed = 0

    def load(self, group: Group) -> None:
        type(self).produced = type(self).closed = 0

    def warm_up(self) -> None:
        pass

    def serve(self, _request: Request) -> Iterator[bytes]:
        try:
            while True:
                type(self).produced += 1
                yield b"x" * 65536
        finally:
            type(self).closed += 1


class Careless:
    """Quotes private data in its error."""

    load = warm_up = lambda *_: None

    def serve(self, request: Request) -> bytes:
        raise ValueError(f"{request.headers['authorization']} {request.headers['cookie']} {request.query}")


class WithoutServe:
    """Cannot answer requests."""

    load = Endless.load
    warm_up = Endless.warm_up


ENDLESS: WorkloadSpec[NoInput] = WorkloadSpec(
    name="endless", kind="online", implementation=f"{__name__}:Endless"
)
CARELESS: WorkloadSpec[NoInput] = WorkloadSpec(
    name="careless", kind="online", implementation=f"{__name__}:Careless"
)
WITHOUT_SERVE: WorkloadSpec[NoInput] = WorkloadSpec(
    name="without", kind="online", implementation=f"{__name__}:WithoutServe"
)


def group_of(pool: Pool) -> GroupRecord:
    (group,) = pool.view().groups
    return group


def in_flight(pool: Pool) -> int:
    load = group_of(pool).load
    assert load is not None
    return load.in_flight


def connects(url: str) -> bool:
    """Whether something listens at a URL."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False


@contextlib.contextmanager
def streaming(client: httpx.Client, url: str, **wish: Any) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
    """Open a stream, and wait for its first part."""
    with client.stream("POST", url, json=wish) as response:
        lines = response.iter_lines()
        assert next(lines) == "part 1"
        yield response, lines


def test_a_group_answers_a_request_and_its_record_says_where(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    pool, _, url = serving()
    shown = client.get(f"{url}/v1/any/path%20here?a=1&b=2", headers={"x-own": "1"}).json()
    assert (shown["method"], shown["path"], shown["query"]) == ("GET", "/v1/any/path here", "a=1&b=2")
    assert shown["headers"]["x-own"] == "1"
    group = group_of(pool)
    assert (group.models, group.capacity, group.loads) == (("echo",), 64, 1)
    assert group.load is not None
    assert (group.load.in_flight, group.load.waiting) == (0, 0)


def test_status_headers_and_body_come_from_the_workload(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    _, _, url = serving()
    answer = client.post(url, json={"status": 201, "size": 100_000, "unknown": 1})
    assert (answer.status_code, answer.content) == (201, b"x" * 100_000)
    assert answer.headers["content-length"] == "100000"
    assert answer.headers["echo-count"] == "0"
    assert client.post(url, json={"status": 204}).status_code == 204
    assert client.head(url).content == b""


def test_a_stream_arrives_part_by_part_while_the_group_reports_that_it_is_busy(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    pool, _, url = serving()
    with streaming(client, url, **SLOW) as (response, lines):
        assert next(lines) == "part 2"
        assert response.headers["transfer-encoding"] == "chunked"
        wait_until(lambda: in_flight(pool) == 1, 60, "the load in the record")
        assert group_of(pool).state is GroupState.BUSY
    wait_until(lambda: in_flight(pool) == 0, 60, "the end of the cancelled request")
    wait_until(lambda: group_of(pool).state is GroupState.IDLE, 60, "an idle group")


def test_a_stream_that_ends_is_whole(serving: Callable[..., Any], client: httpx.Client) -> None:
    _, _, url = serving()
    body = client.post(url, json={"chunks": 500, "size": 1000}).content
    assert body == b"x" * 500_000


def test_a_client_that_disconnects_closes_the_generator(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    pool, _, url = serving(workload=f"{__name__}:ENDLESS")
    with client.stream("GET", url) as response:
        assert next(response.iter_raw())
    wait_until(lambda: Endless.closed == 1, 60, "the end of the generator")
    wait_until(lambda: in_flight(pool) == 0, 60, "a free slot")


def test_a_client_that_does_not_read_holds_up_its_request_and_costs_no_memory(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    """The kernel buffers a few megabytes. Without back-pressure, the workload would yield gigabytes in a second."""
    _, _, url = serving(workload=f"{__name__}:ENDLESS")
    with client.stream("GET", url) as response:
        assert next(response.iter_raw())
        threading.Event().wait(1)
        assert BUFFER_BYTES < Endless.produced * 65536 < 64 << 20


def test_a_group_at_capacity_refuses_before_anything_is_run_and_stays_well(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    pool, rank, url = serving(capacity=2)
    with streaming(client, url, **SLOW), streaming(client, url, **SLOW):
        refused = client.post(url, json={})
        assert (refused.status_code, refused.headers["daybreak-refused"]) == (503, "busy")
        assert refused.json()["code"] == "group_busy"
        assert rank.unhealthy_reason() is None
        wait_until(lambda: in_flight(pool) == 2, 60, "the load in the record")
    wait_until(lambda: in_flight(pool) == 0, 60, "free slots")
    assert client.post(url, json={}).headers["echo-count"] == "2"


def test_a_request_whose_deadline_has_passed_is_not_run(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    _, _, url = serving()
    for left in ("0", "-1"):
        answer = client.post(url, json={}, headers={"Daybreak-Deadline-S": left})
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_passed")
    answer = client.post(url, json={}, headers={"Daybreak-Deadline-S": "soon"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_deadline")
    assert client.post(url, json={}, headers={"Daybreak-Deadline-S": "30"}).headers["echo-count"] == "0"
    assert client.get(url, headers={"Daybreak-Deadline-S": "30"}).json()["has_deadline"] is True


@pytest.mark.parametrize("patient", [True, False])
def test_a_deadline_ends_a_request_that_runs(
    serving: Callable[..., Any], client: httpx.Client, patient: bool
) -> None:
    """The client does not wait for a workload that never checks `cancelled`.

    Such a workload occupies its slot until it returns.
    """
    pool, _, url = serving(capacity=1)
    wish = {"latency_s": 2.0 if patient else 60.0, "patient": patient}
    answer = client.post(url, json=wish, headers={"Daybreak-Deadline-S": "0.3"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_passed")
    wait_until(lambda: client.post(url, json={}).status_code == 200, 60, "a free slot")
    assert group_of(pool).loads == 1


def test_a_deadline_in_the_middle_of_an_answer_cuts_the_connection(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    """The client must not take a part of the answer for the whole."""
    _, _, url = serving()
    with (
        client.stream("POST", url, json=SLOW, headers={"Daybreak-Deadline-S": "0.5"}) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        response.read()


def test_errors_become_answers_and_leave_the_group_warm(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    pool, _, url = serving()
    failed = client.post(url, json={"fault": "error"})
    assert (failed.status_code, failed.json()["code"]) == (500, "workload_failed")
    assert "asked for an error" in failed.json()["detail"]
    refused = client.post(url, json={"fault": "refuse", "status": 418})
    assert (refused.status_code, refused.json()["code"]) == (418, "echo_refused")
    assert client.post(url, content=b"{").json()["code"] == "invalid_json"
    packed = client.post(url, content=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})
    assert (packed.status_code, packed.json()["code"]) == (415, "unsupported_media_type")
    plain = client.post(url, content=b"{}", headers={"Content-Encoding": "identity"})
    assert plain.status_code == 200
    nonsense = client.post(url, json={"fault": "nonsense"})
    assert (nonsense.status_code, nonsense.json()["code"]) == (500, "invalid_response")
    late = client.post(url, json={"chunks": 3, "fault": "refuse", "status": 429, "fault_at": 1})
    assert late.status_code == 429
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(url, json={"chunks": 3, "fault": "error", "fault_at": 2})
    assert client.post(url, json={}).status_code == 200
    assert group_of(pool).loads == 1


def test_a_draining_group_ends_what_it_has_and_serves_again_without_the_mark(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    pool, _, url = serving(drain_s=60.0)
    with streaming(client, url, chunks=40, chunk_s=0.05) as (_, lines):
        pool.call(pool.store.drain(pool.name, group_of(pool).id))
        refused = wait_until(lambda: _refused(client, url), 60, "a refusal")
        assert refused.headers["daybreak-refused"] == "draining"
        wait_until(lambda: group_of(pool).state is GroupState.DRAINING, 60, "the state in the record")
        assert list(lines)[-1] == "part 40"
    pool.call(pool.store.drain(pool.name, group_of(pool).id, on=False))
    wait_until(lambda: client.post(url, json={}).status_code == 200, 60, "a group that answers again")


def test_what_still_runs_at_the_end_of_the_drain_is_stopped(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    """A request whose answer has not begun may be sent to another group. A stream that has begun is cut off."""
    pool, _, url = serving(drain_s=0.5)
    answers: list[httpx.Response] = []

    def wait_for_answer() -> None:
        answers.append(httpx.post(url, json={"latency_s": 60}, timeout=30))

    waiting = threading.Thread(target=wait_for_answer)
    waiting.start()
    wait_until(lambda: in_flight(pool) == 1, 60, "the first request")
    with streaming(client, url, **SLOW) as (_, lines):
        pool.call(pool.store.drain(pool.name, group_of(pool).id))
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    waiting.join(20)
    (answer,) = answers
    assert (answer.status_code, answer.headers["daybreak-refused"]) == (503, "draining")


def _refused(client: httpx.Client, url: str) -> httpx.Response | None:
    answer = client.post(url, json={})
    return answer if answer.status_code == 503 else None


def test_a_group_that_leaves_ends_its_requests_and_refuses_new_ones(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    pool, rank, url = serving(drain_s=60.0)
    with streaming(client, url, chunks=40, chunk_s=0.05) as (_, lines):
        rank.ask_to_leave()
        assert (
            wait_until(lambda: _refused(client, url), 60, "a refusal").headers["daybreak-refused"]
            == "draining"
        )
        assert group_of(pool).state is GroupState.DRAINING
        assert list(lines)[-1] == "part 40"
    assert rank.wait_ended(20)
    assert not pool.view().groups
    assert not connects(url)


def test_a_group_that_must_be_gone_cuts_its_requests(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    pool, rank, url = serving(drain_s=60.0)
    with streaming(client, url, **SLOW) as (_, lines):
        rank.stop(timeout_s=2.5)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert rank.wait_ended(20)
    assert not pool.view().groups


def test_a_request_without_progress_breaks_the_group(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    causes: list[Cause] = []
    pool, rank, url = serving(on_broken=causes.append, lease={"stall_s": 1.0})
    answer = client.post(url, json={"fault": "hang"})
    assert (answer.status_code, answer.json()["code"]) == (500, "stalled")
    wait_until(lambda: causes, 60, "the end of the group")
    assert "no progress in a request" in causes[0].message
    wait_until(lambda: not pool.view().groups, 60, "a group that has deregistered")
    assert rank.unhealthy_reason() == causes[0].message
    wait_until(lambda: not connects(url), 60, "a closed port")


def test_a_request_that_asks_whether_it_is_cancelled_does_not_stall(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    _, _, url = serving(on_broken=pytest.fail, lease={"stall_s": 1.0})
    assert client.post(url, json={"latency_s": 2.5}).status_code == 200


def test_the_log_knows_the_credentials_of_a_request_as_private(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    _, _, url = serving(workload=f"{__name__}:CARELESS")
    secret = {"Authorization": "Bearer of-nobody", "Cookie": "name=of-nobody"}
    assert client.get(f"{url}/?key=of-nobody", headers=secret).status_code == 500
    texts = {text for known in private_inputs.known() for text in known.texts}
    assert texts >= {*secret.values(), "key=of-nobody"}


def test_empty_parts_show_progress_and_can_be_cancelled(
    serving: Callable[..., Any], client: httpx.Client
) -> None:
    """A workload can yield empty parts if it computes for a long time before its first byte."""
    pool, _, url = serving(on_broken=pytest.fail, lease={"stall_s": 1.0})
    assert client.post(url, json={"blanks": 25, "chunk_s": 0.1, "chunks": 1}).text == "part 1\n"
    endless = {"blanks": 1000, "chunk_s": 0.1, "chunks": 1}
    late = client.post(url, json=endless, headers={"Daybreak-Deadline-S": "0.3"})
    assert late.status_code == 504
    wait_until(lambda: in_flight(pool) == 0, 60, "the end of the cancelled request")


def test_a_group_answers_while_redis_is_down(
    tmp_path_factory: pytest.TempPathFactory, leader: Callable[..., Rank], client: httpx.Client
) -> None:
    folder = tmp_path_factory.mktemp("outage")
    server: Server = start_valkey(folder / "valkey")
    pool = Pool(make_settings(server, folder, workload="echo-serve"))
    try:
        leader(pool)
        wait_until(lambda: [g for g in pool.view().groups if g.state is GroupState.IDLE], 30, "a ready group")
        group = group_of(pool)
        server.kill()
        assert client.post(f"{group.endpoint}/", json={"chunks": 3}).status_code == 200
        server.start()
        wait_until(lambda: group_of(pool).id == group.id, 30, "the record of the group")
    finally:
        pool.close()
        server.stop()


def test_a_workload_without_serve_is_refused_by_name(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    causes: list[Cause] = []
    leader(pools(workload=f"{__name__}:WITHOUT_SERVE"), on_broken=causes.append)
    wait_until(lambda: causes, 60, "the end of the group")
    assert "has no method `serve`" in causes[0].message


def test_requests_of_many_clients_run_at_once(serving: Callable[..., Any], client: httpx.Client) -> None:
    """Eight streams are open at the same time, and each has sent its first part."""
    pool, _, url = serving(capacity=8)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(streaming(client, url, **SLOW)) for _ in range(8)]
        assert [next(lines) for _, lines in opened] == ["part 2"] * 8
        wait_until(lambda: in_flight(pool) == 8, 60, "the load in the record")
    wait_until(lambda: in_flight(pool) == 0, 60, "free slots")
