"""The recordings that clients upload: WAV files and raw samples, as :mod:`daybreak.wire.recordings` reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from daybreak.wire import ErrorCode
from daybreak.wire.recordings import (
    EMPTY,
    RAW_SUFFIXES,
    NotWavError,
    RecordingError,
    SampleFormat,
    SampleReader,
    open_recording,
)
from daybreak_server.api.errors import ApiError
from daybreak_server.api.sessions.audio.formats import AudioFormat, Encoding, invalid_audio
from daybreak_server.domain.sessions import SAMPLE_RATE

_PIECE_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The audio of a file. ``format`` describes the pieces, which have one channel."""

    format: AudioFormat
    duration_s: float
    reader: SampleReader

    def pieces(self) -> Iterator[bytes]:
        """The samples, in pieces of a quarter of a second. They can be read only once."""
        return self.reader.pieces(_PIECE_S)


def read_recording(data: bytes, *, name: str, rate: int = SAMPLE_RATE) -> Recording:
    """The recording in a file. ``rate`` is the sample rate of raw samples.

    :raises ApiError: ``unsupported_media_type`` or ``invalid_audio``.
    """
    file = BytesIO(data)
    raw = SampleFormat(rate=rate) if name.lower().endswith(RAW_SUFFIXES) else None
    try:
        reader = open_recording(file, raw=raw)
    except NotWavError as exc:
        raise ApiError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"The file {name[:80]!r} is not a WAV file. Send WAV, or raw 16-bit samples in a file named *.pcm. "
            "ffmpeg -i FILE -ac 1 -ar 16000 out.wav converts other formats.",
        ) from exc
    except RecordingError as exc:
        raise invalid_audio(str(exc)) from exc
    form = reader.format
    there = len(reader.head) + len(data) - file.tell()
    frames = (there if reader.size is None else min(reader.size, there)) // form.frame_bytes
    if not frames:
        raise invalid_audio(EMPTY)
    return Recording(
        format=AudioFormat(Encoding(form.encoding), form.rate), duration_s=frames / form.rate, reader=reader
    )
