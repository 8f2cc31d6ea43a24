"""Requests pass through a real gateway to real servers."""

from __future__ import annotations

import hashlib
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from routing_support import SERVE, metrics, ready, rss_bytes, still
from typer.testing import CliRunner

from daybreak.wire import ErrorCode
from daybreak_server.cli.main import app
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.observability.router_metrics import OUTCOMES, RETRY_REASONS
from testkit.waiting import wait_until


def test_a_request_reaches_a_group_and_its_answer_the_client(start_gateway, groups):
    api = start_gateway()
    groups.register(*groups.start(1))
    response = api.client.post(f"{SERVE}/a/b%2Fc?x=1&y=%20", content=b"hello", headers={"X-Own": "1"})
    assert response.status_code == 200, response.text
    seen = response.json()
    assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/a/b%2Fc", "x=1&y=%20")
    assert seen["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert seen["headers"]["x-own"] == "1"
    assert 500 < float(seen["headers"]["daybreak-deadline-s"]) <= 600
    assert response.headers["daybreak-group"] == groups.backends[0].id
    assert response.headers["x-request-id"] == seen["headers"]["x-request-id"]
    assert len(response.headers.get_list("date")) == 1


def test_any_method_and_status_passes_unchanged(start_gateway, groups):
    api = start_gateway()
    groups.register(*groups.start(1))
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS"):
        response = api.client.request(method, f"{SERVE}/x?status=418")
        assert (response.status_code, response.json()["method"]) == (418, method)
    head = api.client.head(f"{SERVE}/x")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    assert api.client.get(f"{SERVE}/x").status_code == 200


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PURGE"])
def test_methods_that_are_not_for_groups_are_refused(start_gateway, method):
    api = start_gateway()
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2]))) as client:
        client.sendall(f"{method} {SERVE}/x HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        response = client.recv(1000).lower()
    assert response.startswith(b"http/1.1 405 ")
    assert b"allow: get, head, post, put, patch, delete, options" in response


def test_an_answer_streams_as_the_group_produces_it(start_gateway, groups):
    api = start_gateway()
    (backend,) = groups.start(1)
    groups.register(backend)
    with httpx2.stream("POST", f"{api.url}{SERVE}/?chunks=3&size=4&pause=0.3", timeout=60) as response:
        parts = response.iter_raw()
        assert next(parts) == b"xxxx"
        assert backend.lines("end") == []  # the first part arrives before the answer ends
        assert b"".join(parts) == b"xxxxxxxx"
    assert response.headers["x-made-by"] == "backend"


def test_a_body_larger_than_the_buffer_is_passed_on_as_it_arrives(start_gateway, groups):
    api = start_gateway(buffer_bytes=1000, max_body_bytes=5_000_000)
    groups.register(*groups.start(1))
    body = bytes(range(256)) * 10_000
    for content in (body, iter([body[:10], body[10:]])):  # with a length, and in chunks
        seen = api.client.post(f"{SERVE}/", content=content).json()
        assert (seen["size"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    for content in (body * 2, iter([body, body])):
        assert api.client.post(f"{SERVE}/", content=content).json()["code"] == "too_large"


def oldest_wait_s(api):
    name = 'daybreak_router_oldest_wait_seconds{pool="answers"}'
    return float(next(line for line in metrics(api).splitlines() if line.startswith(name)).rpartition(" ")[2])


def test_every_known_outcome_and_reason_begins_with_0(start_gateway):
    """Prometheus sees no increase in the first value of a series.

    If a series did not begin with 0, an alert would miss the first failure.
    """
    shown = metrics(start_gateway())
    for outcome in (*OUTCOMES, *(code.value for code in (ErrorCode.QUEUE_FULL, ErrorCode.INTERNAL))):
        assert f'daybreak_router_requests_total{{outcome="{outcome}",pool="answers"}} 0.0' in shown
    for reason in RETRY_REASONS:
        assert f'daybreak_router_retries_total{{pool="answers",reason="{reason}"}} 0.0' in shown


def test_requests_wait_at_zero_until_a_group_is_ready(start_gateway, groups):
    api = start_gateway()
    router = api.context.serving_pools.get("answers").router
    with ThreadPoolExecutor(8) as clients:
        waiting = [clients.submit(httpx2.get, f"{api.url}{SERVE}/", timeout=60) for _ in range(8)]
        wait_until(lambda: router.waiting == 8, 60, "8 requests to wait")
        assert 'daybreak_router_waiting_requests{pool="answers"} 8.0' in metrics(api)
        first, second = oldest_wait_s(api), oldest_wait_s(api)
        assert 0 < first < second
        groups.register(*groups.start(1, capacity=2))
        answers = [response.result() for response in waiting]
    assert [response.status_code for response in answers] == [200] * 8
    assert router.demand == 0
    assert 'daybreak_router_wait_seconds_count{pool="answers"} 8.0' in metrics(api)
    assert oldest_wait_s(api) == 0


def test_a_request_whose_deadline_ends_at_zero_gets_the_phase(start_gateway, groups):
    api = start_gateway()
    ready(api, 0)
    wait_until(lambda: api.context.pool_views.latest("answers"), 60, "the first view")
    response = api.client.get(f"{SERVE}/", headers={"Daybreak-Deadline-S": "0.2"})
    assert response.status_code == 503
    problem = response.json()
    assert problem["code"] == "not_ready"
    assert problem["wake"]["phase"] == "detect"
    assert int(response.headers["retry-after"]) >= 1


def test_a_deadline_ends_the_work_of_the_group(start_gateway, groups):
    api = start_gateway()
    (backend,) = groups.start(1)
    groups.register(backend)
    ready(api, 1)
    response = api.client.get(f"{SERVE}/?latency=60", headers={"Daybreak-Deadline-S": "1"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_passed")
    wait_until(lambda: backend.lines("gone"), 60, "the group to see that nobody waits")
    for value, code in (("0", "deadline_passed"), ("-1", "deadline_passed"), ("soon", "bad_header")):
        response = api.client.get(f"{SERVE}/", headers={"Daybreak-Deadline-S": value})
        assert response.json()["code"] == code


@pytest.mark.parametrize("query", ["latency=60", "chunks=1000&pause=0.2"])
def test_a_client_that_goes_away_ends_the_work_of_the_group(start_gateway, groups, query):
    api = start_gateway()
    (backend,) = groups.start(1)
    groups.register(backend)
    ready(api, 1)
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2]))) as client:
        client.sendall(f"GET {SERVE}/?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: backend.lines("begin"), 60, "the request to reach the group")
    wait_until(lambda: backend.lines("gone"), 60, "the group to see that the client has gone")
    router = api.context.serving_pools.get("answers").router
    wait_until(lambda: router.demand == 0, 60, "the slot to be free")


def test_a_client_that_goes_away_while_it_still_sends_ends_the_work_of_a_group_that_answers(
    start_gateway, groups
):
    api = start_gateway(buffer_bytes=1000)
    (backend,) = groups.start(1)
    groups.register(backend)
    ready(api, 1)
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2]))) as client:
        head = f"POST {SERVE}/?early=1&chunks=1000&pause=0.2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000"
        client.sendall(f"{head}\r\n\r\n".encode() + b"x" * 2000)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    wait_until(lambda: backend.lines("gone"), 60, "the group to see that the client has gone")


def test_bodies_that_still_arrive_count_as_kept_in_memory(start_gateway, groups):
    api = start_gateway(max_buffered_bytes=10, buffer_bytes=10)
    groups.register(*groups.start(1))
    ready(api, 1)

    def code() -> str | None:
        return api.client.post(f"{SERVE}/", content=b"x" * 5).json().get("code")

    assert code() is None
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2]))) as client:
        client.sendall(
            f"POST {SERVE}/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n12345678".encode()
        )
        in_memory = api.context.in_memory_bodies
        wait_until(lambda: in_memory.count == 8, 60, "the bytes of the slow body to be counted")
        assert code() == "queue_full"
    wait_until(lambda: in_memory.count == 0, 60, "the bytes of the slow body to be gone")
    assert code() is None


def test_a_client_that_goes_away_leaves_the_line(start_gateway, groups):
    api = start_gateway()
    router = api.context.serving_pools.get("answers").router
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2]))) as client:
        client.sendall(f"GET {SERVE}/ HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: router.waiting == 1, 60, "the request to wait")
    wait_until(lambda: router.waiting == 0, 60, "the request to leave")


def test_a_slow_client_slows_down_its_group(start_gateway, groups):
    api = start_gateway()
    (backend,) = groups.start(1)
    groups.register(backend)
    ready(api, 1)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(api.url.rpartition(":")[2])))
        client.sendall(f"GET {SERVE}/?chunks=1000&size=100000 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(100)
        memory = rss_bytes()
        written = still(lambda: len(backend.lines("part"))) * 100_000
        # The answer has 100 MB, but the group stops writing when the kernel's buffers are full.
        assert written < 50_000_000
        assert rss_bytes() - memory < 10_000_000
        assert api.client.get(f"{SERVE}/").status_code == 200
    wait_until(lambda: backend.lines("gone"), 60, "the group to see that the client has gone")


def test_a_refusal_names_the_limit_that_was_reached(start_gateway, groups):
    api = start_gateway(max_waiting=2, max_waiting_per_tenant=1, max_buffered_bytes=10, buffer_bytes=10)
    router = api.context.serving_pools.get("answers").router
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(httpx2.get, f"{api.url}{SERVE}/", timeout=60)
        wait_until(lambda: router.waiting == 1, 60, "the first request to wait")
        for limit, options in {"waiting_per_tenant": {}, "buffered_bytes": {"content": b"x" * 11}}.items():
            response = api.client.post(f"{SERVE}/", **options)
            assert (response.status_code, response.json()["code"]) == (503, "queue_full")
            assert response.json()["limit"] == limit
            assert response.headers["retry-after"]
        groups.register(*groups.start(1))
        assert first.result().status_code == 200


def test_sessions_stay_with_their_group(start_gateway, groups):
    """A hash assigns each session to one of two groups. It is nearly impossible that all 30 get the same group."""
    api = start_gateway(pool={"routing": "session"})
    groups.register(*groups.start(2))
    ready(api, 2)
    seen = {
        name: {
            api.client.get(f"{SERVE}/", headers={"Daybreak-Session": name}).json()["pid"] for _ in range(4)
        }
        for name in map(str, range(30))
    }
    assert all(len(pids) == 1 for pids in seen.values())
    assert len(set.union(*seen.values())) == 2


def test_the_policy_can_be_changed_while_requests_pass(start_gateway, groups, valkey):
    api = start_gateway(pool={"routing": "session"})
    groups.register(*groups.start(2))
    ready(api, 2)
    router = api.context.serving_pools.get("answers").router

    def daybreakd(*arguments: str) -> str:
        environment = {"DAYBREAK_REDIS__URL": valkey.url, "DAYBREAK_POOLS__ANSWERS__WORKLOAD": "echo-serve"}
        program = CliRunner().invoke(app, ["routing", "answers", *arguments], env=environment)
        return program.stdout

    def processes() -> int:
        headers = {"Daybreak-Session": "a"}
        return len({api.client.get(f"{SERVE}/", headers=headers).json()["pid"] for _ in range(4)})

    assert processes() == 1
    assert daybreakd("round_robin") == "answers: round_robin, set with `daybreakd routing`\n"
    wait_until(lambda: router.policy is RoutingPolicy.ROUND_ROBIN, 60, "the gateway to use the new policy")
    assert processes() == 2
    assert daybreakd("default") == daybreakd() == "answers: least_loaded, from the settings\n"
    wait_until(lambda: router.policy is RoutingPolicy.SESSION, 60, "the gateway to use its own policy again")


def test_requests_are_demand_from_their_arrival_to_the_end_of_their_answers(start_gateway, groups):
    api = start_gateway(pool={"target_load": 2})

    def shown() -> tuple[int, int]:
        view = api.context.pool_views.latest("answers")
        return (view.demand, view.wanted) if view is not None else (0, 0)

    with ThreadPoolExecutor(3) as clients:
        url = f"{api.url}{SERVE}/?latency=1.5"
        sent = [clients.submit(httpx2.get, url, timeout=60) for _ in range(3)]
        wait_until(lambda: shown() == (3, 2), 60, "the demand of three requests that wait")
        groups.register(*groups.start(1))
        ready(api, 1)
        assert shown() == (3, 2)
        assert [response.result().status_code for response in sent] == [200] * 3
    wait_until(lambda: shown() == (0, 0), 60, "the demand to be withdrawn")


def test_pools_of_other_kinds_answer_no_requests(start_gateway):
    api = start_gateway()
    for pool, status, code in (("echo", 409, "conflict"), ("none", 404, "no_such_pool")):
        response = api.client.get(f"/v1/pools/{pool}/serve/x")
        assert (response.status_code, response.json()["code"]) == (status, code)
    assert api.client.get("/v1/pools/answers/server/x").json()["code"] == "not_found"
    assert api.client.get("/v1/pools/answers").status_code == 200


def test_the_route_without_its_fast_path_answers_in_the_same_way(start_gateway, groups):
    api = start_gateway()
    groups.register(*groups.start(1))
    app = api.server.config.app
    fast, app.serving = app.serving, None
    assert fast is not None
    response = api.client.put(f"{SERVE}/a?b=c", content=b"d")
    assert response.json()["method"] == "PUT"
    with httpx2.stream("POST", f"{api.url}{SERVE}/?chunks=2&size=3", timeout=60) as streamed:
        assert streamed.read() == b"xxxxxx"
