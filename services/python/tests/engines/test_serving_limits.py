"""How a group handles requests that are too large, too slow or cut off, and how it counts and times requests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from daybreak_server.engines.serving import http_app, worker_threads
from daybreak_server.engines.serving.http_server import HttpServer, ServerNotStartedError
from daybreak_server.local.free_ports import free_port
from daybreak_server.observability import catalogue
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.ports.metrics import Exporter
from testkit.waiting import wait_until


def connection(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def cut_off(url: str) -> socket.socket:
    """A connection that has sent a request without the rest of its body."""
    opened = connection(url)
    opened.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    return opened


def test_a_body_that_is_too_large_is_refused_and_frees_its_place(
    serving: Callable[..., Any], client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_app, "MAX_BODY_BYTES", 1000)
    _, _, url = serving(capacity=1)
    answer = client.post(url, content=b"x" * 1001)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert client.post(url, json={}).status_code == 200


def test_a_client_that_sends_its_body_too_slowly_is_refused(
    serving: Callable[..., Any], client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_app, "SLOW_CLIENT_S", 0.3)
    _, _, url = serving(capacity=1)
    with cut_off(url) as opened:
        assert opened.recv(100).startswith(b"HTTP/1.1 408 ")
    assert client.post(url, json={}).status_code == 200


def test_a_client_that_reads_nothing_is_disconnected(
    serving: Callable[..., Any], client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_app, "SLOW_CLIENT_S", 0.3)
    pool, _, url = serving(capacity=1)
    wish = b'{"chunks": 100000, "size": 100000}'
    with connection(url) as opened:
        opened.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(wish), wish))
        wait_until(lambda: client.post(url, json={}).status_code == 503, 60, "a request in progress")
        wait_until(lambda: client.post(url, json={}).status_code == 200, 60, "a free place")
    (group,) = pool.view().groups
    assert group.loads == 1


def test_an_upload_that_is_cut_off_frees_its_place(
    serving: Callable[..., Any], client: httpx2.Client
) -> None:
    _, _, url = serving(capacity=1)
    with cut_off(url):
        wait_until(lambda: client.post(url, json={}).status_code == 503, 60, "a request in progress")
    wait_until(lambda: client.post(url, json={}).status_code == 200, 60, "a free place")


def test_an_answer_whose_length_is_wrong_is_cut_off_and_frees_its_place(
    serving: Callable[..., Any], client: httpx2.Client
) -> None:
    """Nothing reads the rest of the answer, so the request must not wait for a reader.

    A wait for a reader counts as progress, so it would never be treated as a stall.
    """
    pool, _, url = serving(capacity=1)
    for length in (50_000, 10**9):
        wish = {"chunks": 100, "size": 100_000, "headers": {"content-length": str(length)}}
        with pytest.raises(httpx2.RemoteProtocolError):
            client.post(url, json=wish)
        wait_until(lambda: client.post(url, json={}).status_code == 200, 60, "a free place")
    (group,) = pool.view().groups
    assert group.loads == 1


def test_a_request_for_which_no_thread_can_start_frees_its_place(
    serving: Callable[..., Any], client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, url = serving(capacity=1)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as changed:
        changed.setattr(worker_threads.threading.Thread, "start", refuse)
        assert client.post(url, json={}).status_code == 500
    assert client.post(url, json={}).status_code == 200


def test_a_request_for_the_group_that_had_this_address_before_is_refused(
    serving: Callable[..., Any], client: httpx2.Client
) -> None:
    pool, _, url = serving()
    refused = client.post(url, json={}, headers={"Daybreak-Group": "g_before"})
    assert (refused.status_code, refused.headers["daybreak-refused"]) == (503, "other")
    (group,) = pool.view().groups
    answer = client.post(url, json={}, headers={"Daybreak-Group": group.id})
    assert (answer.status_code, answer.headers["echo-count"]) == (200, "0")


def test_a_leader_takes_the_first_free_port_of_its_range(serving: Callable[..., Any]) -> None:
    """If no port is free, the error says to widen ``ports``."""
    taken, free = socket.create_server(("127.0.0.1", 0)), free_port()
    with taken:
        other = taken.getsockname()[1]
        server = HttpServer(None, host="127.0.0.1", ports=[other, free])
        server.close()
        assert server.endpoint == f"http://127.0.0.1:{free}"
        with pytest.raises(ServerNotStartedError, match="widen `ports`"):
            HttpServer(None, host="127.0.0.1", ports=[other])
    _, _, url = serving(ports=f"{free}-{free}")
    assert url == f"http://127.0.0.1:{free}"


def test_every_end_of_a_request_is_counted_and_answers_are_timed(
    serving: Callable[..., Any], client: httpx2.Client
) -> None:
    meter = PrometheusMeter(catalogue.exported_by(Exporter.RANK))

    def value(name: str, **labels: str) -> float | None:
        return meter.registry.get_sample_value(f"daybreak_rank_{name}", {"pool": "echo", **labels})

    _, _, url = serving(meter=meter, capacity=1)
    assert value("requests_total", outcome="failed") == 0
    client.post(url, json={"chunks": 3})
    client.post(url, json={"fault": "refuse", "status": 404})
    client.post(url, json={"fault": "error"})
    client.post(url, json={}, headers={"Daybreak-Deadline-S": "0"})
    client.post(url, json={}, headers={"Daybreak-Deadline-S": "x"})
    with client.stream("POST", url, json={"chunks": 2000, "chunk_s": 0.05}) as response:
        parts = response.iter_raw()  # the response closes when its iterator is dropped
        assert next(parts)
        assert client.post(url, json={}).status_code == 503
        wait_until(lambda: value("in_flight_requests") == 1, 60, "the request that the group holds")
    wait_until(lambda: value("in_flight_requests") == 0, 60, "a group without requests")
    wait_until(lambda: value("requests_total", outcome="gone") == 1, 60, "the end of the last request")
    counted = {
        o: value("requests_total", outcome=o) for o in ("answered", "failed", "deadline", "invalid", "busy")
    }
    assert counted == {"answered": 2, "failed": 1, "deadline": 1, "invalid": 1, "busy": 1}
    assert value("request_seconds_count") == 2
    assert value("first_byte_seconds_count") == 3


def test_tokens_that_a_workload_reports_are_counted(
    serving: Callable[..., Any], client: httpx2.Client
) -> None:
    meter = PrometheusMeter(catalogue.exported_by(Exporter.RANK))

    def tokens() -> dict[str, float | None]:
        name = "daybreak_rank_tokens_total"
        return {
            kind: meter.registry.get_sample_value(name, {"pool": "echo", "kind": kind})
            for kind in ("input", "output")
        }

    _, _, url = serving(meter=meter)
    assert tokens() == {"input": 0, "output": 0}
    assert client.post(url, json={"chunks": 3, "tokens": 7}).status_code == 200
    assert tokens() == {"input": 7, "output": 21}
