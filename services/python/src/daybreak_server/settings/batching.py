"""The settings of batches, for a pool whose workload batches requests. All these settings can be changed while the pool
runs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from daybreak_server.batching.rules import Mode, Rules
from daybreak_server.settings.rules.numbers import Count, DurationOrNone
from daybreak_server.settings.section import Section

_DEFAULTS = Rules()


class BatchingSettings(Section):
    """How the groups of a pool form batches. `PATCH /v1/pools/{name}/batching` changes each value without a restart."""

    mode: Mode = Field(
        _DEFAULTS.mode,
        description="When an idle device starts a batch: `eager` (at once, so batches grow only while the device is "
        "busy), `timed` (when a batch is full, or its first item has waited for `batch_timeout_ms`) or `adaptive` "
        "(like `eager`, but batches are no larger than the size that was fastest when measured).",
    )
    max_batch_size: Count = Field(_DEFAULTS.max_batch_size, description="Maximum number of items in a batch.")
    max_batch_tokens: Count = Field(
        _DEFAULTS.max_batch_tokens,
        description="Maximum number of tokens in a batch, including padding: the number of items, times the length of "
        "the longest item. An item that alone has more tokens gets a batch of its own.",
    )
    batch_timeout_ms: DurationOrNone = Field(
        _DEFAULTS.timeout_s * 1000,
        description="How long the first item of a batch waits for others in the mode `timed`, in milliseconds.",
    )
    similar: Annotated[float, Field(gt=1, le=1000)] = Field(
        _DEFAULTS.similar,
        description="Items share a batch only if their lengths lie between the same two neighbouring powers of this "
        "number (with 2, for example 16 to 31 tokens). The reason: each item of a batch is padded to the length of "
        "the longest.",
    )
    max_waiting: Count = Field(
        _DEFAULTS.max_waiting,
        description="Maximum number of items of requests that wait in one group. Items of tasks do not count. A "
        "request with more items than there are free places gets 429. A request with more than `max_waiting` items "
        "gets 422.",
    )

    def values(self) -> dict[str, Any]:
        """The values as JSON."""
        return self.model_dump(mode="json")
