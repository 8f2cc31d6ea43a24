"""The spec of ``speech``, and its options. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from daybreak_server.workloads.base import NoInput, WorkloadSpec
from daybreak_server.workloads.languages import LanguagePair

KIND: Final = "sessions"
"""The kind of its pools."""


class SpeechOptions(BaseModel):
    """The options of a pool of the workload ``speech``. ``model`` comes from the pool's setting of this name."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    model: str | None = None
    """The folder of the model; if unset, the tiny model of the package, which knows some fifty words."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    cache_mb: float = Field(64.0, gt=0, le=1 << 20)
    """The memory of all caches in MB. It decides how many sessions a group admits."""
    max_turn_blocks: int = Field(8, ge=1, le=64)
    """The longest turn, in blocks of audio. Longer turns need more memory for each session."""
    attention: Literal["auto", "gather", "flex"] = "auto"
    """How the language model reads its caches: torch's plain attention, or FlexAttention, which a GPU gets by
    default."""


def options_of(options: Mapping[str, Any]) -> SpeechOptions:
    """The options. :raises pydantic.ValidationError: with a line for each wrong one."""
    return SpeechOptions.model_validate(dict(options))


TINY_PAIRS = tuple(
    LanguagePair(source="en", target=code, source_name="English", target_name=name)
    for code, name in (("de", "German"), ("zh", "Chinese"), ("en", "English"))
)
"""The pairs of the model of the package."""


def pairs_of(options: Mapping[str, Any]) -> Sequence[LanguagePair]:
    """The pairs that the API knows without loading a model: those of the package's. A folder's are known to groups."""
    return TINY_PAIRS if options.get("model") is None else ()


SPEC: WorkloadSpec[NoInput] = WorkloadSpec(
    name="speech",
    kind=KIND,
    implementation="daybreak_server.workloads.speech.model:Speech",
    limits=options_of,
    pairs=pairs_of,
)
