"""A gateway traces requests to serving pools, and a collector receives the traces. Real HTTP servers act as groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.settings.tree import Settings
from testkit.http_backend import Backend
from testkit.otlp_collector import Collector, ReceivedSpan
from testkit.valkey import Server
from testkit.waiting import wait_until

ROUTE = "POST /v1/pools/{name}/serve/{path}"
TRACE, PARENT = "a" * 32, "b" * 16
CALLER = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def start_gateway(
    valkey: Server,
    tmp_path: Path,
    collector: Collector,
    gateway: Callable[[Settings], httpx2.Client],
) -> Callable[..., httpx2.Client]:
    """Starts a gateway with the serving pool ``answers``. Keyword arguments change settings of ``tracing``."""

    def start(**tracing: Any) -> httpx2.Client:
        tree = {
            "data_dir": str(tmp_path / "data"),
            "redis": {"url": valkey.url},
            "pools": {"answers": {"workload": "echo-serve"}},
            "tracing": {
                "enabled": True,
                "endpoint": collector.url,
                "sample_ratio": 1.0,
                "max_per_s": 1e6,
                **tracing,
            },
        }
        return gateway(Settings.model_validate(tree))

    return start


@pytest.fixture
def start_group(valkey: Server, tmp_path: Path) -> Iterator[Callable[[], Backend]]:
    """Starts an HTTP server and registers it as a group."""
    queue = RedisQueue(valkey.url, pool="answers", lease_s=30.0)
    started: list[Backend] = []

    def start() -> Backend:
        started.append(Backend(tmp_path))
        queue.register(started[-1].wait_ready().record(), ttl_s=60)
        return started[-1]

    yield start
    for backend in started:
        backend.kill()
    queue.close()


def post(client: httpx2.Client, query: str = "", **headers: str) -> httpx2.Response:
    return client.post(
        f"/v1/pools/answers/serve/v1/things?{query}", content=b"the-secret-prompt", headers=headers
    )


def requests_in(client: httpx2.Client) -> int:
    found: int = client.get("/v1/pools/answers").json()["requests"]
    return found


def one_trace(collector: Collector) -> tuple[ReceivedSpan, list[ReceivedSpan]]:
    """The span of the request, and its child spans in the order in which they began."""
    [request] = collector.wait(ROUTE)
    children = sorted(
        (span for span in collector.spans if span is not request), key=lambda span: span.start_ns
    )
    assert {span.trace for span in children} == {request.trace}
    assert {span.parent for span in children} == {request.id}
    for span in children:
        assert request.start_ns <= span.start_ns <= span.end_ns <= request.end_ns
    return request, children


def test_a_request_that_waits_and_is_refused_has_one_trace_from_its_caller_to_its_group(
    start_gateway: Callable[..., httpx2.Client], start_group: Callable[[], Backend], collector: Collector
) -> None:
    client = start_gateway()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(post, client, "refuse_first=1", traceparent=CALLER, tracestate="vendor=1")
        wait_until(lambda: requests_in(client) == 1, 30, "the demand of the request")
        group = start_group()
        response = waiting.result()
    request, children = one_trace(collector)
    assert (request.trace, request.parent, request.kind) == (TRACE, PARENT, "SERVER")
    assert response.headers["traceparent"] == f"00-{TRACE}-{request.id}-01"
    assert request.attributes["daybreak.outcome"] == "answered"
    assert request.attributes["http.response.status_code"] == 200
    assert [name for name, _, _ in request.events] == ["first_byte"]
    tries = [span for span in children if span.name == "POST"]
    assert children[0].name == "wait answers"
    assert [span.attributes["daybreak.group"] for span in tries] == [group.id, group.id]
    assert [span.attributes.get("error.type") for span in tries] == ["busy", None]
    seen = response.json()["headers"]
    assert seen["traceparent"] == f"00-{TRACE}-{tries[-1].id}-01"
    assert seen["tracestate"] == "vendor=1"
    assert "the-secret-prompt" not in str(collector.spans)
    assert "refuse_first" not in str(collector.spans)


def test_a_request_whose_group_dies_has_a_try_on_another_one(
    start_gateway: Callable[..., httpx2.Client], start_group: Callable[[], Backend], collector: Collector
) -> None:
    client = start_gateway()
    first = start_group()
    with ThreadPoolExecutor() as threads:
        answering = threads.submit(post, client, "latency=0.5")
        wait_until(lambda: first.lines("begin"), 30, "the request in its first group")
        first.kill()
        second = start_group()
        assert answering.result().status_code == 200
    request, children = one_trace(collector)
    assert request.parent == ""
    tries = [
        (span.attributes["daybreak.group"], span.attributes.get("error.type"))
        for span in children
        if span.name == "POST"
    ]
    assert tries[0] == (first.id, "no_answer")
    assert tries[-1] == (second.id, None)
    assert set(tries[1:-1]) <= {(first.id, "unreachable")}


def test_a_request_that_gets_no_group_has_a_trace_that_says_so(
    start_gateway: Callable[..., httpx2.Client], collector: Collector
) -> None:
    client = start_gateway()
    response = post(client, **{"Daybreak-Deadline-S": "0.2"})
    assert response.json()["code"] == "not_ready"
    request, [wait] = one_trace(collector)
    assert response.headers["traceparent"].split("-")[1:3] == [request.trace, request.id]
    assert request.failed
    assert request.attributes["error.type"] == "not_ready"
    assert request.attributes["http.response.status_code"] == 503
    assert wait.attributes["daybreak.outcome"] == "no_group"


def test_an_answer_that_breaks_off_fails_its_try_and_its_request(
    start_gateway: Callable[..., httpx2.Client], start_group: Callable[[], Backend], collector: Collector
) -> None:
    client = start_gateway()
    start_group()
    with pytest.raises(httpx2.RemoteProtocolError):
        post(client, "chunks=3&size=10&crash=within")
    request, children = one_trace(collector)
    assert [(span.name, span.attributes["error.type"]) for span in (request, *children[-1:])] == [
        (ROUTE, "cut_off"),
        ("POST", "cut_off"),
    ]


@pytest.mark.parametrize(
    ("tracing", "caller"),
    [({"sample_ratio": 0.0}, None), ({"sample_ratio": 1.0}, UNSAMPLED), ({"enabled": False}, CALLER)],
    ids=["not drawn", "the caller does not sample", "tracing is off"],
)
def test_a_request_that_is_not_sampled_passes_the_callers_context_on(
    start_gateway: Callable[..., httpx2.Client],
    start_group: Callable[[], Backend],
    collector: Collector,
    tracing: dict[str, Any],
    caller: str | None,
) -> None:
    client = start_gateway(**tracing)
    start_group()
    response = post(client, **({"traceparent": caller} if caller else {}))
    assert response.headers.get("traceparent") == caller
    assert response.json()["headers"].get("traceparent") == caller
    if tracing.get("enabled", True):
        # This second request is sampled. If the first request had spans, they would arrive before the second's spans.
        post(client, traceparent=f"00-{'c' * 32}-{PARENT}-01")
        collector.wait(ROUTE)
    assert {span.trace for span in collector.spans} <= {"c" * 32}
