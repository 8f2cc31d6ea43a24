"""The duration of a step of the model. It depends on how many turns the step reads and how many sessions it decodes."""

from __future__ import annotations

from dataclasses import dataclass

from daybreak_server.batching.iterations import Batch

Points = tuple[tuple[int, float], ...]
"""Batch sizes in rising order, each with the milliseconds that a step of this size takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The costs of prefill and decode. Costs of sizes that are not listed are interpolated, up to the largest listed
    size."""

    prefill: Points
    decode: Points

    def seconds(self, prefills: float, decodes: int) -> float:
        """The duration of a step that reads ``prefills`` turns (not always a whole number) and decodes ``decodes``
        sessions.

        A step that reads and decodes calls the language model once instead of twice. So it saves the fixed cost of one
        call. That is the cost at 0 sessions on the line through the first two points of ``decode``.
        """
        saved = _interpolated(self.decode, 0) if prefills and decodes else 0.0
        read = _interpolated(self.prefill, prefills) if prefills else 0.0
        written = _interpolated(self.decode, decodes) if decodes else 0.0
        return (read + written - saved) / 1000

    def of(self, batch: Batch[int], *, turn_blocks: int = 1) -> float:
        """The duration of a batch, if a turn has ``turn_blocks`` blocks."""
        return self.seconds(sum(batch.blocks) / turn_blocks, len(batch.decode))


TINY_SPEECH = Costs(
    prefill=((1, 2.2 + 1.8), (8, 5.4 + 4.9), (32, 15.0 + 18.0)),
    decode=((1, 1.3), (8, 3.0), (32, 7.7)),
)
"""A speech translator of 1.4 million parameters in float32 on one core. A prefill runs the encoder and the language
model for a turn of 0.48 s. A decode runs the language model for one token. An early version of the tiny model
was measured, not the one in the package."""

FLAT = Costs(prefill=((1, 31.0), (32, 62.0)), decode=((1, 15.0), (32, 18.0)))
"""Assumed, not measured. A device with idle units, such as a GPU, takes little longer for a much larger step."""


def _interpolated(points: Points, size: float) -> float:
    """The milliseconds for a size. Below the first point, the line between the first two continues."""
    (small, low), *rest = points
    for large, high in rest:
        if size <= large:
            return low + (high - low) * (size - small) / (large - small)
        small, low = large, high
    raise ValueError(f"no cost is known for a batch of size {size:g}")
