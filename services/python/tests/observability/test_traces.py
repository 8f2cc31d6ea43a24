"""The traces of tasks, as a collector receives them from a gateway and from ranks, which share a real Valkey."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from daybreak_server import wiring
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.task_api.routes.submit import _store_task
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.ports.tracing import NoTracing
from daybreak_server.settings.tree import Settings
from testkit.otlp_collector import Collector, ReceivedSpan
from testkit.ranks import Ranks
from testkit.waiting import wait_until

CALLER = f"00-{'a' * 32}-{'b' * 16}-01"


def _submit(client: httpx2.Client, headers: dict[str, str] | None = None, **input: Any) -> httpx2.Response:
    body = {"pool": "echo", "input": {"message": "the-secret-prompt", **input}}
    response = client.post("/v1/tasks", json=body, headers=headers or {})
    assert response.status_code in (200, 202), response.text
    return response


def _ended(client: httpx2.Client, task: str) -> dict[str, Any]:
    def terminal() -> dict[str, Any] | None:
        shown: dict[str, Any] = client.get(f"/v1/tasks/{task}").json()
        return shown if shown["state"] not in ("queued", "running") else None

    shown = wait_until(terminal, 60, f"the end of {task}")
    assert shown is not None
    return shown


@pytest.fixture
def leader() -> Any:
    started: list[Rank] = []

    def start(settings: Settings) -> Rank:
        rank = wiring.build_rank(settings, "echo", on_broken=print)
        started.append(rank)
        rank.start()
        return rank

    yield start
    for rank in started:
        rank.stop(timeout_s=5)


def _one_trace(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    """Assert that the spans form one tree, and return them by id."""
    by_id = {span.id: span for span in spans}
    assert len({span.trace for span in spans}) == 1
    roots = [span for span in spans if span.parent not in by_id]
    assert [root.name for root in roots] == ["send echo"], "a span has no parent in the trace"
    for span in spans:
        assert span.end_ns >= span.start_ns
        assert all(link[0] == span.trace and link[1] in by_id for link in span.links)
    return by_id


def test_a_task_that_is_retried_on_another_group_has_one_connected_trace(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
    tmp_path: Path,
) -> None:
    """A rank of the first group dies, so the whole group ends. Another group finishes the task."""
    settings = traced_settings(ranks=2)
    client = gateway(settings)
    response = _submit(client, steps=4, fail_at=3, fail_kind="exit", fail_rank=1, fail_attempts=1)
    task = response.json()
    first = Ranks(settings, "echo", tmp_path / "first")
    first.all_gone()
    second = Ranks(settings, "echo", tmp_path / "second")
    try:
        shown = _ended(client, task["id"])
    finally:
        second.stop()
        first.stop()
    assert (shown["state"], shown["attempt"]) == ("succeeded", 2), second.logs()
    collector.wait("process echo", 2)
    collector.wait("settle echo", 2)
    [send] = collector.wait("send echo")
    _one_trace(collector.spans)
    failed, done = sorted(collector.named("process echo"), key=lambda span: span.start_ns)

    assert (send.kind, send.service, send.parent) == ("PRODUCER", "daybreak-gateway", "")
    for attempt, span in enumerate((failed, done), start=1):
        assert (span.kind, span.service, span.parent) == ("CONSUMER", "daybreak-group", send.id)
        assert span.links == [(send.trace, send.id)]
        assert span.attributes["daybreak.attempt"] == attempt
        assert span.attributes["messaging.message.id"] == task["id"]
    assert (failed.failed, failed.attributes["error.type"]) == (True, "rank_lost")
    assert (done.failed, "error.type" in done.attributes) == (False, False)
    assert failed.attributes["daybreak.group"] != done.attributes["daybreak.group"]

    children = {span.name: span for span in collector.spans if span.parent == done.id}
    assert set(children) == {"echo", "upload", "settle echo"}
    assert [attributes["daybreak.last_step"] for _, _, attributes in children["echo"].events] == [1, 2, 3, 4]
    assert children["settle echo"].attributes["daybreak.state"] == "succeeded"
    [queue, again] = sorted(collector.named("queue echo"), key=lambda span: span.start_ns)
    assert [span.attributes["daybreak.attempt"] for span in (queue, again)] == [1, 2]
    assert failed.end_ns <= again.start_ns <= again.end_ns <= done.start_ns
    assert {span.name for span in collector.spans if span.parent == queue.id} >= {
        "wake process_group",
        "wake model",
    }
    assert len(collector.named("receive echo")) == 2
    assert response.headers["traceparent"] == f"00-{send.trace}-{send.id}-01" == task["traceparent"]
    assert "the-secret-prompt" not in repr(collector.spans)


def test_a_callers_trace_is_continued(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    leader: Callable[[Settings], Rank],
    collector: Collector,
) -> None:
    """The sample ratio does not apply to a caller's trace. The caller's vendor data (``tracestate``) is passed on."""
    settings = traced_settings(tracing={"sample_ratio": 0.0})
    client = gateway(settings)
    leader(settings)
    response = _submit(client, {"traceparent": CALLER, "tracestate": "congo=t61"})
    shown = _ended(client, response.json()["id"])
    [send], [process] = collector.wait("send echo"), collector.wait("process echo")
    assert (send.trace, send.parent, process.trace, process.parent) == ("a" * 32, "b" * 16, "a" * 32, send.id)
    assert send.trace_state == process.trace_state == "congo=t61"
    assert response.headers["traceparent"] == f"00-{'a' * 32}-{send.id}-01" == shown["traceparent"]


def test_a_trace_that_the_caller_does_not_sample_is_passed_on_and_not_recorded(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    leader: Callable[[Settings], Rank],
    collector: Collector,
) -> None:
    settings = traced_settings()
    client = gateway(settings)
    leader(settings)
    unsampled = CALLER[:-1] + "0"
    quiet = _submit(client, {"traceparent": unsampled})
    assert quiet.headers["traceparent"] == unsampled
    _ended(client, quiet.json()["id"])
    loud = _submit(client)
    _ended(client, loud.json()["id"])
    collector.wait("settle echo")
    assert {span.trace for span in collector.spans} == {loud.headers["traceparent"].split("-")[1]}


def test_the_ratio_decides_which_traces_begin(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
) -> None:
    client = gateway(traced_settings(tracing={"sample_ratio": 0.0}))
    responses = [_submit(client) for _ in range(20)]
    assert not [response for response in responses if "traceparent" in response.headers]
    assert not [response for response in responses if "traceparent" in response.json()]
    assert not collector.spans


def test_a_repeated_submit_returns_the_trace_of_its_task(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
) -> None:
    """The span of the repeated submit links to the trace of the task."""
    client = gateway(traced_settings())
    first = _submit(client, {"Idempotency-Key": "k"})
    second = _submit(client, {"Idempotency-Key": "k", "traceparent": CALLER})
    assert (second.status_code, second.headers["traceparent"]) == (200, first.headers["traceparent"])
    collector.wait("send echo", 2)
    [repeat] = [span for span in collector.spans if span.parent == "b" * 16]
    [original] = [span for span in collector.spans if span is not repeat]
    assert (repeat.links, repeat.attributes["daybreak.repeated"]) == ([(original.trace, original.id)], True)


def test_each_task_of_a_batch_has_a_trace(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
) -> None:
    """A task that is refused because of its input has no trace."""
    client = gateway(traced_settings())
    bodies = [{"pool": "echo", "input": {"steps": steps}} for steps in (1, -1, 2)]
    results = client.post("/v1/tasks:batch", json={"tasks": bodies}).json()["results"]
    sent = collector.wait("send echo", 2)
    ids = [item["task"]["id"] for item in results if "task" in item]
    assert sorted(span.attributes["messaging.message.id"] for span in sent) == sorted(ids)
    assert len({span.trace for span in sent}) == 2


def test_a_submit_that_the_store_refuses_is_an_error(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
) -> None:
    client = gateway(traced_settings(max_queued=1))
    _submit(client)
    refused = client.post("/v1/tasks", json={"pool": "echo", "input": {}})
    assert refused.status_code == 503
    spans = collector.wait("send echo", 2)
    [failed] = [span for span in spans if span.failed]
    assert failed.attributes["error.type"] == "queue_full"


def test_a_task_with_a_start_time_waits_in_the_queue_from_then_on(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    leader: Callable[[Settings], Rank],
    collector: Collector,
) -> None:
    settings = traced_settings()
    client = gateway(settings)
    leader(settings)
    start_at = datetime.now(UTC) + timedelta(seconds=1)
    body = {"pool": "echo", "input": {}, "start_at": start_at.isoformat()}
    _ended(client, client.post("/v1/tasks", json=body).json()["id"])
    [queue] = collector.wait("queue echo")
    assert queue.start_ns // 1_000_000 >= int(start_at.timestamp() * 1000)


async def test_a_submit_that_is_cancelled_while_the_store_works_has_a_span(
    traced_settings: Callable[..., Settings], collector: Collector
) -> None:
    """The task may have been stored all the same. Without this span, the spans of the task would have no parent."""
    ctx = Dependencies.of(wiring.build_services(traced_settings()))
    trace = ctx.services.tracing.submit(None)
    task = ctx.submission.make({"pool": "echo", "input": {}}, tenant="default", trace=trace.context)
    submitting = asyncio.create_task(_store_task(ctx, task, trace))
    await asyncio.sleep(0)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    await ctx.services.close()
    [send] = collector.wait("send echo")
    assert (send.failed, send.attributes["error.type"]) == (True, "CancelledError")


def test_a_group_that_breaks_does_not_wait_for_a_collector_that_hangs(
    traced_settings: Callable[..., Settings], collector: Collector
) -> None:
    """The wait would delay the restart, because Serve does not restart the group before its process has ended."""
    waited: list[float] = []

    class Hanging(NoTracing):
        def flush(self, timeout_s: float = 1.0) -> None:
            waited.append(timeout_s)

        def close(self, timeout_s: float = 1.0) -> None:
            waited.append(timeout_s)

    broken = threading.Event()
    rank = wiring.build_rank(traced_settings(), "echo", on_broken=lambda _: broken.set())
    deps = replace(rank._deps, tracing=Hanging(), workload=_cannot_load)
    rank._deps = deps
    rank.start()
    assert broken.wait(60)
    assert sum(waited) <= 0.5


def _cannot_load() -> Any:
    raise RuntimeError("no model")


def test_a_task_that_is_cancelled_has_an_attempt_that_was_stopped(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    leader: Callable[[Settings], Rank],
    collector: Collector,
) -> None:
    settings = traced_settings()
    client = gateway(settings)
    leader(settings)
    task = _submit(client, steps=5000, step_s=0.01).json()["id"]
    wait_until(lambda: client.get(f"/v1/tasks/{task}").json().get("progress"), 60, "the first step")
    client.post(f"/v1/tasks/{task}/cancel")
    assert _ended(client, task)["state"] == "cancelled"
    [process], [settle] = collector.wait("process echo"), collector.wait("settle echo")
    assert (process.attributes["daybreak.outcome"], process.failed) == ("stopped", False)
    assert settle.attributes["daybreak.state"] == "cancelled"
