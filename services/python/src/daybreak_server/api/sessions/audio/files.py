"""Reads WAV files and raw samples. Python's ``wave`` cannot read floats, so this module parses the chunks
itself."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daybreak.wire import ErrorCode
from daybreak.wire.sessions import SAMPLE_RATES
from daybreak_server.api.errors import ApiError
from daybreak_server.api.sessions.audio.formats import AudioFormat, Encoding, invalid_audio
from daybreak_server.domain.sessions import SAMPLE_RATE

_PIECE_S = 0.25
_PCM16_BYTES = 2
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MAX_CHANNELS = 64
RAW = (".pcm", ".raw")
"""The suffixes of the names of files with raw samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The audio of a file. ``format`` describes the pieces, which have one channel."""

    format: AudioFormat
    data: memoryview
    channels: int = 1
    sample_bytes: int = 2
    floats: bool = False

    @property
    def duration_s(self) -> float:
        """The duration."""
        return len(self.data) // (self.channels * self.sample_bytes) / self.format.rate

    def pieces(self) -> Iterator[bytes]:
        """The samples, in pieces of a quarter of a second."""
        step = int(self.format.rate * _PIECE_S) * self.channels * self.sample_bytes
        whole = len(self.data) - len(self.data) % (self.channels * self.sample_bytes)
        for first in range(0, whole, step):
            piece = bytes(self.data[first : min(first + step, whole)])
            if self.channels == 1 and (self.floats or self.sample_bytes == _PCM16_BYTES):
                yield piece
            else:
                yield self._mixed(piece)

    def _mixed(self, piece: bytes) -> bytes:
        values = _numbers(piece, self.sample_bytes, floats=self.floats)
        channels = [values[index :: self.channels] for index in range(self.channels)]
        if self.floats:
            return _bytes(array("f", [sum(frame) / self.channels for frame in zip(*channels, strict=True)]))
        # Samples of 8 bits are widened to 16 bits; samples of 24 and 32 bits are narrowed.
        scale = 256 ** (_PCM16_BYTES - self.sample_bytes) / self.channels
        return _bytes(array("h", [int(sum(frame) * scale) for frame in zip(*channels, strict=True)]))


def _numbers(piece: bytes, size: int, *, floats: bool) -> list[float]:
    values: array[Any]
    if floats:
        values = array("f")
    elif size == 1:
        return [byte - 128 for byte in piece]
    elif size == 3:
        return [int.from_bytes(piece[i : i + 3], "little", signed=True) for i in range(0, len(piece), 3)]
    else:
        values = array("h" if size == _PCM16_BYTES else "i")
    values.frombytes(piece)
    if sys.byteorder == "big":
        values.byteswap()
    return list(values)


def _bytes(values: array[float] | array[int]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def read_recording(data: bytes, *, name: str, rate: int = SAMPLE_RATE) -> Recording:
    """The recording in a file. ``rate`` is the sample rate of raw samples.

    :raises ApiError: ``unsupported_media_type`` or ``invalid_audio``.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return _read_wav(memoryview(data))
    if name.lower().endswith(RAW):
        return Recording(format=AudioFormat(Encoding.PCM16, rate), data=memoryview(data))
    raise ApiError(
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        f"The file {name[:80]!r} is not a WAV file. Send WAV, or raw 16-bit samples in a file named *.pcm. "
        "ffmpeg -i FILE -ac 1 -ar 16000 out.wav converts other formats.",
    )


def _read_wav(data: memoryview) -> Recording:
    header: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        if kind == b"fmt ":
            header = _read_format(body)
        elif kind == b"data":
            if header is None:
                raise invalid_audio("The WAV file has no format before its samples. It is damaged.")
            return _recording(header, body)
        at += 8 + size + size % 2
    raise invalid_audio("The WAV file has no samples. It is cut off or damaged.")


def _read_format(body: memoryview) -> tuple[int, int, int, int]:
    if len(body) < 16:
        raise invalid_audio("The format of the WAV file is cut off.")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE and len(body) >= 26:
        (code,) = struct.unpack_from("<H", body, 24)
    return code, channels, rate, bits


def _recording(header: tuple[int, int, int, int], body: memoryview) -> Recording:
    code, channels, rate, bits = header
    floats = code == _FLOAT
    if (code, bits) not in {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32)}:
        raise invalid_audio(
            f"The WAV file has samples of format {code} with {bits} bits. Send PCM of 8, 16, 24 or 32 bits, or 32-bit "
            "floats."
        )
    if not 1 <= channels <= _MAX_CHANNELS:
        raise invalid_audio(f"The WAV file says that it has {channels} channels.")
    if rate not in SAMPLE_RATES:
        raise invalid_audio(
            f"The WAV file has {rate} samples a second. Send one of: {', '.join(map(str, SAMPLE_RATES))}."
        )
    encoding = Encoding.FLOAT32 if floats else Encoding.PCM16
    return Recording(
        format=AudioFormat(encoding, rate),
        data=body,
        channels=channels,
        sample_bytes=bits // 8,
        floats=floats,
    )
