"""Tests the pace at which speech is sent, with simulated time."""

from __future__ import annotations

import pytest

from daybreak.core.speech import MAX_LATE_S, PACED_FRAME_S, Pacer, Speech


def sent_at(pacer: Pacer, now: float, frames: int, *, late_s: float = 0.0) -> list[float]:
    """The times at which frames of a tenth of a second are sent. ``late_s``: the seconds that each send takes."""
    times = []
    for _ in range(frames):
        now += pacer.delay(now, 0.1)
        times.append(now)
        now += late_s
    return times


def test_a_frame_is_sent_when_it_has_been_spoken() -> None:
    assert sent_at(Pacer(), 50.0, 4) == pytest.approx([50.1, 50.2, 50.3, 50.4])


def test_sends_that_take_time_do_not_slow_the_speech_down() -> None:
    assert sent_at(Pacer(), 50.0, 4, late_s=0.05) == pytest.approx([50.1, 50.2, 50.3, 50.4])


def test_a_pause_of_the_sender_is_silence_and_no_burst_follows() -> None:
    pacer = Pacer()
    sent_at(pacer, 50.0, 2)
    later = 50.2 + MAX_LATE_S + 5
    assert sent_at(pacer, later, 2) == pytest.approx([later + 0.1, later + 0.2])


def test_paced_frames_are_short_and_lose_nothing() -> None:
    speech, audio = Speech(), bytes(range(256)) * 125
    frames = speech.frames(audio, paced=True)
    assert b"".join(frames) == audio
    assert {speech.seconds(frame) for frame in frames} == {PACED_FRAME_S}
