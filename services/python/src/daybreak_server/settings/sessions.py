"""The settings of a pool of streaming sessions."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from daybreak_server.batching.iterations import strategy_names
from daybreak_server.batching.iterations.rules import MAX_BATCH_SIZE, IterationRules
from daybreak_server.settings.rules.numbers import MAX_COUNT, Count, Duration, DurationOrNone
from daybreak_server.settings.section import Section, checked

_DEFAULTS = IterationRules()


class SessionSettings(Section):
    """Streaming sessions of a pool of kind `sessions`. `POST /ray/configure` changes `strategy`, `max_batch_size`,
    `max_decode_delay_ms`, `gather_size`, `gather_wait_ms`, `batch_timeout_ms` and `max_batch_tokens` without a
    restart."""

    max_sessions: Count = Field(
        1000, description="Maximum number of open sessions of the pool. Further ones are refused."
    )
    session_timeout_s: Duration = Field(
        300.0,
        description="How long a session lives without audio or a ping, and how long Daybreak keeps its record after "
        "its end, in seconds. Once its input has ended, a session also lives while it waits for a group, and while the "
        "model works on it.",
    )
    strategy: Annotated[str, AfterValidator(strategy_names.check)] = Field(
        str(_DEFAULTS.strategy),
        description="Which sessions share a batch. There are two phases: *prefill* reads the audio of a turn, and "
        "*decode* writes its text, a token in each step. `iteration`: sessions join and leave between any two steps, "
        "and a batch has one phase. `mixed`: the same, but a batch may have both phases. `request`: the turns of a "
        "batch run to their end before other turns begin. `single`: one turn at a time. The value can also be the name "
        "of an installed strategy, or `package.module:Class` for one of your own.",
    )
    max_batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)] = Field(
        _DEFAULTS.max_batch_size, description="Maximum number of sessions in a batch, from 1 to 32."
    )
    max_decode_delay_ms: DurationOrNone = Field(
        _DEFAULTS.max_decode_delay_s * 1000,
        description="In the strategy `iteration`: once this long has passed since the last batch of decode, decode "
        "goes before prefill. In milliseconds.",
    )
    gather_size: Count = Field(
        _DEFAULTS.gather_size,
        description="In the strategy `iteration`: while any session decodes, prefill waits until this many turns are "
        "ready. 1: prefill does not wait.",
    )
    gather_wait_ms: DurationOrNone = Field(
        _DEFAULTS.gather_wait_s * 1000,
        description="Maximum time that the first turn waits for `gather_size` turns, in milliseconds.",
    )
    batch_timeout_ms: DurationOrNone = Field(
        _DEFAULTS.batch_timeout_s * 1000,
        description="In the strategy `request`: how long the first turn of a batch waits for other turns, in "
        "milliseconds.",
    )
    max_batch_tokens: Annotated[int, Field(ge=0, le=MAX_COUNT)] = Field(
        _DEFAULTS.max_batch_tokens,
        description="Maximum number of tokens in a batch of the strategy `mixed`. A session that decodes counts as one "
        "token, and a block of audio as the tokens that the model makes of it. Audio that does not fit is read in "
        "later batches, in pieces of whole blocks. 0: no limit, so a turn is read in one piece.",
    )
    lag_limit_ms: Duration = Field(
        2000.0,
        description="When the sessions of a group are further behind their speakers than this, the group works in "
        "longer turns. If the turns of all groups already have the maximum length, and their sessions still lag more "
        "than this, the pool refuses new sessions. In milliseconds.",
    )
    latency_multiplier: Count = Field(
        1,
        description="How many of the model's blocks of audio make a turn, unless the client asks for more or the group "
        "falls behind.",
    )
    max_latency_multiplier: Count = Field(
        4, description="When a group lags, it lengthens its turns to at most this many blocks."
    )

    def values(self) -> dict[str, Any]:
        """The values as JSON."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        problem = (
            f"latency_multiplier ({self.latency_multiplier}) is larger than max_latency_multiplier "
            f"({self.max_latency_multiplier}); lower it, or raise the maximum"
        )
        return checked(self, [problem] if self.latency_multiplier > self.max_latency_multiplier else [])
