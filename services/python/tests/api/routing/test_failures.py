"""Groups die, hang, refuse requests and are replaced, and gateways and Redis stop.

A request fails only if too many groups or connections break while they have it, if a group breaks after the answer has
begun, or if the gateway shuts down.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from routing_support import SERVE, metrics, ready

from testkit.waiting import wait_until


def test_a_group_that_dies_before_it_answers_is_replaced_by_another_one(start_gateway, groups):
    api = start_gateway()
    dying, other = groups.start(2)
    groups.register(dying)
    ready(api, 1)
    responses: list[httpx2.Response] = []
    client = threading.Thread(
        target=lambda: responses.append(httpx2.post(f"{api.url}{SERVE}/?latency=60", timeout=60))
    )
    client.start()
    wait_until(lambda: dying.lines("begin"), 60, "the request to reach the first group")
    groups.register(other)
    ready(api, 2)
    request_id = dying.lines("begin")
    dying.kill()
    wait_until(lambda: other.lines("begin"), 60, "the request to reach the other group")
    assert other.lines("begin") == request_id
    other.kill()
    groups.register(*groups.start(1))
    wait_until(lambda: groups.backends[-1].lines("begin"), 60, "the request to reach the third group")
    groups.backends[-1].kill()  # after three broken groups, the gateway gives up
    client.join(60)
    assert responses[0].status_code == 502
    assert responses[0].json()["code"] == "group_failed"


def test_a_request_whose_connection_breaks_goes_to_the_same_group_if_there_is_no_other(
    start_gateway, groups, cuttable
):
    api = start_gateway()
    (backend,) = groups.start(1)
    proxy = cuttable(backend)
    groups.register(backend)
    ready(api, 1)
    with ThreadPoolExecutor(1) as clients:
        deadline = {"Daybreak-Deadline-S": "20"}
        response = clients.submit(httpx2.get, f"{api.url}{SERVE}/?latency=1", headers=deadline, timeout=60)
        wait_until(lambda: backend.lines("begin"), 60, "the request to reach the group")
        proxy.cut()
        assert response.result().status_code == 200, response.result().text
    assert len(backend.lines("begin")) == 2


def test_a_request_that_breaks_each_connection_is_given_up_long_before_its_deadline(
    start_gateway, groups, cuttable
):
    api = start_gateway(max_tries=2)
    (backend,) = groups.start(1)
    proxy = cuttable(backend)
    groups.register(backend)
    ready(api, 1)
    proxy.lose_replies(2, match=b"poison")
    response = httpx2.get(f"{api.url}{SERVE}/poison", timeout=60)
    assert (response.status_code, response.json()["code"]) == (502, "group_failed")
    assert len(backend.lines("begin")) == 2
    assert api.client.get(f"{SERVE}/").status_code == 200


def test_after_the_first_byte_a_request_is_not_sent_again(start_gateway, groups):
    api = start_gateway()
    groups.register(*groups.start(2))
    ready(api, 2)
    received = []

    def read() -> None:
        with httpx2.stream(
            "POST", f"{api.url}{SERVE}/?chunks=9&pause=0.2&crash=within", timeout=60
        ) as response:
            received.extend(response.iter_raw())

    with pytest.raises(httpx2.RemoteProtocolError):
        read()
    assert sum(len(backend.lines("begin")) for backend in groups.backends) == 1
    assert 'daybreak_router_requests_total{outcome="cut_off",pool="answers"} 1.0' in metrics(api)


def test_a_refused_connection_takes_a_group_out_and_no_request_fails(start_gateway, groups):
    api = start_gateway(policy="round_robin")
    dead, alive = groups.start(2)
    groups.register(dead, alive)
    ready(api, 2)
    assert {api.client.get(f"{SERVE}/").json()["pid"] for _ in range(2)} == {
        dead.process.pid,
        alive.process.pid,
    }
    dead.kill()  # its lease has not ended
    for _ in range(5):
        assert api.client.get(f"{SERVE}/").json()["pid"] == alive.process.pid


def test_requests_that_a_group_refuses_go_to_another_one(start_gateway, groups):
    api = start_gateway(policy="round_robin")
    groups.register(*groups.start(2))
    ready(api, 2)
    response = api.client.post(f"{SERVE}/?refuse_first=1")
    assert response.status_code == 200, response.text  # each backend refuses its first request
    assert sum(len(backend.lines("refused")) for backend in groups.backends) == 2
    shown = metrics(api)
    assert 'daybreak_router_retries_total{pool="answers",reason="busy"} 2.0' in shown
    assert 'daybreak_router_requests_total{outcome="answered",pool="answers"} 1.0' in shown
    assert 'daybreak_router_ready_groups{pool="answers"} 2.0' in shown
    assert 'daybreak_router_first_byte_seconds_count{pool="answers"} 1.0' in shown


def test_a_request_that_breaks_the_groups_that_run_it_is_given_up(start_gateway, groups):
    api = start_gateway(max_tries=2)
    groups.register(*groups.start(3))
    ready(api, 3)
    response = api.client.post(f"{SERVE}/?refuse=broken", headers={"Daybreak-Deadline-S": "20"})
    assert (response.status_code, response.json()["code"]) == (502, "group_failed")
    assert sum(len(backend.lines("refused")) for backend in groups.backends) == 2


def test_a_body_that_can_be_sent_only_once_is_not_lost_to_a_group_that_refuses(start_gateway, groups):
    api = start_gateway(buffer_bytes=1000)
    groups.register(*groups.start(1))
    ready(api, 1)
    body = bytes(range(256)) * 10_000
    response = api.client.post(f"{SERVE}/?refuse_first=2", content=body)
    assert response.status_code == 200, response.text
    assert response.json()["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_group_that_hangs_keeps_its_requests_until_its_lease_ends(start_gateway, groups):
    api = start_gateway()
    stuck, other = groups.start(2)
    groups.register(stuck)
    ready(api, 1)
    with ThreadPoolExecutor(1) as clients:
        os.kill(stuck.process.pid, signal.SIGSTOP)
        response = clients.submit(httpx2.get, f"{api.url}{SERVE}/", timeout=60)
        wait_until(lambda: api.context.serving_pools.get("answers").router.in_flight, 60, "the request")
        groups.register(other)
        ready(api, 2)
        assert not response.done()  # the gateway keeps waiting, because the group may be slow and not dead
        groups.deregister(stuck)
        assert response.result().json()["pid"] == other.process.pid


def test_a_rolling_replacement_of_all_groups_fails_no_request(start_gateway, groups):
    api = start_gateway()
    old = groups.start(2, capacity=4)
    groups.register(*old)
    ready(api, 2)
    stopping = threading.Event()

    def client() -> list[int]:
        statuses = []
        with httpx2.Client(base_url=api.url, timeout=60, verify=False) as session:
            while not stopping.is_set():
                statuses.append(session.post(f"{SERVE}/?latency=0.02", content=b"x" * 5000).status_code)
        return statuses

    with ThreadPoolExecutor(6) as clients:
        running = [clients.submit(client) for _ in range(6)]
        try:
            for backend in old:
                (new,) = groups.start(1, capacity=4)
                groups.register(new)
                groups.register(backend, drain=True)
                wait_until(lambda b=backend: len(b.lines("begin")) == len(b.lines("end")), 60, "the drain")
                # The group may hold a request that came just before the gateway saw the drain mark.
                backend.kill()
                groups.deregister(backend)
            wait_until(lambda: len(groups.backends[-1].lines("end")) > 20, 60, "the last group to work")
        finally:
            stopping.set()
        statuses = [status for future in running for status in future.result()]
    assert set(statuses) == {200}
    assert len(statuses) > 50


def test_requests_pass_while_redis_restarts(start_gateway, groups, valkey):
    api = start_gateway()
    groups.register(*groups.start(1))
    ready(api, 1)
    valkey.kill()
    try:
        assert [api.client.get(f"{SERVE}/").status_code for _ in range(3)] == [200] * 3
    finally:
        valkey.start()
    assert api.client.get(f"{SERVE}/").status_code == 200


def test_two_gateways_share_the_capacity_of_a_group(start_gateway, groups):
    gateways = [start_gateway(), start_gateway()]
    groups.register(*groups.start(1))
    for api in gateways:
        ready(api, 1)
    # The group refuses the first three requests as if it were full. Each gateway sends its refused requests again.
    with ThreadPoolExecutor(4) as clients:
        url = f"{SERVE}/?refuse_first=3"
        sent = [clients.submit(httpx2.get, gateways[n % 2].url + url, timeout=60) for n in range(4)]
        assert [response.result().status_code for response in sent] == [200] * 4
    assert len(groups.backends[0].lines("refused")) == 3


def test_a_gateway_that_shuts_down_sends_waiting_clients_to_another_one(start_gateway):
    api = start_gateway()
    router = api.context.serving_pools.get("answers").router
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(httpx2.get, f"{api.url}{SERVE}/", timeout=60)
        wait_until(lambda: router.waiting == 1, 60, "the request to wait")
        api.server.should_exit = True
        response = waiting.result()
    assert (response.status_code, response.json()["code"]) == (503, "shutting_down")
