"""Settings of the traces."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from daybreak_server.settings.rules import fitting
from daybreak_server.settings.rules.addresses import CollectorUrl
from daybreak_server.settings.rules.numbers import PerSecond, Ratio
from daybreak_server.settings.section import Section, checked


class TracingSettings(Section):
    """Traces of tasks, of requests to serving pools and models, and of streaming sessions, sent to an OpenTelemetry
    collector by OTLP over HTTP."""

    enabled: bool = Field(
        False,
        description="Whether to record traces. Needs the extra `tracing` of the package `daybreak-server`.",
    )
    endpoint: CollectorUrl = Field(
        "http://127.0.0.1:4318", description="URL of the collector, without the path `/v1/traces`."
    )
    sample_ratio: Ratio = Field(
        1.0,
        description="Share of the tasks, the requests to serving pools and models, and the streaming sessions that get "
        "a trace, from 0 to 1. Daybreak makes the decision when the submit or the request arrives. If the caller sends "
        "a `traceparent`, Daybreak keeps the caller's decision.",
    )
    max_per_s: PerSecond = Field(
        10.0,
        description="Maximum number of traces that a gateway begins per second. Further tasks, requests and sessions "
        "get no trace. Traces that callers have sampled do not count.",
    )
    headers_file: Path | None = Field(
        None,
        description="File with headers for the collector, such as an API key: `Name: value` in each line. Daybreak "
        "reads it for each batch, so a changed key needs no restart.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return checked(self, fitting.of_tracing(self))
