"""Where ``daybreak speak`` takes its audio from: a file, stdin, or the microphone."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from daybreak.cli.exit_codes import UsageError
from daybreak.core.speech import SAMPLE_BYTES, check_format
from daybreak.wire.recordings import (
    EMPTY,
    RAW_SUFFIXES,
    NotWavError,
    RecordingError,
    SampleFormat,
    SampleReader,
    open_recording,
)

PIECE_S = 0.1
STDIN = "-"
_CONVERT = "ffmpeg -i FILE -ac 1 -ar 16000 out.wav converts other formats."


@dataclass(frozen=True, kw_only=True)
class Audio:
    """Audio of one channel in pieces of a tenth of a second."""

    pieces: Iterator[bytes]
    sample_rate: int
    encoding: str = "pcm16"
    live: bool = False
    """Whether the audio arrives at the pace of speech, so that the client need not pace it."""


def open_audio(name: str | None, *, rate: int, encoding: str, stopped: Callable[[], bool]) -> Audio:
    """Open the audio ``name``: a file, ``-`` for stdin, or ``None`` for the microphone. Raises ``UsageError``,
    or ``OSError`` if the file cannot be read."""
    check_format(encoding, rate)
    if name is None:
        return _microphone(rate, stopped)
    shown = "stdin" if name == STDIN else name
    may_be_raw = name == STDIN or name.lower().endswith(RAW_SUFFIXES)
    raw = SampleFormat(rate=rate, sample_bytes=SAMPLE_BYTES[encoding], floats=encoding == "float32")
    file: BinaryIO = sys.stdin.buffer if name == STDIN else Path(name).open("rb")  # noqa: SIM115 - the pieces are read later
    try:
        reader = open_recording(file, raw=raw if may_be_raw else None)
        pieces = _pieces(reader, file)
        first = next(pieces, None)
    except NotWavError as exc:
        file.close()
        raise UsageError(f"{shown} is not a WAV file. {_CONVERT}") from exc
    except RecordingError as exc:
        file.close()
        raise UsageError(f"{shown}: {exc}") from exc
    if first is None:
        raise UsageError(f"{shown}: {EMPTY}")
    return Audio(
        pieces=chain([first], pieces), sample_rate=reader.format.rate, encoding=reader.format.encoding
    )


def _pieces(reader: SampleReader, file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from reader.pieces(PIECE_S)


def _microphone(rate: int, stopped: Callable[[], bool]) -> Audio:
    try:
        import sounddevice  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except (ImportError, OSError) as exc:
        raise UsageError(
            f"the microphone cannot be used ({exc}). Install what it needs (pip install 'daybreak-sdk[microphone]', "
            "and the system's PortAudio), or give a WAV file, or - for samples on stdin."
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
                # With the timeout, Ctrl-C ends this loop even if the device delivers nothing.
                with suppress(queue.Empty):
                    yield taken.get(timeout=2 * PIECE_S)

    return Audio(pieces=pieces(), sample_rate=rate, live=True)
