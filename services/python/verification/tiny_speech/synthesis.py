"""Makes speech and finds the time of each word, with eSpeak NG through ctypes (Debian: ``libespeak-ng1``).

eSpeak NG is under GPL-3. It makes the data for training and tests, and no part of eSpeak NG is in the package.
"""

from __future__ import annotations

import ctypes
import random
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daybreak_server.workloads.speech.features import SAMPLE_RATE
from verification.tiny_speech.grammar import Sentence, random_sentence

_ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
_VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m6", "+m7", "+f1", "+f2", "+f4")
TRAIN_VOICES: Final = [accent + variant for accent in _ACCENTS for variant in _VARIANTS]
HELD_OUT_VOICES: Final = ["en-gb-x-rp", "en-gb-x-rp+m2", "en-us+m5", "en+f3", "en-us+f3", "en-gb-scotland+m5"]

Floats = NDArray[np.float32]

_SYNCHRONOUS = 2
_WORD = 1
_LAST_EVENT = 0
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_UTF8 = 1


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


class Speech(NamedTuple):
    """Samples at 16 kHz, and where each word ends, in samples."""

    samples: Floats
    word_ends: list[int]


class Synthesiser:
    """eSpeak NG in this process. A process may have only one instance."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
        )
        self._callback = kind(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)
        self._audio: list[Any] = []
        self._events: list[tuple[int, int]] = []

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._audio.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while events[number].type != _LAST_EVENT:
            if events[number].type == _WORD:
                self._events.append((events[number].text_position, events[number].sample))
            number += 1
        return 0

    def say(self, words: list[str], voice: str, speed: int, pitch: int) -> Speech | None:
        """Speak the words.

        :returns: ``None`` if eSpeak NG has merged two words, so that their times are unknown, or if it made no sound.
        """
        self._audio, self._events = [], []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice!r}")
        for parameter, value in ((_RATE, speed), (_PITCH, pitch), (_PITCH_RANGE, 50)):
            self._library.espeak_SetParameter(parameter, value, 0)
        text = " ".join(words).encode() + b"\0"
        self._library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        position, index_of = 1, {}
        for index, word in enumerate(words):
            index_of[position] = index
            position += len(word) + 1
        starts = {index_of[position]: sample for position, sample in self._events if position in index_of}
        if len(starts) != len(words):
            return None
        samples = _resampled(np.concatenate(self._audio).astype(np.float32) / 32768, self._rate)
        loud = np.flatnonzero(np.abs(samples) > 0.01)
        if not len(loud):
            return None
        end = min(len(samples), int(loud[-1]) + 160)
        ratio = SAMPLE_RATE / self._rate
        return Speech(samples[: end + 320], [*(int(starts[i] * ratio) for i in range(1, len(words))), end])


def _resampled(samples: Floats, rate: int) -> Floats:
    """Resample to 16 kHz: a low-pass filter, then linear interpolation."""
    ratio = SAMPLE_RATE / rate
    kernel = np.sinc(np.arange(-16, 17) * ratio * 0.95) * np.hanning(33)
    smooth = np.convolve(samples, kernel / kernel.sum(), "same")
    times = np.arange(int(len(samples) * ratio)) / ratio
    return np.interp(times, np.arange(len(smooth)), smooth).astype(np.float32)


def random_speech(rng: random.Random, synthesiser: Synthesiser, *, held_out: bool) -> tuple[Sentence, Speech]:
    """Choose a sentence and a voice, and speak the sentence. Both are held-out ones if ``held_out`` is true; otherwise
    neither is."""
    while True:
        sentence = random_sentence(rng)
        if sentence.held_out != held_out:
            continue
        voice = rng.choice(HELD_OUT_VOICES if held_out else TRAIN_VOICES)
        speech = synthesiser.say(sentence.words, voice, rng.randint(120, 200), rng.randint(25, 75))
        if speech is not None:
            return sentence, speech
