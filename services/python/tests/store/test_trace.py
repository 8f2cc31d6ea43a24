"""A task's trace context and metadata are in its record and in each of its claims."""

from __future__ import annotations

import pytest

from daybreak_server.adapters.redis import codec
from daybreak_server.domain.tracing import TraceContext
from testkit.store_cases import OOPS, submit
from testkit.store_driver import Driver

TRACE = TraceContext(traceparent=f"00-{'a' * 32}-{'b' * 16}-01", tracestate="congo=t61 x,rojo=1")


@pytest.mark.parametrize("trace", [TRACE, TraceContext(traceparent=TRACE.traceparent), None])
def test_a_retry_on_another_group_has_the_same_trace_and_metadata(
    driver: Driver, trace: TraceContext | None
) -> None:
    text = '{"a":\n 1}'
    task = submit(driver, trace_context=trace, metadata={"order": "42"}, input_json=text)
    for group in ("g1", "g2"):
        claim = driver.claim(group)
        assert claim is not None
        assert (claim.trace_context, claim.metadata, claim.input_json) == (trace, {"order": "42"}, text)
        driver.settle(claim.lease, OOPS)
        driver.pass_time(61_000)
    record = driver.get(task)
    assert (record.trace_context, record.metadata) == (trace, {"order": "42"})


def test_a_task_of_an_earlier_version_has_no_trace() -> None:
    assert codec.split_spec('{"order":"42"}\n{}') == ({"order": "42"}, None, "{}")
