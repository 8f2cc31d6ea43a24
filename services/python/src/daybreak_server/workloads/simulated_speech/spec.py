"""The spec of ``simulated-speech``, and its options. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from daybreak_server.workloads.base import NoInput, WorkloadSpec
from daybreak_server.workloads.languages import LanguagePair

PAIRS = tuple(
    LanguagePair(source="en", target=code, source_name="English", target_name=name)
    for code, name in (("de", "German"), ("zh", "Chinese"), ("en", "English"))
)


class SimulatedSpeechOptions(BaseModel):
    """The options of a pool of the workload ``simulated-speech``.

    A prefill of ``n`` blocks takes ``prefill_ms + n * prefill_item_ms``. A decode of ``n`` sessions takes
    ``decode_ms + n * decode_item_ms``. In a step with a prefill and a decode, only the larger of
    ``prefill_ms`` and ``decode_ms`` counts. The defaults are those of the tiny speech model on one core of a server.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prefill_ms: float = Field(3.1, ge=0, le=60_000)
    prefill_item_ms: float = Field(0.93, ge=0, le=60_000)
    """The additional time for each block of audio."""
    decode_ms: float = Field(1.2, ge=0, le=60_000)
    decode_item_ms: float = Field(0.2, ge=0, le=60_000)
    block_ms: int = Field(480, ge=20, le=10_000)
    """The length of a block of audio."""
    block_tokens: int = Field(6, ge=1, le=10_000)
    """How many tokens of the limit ``max_batch_tokens`` a block of audio uses."""
    max_sessions: int = Field(512, ge=1, le=100_000)
    """How many sessions a group can hold."""


def options_of(options: Mapping[str, Any]) -> SimulatedSpeechOptions:
    """The options. :raises pydantic.ValidationError: with a line for each wrong option."""
    return SimulatedSpeechOptions.model_validate(dict(options))


SPEC: WorkloadSpec[NoInput] = WorkloadSpec(
    name="simulated-speech",
    kind="sessions",
    implementation="daybreak_server.workloads.simulated_speech.model:SimulatedSpeech",
    limits=options_of,
    pairs=lambda options: PAIRS,
    notice=lambda options: "There is no model: the words mean nothing.",
)
