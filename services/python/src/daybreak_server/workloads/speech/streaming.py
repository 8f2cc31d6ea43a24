"""The interfaces of a speech encoder and of a vocabulary, as the session model uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from daybreak_server.workloads.languages import LanguagePair


class StreamingEncoder(Protocol):
    """A speech encoder with a state of fixed size for each of its slots."""

    block_samples: int
    block_embeddings: int
    slot_bytes: int
    """The memory of one slot."""

    def reserve(self, slots: int) -> None:
        """Reserve the memory of all slots. Called once."""

    def reset(self, slot: int) -> None:
        """Prepare a slot for a new session."""

    def encode(self, slots: Sequence[int], audio: Tensor) -> Tensor:
        """Encode one block of each slot: samples [batch, block_samples] to embeddings [batch, block_embeddings, width].

        If the call raises, the slots are unchanged.
        """


class Vocabulary(Protocol):
    """The tokens of a language model."""

    pairs: tuple[LanguagePair, ...]
    ends_turn: frozenset[int]
    """The tokens with which the model ends a turn."""

    def opening(self, pair: LanguagePair) -> tuple[int, ...]:
        """The tokens before the audio of a turn."""

    def marker(self, pair: LanguagePair) -> tuple[int, ...]:
        """The tokens between a turn's audio and its text. They name the target language. There is at least one."""

    def text(self, before: Sequence[int], token: int) -> str:
        """The text that a token adds. ``before`` has the last few tokens of the session's text before this token. It is
        empty if the session has no text yet."""

    def ends_segment(self, token: int) -> bool:
        """Whether a token completes a sentence."""
