"""Settings of the router, which passes requests to the groups of serving pools and to the workers of models."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.settings.rules import fitting
from daybreak_server.settings.rules.numbers import Bytes, Count, Duration
from daybreak_server.settings.section import Section, checked


class RouterSettings(Section):
    """How a gateway passes requests to the groups of pools of the kind `online`, and to the workers of models."""

    policy: RoutingPolicy = Field(
        RoutingPolicy.LEAST_LOADED,
        description="How a gateway chooses the group for a request to a pool that does not set `routing`, and the "
        "worker for a request to a model: `least_loaded` (the one that uses the smallest share of its capacity), "
        "`round_robin`, `power_of_two` (the less loaded of two random ones), `gpu_memory` (the one with the most free "
        "memory for each of its requests), `session` (always the same one for the same value of the header "
        "`Daybreak-Session`) or `prefix` (always the same one for the same beginning of the body).",
    )
    timeout_s: Duration = Field(
        600.0,
        description="How long a request may take, from its arrival to the end of its answer. The header "
        "`Daybreak-Deadline-S` of a request can only shorten this.",
    )
    max_wait_s: Duration = Field(
        300.0,
        description="How long a request may wait until a group (or a replica of its model) is ready and free, in "
        "seconds.",
    )
    max_waiting: Count = Field(
        10_000, description="Maximum number of requests of a pool or a model that wait in one gateway."
    )
    max_waiting_per_tenant: Count = Field(
        10_000,
        description="Maximum number of requests of one tenant to a pool or a model that wait in one gateway.",
    )
    max_body_bytes: Bytes = Field(
        64 << 20,
        description="Maximum size of a recording, and of the body of a request to a group or a model.",
    )
    buffer_bytes: Bytes = Field(
        1 << 20,
        description="A body of up to this size is kept until its answer begins, so that the request can be sent to "
        "another group or worker. A request with a larger body is sent only once.",
    )
    max_buffered_bytes: Bytes = Field(
        512 << 20, description="Maximum size of all bodies that one gateway keeps at the same time."
    )
    max_tries: Count = Field(
        3,
        description="How many times a request is sent at most, if each time the group or worker breaks before it "
        "answers. A refusal by a group or worker does not count.",
    )
    prefix_bytes: Count = Field(
        1024, description="How much of the beginning of a body the policy `prefix` compares."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        return checked(self, fitting.of_router(self))
