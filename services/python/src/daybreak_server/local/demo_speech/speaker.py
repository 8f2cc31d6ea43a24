"""A user who sends recorded sentences in real time, and reads the translation as it grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from daybreak.live_session import LiveSession
from daybreak.sync import Client
from daybreak.wire import SessionEvent
from daybreak_server.workloads.speech.clips import Clip

RATE = 16_000
_PAUSE_S = 0.9
"""Silence after each sentence, by which the model recognizes the end of the sentence."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """Text that arrived. Times are seconds since the user began to speak."""

    at_s: float
    audio_s: float
    """The end of the audio from which the text was made."""
    text: str

    @property
    def lag_s(self) -> float:
        """The time from the end of the text's audio (``audio_s``) to the arrival of the text."""
        return self.at_s - self.audio_s


@dataclass
class Speaker:
    """One session. ``on_text`` is called with each new text and the whole sentence so far."""

    client: Client
    target: str
    clips: Sequence[Clip]
    on_text: Callable[[Arrived, str], None] = lambda _received, _sentence: None
    arrived: list[Arrived] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)
    """Where each sentence ends, in seconds of audio."""
    open: bool = False
    """Whether the session is open."""

    @property
    def expected(self) -> list[str]:
        """The correct translations."""
        return [clip.references[self.target] for clip in self.clips]

    def run(self) -> None:
        """Speak, and read until the session has ended. Raises what the client raises."""
        audio = self._audio()
        with self.client.sessions.open(self.target, name="demo") as live:
            self.open, began = True, time.monotonic()
            sender = threading.Thread(target=self._send, args=(live, audio), daemon=True)
            sender.start()
            for event in live:
                self._read(event, time.monotonic() - began)
            sender.join()
        self.open = False

    @staticmethod
    def _send(live: LiveSession, audio: bytes) -> None:
        live.send(audio, pace=True)
        live.end()

    def _audio(self) -> bytes:
        audio = bytearray()
        for clip in self.clips:
            audio += clip.audio()
            self.ends_s.append(len(audio) / 2 / RATE)
            audio += bytes(2 * int(_PAUSE_S * RATE))
        return bytes(audio)

    def _read(self, event: SessionEvent, at_s: float) -> None:
        if event.type == "text":
            arrived = Arrived(at_s, event.data["audio_ms"] / 1000, event.text)
            self.arrived.append(arrived)
            self.on_text(arrived, self._sentence())
        elif event.type == "segment":
            self.sentences.append(event.data["text"])
            self._begun = len(self.arrived)

    _begun: int = 0

    def _sentence(self) -> str:
        return "".join(arrived.text for arrived in self.arrived[self._begun :]).strip()
