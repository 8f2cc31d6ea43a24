"""The rules of the scheduler. Each rule may be changed while the scheduler runs. A change applies from the next batch
on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from daybreak_server.batching.iterations import strategy_names

MAX_BATCH_SIZE = 32
"""The largest ``max_batch_size``."""


class Strategy(StrEnum):
    """The built-in strategies. A strategy decides which sessions share a batch."""

    ITERATION = "iteration"
    """Sessions join and leave between any two steps. All sessions of a batch are in one phase, prefill or decode.
    Prefill has priority, but decode never starves."""
    MIXED = "mixed"
    """Like ``iteration``, but a batch may have sessions of both phases: it takes those that have waited longest. If
    ``max_batch_tokens`` is set, a batch has the sessions that decode, and as much new audio as fits beside them."""
    REQUEST = "request"
    """A batch of turns runs until the last of them ends; only then does the next batch begin. Ray Serve's
    ``@serve.batch`` works like this. The strategy exists for comparison."""
    SINGLE = "single"
    """One turn at a time, to its end."""


SETTING_NAMES = (
    "strategy",
    "max_batch_size",
    "max_decode_delay_ms",
    "gather_size",
    "gather_wait_ms",
    "batch_timeout_ms",
    "max_batch_tokens",
)
"""The names of the rules in the settings of a pool."""
_TIMES = ("max_decode_delay", "gather_wait", "batch_timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationRules:
    """How batches are formed.

    :raises ValueError: if a value is out of range. The message names the value.
    """

    strategy: str = Strategy.ITERATION
    """A :class:`Strategy`, the name of an installed strategy, or ``package.module:Class``."""
    max_batch_size: int = MAX_BATCH_SIZE
    """The maximum number of sessions in a batch, from 1 to 32."""
    max_decode_delay_s: float = 0.1
    """``iteration``: when decode has waited this long since its last batch, it has priority over prefill."""
    gather_size: int = 16
    """``iteration``: while any session decodes, prefill waits until this many turns are ready, so that few
    large batches replace many small ones. With 1, prefill does not wait."""
    gather_wait_s: float = 0.25
    """``iteration``: the longest time that the first ready turn waits for ``gather_size`` turns to be ready."""
    batch_timeout_s: float = 0.1
    """``request``: how long the first turn of a batch waits for other turns."""
    max_batch_tokens: int = 0
    """``mixed``: the maximum number of tokens in a batch. A turn with more tokens is read in pieces. A decode counts
    as one token, and a block of audio as ``Waiting.block_tokens``. One block and one decode always fit. 0: no limit."""

    def __post_init__(self) -> None:
        """Check the values."""
        strategy_names.find(self.strategy)
        if not 1 <= self.max_batch_size <= MAX_BATCH_SIZE:
            raise ValueError(
                f"max_batch_size is {self.max_batch_size}; it must be from 1 to {MAX_BATCH_SIZE}."
            )
        if self.gather_size < 1:
            raise ValueError(f"gather_size is {self.gather_size}; it must be at least 1.")
        if self.max_batch_tokens < 0:
            raise ValueError(f"max_batch_tokens is {self.max_batch_tokens}; it must not be negative.")
        for name in _TIMES:
            value = getattr(self, f"{name}_s")
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}_ms is {value * 1000:g}; it must be finite and not negative.")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> IterationRules:
        """Read the rules from a pool's settings, by the names in ``SETTING_NAMES``. Absent rules get their defaults.

        :raises ValueError: if a value is out of range.
        """
        values = {name: value for name, value in settings.items() if not name.endswith("_ms")}
        for name in _TIMES:
            if f"{name}_ms" in settings:
                values[f"{name}_s"] = settings[f"{name}_ms"] / 1000
        return cls(**values)

    def settings(self) -> dict[str, Any]:
        """All rules, as settings of a pool."""
        return {
            "strategy": str(self.strategy),
            "max_batch_size": self.max_batch_size,
            "max_decode_delay_ms": self.max_decode_delay_s * 1000,
            "gather_size": self.gather_size,
            "gather_wait_ms": self.gather_wait_s * 1000,
            "batch_timeout_ms": self.batch_timeout_s * 1000,
            "max_batch_tokens": self.max_batch_tokens,
        }
