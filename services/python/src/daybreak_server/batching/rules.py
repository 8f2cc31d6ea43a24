"""The rules of a batcher. A rule may be changed while the batcher runs. The change applies from the next batch on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """When an idle executor starts a batch."""

    EAGER = "eager"
    """At once, with the items that wait. More items gather only while the executor is busy."""
    TIMED = "timed"
    """When a batch is full, or an item has waited for ``timeout_s``."""
    ADAPTIVE = "adaptive"
    """At once. The batch is no larger than the size that was fastest when measured. Now and then, the batcher tries
    another size."""


SETTING_NAMES = ("mode", "max_batch_size", "max_batch_tokens", "batch_timeout_ms", "similar", "max_waiting")
"""The names in the setting ``batching`` of a pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The limits of a batch.

    :raises ValueError: if a value is out of range. The message says which value.
    """

    mode: Mode = Mode.EAGER
    max_batch_size: int = 32
    """The most items in a batch."""
    max_batch_tokens: int = 16_384
    """The most tokens in a batch, including its padding: the number of items times the length of the longest item. An
    item that is longer than this limit gets a separate batch."""
    timeout_s: float = 0.005
    """How long the first item of a batch waits for others in the mode ``timed``."""
    similar: float = 2.0
    """Items may share a batch only if their lengths lie between the same two neighbouring powers of this number, which
    must be above 1."""
    max_waiting: int = 4096
    """The most items that may wait. Items of bulk work do not count."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("max_batch_size", "max_batch_tokens", "max_waiting"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not self.timeout_s >= 0:
            raise ValueError(f"timeout_s is {self.timeout_s}; it must not be negative.")
        if not self.similar > 1:
            raise ValueError(f"similar is {self.similar}; it must be above 1.")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Rules:
        """The rules of the setting ``batching`` of a pool. Absent rules have their defaults.

        :raises ValueError: if a value is out of range.
        """
        values = dict(settings)
        if "mode" in values:
            values["mode"] = Mode(values["mode"])
        if "batch_timeout_ms" in values:
            values["timeout_s"] = values.pop("batch_timeout_ms") / 1000
        return cls(**values)

    def settings(self) -> dict[str, Any]:
        """The rules as the setting ``batching`` of a pool, with all values."""
        return {
            "mode": self.mode.value,
            "max_batch_size": self.max_batch_size,
            "max_batch_tokens": self.max_batch_tokens,
            "batch_timeout_ms": self.timeout_s * 1000,
            "similar": self.similar,
            "max_waiting": self.max_waiting,
        }
