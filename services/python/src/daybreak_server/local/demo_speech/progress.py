"""Prints each second how many users speak, how many sentences and words have arrived, and how far the text lags."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from daybreak_server.local.console import say
from daybreak_server.local.demo_speech.speaker import Arrived, Speaker


class Progress:
    """The progress of the users in a part of the demo.

    Each call of :meth:`show` prints a line, with the median lag of the text that has arrived since the previous line.
    """

    def __init__(self, speakers: Sequence[Speaker]) -> None:
        self._speakers = speakers
        self._began = time.monotonic()
        self._shown = [0] * len(speakers)
        say("\n   time   users  sentences  words   lag")

    def show(self) -> None:
        """Print how far the users are."""
        users = sum(speaker.open for speaker in self._speakers)
        sentences = sum(len(speaker.sentences) for speaker in self._speakers)
        words = sum(len(speaker.arrived) for speaker in self._speakers)
        lags = [arrived.lag_s for arrived in self._new()]
        lag = f"{statistics.median(lags):.2f} s" if lags else "-"
        say(f"  {time.monotonic() - self._began:5.1f} s  {users:5}  {sentences:9}  {words:5}  {lag:>6}")

    def _new(self) -> list[Arrived]:
        new: list[Arrived] = []
        for number, speaker in enumerate(self._speakers):
            arrived = speaker.arrived[self._shown[number] :]
            self._shown[number] += len(arrived)
            new += arrived
        return new
