"""The spec of ``speech``, and its options. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from daybreak_server.workloads.base import NoInput, WorkloadSpec
from daybreak_server.workloads.languages import LanguagePair
from daybreak_server.workloads.speech.pairs import pairs_of

TINY: Final = Path(__file__).parent / "tiny"
"""The tiny model of the package."""
TINY_NOTICE: Final = (
    "The model is tiny: it knows some fifty English words, for example “three small red flowers are moving left”, and "
    "mistakes other words for them."
)


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
    """How the language model reads its caches: with torch's plain attention (``gather``) or FlexAttention (``flex``).
    ``auto`` is ``flex`` on a GPU and ``gather`` on a CPU."""


def options_of(options: Mapping[str, Any]) -> SpeechOptions:
    """The options. :raises pydantic.ValidationError: with a line for each wrong option."""
    return SpeechOptions.model_validate(dict(options))


def _pairs(options: Mapping[str, Any]) -> Sequence[LanguagePair]:
    model = options_of(options).model
    return pairs_of(Path(model) if model else TINY)


def _notice(options: Mapping[str, Any]) -> str:
    return "" if options_of(options).model else TINY_NOTICE


SPEC: WorkloadSpec[NoInput] = WorkloadSpec(
    name="speech",
    kind="sessions",
    implementation="daybreak_server.workloads.speech.model:Speech",
    limits=options_of,
    pairs=_pairs,
    notice=_notice,
)
