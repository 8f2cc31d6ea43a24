"""Where ``daybreak speak`` takes its audio from: a WAV file, samples on stdin, or the microphone."""

from __future__ import annotations

import queue
import sys
import wave
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from daybreak.cli.exit_codes import UsageError
from daybreak.core.speech import SAMPLE_BYTES

PIECE_S = 0.1
_CONVERT = "ffmpeg -i FILE -ac 1 -ar 16000 -sample_fmt s16 out.wav converts it."


@dataclass(frozen=True, kw_only=True)
class Audio:
    """Audio of one channel in pieces of a tenth of a second."""

    pieces: Iterator[bytes]
    sample_rate: int
    encoding: str = "pcm16"
    live: bool = False
    """It comes as fast as it is spoken, so it needs no pacing."""


def open_audio(name: str | None, *, rate: int, encoding: str, stopped: Callable[[], bool]) -> Audio:
    """The audio. ``name``: a file, ``-`` for stdin, or ``None`` for the microphone. Raises ``UsageError``."""
    if name is None:
        return _microphone(rate, stopped)
    if name != "-":
        return _wav(str(Path(name)), name)
    source: Any = sys.stdin.buffer
    if source.peek(4)[:4] == b"RIFF":
        return _wav(source, "stdin")
    return Audio(pieces=_raw(source, rate, encoding), sample_rate=rate, encoding=encoding)


def _wav(source: Any, name: str) -> Audio:
    try:
        reader = wave.open(source, "rb")  # noqa: SIM115 - the pieces are read later
    except (wave.Error, EOFError) as exc:
        raise UsageError(f"{name} is not a WAV file with 16-bit samples ({exc}). {_CONVERT}") from exc
    if reader.getsampwidth() != SAMPLE_BYTES["pcm16"]:
        raise UsageError(f"{name} has samples of {8 * reader.getsampwidth()} bits, not 16. {_CONVERT}")
    return Audio(pieces=_frames(reader), sample_rate=reader.getframerate())


def _frames(reader: wave.Wave_read) -> Iterator[bytes]:
    channels = reader.getnchannels()
    with reader:
        while data := reader.readframes(int(PIECE_S * reader.getframerate())):
            yield data if channels == 1 else _mixed(data, channels)


def _mixed(data: bytes, channels: int) -> bytes:
    values = array("h")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    mixed = array("h", [sum(values[i : i + channels]) // channels for i in range(0, len(values), channels)])
    if sys.byteorder == "big":
        mixed.byteswap()
    return mixed.tobytes()


def _raw(source: IO[bytes], rate: int, encoding: str) -> Iterator[bytes]:
    while data := source.read(int(PIECE_S * rate) * SAMPLE_BYTES[encoding]):
        yield data


def _microphone(rate: int, stopped: Callable[[], bool]) -> Audio:
    try:
        import sounddevice  # type: ignore[import-not-found,unused-ignore]
    except (ImportError, OSError) as exc:
        raise UsageError(
            f"the microphone cannot be used ({exc}). Install it with: pip install 'daybreak-sdk[microphone]' (and the "
            "system's PortAudio), or give a WAV file, or - for samples on stdin."
        ) from exc
    taken: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def pieces() -> Iterator[bytes]:
        try:
            stream = sounddevice.RawInputStream(
                samplerate=rate,
                channels=1,
                dtype="int16",
                blocksize=int(PIECE_S * rate),
                callback=lambda data, *_: taken.put(bytes(data)),
            )
        except sounddevice.PortAudioError as exc:
            raise UsageError(f"the microphone cannot be opened: {exc}") from exc
        with stream:
            while not stopped():
                yield taken.get()

    return Audio(pieces=pieces(), sample_rate=rate, live=True)
