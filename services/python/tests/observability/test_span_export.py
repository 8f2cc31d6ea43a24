"""A missing collector causes one warning, disabled tracing imports nothing, and a bug in the tracing fails no task."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from daybreak_server import wiring
from daybreak_server.local.free_ports import free_port
from daybreak_server.observability import span_export
from daybreak_server.observability.span_export import WARN_AGAIN_S, QuietExporter, within
from daybreak_server.settings.sources import SettingsError
from daybreak_server.settings.tree import Settings, load_settings
from testkit.otlp_collector import Collector
from testkit.waiting import wait_until


class Flaky(SpanExporter):
    """Fails while ``broken`` is true. If ``broken`` is an exception, it is raised."""

    def __init__(self) -> None:
        self.broken: bool | Exception = True

    def export(self, spans: Any) -> SpanExportResult:
        if isinstance(self.broken, Exception):
            raise self.broken
        return SpanExportResult.FAILURE if self.broken else SpanExportResult.SUCCESS


def test_an_outage_is_one_warning_and_a_return_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Another outage that follows soon causes no further warning."""
    caplog.set_level(logging.INFO, logger=span_export.__name__)
    now, inner = [0.0], Flaky()
    exporter, spans = QuietExporter(inner, "http://c", clock=lambda: now[0]), list[ReadableSpan]()
    for _ in range(100):
        now[0] += 1
        exporter.export(spans)
    inner.broken = False
    exporter.export(spans)
    inner.broken = True
    exporter.export(spans)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    now[0] += WARN_AGAIN_S
    inner.broken = False
    exporter.export(spans)
    inner.broken = OSError("no headers")
    exporter.export(spans)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO", "WARNING"]
    assert "no headers" in caplog.records[-1].getMessage()


def test_work_continues_without_a_collector(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Tasks run. The gateway and the rank each write at most one line about tracing into the log, with the reason."""
    settings = traced_settings(tracing={"endpoint": f"http://127.0.0.1:{free_port()}"})
    client = gateway(settings)
    rank = wiring.build_rank(settings, "echo", on_broken=print)
    rank.start()
    try:
        for _ in range(3):
            task = client.post("/v1/tasks", json={"pool": "echo", "input": {}}).json()["id"]
            path = f"/v1/tasks/{task}"
            wait_until(lambda path=path: client.get(path).json()["state"] == "succeeded", 60, "the task")  # type: ignore[misc]
        wait_until(lambda: "cannot be sent" in caplog.text, 60, "the warning")
    finally:
        assert rank.stop(timeout_s=60)
    logged = [
        record
        for record in caplog.records
        if "opentelemetry" in record.name or "cannot be sent" in record.message
    ]
    assert {record.name for record in logged} == {span_export.__name__}
    assert len(logged) <= 2, "at most one line of the gateway and one of the rank"
    assert "refused" in logged[0].getMessage()


def test_headers_come_from_a_file_that_may_change(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
    tmp_path: Path,
) -> None:
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer one\nX-Scope: a:b\n\n")
    client = gateway(traced_settings(tracing={"headers_file": str(file)}))
    client.post("/v1/tasks", json={"pool": "echo", "input": {}})
    collector.wait("send echo")
    assert (collector.headers[0]["authorization"], collector.headers[0]["x-scope"]) == ("Bearer one", "a:b")
    file.write_text("Authorization: Bearer two\n")
    client.post("/v1/tasks", json={"pool": "echo", "input": {}})
    collector.wait("send echo", 2)
    assert collector.headers[-1]["authorization"] == "Bearer two"


def test_headers_that_are_missing_cost_spans_until_the_file_exists(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a pod, the file comes from a Secret that may be created later."""
    file = tmp_path / "headers"
    client = gateway(traced_settings(tracing={"headers_file": str(file)}))
    client.post("/v1/tasks", json={"pool": "echo", "input": {}})
    wait_until(lambda: "cannot be sent" in caplog.text, 60, "the warning")
    assert str(file) in caplog.text
    assert not collector.headers
    file.write_text("Authorization: Bearer late\n")
    client.post("/v1/tasks", json={"pool": "echo", "input": {}})
    collector.wait("send echo")
    assert [sent["authorization"] for sent in collector.headers] == ["Bearer late"]


def test_a_wait_for_the_export_is_bounded() -> None:
    """Without the bound, the SDK would wait half a minute for a collector that is away."""
    began = time.monotonic()
    assert not within(0.05, lambda: time.sleep(5))
    assert time.monotonic() - began < 4
    assert within(30, lambda: None)


def test_without_tracing_nothing_of_it_is_imported() -> None:
    """With tracing off, a gateway and a rank import none of its packages.

    The test ignores OpenTelemetry's metrics, which redis-py imports if they are installed.
    """
    program = """
import sys
from daybreak_server import wiring
from daybreak_server.settings.tree import Settings
settings = Settings.model_validate({
    "redis": {"url": "redis://127.0.0.1:1"}, "pools": {"echo": {}}, "tracing": {"enabled": sys.argv[1] == "on"},
})
wiring.build_app(settings)
rank = wiring.build_rank(settings, "echo", on_broken=print)
wiring.build_tracing(settings.tracing, service="daybreak-group")
ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "daybreak_server.observability.tracing", "requests")
print(sorted({name for name in ours if name in sys.modules}))
"""

    def imported(tracing: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, tracing], capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout.strip()

    assert imported("off") == "[]"
    assert "opentelemetry.sdk.trace" in imported("on")  # shows that the check above can fail


def test_tracing_without_its_packages_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daybreak_server.settings.rules.fitting.find_spec", lambda _name: None)
    assert not load_settings(environ={}).tracing.enabled
    with pytest.raises(SettingsError, match=r"install daybreak-server\[tracing\]"):
        load_settings(environ={"DAYBREAK_TRACING__ENABLED": "true"})


def test_a_bug_in_the_tracing_costs_no_task(
    traced_settings: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No span can be started, and no span id can be made. The task succeeds all the same, without a trace."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug in the tracing")

    monkeypatch.setattr("opentelemetry.sdk.trace.Tracer.start_span", broken)
    monkeypatch.setattr("opentelemetry.sdk.trace.id_generator.RandomIdGenerator.generate_span_id", broken)
    settings = traced_settings()
    client = gateway(settings)
    rank = wiring.build_rank(settings, "echo", on_broken=print)
    rank.start()
    context = f"00-{'a' * 32}-{'b' * 16}-01"  # the rank must try to continue this trace
    try:
        response = client.post(
            "/v1/tasks", json={"pool": "echo", "input": {"steps": 3}}, headers={"traceparent": context}
        )
        assert (response.status_code, response.headers["traceparent"]) == (202, context)
        path = f"/v1/tasks/{response.json()['id']}"
        wait_until(lambda: client.get(path).json()["state"] == "succeeded", 60, "the task")
    finally:
        rank.stop(timeout_s=10)
    assert caplog.text.count("because of a bug in the tracing") <= 1
