"""Measures the delay of a text with the metrics LAAL and StreamLAAL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daybreak_server.cli.sessions.evaluation.text_quality import resegment, words


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenSegment:
    """A spoken sentence: its time in the session, and the expected text."""

    start_s: float
    end_s: float
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedWord:
    """A word of the text. Times count from the beginning of the session's audio."""

    word: str
    audio_s: float
    """The length of the audio that the model had used when it wrote the word. This is the delay without
    computation."""
    arrived_s: float
    """The time when the word arrived at the client. This is the delay with computation and network."""


def laal(delays_s: Sequence[float], *, source_s: float, reference_length: int) -> float:
    """Length-adaptive average lagging of one sentence, in seconds.

    Papi et al., "Over-Generation Cannot Be Rewarded: Length-Adaptive Average Lagging for Simultaneous Speech
    Translation" (AutoSimTrans 2022). With delays ``d_i``, the sentence's duration ``T`` (``source_s``) and ``gamma =
    max(|hypothesis|, |reference|) / T``, LAAL is the mean of ``d_i - i / gamma`` over the words ``i = 0, 1, …`` up to
    and including the first word whose delay is at least ``T``.
    """
    if not delays_s:
        return 0.0
    rate = max(len(delays_s), reference_length) / source_s
    lags = []
    for place, delay in enumerate(delays_s):
        lags.append(delay - place / rate)
        if delay >= source_s:
            break
    return sum(lags) / len(lags)


def stream_laal(
    text: Sequence[TimedWord], segments: Sequence[SpokenSegment], *, computation_aware: bool
) -> float | None:
    """StreamLAAL of a session, in seconds: the mean LAAL of its sentences. ``None`` if no sentence has a word.

    Papi et al., "StreamAtt: Direct Streaming Speech-to-Text Translation with Attention-based Audio History
    Selection" (ACL 2024). First, :func:`.resegment` splits the text into one part for each reference. Delays
    count from the beginning of their sentence. Without computation, a word's delay is the length of the audio
    that the model had used when it wrote the word. With computation, the delay is the time when the word
    arrived. Such a delay is only meaningful if the client sent the audio as fast as it was spoken.
    """
    found = [word.word for word in text]
    references = [words(segment.reference) for segment in segments]
    values = []
    for segment, reference, (first, end) in zip(
        segments, references, resegment(found, references), strict=True
    ):
        delays = [
            max(0.0, (word.arrived_s if computation_aware else word.audio_s) - segment.start_s)
            for word in text[first:end]
        ]
        if delays:
            source_s = segment.end_s - segment.start_s
            values.append(laal(delays, source_s=source_s, reference_length=len(reference)))
    return sum(values) / len(values) if values else None
