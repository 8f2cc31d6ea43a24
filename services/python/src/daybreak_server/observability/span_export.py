"""Sends spans to an OTLP/HTTP collector. The work that the spans describe never waits for the collector, and
never fails because of it.

Spans wait in a bounded queue, and a thread sends them in batches. While the collector does not answer, spans are
dropped, and the log has one warning, not one for each batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

_log = logging.getLogger(__name__)
EXPORT_TIMEOUT_S = 5.0
"""How long the export of one batch may take, with its retries."""
QUEUE_MAX = 2048
BATCH_MAX = 512
DELAY_S = 1.0
"""The longest time that an ended span of a group waits to be sent in a batch. A group that is killed loses the spans
that wait, and those that have not ended."""
GATEWAY_DELAY_S = 5.0
"""The same limit for a gateway. It is longer, so that a gateway sends fewer batches. One batch costs a busy gateway as
much time as hundreds of submits."""
WARN_AGAIN_S = 300.0
"""The log has at most one warning in this time."""
_CHATTY = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")
"""Loggers of the SDK that write a line for each failed batch and each dropped span."""


class HeadersFromFile:
    """Adds the headers in a file (``Name: value`` in each line) to each request, so that a new key needs no restart.

    The library ``requests`` calls this object for each request, because the object is the ``auth`` of the session.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the headers. :raises OSError: if the file cannot be read; the batch is then dropped."""
        for line in self._path.read_text().splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip():
                request.headers[name.strip()] = value.strip()
        return request


class _FirstMessage(logging.Filter):
    """Keeps the messages of the loggers in :data:`_CHATTY` out of the log.

    Remembers the first message of each export, because this message names the cause of a failure.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Remember the first message."""
        self.text = self.text or record.getMessage()
        return False


_first_message = _FirstMessage()


class QuietExporter(SpanExporter):
    """Exports through ``inner``. Logs when exports begin to fail, and when they succeed again."""

    def __init__(
        self, inner: SpanExporter, endpoint: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner = inner
        self._endpoint = endpoint
        self._clock = clock
        self._failing = False
        self._warned_at: float | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch. Never raises."""
        _first_message.text = ""
        try:
            result = self._inner.export(spans)
        except Exception as exc:
            result, _first_message.text = SpanExportResult.FAILURE, str(exc)
        self._report(failed=result is not SpanExportResult.SUCCESS)
        return result

    def _report(self, *, failed: bool) -> None:
        now = self._clock()
        may_warn = self._warned_at is None or now - self._warned_at >= WARN_AGAIN_S
        if failed and not self._failing and may_warn:
            self._warned_at = now
            _log.warning(
                "traces cannot be sent to %s, and are dropped until it answers: %s",
                self._endpoint,
                _first_message.text or "no reason given",
            )
        if not failed and self._failing:
            _log.info("traces are sent to %s again", self._endpoint)
        self._failing = failed

    def shutdown(self) -> None:
        """Stop."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return ``True``, because no span waits in this exporter."""
        return True


def span_processor(endpoint: str, *, headers_file: Path | None, delay_s: float) -> SpanProcessor:
    """A processor that sends spans to ``<endpoint>/v1/traces`` in the background. A span waits ``delay_s`` at most."""
    for name in _CHATTY:
        logging.getLogger(name).addFilter(_first_message)
    session: dict[str, Any] = {}
    if headers_file is not None:
        session["session"] = requests.Session()
        session["session"].auth = HeadersFromFile(headers_file)
    url = endpoint.rstrip("/") + "/v1/traces"
    inner = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S, compression=Compression.Gzip, **session)
    return BatchSpanProcessor(
        QuietExporter(inner, url),
        max_queue_size=QUEUE_MAX,
        max_export_batch_size=BATCH_MAX,
        schedule_delay_millis=delay_s * 1000,
    )


def within(timeout_s: float, work: Callable[[], Any]) -> bool:
    """Run ``work`` on a thread, and return whether it ended in time. Calls of the SDK may exceed their own limits."""
    thread = threading.Thread(target=work, name="traces", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return not thread.is_alive()
