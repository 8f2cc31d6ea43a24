"""The recordings that the simulated users of an evaluation send, with the expected texts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from daybreak_server.cli.sessions.evaluation.latency import SpokenSegment
from daybreak_server.workloads.speech.clips import Clip, clips

RATE = 16_000
SAMPLE_BYTES = 2
_PAUSE_S = 1.0
VOICES = 3
"""The number of different recordings, which the users share. If the recordings are noise, the model must first write a
reference for each of them, so the number is small."""


@dataclass(frozen=True, slots=True)
class RecordedSpeech:
    """A recording (16-bit PCM at 16 kHz), and its sentences."""

    audio: bytes
    segments: tuple[SpokenSegment, ...]

    @property
    def seconds(self) -> float:
        """The duration."""
        return seconds(self.audio)

    @property
    def reference(self) -> str:
        """The whole expected text."""
        return " ".join(segment.reference for segment in self.segments)


def seconds(audio: bytes) -> float:
    """The duration of a recording."""
    return len(audio) / (RATE * SAMPLE_BYTES)


def of_clips(target: str, *, at_least_s: float, user: int) -> RecordedSpeech | None:
    """The clips of the speech model, with pauses. User 0 begins with the first clip, user 1 with the second, and so
    on. ``None`` if no clip has a reference in the language ``target``."""
    available = [clip for clip in clips() if target in clip.references]
    return _joined(available, target, at_least_s=at_least_s, first=user) if available else None


def synthetic(*, length_s: float, voice: int) -> bytes:
    """Noise that depends only on the voice and the length. Its reference is the text that the model writes for
    this noise in a session that runs alone."""
    return random.Random(voice).randbytes(int(length_s * RATE) * SAMPLE_BYTES)


def with_reference(audio: bytes, reference: str) -> RecordedSpeech:
    """A recording of a single sentence."""
    return RecordedSpeech(audio, (SpokenSegment(start_s=0.0, end_s=seconds(audio), reference=reference),))


def _joined(available: Sequence[Clip], target: str, *, at_least_s: float, first: int) -> RecordedSpeech:
    pause = bytes(int(_PAUSE_S * RATE) * SAMPLE_BYTES)
    audio, place = b"", first
    segments: list[SpokenSegment] = []
    while not segments or seconds(audio) < at_least_s:
        clip = available[place % len(available)]
        start = seconds(audio)
        audio += clip.audio()
        segments.append(SpokenSegment(start_s=start, end_s=seconds(audio), reference=clip.references[target]))
        audio += pause
        place += 1
    return RecordedSpeech(audio, tuple(segments))
