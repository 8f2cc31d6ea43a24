"""A workload for :mod:`testkit.observed`: simulated speech whose sessions fail when they hear silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from daybreak_server.workloads.base import NoInput, WorkloadSpec
from daybreak_server.workloads.sessions import Prefill, SessionFailedError, Token
from daybreak_server.workloads.simulated_speech.model import SimulatedSpeech
from daybreak_server.workloads.simulated_speech.spec import SPEC as SIMULATED


class FragileSpeech(SimulatedSpeech):
    """Fails a session whose turn has no sound. A turn that only ends the session may be empty."""

    def prefill(self, batch: Sequence[Prefill]) -> Sequence[Token | SessionFailedError]:
        """Begin all turns, and return an error for each turn of silence."""
        begun = dict(zip(batch, super().prefill(batch), strict=True))
        return [
            SessionFailedError("the turn has no sound") if item.audio and not any(item.audio) else token
            for item, token in begun.items()
        ]


SPEC: WorkloadSpec[NoInput] = replace(
    SIMULATED, name="fragile-speech", implementation="testkit.fragile_speech:FragileSpeech"
)
